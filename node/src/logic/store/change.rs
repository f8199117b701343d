//! A change of a partition: the only way in which its entries change, on the primary and on copies alike.

use std::ops::Deref;

use bytes::Bytes;

use super::key::Key;
use crate::logic::clock::Millis;

/// Why an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A client asked for it.
    Deleted,
    /// Its time was over.
    Expired,
    /// Room was needed.
    Evicted,
}

/// A change that is kept or travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// The entry is this from now on.
    Put {
        /// Map.
        map: Bytes,
        /// Key.
        key: Bytes,
        /// Value.
        value: Bytes,
        /// When it expires, on this machine's clock.
        expires: Option<Millis>,
    },
    /// The entry is gone.
    Remove {
        /// Map.
        map: Bytes,
        /// Key.
        key: Bytes,
        /// Why.
        cause: Cause,
    },
    /// Every entry of this map is gone, or of all maps.
    Clear {
        /// Map; none: all.
        map: Option<Bytes>,
    },
}

/// A change that is to be made. Its parts stand elsewhere, in most cases where they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The entry is this from now on.
    Put {
        /// Map.
        map: &'a [u8],
        /// Key.
        key: Key<'a>,
        /// Value.
        value: NewValue<'a>,
        /// When it expires, on this machine's clock.
        expires: Option<Millis>,
    },
    /// The entry is gone.
    Remove {
        /// Map.
        map: &'a [u8],
        /// Key.
        key: Key<'a>,
        /// Why.
        cause: Cause,
    },
    /// Every entry of this map is gone, or of all maps.
    Clear {
        /// Map; none: all.
        map: Option<&'a [u8]>,
    },
}

impl Change<'_> {
    /// The same for itself. Key and value are copied, so that they pin no read buffer; the name of a map is shared with
    /// the `last` one where that is the same.
    pub fn to_op(&self, last: &mut Bytes) -> Op {
        let mut shared = |map: &[u8]| {
            if *last != *map {
                *last = own(map);
            }
            last.clone()
        };
        match self {
            Self::Put { map, key, value, expires } => {
                Op::Put { map: shared(map), key: own(key), value: value.to_bytes(), expires: *expires }
            }
            Self::Remove { map, key, cause } => Op::Remove { map: shared(map), key: own(key), cause: *cause },
            Self::Clear { map } => Op::Clear { map: map.map(shared) },
        }
    }
}

impl Op {
    /// The same, to be made.
    pub fn change(&self) -> Change<'_> {
        match self {
            Self::Put { map, key, value, expires } => {
                Change::Put { map, key: key[..].into(), value: NewValue::Elsewhere(value), expires: *expires }
            }
            Self::Remove { map, key, cause } => Change::Remove { map, key: key[..].into(), cause: *cause },
            Self::Clear { map } => Change::Clear { map: map.as_deref() },
        }
    }
}

fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A value that an entry is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewValue<'a> {
    /// It is copied.
    Elsewhere(&'a [u8]),
    /// It has memory of its own, which an entry may share.
    Own(Bytes),
}

impl NewValue<'_> {
    /// The value for itself.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Elsewhere(value) => own(value),
            Self::Own(value) => value.clone(),
        }
    }
}

impl Deref for NewValue<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Elsewhere(value) => value,
            Self::Own(value) => value,
        }
    }
}

impl<'a> From<&'a [u8]> for NewValue<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Elsewhere(value)
    }
}

impl From<Bytes> for NewValue<'_> {
    fn from(value: Bytes) -> Self {
        Self::Own(value)
    }
}
