//! Who acknowledged what, and what may therefore be read.

use std::collections::{BTreeMap, BTreeSet};

/// A value, or none when the key was deleted or never written.
pub(crate) type Value = Option<u64>;

/// Every key's possible values: the last acknowledged one, and those whose outcome is unknown.
#[derive(Default)]
pub(crate) struct Ledger {
    keys: BTreeMap<u32, BTreeSet<Value>>,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
}

impl Ledger {
    pub(crate) fn acknowledge(&mut self, key: u32, value: Value) {
        self.acknowledged += 1;
        self.keys.insert(key, BTreeSet::from([value]));
    }

    pub(crate) fn outcome_unknown(&mut self, key: u32, value: Value) {
        self.unknown += 1;
        self.keys.entry(key).or_insert_with(|| BTreeSet::from([None])).insert(value);
    }

    /// What is wrong with reading `value` of `key`, if anything. A value that was read is known from then on only
    /// when `settles`: nothing is under way any more.
    pub(crate) fn check(&mut self, key: u32, value: Value) -> Result<(), String> {
        let nothing = BTreeSet::from([None]);
        let allowed = self.keys.get(&key).unwrap_or(&nothing);
        if allowed.contains(&value) {
            return Ok(());
        }
        Err(format!("key {key} reads {value:?}, allowed are {allowed:?}"))
    }

    pub(crate) fn keys(&self) -> Vec<u32> {
        self.keys.keys().copied().collect()
    }
}
