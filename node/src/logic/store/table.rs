//! A hash table that can be walked in hash order.
//!
//! Linear hashing (Litwin: "Linear hashing: a new tool for file and table addressing") on the top bits of the hash.
//! Items stand in short lists; a list holds the items whose hashes begin with the same bits, as many bits as the table
//! has `bits`, or one more if the list was split already. Lists are split, and joined, one at a time as items come and
//! go, so that the table never stops to be built anew. Walking the lists by their first bits is walking the hashes: a
//! place in the walk is a hash, which stays good while the table grows, shrinks and changes (rule C2).
//!
//! In a list the longest unused item is first: what eviction needs, at no byte.

use super::{entry::prefetch_all, hash::HASH_BITS};

/// Items a list, on average.
const MEAN: usize = 20;

/// Something that knows the lowest bits of its hash.
pub(super) trait Tagged {
    /// The lowest bits of its hash.
    fn tag(&self) -> u16;

    /// Asks for what tells its whole hash, and for what dropping it reads.
    fn prefetch_head(&self) {}
}

/// Where an item stands until the table's next change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) list: usize,
    pub(super) index: usize,
}

/// Items; several may have the same hash.
pub(super) struct Table<T> {
    /// 2^`bits` lists and `split` more. A list's number has the first bits of its hashes in reverse.
    lists: Vec<Vec<T>>,
    bits: u32,
    /// So many of the first lists are split, into themselves and the list 2^`bits` further.
    split: usize,
    len: usize,
}

impl<T: Tagged> Table<T> {
    pub(super) fn new() -> Self {
        Self { lists: vec![Vec::new()], bits: 0, split: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Number of lists, at least one.
    pub(super) fn lists(&self) -> usize {
        self.lists.len()
    }

    /// The items of a list, the longest unused first.
    pub(super) fn list(&self, list: usize) -> &[T] {
        self.lists.get(list).map_or(&[], |list| list)
    }

    pub(super) fn list_mut(&mut self, list: usize) -> &mut [T] {
        self.lists.get_mut(list).map_or(&mut [], |list| list)
    }

    /// The number of the list where items with this hash stand.
    pub(super) fn list_of(&self, hash: u64) -> usize {
        let reversed = (hash << (64 - HASH_BITS)).reverse_bits() as usize;
        let list = reversed & ((1 << self.bits) - 1);
        if list < self.split { reversed & ((2 << self.bits) - 1) } else { list }
    }

    /// So many of the first bits are the same in a list's hashes.
    fn bits_of(&self, list: usize) -> u32 {
        self.bits + u32::from(list < self.split || list >= 1 << self.bits)
    }

    /// The item with this hash that `same` accepts. It is looked for first where it was `seen` in its list.
    pub(super) fn find(&self, hash: u64, seen: Option<usize>, same: impl Fn(&T) -> bool) -> Option<Place> {
        let list = self.list_of(hash);
        let (items, is_it) = (&self.lists[list], |item: &T| item.tag() == hash as u16 && same(item));
        let index = match seen {
            Some(index) if items.get(index).is_some_and(is_it) => index,
            _ => items.iter().rposition(is_it)?,
        };
        Some(Place { list, index })
    }

    /// The item that [`Table::find`] compares first, and its place in its list.
    pub(super) fn likely(&self, hash: u64) -> Option<(usize, &T)> {
        let items = self.list(self.list_of(hash));
        let index = items.iter().rposition(|item| item.tag() == hash as u16)?;
        Some((index, &items[index]))
    }

    pub(super) fn at(&self, place: Place) -> Option<&T> {
        self.lists.get(place.list)?.get(place.index)
    }

    /// The item, which becomes the last used of its list.
    pub(super) fn touch(&mut self, place: Place) -> Option<&mut T> {
        let list = self.lists.get_mut(place.list)?;
        list.get_mut(place.index..)?.rotate_left(1);
        list.last_mut()
    }

    /// A list for a random number, as often as its hashes are many.
    pub(super) fn drawn(&self, random: u64) -> usize {
        self.list_of(random >> (64 - HASH_BITS))
    }

    /// Whether that list is taken, which makes the chance of all items equal, but for lists that are a quarter longer than
    /// they should be: those are taken always.
    pub(super) fn accepts(&self, list: usize, random: u64) -> bool {
        let length = self.lists.get(list).map_or(0, Vec::len) as u64;
        let longest = (self.len as u64 * 5) >> (self.bits_of(list) + 2);
        (random & 0xffff) * longest < length << 16
    }

    /// The list will be looked up: asks for what says where its items are.
    pub(super) fn prefetch(&self, list: usize) {
        self.lists.get(list..=list).into_iter().for_each(prefetch_all);
    }

    /// The list's items will be read, and what says where they are is near: asks for them.
    pub(super) fn prefetch_items(&self, list: usize) {
        prefetch_all(self.list(list));
    }

    /// The first item in this list or, if it is empty, one that comes later in a round through all.
    pub(super) fn first_from(&self, list: usize) -> Option<Place> {
        let lists = (list..self.lists.len()).chain(0..list);
        lists.map(|list| Place { list, index: 0 }).find(|place| self.at(*place).is_some())
    }

    /// Adds an item as the last used of its list, beside those with the same hash. `hash_of` tells any item's hash.
    pub(super) fn insert(&mut self, hash: u64, item: T, hash_of: impl Fn(&T) -> u64) {
        let list = self.list_of(hash);
        push(&mut self.lists[list], item);
        self.len += 1;
        if self.len > MEAN * self.lists.len() {
            self.split(hash_of);
        }
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, place: Place) -> Option<T> {
        let removed = self.take(place);
        self.shrink();
        removed
    }

    /// Takes an item out, so that items of other lists stay where they stand. [`Table::shrink`] is to follow.
    pub(super) fn take(&mut self, place: Place) -> Option<T> {
        let list = self.lists.get_mut(place.list)?;
        let removed = (place.index < list.len()).then(|| list.remove(place.index))?;
        fit(list);
        self.len -= 1;
        Some(removed)
    }

    /// Joins lists that have become few items. Not as soon as a list was split: nothing is gained by going back and forth.
    pub(super) fn shrink(&mut self) {
        while self.len * 2 < MEAN * self.lists.len() && self.lists.len() > 1 {
            self.join();
        }
    }

    /// Keeps the items that `keep` accepts.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for list in &mut self.lists {
            list.retain(&mut keep);
            fit(list);
        }
        self.len = self.lists.iter().map(Vec::len).sum();
        self.shrink();
    }

