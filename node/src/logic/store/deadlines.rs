//! Which entries expire when, soonest first.

use std::collections::BTreeMap;

use super::entry::NEVER;
use crate::logic::clock::Millis;

/// Deadlines of a partition's entries.
#[derive(Default)]
pub(super) struct Deadlines {
    /// Entries with this deadline and hash.
    counts: BTreeMap<(u64, u64), u32>,
    entries: usize,
    /// Of all deadlines, for the average.
    sum: u128,
}

impl Deadlines {
    pub(super) fn add(&mut self, expires: u64, hash: u64) {
        if expires == NEVER {
            return;
        }
        *self.counts.entry((expires, hash)).or_default() += 1;
        self.entries += 1;
        self.sum += u128::from(expires);
    }

    pub(super) fn remove(&mut self, expires: u64, hash: u64) {
        let Some(count) = self.counts.get_mut(&(expires, hash)) else { return };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&(expires, hash));
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

    /// Deadlines and hashes of entries whose time is over.
    pub(super) fn over(&self, now: Millis) -> impl Iterator<Item = (u64, u64)> {
        self.counts.range(..(now.0, 0)).map(|(at, _)| *at)
    }
}
