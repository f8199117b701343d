//! One execution of a command on a partition.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Context, Done, Words, answer_value, errors};
use crate::logic::{
    clock::Millis,
    resp::{Reply, Straight, integer},
    store::{Cause, Change, Key, NewValue, Spot, Store},
};

/// A reply, or an error in place of it; an error leaves no change.
pub(super) type Outcome = Result<Reply, Reply>;
/// How a command is executed.
pub(super) type Run = fn(&mut Call<'_, '_>) -> Outcome;

/// A value and its deadline.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) value: Bytes,
    pub(super) expires: Option<Millis>,
}

/// What a command works with.
pub(super) struct Call<'a, 's> {
    /// In lower case.
    pub(super) name: &'static str,
    pub(super) words: &'a Words<'a>,
    /// As in [`Context`], for this map.
    pub(super) spot: Option<Spot>,
    pub(super) context: &'a Context<'a>,
    pub(super) store: &'s mut Store,
    /// That it works on.
    pub(super) map: &'a [u8],
    pub(super) done: &'s mut Done<'a>,
    pub(super) straight: Option<Straight<'s>>,
}

impl<'a> Call<'a, '_> {
    /// Works on this map from now on instead of the default one.
    pub(super) fn use_map(&mut self, map: &'a [u8]) {
        (self.map, self.spot) = (map, None);
    }

    pub(super) fn map(&self) -> &'a [u8] {
        self.map
    }

    /// The word at a place that the command's arity guarantees.
    pub(super) fn word(&self, index: usize) -> &'a [u8] {
        self.words.get(index).copied().unwrap_or_default()
    }

    /// The word as an integer.
    pub(super) fn integer(&self, index: usize) -> Result<i64, Reply> {
        integer::parse(self.word(index)).ok_or_else(errors::not_an_integer)
    }

    pub(super) fn now(&self) -> Millis {
        self.context.clock.now
    }

    /// Looks a key up for reading: counts as a hit or a miss, and as a use.
    pub(super) fn read(&mut self, key: &'a [u8]) -> Option<Found> {
        let found = self.find(key);
        self.count(found.is_some());
        found
    }

    /// Reads the value of a key, as the reply.
    pub(super) fn answer_value(&mut self, key: &'a [u8]) -> Reply {
        let Some(mut straight) = self.straight.take() else {
            return self.read(key).map_or(Reply::Nil, |found| Reply::Bulk(found.value));
        };
        self.write_value(key, &mut straight);
        Reply::Written
    }

    /// Reads the values of some keys, as the reply: a list of them.
    pub(super) fn answer_values(&mut self, keys: &[&'a [u8]]) -> Reply {
        let Some(mut straight) = self.straight.take() else {
            return Reply::Array(keys.iter().map(|key| self.answer_value(key)).collect());
        };
        straight.list(keys.len());
        for key in keys {
            self.write_value(key, &mut straight);
        }
        Reply::Written
    }

    fn write_value(&mut self, key: &'a [u8], straight: &mut Straight<'_>) {
        let key = self.key(key);
        let hit = answer_value(self.store, (self.map, key), self.context.clock.now, straight);
        self.count(hit);
    }

    /// As [`Call::read`], but not as a use.
    pub(super) fn glance(&mut self, key: &'a [u8]) -> Option<Found> {
        let entry = self.store.peek(self.map, self.key(key), self.context.clock.now);
        let found = entry.map(|entry| Found { value: entry.value().to_bytes(), expires: entry.expires() });
        self.count(found.is_some());
        found
    }

    /// Looks a key up for writing: counts as a use only.
    pub(super) fn find(&mut self, key: &'a [u8]) -> Option<Found> {
        let entry = self.store.get(self.map, self.key(key), self.context.clock.now)?;
        Some(Found { value: entry.value().to_bytes(), expires: entry.expires() })
    }

    /// A key, with what is known of it.
    fn key(&self, key: &'a [u8]) -> Key<'a> {
        match self.spot {
            Some(spot) if self.words.get(1).is_some_and(|word| std::ptr::eq(*word, key)) => Key::at(key, spot),
            _ => key.into(),
        }
    }

    fn count(&mut self, hit: bool) {
        if hit {
            self.done.hits += 1;
        } else {
            self.done.misses += 1;
        }
    }

    /// From now on the key has this value.
    pub(super) fn put(&mut self, key: &'a [u8], value: impl Into<NewValue<'a>>, expires: Option<Millis>) {
        let key = self.key(key);
        self.done.changes.push(Change::Put { map: self.map, key, value: value.into(), expires });
    }

    /// From now on the key is not there. Only for keys that are.
    pub(super) fn remove(&mut self, key: &'a [u8]) {
        let key = self.key(key);
        self.done.changes.push(Change::Remove { map: self.map, key, cause: Cause::Deleted });
    }

    /// Removes those of the keys that are there; returns how many. A key may be named twice.
    pub(super) fn remove_present(&mut self, keys: &[&'a [u8]]) -> i64 {
        let mut removed = BTreeSet::new();
        for key in keys {
            if self.find(key).is_some() && removed.insert(key) {
                self.remove(key);
            }
        }
        removed.len() as i64
    }

    pub(super) fn clear(&mut self, map: Option<&'a [u8]>) {
        self.done.changes.push(Change::Clear { map });
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
