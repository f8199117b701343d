//! Chooses which keys change and how. Plain and repeatable: the same seed makes the same choices.

use super::ledger::{Change, Key, Millis};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;

/// Of all changes, in percent.
const DELETES: u32 = 10;
/// Of all changes, in percent; every other one of them outlives the load.
const EXPIRING: u32 = 10;
/// A time to live that ends while the load runs, and one that does not.
const SHORT_LIFE: Millis = Millis(3_000);
const LONG_LIFE: Millis = Millis(3_600_000);

/// The changes of one writer, to keys that nobody else writes.
#[derive(Debug)]
pub struct Workload {
    first: u32,
    keys: u32,
    chance: SmallRng,
}

impl Workload {
    /// The part of writer `index` of `writers`, of `keys` in all.
    pub fn of_writer(index: u32, writers: u32, keys: u32, seed: u64) -> Self {
        let first = index * keys / writers;
        let end = (index + 1) * keys / writers;
        Self { first, keys: end - first, chance: SmallRng::seed_from_u64(seed.wrapping_add(u64::from(index))) }
    }

    /// Up to `size` changes, each to another key, so that they can be under way together.
    pub fn batch(&mut self, size: usize) -> Vec<(Key, Change)> {
        let mut chosen = BTreeSet::new();
        (0..size)
            .filter_map(|_| Some((self.key()).filter(|key| chosen.insert(*key))?).map(|key| (key, self.change())))
            .collect()
    }

    fn key(&mut self) -> Option<Key> {
        (self.keys > 0).then(|| Key(self.first + self.chance.random_range(0..self.keys)))
    }

    fn change(&mut self) -> Change {
        match self.chance.random_range(0..100) {
            roll if roll < DELETES => Change::Delete,
            roll if roll < DELETES + EXPIRING / 2 => Change::SetFor(SHORT_LIFE),
            roll if roll < DELETES + EXPIRING => Change::SetFor(LONG_LIFE),
            _ => Change::Set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_are_deletes_and_a_tenth_expire() {
        let mut workload = Workload::of_writer(0, 1, 1_000_000, 7);
        let changes = workload.batch(20_000);
        let share = |wanted: fn(&Change) -> bool| {
            changes.iter().filter(|(_, change)| wanted(change)).count() as f64 / changes.len() as f64
        };
        assert!((share(|change| *change == Change::Delete) - 0.1).abs() < 0.01);
        assert!((share(|change| matches!(change, Change::SetFor(_))) - 0.1).abs() < 0.01);
    }

    #[test]
    fn writers_share_the_keys_without_overlap() {
        let mut seen = BTreeSet::new();
        for writer in 0..3 {
            let mut workload = Workload::of_writer(writer, 3, 10, 7);
            let own: BTreeSet<Key> = (0..100).flat_map(|_| workload.batch(3)).map(|(key, _)| key).collect();
            assert!(own.iter().all(|key| seen.insert(*key)), "{own:?}");
        }
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn a_batch_names_no_key_twice() {
        let mut workload = Workload::of_writer(0, 1, 5, 7);
        for _ in 0..100 {
            let batch = workload.batch(5);
            let keys: BTreeSet<Key> = batch.iter().map(|(key, _)| *key).collect();
            assert_eq!(keys.len(), batch.len());
        }
    }
}
