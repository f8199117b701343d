//! One execution of a command on a partition.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Context, Executed, Ops, errors};
use crate::logic::{
    clock::Millis,
    resp::{Reply, integer},
    store::{Cause, Op, Store},
};

/// A reply, or an error in place of it; an error leaves no change.
pub(super) type Outcome = Result<Reply, Reply>;
/// How a command is executed.
pub(super) type Run = fn(&mut Call<'_>) -> Outcome;

/// A value and its deadline.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) value: Bytes,
    pub(super) expires: Option<Millis>,
}

/// What a command works with.
pub(super) struct Call<'a> {
    /// In lower case.
    pub(super) name: &'static str,
    pub(super) words: &'a [Bytes],
    pub(super) context: &'a Context<'a>,
    pub(super) store: &'a mut Store,
    map: &'a Bytes,
    ops: Ops,
    hits: u32,
    misses: u32,
}

impl<'a> Call<'a> {
    pub(super) fn new(name: &'static str, words: &'a [Bytes], store: &'a mut Store, context: &'a Context<'a>) -> Self {
        Self { name, words, context, store, map: context.default_map, ops: Ops::new(), hits: 0, misses: 0 }
    }

    /// Works on this map from now on instead of the default one.
    pub(super) fn use_map(&mut self, map: &'a Bytes) {
        self.map = map;
    }

    pub(super) fn map(&self) -> &'a Bytes {
        self.map
    }

    pub(super) fn executed(self, reply: Reply) -> Executed {
        Executed { reply, ops: self.ops, hits: self.hits, misses: self.misses }
    }

    /// The word at a place that the command's arity guarantees.
    pub(super) fn word(&self, index: usize) -> &'a Bytes {
        static NONE: Bytes = Bytes::new();
        self.words.get(index).unwrap_or(&NONE)
    }

    /// The word as an integer.
    pub(super) fn integer(&self, index: usize) -> Result<i64, Reply> {
        integer::parse(self.word(index)).ok_or_else(errors::not_an_integer)
    }

    pub(super) fn now(&self) -> Millis {
        self.context.clock.now
    }

    /// Looks a key up for reading: counts as a hit or a miss, and as a use.
    pub(super) fn read(&mut self, key: &[u8]) -> Option<Found> {
        let found = self.find(key);
        self.count(found.is_some());
        found
    }

    /// As [`Call::read`], but not as a use.
    pub(super) fn glance(&mut self, key: &[u8]) -> Option<Found> {
        let entry = self.store.peek(self.map, key, self.context.clock.now);
        let found = entry.map(|entry| Found { value: entry.value.to_bytes(), expires: entry.expires });
        self.count(found.is_some());
        found
    }

    /// Looks a key up for writing: counts as a use only.
    pub(super) fn find(&mut self, key: &[u8]) -> Option<Found> {
        let entry = self.store.get(self.map, key, self.context.clock.now)?;
        Some(Found { value: entry.value.to_bytes(), expires: entry.expires })
    }

    fn count(&mut self, hit: bool) {
        if hit {
            self.hits += 1;
        } else {
            self.misses += 1;
        }
    }

    /// From now on the key has this value.
    pub(super) fn put(&mut self, key: &Bytes, value: Bytes, expires: Option<Millis>) {
        self.ops.push(Op::Put { map: self.map.clone(), key: key.clone(), value, expires });
    }

    /// From now on the key is not there. Only for keys that are.
    pub(super) fn remove(&mut self, key: &Bytes) {
        self.ops.push(Op::Remove { map: self.map.clone(), key: key.clone(), cause: Cause::Deleted });
    }

    /// Removes those of the keys that are there; returns how many. A key may be named twice.
    pub(super) fn remove_present(&mut self, keys: &[Bytes]) -> i64 {
        let mut removed = BTreeSet::new();
        for key in keys {
            if self.find(key).is_some() && removed.insert(key) {
                self.remove(key);
            }
        }
        removed.len() as i64
    }

    pub(super) fn clear(&mut self, map: Option<Bytes>) {
        self.ops.push(Op::Clear { map });
    }

    /// A deadline given as Unix time in milliseconds, on this machine's clock; none: it is over (rule W9).
    pub(super) fn deadline(&self, unix: i64) -> Option<Millis> {
        let left = unix.checked_sub_unsigned(self.context.clock.wall).filter(|left| *left > 0)?;
        Some(Millis(self.now().0.saturating_add(left as u64).min(u64::MAX - 1)))
    }

    /// A deadline as Unix time in milliseconds.
    pub(super) fn unix(&self, deadline: Millis) -> i64 {
        let clock = self.context.clock;
        let unix = if deadline >= clock.now {
            clock.wall.saturating_add(deadline.since(clock.now))
        } else {
            clock.wall.saturating_sub(clock.now.since(deadline))
        };
        i64::try_from(unix).unwrap_or(i64::MAX)
    }

    /// Unix time in milliseconds.
    pub(super) fn wall(&self) -> i64 {
        i64::try_from(self.context.clock.wall).unwrap_or(i64::MAX)
    }
}
