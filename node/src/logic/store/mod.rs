//! One partition's entries.
//!
//! A [`Store`] is changed by [`Op`]s only, on the primary and on copies alike, and knows neither clock nor members.
//! Entries of all maps stand in one table in hash order ([`table`]), whose seed is the cluster's: a position in that
//! order means the same on every member, for cursors of `SCAN` (rule C2) and for copies that are being built.

mod deadlines;
mod digest;
mod entry;
mod eviction;
mod hash;
mod maps;
mod table;

use bytes::Bytes;

use self::{deadlines::Deadlines, entry::Node, maps::Maps, table::Table};
pub use self::{
    entry::{DEADLINE_OVERHEAD, ENTRY_OVERHEAD, Entry},
    hash::{HASH_BITS, mix},
    maps::MAP_OVERHEAD,
};
use crate::logic::{
    clock::Millis,
    cluster::{message::Record, table::Version},
};

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

/// A change of one partition: the only way in which entries change, on the primary and on copies alike.
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

/// The entries of one partition.
pub struct Store {
    seed: u64,
    table: Table<Node>,
    maps: Maps,
    deadlines: Deadlines,
    /// Of all entries; names of maps are counted by `maps`.
    bytes: u64,
    /// Sum of the entries' own.
    digest: u64,
    /// Uses so far.
    uses: u64,
}