    /// Drops whole lists, of so many items or a few more. The rest is good for nothing but this.
    pub(super) fn drop_some(&mut self, items: usize) {
        let mut left = items;
        while left > 0 {
            let Some(list) = self.lists.pop() else { break };
            list.iter().for_each(T::prefetch_head);
            left = left.saturating_sub(list.len().max(1));
            self.len -= list.len();
        }
    }

    /// Items from this hash on, in order. `hash_of` tells any item's hash.
    pub(super) fn from(&self, hash: u64, hash_of: impl Fn(&T) -> u64 + Copy) -> impl Iterator<Item = (u64, &T)> {
        let mut next = Some(hash).filter(|hash| hash >> HASH_BITS == 0);
        let lists = std::iter::from_fn(move || {
            let at = next?;
            let list = self.list_of(at);
            let unit = 1 << (HASH_BITS - self.bits_of(list));
            next = Some((at / unit + 1) * unit).filter(|next| next >> HASH_BITS == 0);
            self.lists[list].iter().for_each(T::prefetch_head);
            let mut items: Vec<_> = self.lists[list].iter().map(|item| (hash_of(item), item)).collect();
            items.retain(|(hash, _)| *hash >= at);
            items.sort_by_key(|(hash, _)| *hash);
            Some(items)
        });
        lists.flatten()
    }

    fn split(&mut self, hash_of: impl Fn(&T) -> u64) {
        let bit = 1 << (HASH_BITS - 1 - self.bits);
        let both = std::mem::take(&mut self.lists[self.split]);
        both.iter().for_each(T::prefetch_head);
        let (high, low): (Vec<T>, Vec<T>) = both.into_iter().partition(|item| hash_of(item) & bit != 0);
        self.lists[self.split] = low;
        if self.lists.len() == self.lists.capacity() {
            self.lists.reserve_exact(self.lists.len() / 4 + 1);
        }
        self.lists.push(high);
        let new = self.lists.len() - 1;
        fit(&mut self.lists[self.split]);
        fit(&mut self.lists[new]);
        self.split += 1;
        if self.split == 1 << self.bits {
            (self.bits, self.split) = (self.bits + 1, 0);
        }
    }

    fn join(&mut self) {
        if self.split == 0 {
            (self.bits, self.split) = (self.bits - 1, 1 << (self.bits - 1));
        }
        self.split -= 1;
        let Some(high) = self.lists.pop() else { return };
        for item in high {
            push(&mut self.lists[self.split], item);
        }
        if self.lists.len() < self.lists.capacity() / 2 {
            self.lists.shrink_to(self.lists.len() * 5 / 4);
        }
    }
}

