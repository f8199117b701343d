//! What clients asked and were told, key by key.

use std::collections::BTreeMap;

use bytes::Bytes;

/// Maps that clients use, the default one first.
pub(crate) const MAPS: [&str; 2] = ["cc-relay", "other"];

/// One entry's name: map and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) map: u8,
    pub(crate) key: u32,
}

impl Name {
    pub(crate) fn text(self) -> Bytes {
        Bytes::from(format!("key:{}", self.key))
    }

    /// A value that tells whose it is.
    pub(crate) fn value(self, number: u64) -> Bytes {
        Bytes::from(format!("{}/{}/{number}", self.map, self.key))
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer yet.
    Open,
    /// It was acknowledged at this time.
    Acknowledged(u64),
    /// Nobody can say whether it was executed; it may still be.
    Unknown,
    /// The answer was that it was not executed.
    Refused,
}

/// A write or a removal.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// The value's number; none: a removal.
    pub(crate) value: Option<u64>,
    pub(crate) through: Through,
    pub(crate) asked: u64,
    pub(crate) outcome: Outcome,
    /// Time to live.
    pub(crate) ttl: Option<u64>,
}

impl Write {
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Acknowledged(at) => Some(at),
            _ => None,
        }
    }

    /// Until when it may have taken effect.
    pub(crate) fn latest(&self) -> u64 {
        self.acknowledged().unwrap_or(u64::MAX)
    }
}

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No value.
    Nothing,
    /// This value of the key.
    Value(u64),
    /// Something that was never written to this key.
    Foreign,
}

/// A place, and one start of its node.
pub(crate) type Through = (usize, u64);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) through: Through,
    pub(crate) found: Found,
    pub(crate) asked: u64,
    pub(crate) answered: u64,
    /// It was made after everything, to see what is left.
    pub(crate) last: bool,
}

/// All that happened to one entry.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    /// When its partition started empty, as it may where more was lost than is promised.
    pub(crate) wiped: Vec<u64>,
}

impl Entry {
    pub(crate) fn write(&self, number: u64) -> Option<&Write> {
        self.writes.iter().find(|write| write.value == Some(number))
    }

    /// By when a value was there for certain: its acknowledgement, or the first read that found it.
    pub(crate) fn there_by(&self, number: u64) -> u64 {
        let read = self.reads.iter().filter(|read| read.found == Found::Value(number)).map(|read| read.answered).min();
        let written = self.write(number).map_or(u64::MAX, Write::latest);
        read.unwrap_or(u64::MAX).min(written)
    }
}

/// Everything that clients know.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) entries: BTreeMap<Name, Entry>,
    pub(crate) operations: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
}

impl Ledger {
    /// A write is under way. Returns its place in the entry.
    pub(crate) fn write(&mut self, name: Name, write: Write) -> usize {
        let writes = &mut self.entries.entry(name).or_default().writes;
        writes.push(write);
        writes.len() - 1
    }

    pub(crate) fn wrote(&mut self, name: Name, place: usize, outcome: Outcome) {
        match outcome {
            Outcome::Acknowledged(_) => self.acknowledged += 1,
            Outcome::Unknown => self.unknown += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Open => {}
        }
        if let Some(write) = self.entries.get_mut(&name).and_then(|entry| entry.writes.get_mut(place)) {
            write.outcome = outcome;
        }
    }

    pub(crate) fn names(&self) -> Vec<Name> {
        self.entries.keys().copied().collect()
    }
}

/// What a history allows beside what clients asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Copies that confirm a read. With 1, a value may be read before it is acknowledged, and then be lost (rule Q1).
    pub(crate) read_quorum: u32,
    /// Entries may go for want of room.
    pub(crate) evicts: bool,
    /// How much longer than its time an entry may live: as long as the network held its change back (rule W9).
    pub(crate) overtime: u64,
    /// How old a read may be that is answered by another node than the one that knows better: as long as a mirror lives, and
    /// the parts of a millisecond that clocks leave out (rule C4).
    pub(crate) stale: u64,
}

impl Rules {
    /// Whether what was known at `known`, through one node, is known to a read through another one.
    pub(crate) fn knows(&self, read: &Read, known: u64, through: Through) -> bool {
        let stale = if through == read.through { 0 } else { self.stale };
        known + stale < read.asked
    }
}

impl Entry {
    /// Whether something may have removed a write by `by`: a removal, its time, the time of what came after it, or
    /// the partition's loss.
    pub(crate) fn may_be_gone(&self, write: &Write, by: u64, rules: &Rules) -> bool {
        let expired = |w: &Write| w.ttl.is_some_and(|ttl| w.asked + ttl <= by + 5 + ttl / 100);
        let after = |w: &&Write| w.outcome != Outcome::Refused && w.asked <= by && w.latest() >= write.asked;
        rules.evicts
            || expired(write)
            || self.wiped.iter().any(|at| *at <= by)
            || self.writes.iter().filter(after).any(|w| w.value.is_none() || expired(w))
    }

    /// The first write that was acknowledged before `read` began and that cannot have gone since, if it found nothing.
    pub(crate) fn missed(&self, read: &Read, rules: &Rules) -> Option<&Write> {
        if read.found != Found::Nothing {
            return None;
        }
        let known = |w: &&Write| w.value.is_some() && w.acknowledged().is_some_and(|at| at < read.asked);
        self.writes.iter().filter(known).find(|w| !self.may_be_gone(w, read.answered, rules))
    }
}