impl Store {
    /// An empty partition. `seed` decides the order of entries and is the same on every member.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            table: Table::new(),
            maps: Maps::default(),
            deadlines: Deadlines::default(),
            bytes: 0,
            digest: 0,
            uses: 0,
        }
    }

    /// The entry, unless there is none or its time is over. Counts as a use.
    pub fn get(&mut self, map: &[u8], key: &[u8], now: Millis) -> Option<Entry<'_>> {
        let (_, index) = self.find(map, key);
        self.uses += 1;
        let node = self.table.at_mut(index?)?;
        node.used = self.uses;
        node.lives(now).then(|| node.view())
    }

    /// As [`Store::get`], without counting as a use.
    pub fn peek(&self, map: &[u8], key: &[u8], now: Millis) -> Option<Entry<'_>> {
        let node = self.table.at(self.find(map, key).1?)?;
        node.lives(now).then(|| node.view())
    }

    /// Applies a change, whatever the present state. Copies key and value, so that they pin no read buffer.
    pub fn apply(&mut self, op: &Op, version: Version) {
        match op {
            Op::Put { map, key, value, expires } => {
                self.put(map, key, Bytes::copy_from_slice(value), expires.map_or(entry::NEVER, |at| at.0), version);
            }
            Op::Remove { map, key, .. } => self.remove(map, key),
            Op::Clear { map: Some(map) } => self.clear(map),
            Op::Clear { map: None } => *self = Self { uses: self.uses, ..Self::new(self.seed) },
        }
    }

    /// Entries of all maps from a position on, as changes with the version that each entry has, and where to go on;
    /// none: these were the last. Entries of about `max_bytes`, at least one if there is any. 0 is the start. Expired
    /// entries are among them.
    pub fn read_from(&self, position: u64, max_bytes: usize) -> (Vec<Record>, Option<u64>) {
        let (mut records, mut bytes, mut last) = (Vec::new(), 0, None);
        for (hash, node) in self.table.from(position) {
            if bytes >= (max_bytes as u64).max(1) && last != Some(hash) {
                return (records, Some(hash));
            }
            last = Some(hash);
            bytes = bytes.saturating_add(node.bytes());
            let op = Op::Put {
                map: self.maps.name(node.map),
                key: Bytes::copy_from_slice(&node.key),
                value: node.value.clone(),
                expires: node.deadline(),
            };
            records.push(Record { version: node.version, op });
        }
        (records, None)
    }

    /// Living keys of a map among the next `count` entries from a position on, and where to go on; none: the end. A key
    /// that is there from the first to the last step of a walk is never left out, whatever changes meanwhile.
    pub fn scan(&self, map: &[u8], position: u64, count: usize, now: Millis) -> (Vec<Bytes>, Option<u64>) {
        let Some(map) = self.maps.find(map) else { return (Vec::new(), None) };
        let (mut keys, mut seen, mut last) = (Vec::new(), 0, None);
        for (hash, node) in self.table.from(position) {
            if seen >= count.max(1) && last != Some(hash) {
                return (keys, Some(hash));
            }
            last = Some(hash);
            seen += 1;
            if node.map == map && node.lives(now) {
                keys.push(Bytes::copy_from_slice(&node.key));
            }
        }
        (keys, None)
    }

    /// Some entries whose time is over, as (map, key), the longest overdue first. Costs nothing when there are none.
    pub fn expired(&self, now: Millis, limit: usize) -> Vec<(Bytes, Bytes)> {
        let due = |(expires, hash)| {
            let same_hash = self.table.from(hash).take_while(move |(at, _)| *at == hash);
            same_hash.map(|(_, node)| node).filter(move |node| node.expires == expires)
        };
        self.deadlines.over(now).flat_map(due).take(limit).map(|node| self.name(node)).collect()
    }

    /// Entries to remove so that at least `bytes` become free (or all entries), as (map, key): the longest unused of a
    /// random sample.
    pub fn victims(&self, bytes: u64, random: u64) -> Vec<(Bytes, Bytes)> {
        let chosen = eviction::choose(&self.table, bytes, self.bytes, random);
        chosen.into_iter().filter_map(|index| self.table.at(index)).map(|node| self.name(node)).collect()
    }

    /// Entries of all maps, expired ones too as long as they are kept.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of one map.
    pub fn map_len(&self, map: &[u8]) -> usize {
        self.maps.entries(map)
    }

    /// Entries that expire.
    pub fn expiring(&self) -> usize {
        self.deadlines.len()
    }

    /// Mean time left of the entries that expire, in milliseconds.
    pub fn average_ttl(&self, now: Millis) -> u64 {
        self.deadlines.average(now)
    }

    /// Accounted bytes: keys, values and names of maps, and the constants of this module for each.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.maps.bytes()
    }

    /// One number for all entries: maps, keys, versions, and which of them expire. Stores with the same entries have the
    /// same one; with others, another one but for one case in 2^64. A version stands for the value and the deadline,
    /// since each change of either has one of its own; a deadline itself is counted by each machine's own clock.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Hash of an entry and the slot where it is, if it is there.
    fn find(&self, map: &[u8], key: &[u8]) -> (u64, Option<usize>) {
        let hash = hash::position(self.seed, map, key);
        let id = self.maps.find(map);
        (hash, id.and_then(|id| self.table.find(hash, |node| node.map == id && *node.key == *key)))
    }

    fn put(&mut self, map: &[u8], key: &[u8], value: Bytes, expires: u64, version: Version) {
        let (hash, index) = self.find(map, key);
        self.uses += 1;
        if let Some(node) = index.and_then(|index| self.table.at_mut(index)) {
            self.bytes -= node.bytes();
            self.digest = self.digest.wrapping_sub(node.digest(hash));
            self.deadlines.remove(node.expires, hash);
            node.value = value;
            (node.expires, node.version, node.used) = (expires, version, self.uses);
            self.bytes += node.bytes();
            self.digest = self.digest.wrapping_add(node.digest(hash));
        } else {
            let map = self.maps.find_or_add(map);
            self.maps.count_entry(map);
            let node = Node { map, key: key.into(), value, expires, version, used: self.uses };
            self.bytes += node.bytes();
            self.digest = self.digest.wrapping_add(node.digest(hash));
            self.table.insert(hash, node);
        }
        self.deadlines.add(expires, hash);
    }

    fn remove(&mut self, map: &[u8], key: &[u8]) {
        let (hash, index) = self.find(map, key);
        let Some(node) = index.and_then(|index| self.table.remove(index)) else { return };
        self.forget(hash, &node);
    }

    fn forget(&mut self, hash: u64, node: &Node) {
        self.bytes -= node.bytes();
        self.digest = self.digest.wrapping_sub(node.digest(hash));
        self.deadlines.remove(node.expires, hash);
        self.maps.forget_entry(node.map);
    }

    fn clear(&mut self, map: &[u8]) {
        let Some(map) = self.maps.find(map) else { return };
        let mut table = std::mem::replace(&mut self.table, Table::new());
        table.retain(|hash, node| {
            if node.map == map {
                self.forget(hash, node);
            }
            node.map != map
        });
        self.table = table;
    }

    fn name(&self, node: &Node) -> (Bytes, Bytes) {
        (self.maps.name(node.map), Bytes::copy_from_slice(&node.key))
    }
}

#[cfg(test)]
mod tests;
