//! One partition's entries.
//!
//! A [`Store`] is changed by [`Change`]s only, on the primary and on copies alike, and knows neither clock nor members.
//! Entries of all maps stand in one table that is walked in hash order ([`table`]), whose seed is the cluster's: a
//! position in that order means the same on every member, for cursors of `SCAN` (rule C2) and for copies that are being
//! built. An entry is one block of memory beside its slot ([`entry`]).

mod change;
mod deadlines;
mod digest;
mod entry;
mod eviction;
mod hash;
mod key;
mod maps;
mod table;

use bytes::Bytes;
use mizuya_wire::settings::Eviction;

pub use self::{
    change::{Cause, Change, NewValue, Op},
    entry::{DEADLINE_BYTES, Entry, OUTSIDE_FROM, SLOT_BYTES, Value},
    hash::{HASH_BITS, Order, mix},
    key::{Key, Spot},
    maps::MAP_OVERHEAD,
};
use self::{
    deadlines::Deadlines,
    entry::{Node, Parts},
    eviction::History,
    maps::{MapId, Maps},
    table::{Place, Table, Tagged},
};
use crate::logic::{
    clock::Millis,
    cluster::{message::Record, table::Version},
};

/// When room is needed, entries of so many bytes go at a time if there are many: what they need of memory is then asked
/// for together.
const AHEAD: u64 = 1 << 10;

/// Entries that a partition had: freed step by step, since many entries at once would hold a core for milliseconds.
pub struct Discarded(Table<Node>);

impl Discarded {
    /// Frees about so many entries; false: all are.
    pub fn free(&mut self, entries: usize) -> bool {
        self.0.drop_some(entries);
        self.0.len() > 0
    }
}

impl std::fmt::Debug for Discarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Discarded({})", self.0.len())
    }
}

/// The entries of one partition.
pub struct Store {
    seed: u64,
    table: Table<Node>,
    maps: Maps,
    deadlines: Deadlines,
    history: History,
    /// Of all entries; names of maps are counted by `maps`.
    bytes: u64,
    /// Sum of the entries' own.
    digest: u64,
    discarded: Vec<Discarded>,
}

impl Tagged for Node {
    fn tag(&self) -> u16 {
        Self::tag(self)
    }

    fn prefetch_head(&self) {
        Self::prefetch_head(self);
    }
}

