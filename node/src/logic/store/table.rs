//! A hash table whose slots are in hash order.
//!
//! Linear probing in which every run is sorted: an item stands at or after its home, the slot that the top bits of
//! its hash name, with no empty slot between, and all items stand in the order of their hashes. So a lookup costs a
//! few steps as in any hash table, and walking the slots is walking the hashes: a place in the walk is a hash, which
//! stays good while the table grows, shrinks and changes (rule C2).

use super::hash::HASH_BITS;

/// Most and least slots in use before the table is built anew, in eighths.
const FULL: usize = 6;
const SPARSE: usize = 1;
/// Smallest table: 2 to this power.
const MIN_BITS: u32 = 3;

/// A slot in use.
struct Slot<T> {
    hash: u64,
    item: Box<T>,
}

/// Items in the order of their hashes; several may have the same.
pub(super) struct Table<T> {
    /// 2^`bits` slots, and those that the last run needs beyond.
    slots: Vec<Option<Slot<T>>>,
    bits: u32,
    len: usize,
}

/// Bytes that one slot takes.
pub(super) const SLOT_BYTES: usize = std::mem::size_of::<Option<Slot<()>>>();

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), bits: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Number of slots: every index below it may be given to [`Table::at`].
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The item in a slot.
    pub(super) fn at(&self, index: usize) -> Option<&T> {
        self.slots.get(index)?.as_ref().map(|slot| &*slot.item)
    }

    pub(super) fn at_mut(&mut self, index: usize) -> Option<&mut T> {
        self.slots.get_mut(index)?.as_mut().map(|slot| &mut *slot.item)
    }

    /// The slot of the item with this hash that `same` accepts.
    pub(super) fn find(&self, hash: u64, same: impl Fn(&T) -> bool) -> Option<usize> {
        let mut index = self.seek(hash);
        while let Some(slot) = self.slot(index).filter(|slot| slot.hash == hash) {
            if same(&slot.item) {
                return Some(index);
            }
            index += 1;
        }
        None
    }

    /// Adds an item beside those with the same hash.
    pub(super) fn insert(&mut self, hash: u64, item: T) {
        if (self.len + 1) * 8 > (FULL << self.bits) || self.slots.is_empty() {
            self.rebuild(if self.slots.is_empty() { MIN_BITS } else { self.bits + 1 });
        }
        let index = self.seek(hash);
        let mut free = index;
        while self.slot(free).is_some() {
            free += 1;
        }
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[index..=free].rotate_right(1);
        self.slots[index] = Some(Slot { hash, item: Box::new(item) });
        self.len += 1;
    }

    /// Takes an item out; the rest of its run moves up.
    pub(super) fn remove(&mut self, index: usize) -> Option<T> {
        let removed = self.slots.get_mut(index)?.take()?;
        let mut gap = index;
        while self.slot(gap + 1).is_some_and(|next| self.home(next.hash) <= gap) {
            self.slots.swap(gap, gap + 1);
            gap += 1;
        }
        self.len -= 1;
        if self.bits > MIN_BITS && self.len * 8 < (SPARSE << self.bits) {
            self.rebuild(self.bits - 1);
        }
        Some(*removed.item)
    }

    /// Keeps the items that `keep` accepts.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(u64, &T) -> bool) {
        let slots = std::mem::take(&mut self.slots);
        let kept: Vec<_> = slots.into_iter().flatten().filter(|slot| keep(slot.hash, &slot.item)).collect();
        let mut bits = self.bits.max(MIN_BITS);
        while bits > MIN_BITS && kept.len() * 8 < (SPARSE << bits) {
            bits -= 1;
        }
        self.len = kept.len();
        self.place(kept.into_iter(), bits);
    }

    /// Items from this hash on, in order.
    pub(super) fn from(&self, hash: u64) -> impl Iterator<Item = (u64, &T)> {
        let start = if hash >> HASH_BITS == 0 { self.seek(hash) } else { self.slots.len() };
        self.slots.get(start..).unwrap_or_default().iter().flatten().map(|slot| (slot.hash, &*slot.item))
    }

    /// The first slot at which an item with this hash may stand: it is empty, or its item's hash is not lower.
    fn seek(&self, hash: u64) -> usize {
        let mut index = self.home(hash);
        while self.slot(index).is_some_and(|slot| slot.hash < hash) {
            index += 1;
        }
        index
    }

    fn slot(&self, index: usize) -> Option<&Slot<T>> {
        self.slots.get(index)?.as_ref()
    }

    fn home(&self, hash: u64) -> usize {
        (hash >> (HASH_BITS - self.bits)) as usize
    }

    fn rebuild(&mut self, bits: u32) {
        let slots = std::mem::take(&mut self.slots);
        self.place(slots.into_iter().flatten(), bits);
    }

    fn place(&mut self, items: impl Iterator<Item = Slot<T>>, bits: u32) {
        self.bits = bits;
        self.slots = Vec::with_capacity((1 << bits) + 1);
        for slot in items {
            let home = self.home(slot.hash);
            if self.slots.len() < home {
                self.slots.resize_with(home, || None);
            }
            self.slots.push(Some(slot));
        }
        if self.slots.len() < 1 << bits {
            self.slots.resize_with(1 << bits, || None);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl<T> Table<T> {
        fn check(&self) {
            let mut last = 0;
            for (index, slot) in self.slots.iter().enumerate() {
                let Some(slot) = slot else { continue };
                assert!(slot.hash >= last, "order");
                last = slot.hash;
                let home = self.home(slot.hash);
                assert!(home <= index, "before its home");
                assert!((home..index).all(|i| self.slots[i].is_some()), "a gap before it");
            }
            assert_eq!(self.slots.iter().flatten().count(), self.len);
            assert!(self.slots.is_empty() || self.slots.len() >= 1 << self.bits);
        }
    }

    proptest! {
        #[test]
        fn slots_stay_in_hash_order(
            // Few distinct hashes at both ends of the range: long runs, equal hashes, runs beyond the end.
            changes in prop::collection::vec((any::<bool>(), 0..12_u64, any::<bool>(), 0..4_u8), 0..300))
        {
            let mut table = Table::new();
            let mut model: Vec<(u64, u8)> = Vec::new();
            for (add, step, high, item) in changes {
                let hash = if high { (1 << HASH_BITS) - 1 - step } else { step << 40 };
                let found = table.find(hash, |i: &u8| *i == item);
                prop_assert_eq!(found.is_some(), model.contains(&(hash, item)));
                match found {
                    None if add => {
                        table.insert(hash, item);
                        model.push((hash, item));
                    }
                    Some(index) if !add => {
                        prop_assert_eq!(table.remove(index), Some(item));
                        model.retain(|entry| *entry != (hash, item));
                    }
                    _ => {}
                }
                table.check();
                let mut rest: Vec<_> = table.from(hash).map(|(hash, item)| (hash, *item)).collect();
                rest.sort_unstable();
                let mut expected: Vec<_> = model.iter().copied().filter(|(h, _)| *h >= hash).collect();
                expected.sort_unstable();
                prop_assert_eq!(rest, expected);
            }
            table.retain(|_, item| *item == 1);
            table.check();
            prop_assert_eq!(table.len(), model.iter().filter(|(_, item)| *item == 1).count());
        }
    }

    #[test]
    fn it_grows_and_shrinks() {
        let mut table = Table::new();
        let hash = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS);
        for i in 0..10_000 {
            table.insert(hash(i), i);
        }
        table.check();
        assert!(table.slots() >= 10_000 && table.slots() < 40_000);
        for i in 0..9_990 {
            let index = table.find(hash(i), |item| *item == i).unwrap();
            table.remove(index);
        }
        table.check();
        assert!(table.slots() < 200);
    }
}
