//! What a partition has, in few bytes: sums over the versions of its entries (rule W3).
//!
//! A version names one change of one entry, so two members whose entries in a range have the same versions have the same
//! entries. The sum is 64 bits of a mix that nobody aims at: versions are counted, not chosen by clients.

use bytes::Bytes;

use super::Store;
use crate::logic::cluster::{message::Range, table::Version};

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
            digest = digest.wrapping_add(mixed(node.version()));
            size += node.bytes();
        }
        ranges.push(Range { next: None, digest });
        ranges
    }

    /// The sum of the entries from a position up to `next`, or to the end.
    pub fn range_digest(&self, from: u64, next: Option<u64>) -> u64 {
        let range = self.from(from).take_while(|(hash, _)| next.is_none_or(|next| *hash < next));
        range.fold(0, |sum: u64, (_, node)| sum.wrapping_add(mixed(node.version())))
    }

    /// Names of the entries from a position up to `next`, or to the end, as (map, key).
    pub fn names(&self, from: u64, next: Option<u64>) -> Vec<(Bytes, Bytes)> {
        let range = self.from(from).take_while(|(hash, _)| next.is_none_or(|next| *hash < next));
        range.map(|(_, node)| self.name(node)).collect()
    }
}

/// Both numbers through the finalizer of `SplitMix64` (Steele, Lea, Flood 2014).
fn mixed(version: Version) -> u64 {
    let mix = |value: u64| {
        let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    };
    mix(mix(version.epoch.0.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ version.sequence.wrapping_add(1))
}