/// Capacities are sizes that the allocator has (see `entry`), so that the room in a block is used and little is free.
fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact(capacity(list.len() + 1) - list.len());
    }
    list.push(item);
}

/// Gives room back that is not worth keeping.
fn fit<T>(list: &mut Vec<T>) {
    if list.capacity() > capacity(list.len() + list.len() / 4 + 1) {
        list.shrink_to(capacity(list.len()));
    }
}

/// The least capacity of a list of this length, of items of eight bytes.
fn capacity(length: usize) -> usize {
    let unit = if length <= 8 { 2 } else { 1 << ((length - 1).ilog2() - 2) };
    length.next_multiple_of(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Item {
        hash: u64,
        name: u8,
    }

    impl Tagged for Item {
        fn tag(&self) -> u16 {
            self.hash as u16
        }
    }

    fn hash_of(item: &Item) -> u64 {
        item.hash
    }

    impl Table<Item> {
        fn check(&self) {
            for (number, list) in self.lists.iter().enumerate() {
                assert!(list.iter().all(|item| self.list_of(item.hash) == number), "in another item's list");
                assert!(list.capacity() <= capacity(list.len() + list.len() / 4 + 1), "room kept for nothing");
            }
            assert_eq!(self.lists.iter().map(Vec::len).sum::<usize>(), self.len);
            assert_eq!(self.lists.len(), (1 << self.bits) + self.split);
            assert!(self.len <= MEAN * self.lists.len() && self.split < 1 << self.bits);
        }

        fn bytes(&self) -> usize {
            let lists = self.lists.iter().map(|list| list.capacity() * 8).sum::<usize>();
            lists + self.lists.capacity() * size_of::<Vec<Item>>()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_walk_is_in_hash_order(
            // Few distinct hashes at both ends of the range, and many between.
            changes in prop::collection::vec((any::<bool>(), 0..40_u64, 0..3_u8, 0..4_u8, prop::option::of(0..30_usize)), 0..400))
        {
            let mut table = Table::new();
            let mut model: Vec<(u64, u8)> = Vec::new();
            for (add, step, kind, name, seen) in changes {
                let hash = match kind {
                    0 => (1 << HASH_BITS) - 1 - step,
                    1 => step,
                    _ => step * ((1 << HASH_BITS) / 40),
                };
                let found = table.find(hash, seen, |item: &Item| item.hash == hash && item.name == name);
                prop_assert_eq!(found.is_some(), model.contains(&(hash, name)));
                match found {
                    None if add => {
                        table.insert(hash, Item { hash, name }, hash_of);
                        model.push((hash, name));
                    }
                    Some(place) if !add => {
                        prop_assert_eq!(table.remove(place), Some(Item { hash, name }));
                        model.retain(|entry| *entry != (hash, name));
                    }
                    Some(place) => {
                        prop_assert_eq!(table.touch(place).copied(), Some(Item { hash, name }));
                        prop_assert_eq!(table.list(place.list).last().copied(), Some(Item { hash, name }));
                    }
                    None => {}
                }
                table.check();
                let mut rest: Vec<_> = table.from(hash, hash_of).map(|(hash, item)| (hash, item.name)).collect();
                prop_assert!(rest.is_sorted_by_key(|(hash, _)| *hash));
                rest.sort_unstable();
                let mut expected: Vec<_> = model.iter().copied().filter(|(h, _)| *h >= hash).collect();
                expected.sort_unstable();
                prop_assert_eq!(rest, expected);
            }
            table.retain(|item| item.name == 1);
            table.check();
            prop_assert_eq!(table.len(), model.iter().filter(|(_, name)| *name == 1).count());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes of steps")]
    fn it_grows_and_shrinks_and_takes_what_is_accounted() {
        let mut table = Table::new();
        let hash =
            |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 16;
        for i in 0..20_000 {
            table.insert(hash(i), Item { hash: hash(i), name: 0 }, hash_of);
            let allowed = table.len() * super::super::entry::SLOT_BYTES as usize;
            let beside = table.lists() * super::super::eviction::LIST_BYTES;
            assert!(i < 1000 || table.bytes() + beside <= allowed, "{} + {beside} for {i}", table.bytes());
        }
        table.check();
        assert_eq!(table.lists(), 1000);
        for i in 0..19_990 {
            let place = table.find(hash(i), None, |item| item.hash == hash(i)).unwrap();
            table.remove(place);
        }
        table.check();
        assert!(table.lists() <= 2 && table.bytes() < 400);
    }
}
