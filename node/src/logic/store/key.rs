//! Keys as lookups take them.

use std::ops::Deref;

/// A key, and where its entry stands or would ([`Order::position`]), if that was found out before.
///
/// [`Order::position`]: super::Order::position
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    bytes: &'a [u8],
    pub(super) position: Option<u64>,
}

impl<'a> Key<'a> {
    /// A key that stands there in the map in which it will be looked up.
    pub fn at(bytes: &'a [u8], position: u64) -> Self {
        Self { bytes, position: Some(position) }
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, position: None }
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
