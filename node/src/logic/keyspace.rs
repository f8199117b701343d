//! Key → slot → partition.
//!
//! Slots are those of the Redis Cluster specification: CRC16 (XMODEM) of the key, or of its hash tag, modulo 16,384.
//! A partition is a contiguous range of slots and the unit of locking, ownership, replication and migration.

use crc::{CRC_16_XMODEM, Crc, Table};

/// Number of slots, as the Redis Cluster specification fixes it.
pub const SLOTS: u16 = 16_384;

/// Number of a partition, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u16);

impl Partition {
    /// As an index into a list with one item a partition.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Sixteen bytes at a time.
static CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// The part of a key that is hashed: what stands between the first `{` and the next `}`, unless that is empty.
fn hash_tag(key: &[u8]) -> &[u8] {
    if !has(key, b'{') {
        return key;
    }
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    match memchr::memchr(b'}', &key[open + 1..]) {
        None | Some(0) => key,
        Some(length) => &key[open + 1..open + 1 + length],
    }
}

/// Whether a byte stands in a key. Eight bytes at a time: most keys are too short for a search of larger steps to pay.
fn has(key: &[u8], byte: u8) -> bool {
    let (words, rest) = key.as_chunks();
    let in_word = |word: &[u8; 8]| {
        // A byte that is the same becomes zero; without a zero nothing borrows, and no low byte gets its highest bit.
        let other = u64::from_le_bytes(*word) ^ (u64::from(byte) * LOWEST);
        other.wrapping_sub(LOWEST) & !other & (LOWEST << 7) != 0
    };
    words.iter().any(in_word) || rest.contains(&byte)
}

/// The lowest bit of each of eight bytes.
const LOWEST: u64 = u64::MAX / 0xff;

/// The slot of a key.
pub fn slot(key: &[u8]) -> u16 {
    CRC16.checksum(hash_tag(key)) % SLOTS
}

/// The partition of a slot, in a cluster of `partitions`.
pub fn partition_of_slot(slot: u16, partitions: u16) -> Partition {
    Partition((u32::from(slot) * u32::from(partitions) / u32::from(SLOTS)) as u16)
}

/// The partition of a key, in a cluster of `partitions`.
pub fn partition_of(key: &[u8], partitions: u16) -> Partition {
    partition_of_slot(slot(key), partitions)
}

/// First slot and the one after the last of a partition.
pub fn slots_of(partition: Partition, partitions: u16) -> std::ops::Range<u16> {
    let first = |p: u32| (p * u32::from(SLOTS)).div_ceil(u32::from(partitions)) as u16;
    first(u32::from(partition.0))..first(u32::from(partition.0) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_redis_cluster_specification() {
        assert_eq!(CRC16.checksum(b"123456789"), 0x31C3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), CRC16.checksum(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), CRC16.checksum(b"{bar") % SLOTS);
    }

    #[test]
    fn a_tag_is_found_wherever_it_stands() {
        for length in 0..40 {
            for at in 0..length {
                let mut key = vec![b'|'; length];
                assert_eq!(hash_tag(&key), key);
                key[at] = b'{';
                assert_eq!(hash_tag(&key), key);
                key.extend_from_slice(b"ab}c");
                assert_eq!(hash_tag(&key), &key[at + 1..length + 2]);
            }
        }
    }

    #[test]
    fn ranges_and_partitions_agree_for_any_count() {
        for partitions in [1, 3, 7, 256, 1000, 16_384] {
            for p in (0..partitions).map(Partition) {
                for slot in slots_of(p, partitions) {
                    assert_eq!(partition_of_slot(slot, partitions), p);
                }
            }
            assert_eq!(slots_of(Partition(partitions - 1), partitions).end, SLOTS);
        }
    }
}
