//! What a part of a partition has, in few bytes: the sum of its entries' digests (rule W3), as [`Store::digest`] is the sum
//! of all.

use bytes::Bytes;

use super::Store;
use crate::logic::cluster::message::Range;

impl Store {
    /// The ranges from a position on, each of about `bytes` of entries, at most `count` of them. 0 is the start.
    pub fn digests(&self, position: u64, bytes: usize, count: usize) -> Vec<Range> {
        let (mut ranges, mut digest, mut size, mut last) = (Vec::new(), 0_u64, 0, None);
        for (hash, node) in self.from(position) {
            if size >= bytes as u64 && last != Some(hash) {
                ranges.push(Range { next: Some(hash), digest });
                if ranges.len() == count {
                    return ranges;
                }
                (digest, size) = (0, 0);
            }
            last = Some(hash);
            digest = digest.wrapping_add(node.account(hash).digest);
            size += node.bytes();
        }
        ranges.push(Range { next: None, digest });
        ranges
    }

    /// The sum of the entries from a position up to `next`, or to the end.
    pub fn range_digest(&self, from: u64, next: Option<u64>) -> u64 {
        let range = self.from(from).take_while(|(hash, _)| next.is_none_or(|next| *hash < next));
        range.fold(0, |sum: u64, (hash, node)| sum.wrapping_add(node.account(hash).digest))
    }

    /// Names of the entries from a position up to `next`, or to the end, as (map, key).
    pub fn names(&self, from: u64, next: Option<u64>) -> Vec<(Bytes, Bytes)> {
        let range = self.from(from).take_while(|(hash, _)| next.is_none_or(|next| *hash < next));
        range.map(|(_, node)| self.name(node)).collect()
    }
}
