//! Keys as lookups take them.

use std::ops::Deref;

use super::HASH_BITS;

/// A key, and where its entry stands or would, if that was found out before.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    bytes: &'a [u8],
    pub(super) spot: Option<Spot>,
}

/// Where the entry of a key stands in its partition, or would: its position in the order of entries ([`Order::position`])
/// and, where it was looked for before, its place in its list. That one may have changed meanwhile; the position never does.
///
/// [`Order::position`]: super::Order::position
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot(u64);

impl Spot {
    /// An entry at this position.
    pub fn new(position: u64) -> Self {
        Self(position)
    }

    /// Its position.
    pub fn position(self) -> u64 {
        self.0 & ((1 << HASH_BITS) - 1)
    }

    /// It was last seen at this place in its list.
    pub(super) fn seen_at(self, index: usize) -> Self {
        // Lists of so many are none, but nothing breaks: the place is found anew.
        Self(self.position() | (index as u64 + 1) << HASH_BITS)
    }

    pub(super) fn index(self) -> Option<usize> {
        (self.0 >> HASH_BITS).checked_sub(1).map(|index| index as usize)
    }
}

impl<'a> Key<'a> {
    /// A key that stands there in the map in which it will be looked up; none: that was not found out.
    pub fn at(bytes: &'a [u8], spot: impl Into<Option<Spot>>) -> Self {
        Self { bytes, spot: spot.into() }
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, spot: None }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Key<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::from(&bytes[..])
    }
}

impl Deref for Key<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// Keys are the same whatever is known of them.
impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key<'_> {}
