//! One entry, and what it costs.

use bytes::Bytes;

use super::{hash::mix, maps::MapId, table::SLOT_BYTES};
use crate::logic::{clock::Millis, cluster::table::Version};

/// An entry as a caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Value.
    pub value: &'a Bytes,
    /// When it expires; none: never.
    pub expires: Option<Millis>,
    /// The change that made it what it is.
    pub version: Version,
}

/// An entry as it is kept.
pub(super) struct Node {
    pub(super) map: MapId,
    pub(super) key: Box<[u8]>,
    pub(super) value: Bytes,
    /// [`NEVER`] when it does not expire.
    pub(super) expires: u64,
    pub(super) version: Version,
    /// When it was last used: number of the use, counted in its partition.
    pub(super) used: u64,
}

/// In place of a deadline.
pub(super) const NEVER: u64 = u64::MAX;

/// Accounted beside key and value: the entry, its slot at the lowest usual load, and what an allocator keeps beside
/// the three blocks (entry, key, value) and the count of the value's users.
pub const ENTRY_OVERHEAD: u64 = (std::mem::size_of::<Node>() + SLOT_BYTES * 8 / 3 + 3 * 8 + 40) as u64;
/// Accounted beside the former for an entry that expires: its place among the deadlines.
pub const DEADLINE_OVERHEAD: u64 = 48;

impl Node {
    pub(super) fn bytes(&self) -> u64 {
        let deadline = if self.expires == NEVER { 0 } else { DEADLINE_OVERHEAD };
        (self.key.len() + self.value.len()) as u64 + ENTRY_OVERHEAD + deadline
    }

    /// What the entry adds to its partition's digest. It must be the same in every version of this program.
    pub(super) fn digest(&self, hash: u64) -> u64 {
        let expires = u64::from(self.expires != NEVER);
        mix(mix(mix(hash << 1 | expires) ^ self.version.epoch.0) ^ self.version.sequence)
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        (self.expires != NEVER).then_some(Millis(self.expires))
    }

    /// As Redis has it: an entry still lives in the millisecond of its deadline.
    pub(super) fn lives(&self, now: Millis) -> bool {
        self.expires >= now.0
    }

    pub(super) fn view(&self) -> Entry<'_> {
        Entry { value: &self.value, expires: self.deadline(), version: self.version }
    }
}