impl Store {
    /// An empty partition. `seed` decides the order of entries and is the same on every member.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            table: Table::new(),
            maps: Maps::new(seed),
            deadlines: Deadlines::default(),
            history: History::default(),
            bytes: 0,
            digest: 0,
            discarded: Vec::new(),
        }
    }

    /// Begins anew. Whoever calls takes away what is to be freed.
    pub fn empty(&mut self) {
        let former = std::mem::replace(self, Self::new(self.seed));
        self.discarded = former.discarded;
        if former.table.len() > 0 {
            self.discarded.push(Discarded(former.table));
        }
    }

    /// Entries that are to be freed.
    pub fn take_discarded(&mut self) -> Vec<Discarded> {
        std::mem::take(&mut self.discarded)
    }

    /// The entry, unless there is none or its time is over. Counts as a use.
    pub fn get<'k>(&mut self, map: &[u8], key: impl Into<Key<'k>>, now: Millis) -> Option<Entry<'_>> {
        let place = self.find(map, key.into())?.1?;
        let node = self.table.touch(place)?;
        node.set_uses(node.uses() + 1);
        node.view(now)
    }

    /// A key that stands there will be looked up: asks for the list that it is in.
    pub fn prefetch_list(&self, spot: Spot) {
        self.table.prefetch_items(self.table.list_of(spot.position()));
    }

    /// A key that stands there will be looked up, and its list is near: asks for the entry, and returns what is known of its
    /// place then.
    pub fn prefetch_entry(&self, spot: Spot) -> Spot {
        let Some((index, node)) = self.table.likely(spot.position()) else { return spot };
        node.prefetch();
        spot.seen_at(index)
    }

    /// As [`Store::get`], without counting as a use.
    pub fn peek<'k>(&self, map: &[u8], key: impl Into<Key<'k>>, now: Millis) -> Option<Entry<'_>> {
        let node = self.table.at(self.find(map, key.into())?.1?)?;
        node.view(now)
    }

    /// Makes a change that another member made or that was kept.
    pub fn apply(&mut self, op: &Op, version: Version) {
        self.change(&op.change(), version);
    }

    /// Makes a change, whatever the present state. Key and value are copied, so that they pin no read buffer; only a long
    /// value that has memory of its own is shared.
    pub fn change(&mut self, change: &Change<'_>, version: Version) {
        match change {
            Change::Put { map, key, value, expires } => {
                self.put(map, *key, value, expires.map_or(entry::NEVER, |at| at.0), version);
            }
            Change::Remove { map, key, cause } => self.remove(map, *key, *cause),
            Change::Clear { map: Some(map) } => self.clear(map),
            Change::Clear { map: None } => self.empty(),
        }
    }

    /// Entries of all maps from a position on, as changes with the version that each entry has, and where to go on;
    /// none: these were the last. Entries of about `max_bytes`, at least one if there is any. 0 is the start. Expired
    /// entries are among them.
    pub fn read_from(&self, position: u64, max_bytes: usize) -> (Vec<Record>, Option<u64>) {
        let (mut records, mut bytes, mut last) = (Vec::new(), 0, None);
        for (hash, node) in self.from(position) {
            if bytes >= (max_bytes as u64).max(1) && last != Some(hash) {
                return (records, Some(hash));
            }
            last = Some(hash);
            bytes = bytes.saturating_add(node.bytes());
            let op = Op::Put {
                map: self.maps.name(node.map()).clone(),
                key: Bytes::copy_from_slice(node.key()),
                value: node.value().to_bytes(),
                expires: node.deadline(),
            };
            records.push(Record { version: node.version(), op });
        }
        (records, None)
    }

    /// Living keys of a map among the next `count` entries from a position on, and where to go on; none: the end. A key
    /// that is there from the first to the last step of a walk is never left out, whatever changes meanwhile.
    pub fn scan(&self, map: &[u8], position: u64, count: usize, now: Millis) -> (Vec<Bytes>, Option<u64>) {
        let Some(map) = self.maps.find(map) else { return (Vec::new(), None) };
        let (mut keys, mut seen, mut last) = (Vec::new(), 0, None);
        for (hash, node) in self.from(position) {
            if seen >= count.max(1) && last != Some(hash) {
                return (keys, Some(hash));
            }
            last = Some(hash);
            seen += 1;
            if node.map() == map && node.lives(now) {
                keys.push(Bytes::copy_from_slice(node.key()));
            }
        }
        (keys, None)
    }

    /// Some entries whose time is over, as (map, key), the longest overdue first, to 64 ms. Costs nothing when there are
    /// none.
    pub fn expired(&self, now: Millis, limit: usize) -> Vec<(Bytes, Bytes)> {
        let due = |(step, hash)| {
            let over = move |node: &&Node| !node.lives(now) && deadlines::step(node.expires()) == step;
            self.with_hash(hash).filter(over)
        };
        self.deadlines.over(now).flat_map(due).take(limit).map(|node| self.name(node)).collect()
    }

    /// Removes entries so that at least `bytes` become free (or all entries), chosen as [`eviction`] says. Each is a change
    /// that the caller has to count: `removed` is told map and key. Returns how many went.
    pub fn evict(
        &mut self,
        bytes: u64,
        eviction: Eviction,
        random: u64,
        mut removed: impl FnMut(&Bytes, &[u8]),
    ) -> usize {
        let (before, target, mut count) = (self.bytes(), self.bytes().saturating_sub(bytes), 0);
        while self.bytes() > target && !self.is_empty() {
            for place in self.history.choose(&mut self.table, eviction, mix(random ^ count as u64)) {
                let Some(node) = self.table.take(place) else { continue };
                removed(self.maps.name(node.map()), node.key());
                self.history.evicted(place.list, self.table.lists(), &node);
                self.forget(self.hash_of(&node), &node);
                count += 1;
                if self.bytes() <= target && before - self.bytes() >= AHEAD {
                    break;
                }
            }
            self.table.shrink();
        }
        count
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

    /// Accounted bytes: what entries and names of maps take of the allocator, and the constants of this module.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.maps.bytes()
    }

    /// One number for all entries: maps, keys, versions, and which of them expire. Stores with the same entries have the
    /// same one; with others, another one but for one case in 2^64. A version stands for the value and the deadline,
    /// since each change of either has one of its own; a deadline itself is counted by each machine's own clock.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Hash of an entry and where it stands, if it is there; none: there is no such map.
    fn find(&self, map: &[u8], key: Key<'_>) -> Option<(u64, Option<Place>)> {
        let map = self.maps.find(map)?;
        let hash = self.position(map, key);
        Some((hash, self.place(map, key, hash)))
    }

    fn position(&self, map: MapId, key: Key<'_>) -> u64 {
        key.spot.map_or_else(|| self.maps.position(map, &key), Spot::position)
    }

    fn place(&self, map: MapId, key: Key<'_>, hash: u64) -> Option<Place> {
        self.table.find(hash, key.spot.and_then(Spot::index), |node| node.is(map, &key))
    }

    fn put(&mut self, map: &[u8], key: Key<'_>, value: &NewValue<'_>, expires: u64, version: Version) {
        let map = self.maps.find_or_add(map);
        let hash = self.position(map, key);
        self.history.prefetch(self.table.list_of(hash));
        let place = self.place(map, key, hash);
        let parts = Parts { map, key: &key, value: value.clone(), expires, version };
        if let Some(node) = place.and_then(|place| self.table.touch(place)) {
            let (before, after) = node.replace(hash, &parts);
            node.set_uses(node.uses() + 1);
            self.bytes = self.bytes - before.bytes + after.bytes;
            self.digest = self.digest.wrapping_sub(before.digest).wrapping_add(after.digest);
            self.unschedule(before.expires, hash);
        } else {
            self.maps.count_entry(map);
            let mut node = Node::new(hash, &parts);
            node.set_uses(self.history.added(self.table.list_of(hash), node.tag()));
            let account = node.account(hash);
            self.bytes += account.bytes;
            self.digest = self.digest.wrapping_add(account.digest);
            let maps = &self.maps;
            self.table.insert(hash, node, |node| maps.position(node.map(), node.key()));
        }
        self.deadlines.add(expires, hash);
    }

    fn remove(&mut self, map: &[u8], key: Key<'_>, cause: Cause) {
        let Some((hash, Some(place))) = self.find(map, key) else { return };
        let lists = self.table.lists();
        let Some(node) = self.table.remove(place) else { return };
        if cause == Cause::Evicted {
            self.history.evicted(place.list, lists, &node);
        }
        self.forget(hash, &node);
    }

    /// An entry was taken out of the table.
    fn forget(&mut self, hash: u64, node: &Node) {
        let account = node.account(hash);
        self.bytes -= account.bytes;
        self.digest = self.digest.wrapping_sub(account.digest);
        self.unschedule(account.expires, hash);
        self.maps.forget_entry(node.map());
    }

    /// Takes back the deadline that an entry with this hash had, which has another or is gone.
    fn unschedule(&mut self, expires: u64, hash: u64) {
        if expires != entry::NEVER {
            let step = deadlines::step(expires);
            let same = |node: &Node| node.expires() != entry::NEVER && deadlines::step(node.expires()) == step;
            let shared = self.with_hash(hash).any(same);
            self.deadlines.remove(expires, hash, shared);
        }
    }

    fn clear(&mut self, map: &[u8]) {
        let Some(map) = self.maps.find(map) else { return };
        let maps = &self.maps;
        let (mut bytes, mut digest, mut deadlines) = (0, 0_u64, Vec::new());
        self.table.retain(|node| {
            let goes = node.map() == map;
            if goes {
                let hash = maps.position(map, node.key());
                let account = node.account(hash);
                bytes += account.bytes;
                digest = digest.wrapping_add(account.digest);
                deadlines.extend(node.deadline().map(|at| (at.0, hash)));
            }
            !goes
        });
        self.bytes -= bytes;
        self.digest = self.digest.wrapping_sub(digest);
        for (expires, hash) in deadlines {
            self.unschedule(expires, hash);
        }
        self.maps.forget(map);
    }

    /// Entries from a position on, with their positions.
    fn from(&self, position: u64) -> impl Iterator<Item = (u64, &Node)> {
        self.table.from(position, |node| self.hash_of(node))
    }

    /// Entries with this hash.
    fn with_hash(&self, hash: u64) -> impl Iterator<Item = &Node> {
        let list = self.table.list(self.table.list_of(hash)).iter();
        list.filter(move |node| node.tag() == hash as u16 && self.hash_of(node) == hash)
    }

    fn hash_of(&self, node: &Node) -> u64 {
        self.maps.position(node.map(), node.key())
    }

    fn name(&self, node: &Node) -> (Bytes, Bytes) {
        (self.maps.name(node.map()).clone(), Bytes::copy_from_slice(node.key()))
    }
}

#[cfg(test)]
mod tests;
