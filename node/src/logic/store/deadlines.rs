//! Which entries expire when, soonest first.

use std::collections::BTreeSet;

use super::{entry::NEVER, hash::HASH_BITS};
use crate::logic::clock::Millis;

/// Deadlines are told apart to 64 ms here; to the millisecond in the entries.
const STEP_BITS: u32 = 6;

/// A step of deadlines and a hash, in ten bytes: the step's two halves, then the hash's three parts.
type Due = [u16; 5];

/// Deadlines of a partition's entries.
#[derive(Default)]
pub(super) struct Deadlines {
    /// One for all entries with the same step and hash.
    due: BTreeSet<Due>,
    entries: usize,
    /// Of all deadlines, for the average.
    sum: u128,
}

impl Deadlines {
    pub(super) fn add(&mut self, expires: u64, hash: u64) {
        if expires == NEVER {
            return;
        }
        self.due.insert(due(expires, hash));
        self.entries += 1;
        self.sum += u128::from(expires);
    }

    /// `shared`: another entry with this hash expires in the same step.
    pub(super) fn remove(&mut self, expires: u64, hash: u64, shared: bool) {
        if expires == NEVER {
            return;
        }
        if !shared {
            self.due.remove(&due(expires, hash));
        }
        self.entries -= 1;
        self.sum -= u128::from(expires);
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// Mean time left.
    pub(super) fn average(&self, now: Millis) -> u64 {
        let mean = self.sum.checked_div(self.entries as u128).unwrap_or(0);
        (mean as u64).saturating_sub(now.0)
    }

    /// Steps and hashes of entries whose time may be over: of those whose time is, and of some that have less than a
    /// step left.
    pub(super) fn over(&self, now: Millis) -> impl Iterator<Item = (u32, u64)> {
        let number = |parts: &[u16]| parts.iter().fold(0, |number, part| number << 16 | u64::from(*part));
        let due = self.due.range(..=due(now.0, (1 << HASH_BITS) - 1));
        due.map(move |due| (number(&due[..2]) as u32, number(&due[2..])))
    }
}

/// Which step a deadline is in. The last one takes all that comes later than 8 years after the clock's start.
pub(super) fn step(expires: u64) -> u32 {
    u32::try_from(expires >> STEP_BITS).unwrap_or(u32::MAX)
}

fn due(expires: u64, hash: u64) -> Due {
    let step = step(expires);
    [(step >> 16) as u16, step as u16, (hash >> 32) as u16, (hash >> 16) as u16, hash as u16]
}
