//! Which entries go when room is needed.
//!
//! A few lists of the table are drawn at random, and of their entries the one that was used least goes (`lfu`); of equals
//! the longest unused. Uses are counted up to 15 in four bits of the slot, and now and then a list's counts are halved,
//! so that what was popular once does not stay for ever. What went is remembered for a while, in two bytes ([`Gone`]): an
//! entry that comes back goes on with its count, so that one that is asked for now and then is told from one that is
//! asked for once, although neither stays for long.
//!
//! That keeps a scan from emptying the cache, but where only the latest entries are asked for again the longest unused
//! would be the better choice (`lru`). So, unless one of the two was chosen, a few lists always do the one, a few the
//! other, and all the rest do what lets fewer entries be missed at present (set dueling: Qureshi and others, "Adaptive
//! insertion policies for high performance caching"): what comes back was missed.
//!
//! Lists are drawn at random, not in turn: a clock hand would favour keys behind a gap, and anyone who knows where it
//! stands could aim at it. Nearly all the time of an eviction is waiting for memory, so several entries are chosen at a
//! time: what they need is asked for side by side.

use mizuya_wire::settings::Eviction;
use smallvec::{SmallVec, smallvec};

use super::{
    entry::{MOST_USES, Node, prefetch_all},
    hash::{WEYL, mix},
    table::{Place, Table},
};

/// One in so many lists always evicts the longest unused, and another the least used.
const DUEL: usize = 256;
/// How far one side can be ahead.
const LEAD: i32 = 64;
/// Draws of a list for an entry that has to go, as long as none had an entry that was never used again. One in five
/// draws is in vain.
const DRAWS: usize = 5;
/// Counts of uses are halved after one in so many evictions of a list.
const HALVE: u64 = 1024;
/// Coming back counts as a use up to this many. Without a limit what comes in a loop would all have the most uses in the
/// end, and push each other out.
const RETURNS: u8 = 6;
/// Uses of the evicted entries of a set become one fewer with one in so many that come to them.
const FADE: usize = 8;
/// Most entries that are chosen at a time, and the lists that there must be for each of them: one of a few entries is
/// not to lose many at once.
const BATCH: (usize, usize) = (8, 8);
/// What the history of a list takes, with what is kept free for more lists.
#[cfg(test)]
pub(super) const LIST_BYTES: usize = size_of::<Gone>() + size_of::<Gone>() / 16;
/// Bits of a place in a list.
const PLACE_BITS: u32 = 32;

/// Entries that are to go, each from another list.
pub(super) type Victims = SmallVec<[Place; BATCH.0]>;

/// What a partition knows about its entries beside their counts.
#[derive(Default)]
pub(super) struct History {
    /// Entries that came back to lists that evict the longest unused, less those of the other kind. What comes for the
    /// first time no choice could have kept.
    lead: i32,
    /// Of each list; none before the first eviction.
    gone: Vec<Gone>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    LongestUnused,
    LeastUsed,
}

/// Evicted entries of a list: twelve bits of their hashes, and the uses that they come back with. Three other bits of the
/// hash name a set, which has its latest first. What was used more is kept longer; now and then all uses of a set become fewer.
#[derive(Clone, Default)]
#[repr(align(64))]
struct Gone([[u16; 4]; 8]);

/// Where the bits of the hash are.
const MARK: u16 = !(MOST_USES as u16);

impl Gone {
    fn add(&mut self, tag: u16, uses: u8) {
        let set = &mut self.0[usize::from(tag) % 8];
        if usize::from(tag >> 4).is_multiple_of(FADE) {
            for gone in set.iter_mut() {
                *gone -= u16::from(*gone & !MARK > 1);
            }
        }
        // Of equals the oldest makes room.
        let least = (0..set.len()).rev().min_by_key(|at| set[*at] & !MARK).unwrap_or(0);
        set[..=least].rotate_right(1);
        set[0] = tag & MARK | u16::from(uses.max(RETURNS.min(uses + 1)));
    }

    /// The entry is here again. The uses that it begins with; 0: it is not known.
    fn take(&mut self, tag: u16) -> u8 {
        let set = &mut self.0[usize::from(tag) % 8];
        let same = |gone: &u16| gone & MARK == tag & MARK && gone & !MARK != 0;
        let Some(found) = set.iter().position(same) else { return 0 };
        let uses = set[found] & !MARK;
        set[found] = 0;
        set[found..].rotate_left(1);
        uses as u8
    }
}

impl History {
    /// An entry will perhaps be added to this list.
    pub(super) fn prefetch(&self, list: usize) {
        self.gone.get(list..=list).into_iter().for_each(prefetch_all);
    }

    /// An entry is added to this list. Returns the uses that it begins with.
    pub(super) fn added(&mut self, list: usize, tag: u16) -> u8 {
        let uses = self.gone.get_mut(list).map_or(0, |gone| gone.take(tag));
        let step = match list % DUEL {
            0 if uses > 0 => 1,
            1 if uses > 0 => -1,
            _ => 0,
        };
        self.lead = (self.lead + step).clamp(-LEAD, LEAD);
        uses
    }

    /// An entry of this list was evicted; there are so many lists.
    pub(super) fn evicted(&mut self, list: usize, lists: usize, node: &Node) {
        if self.gone.len() != lists {
            self.follow(lists);
        }
        self.gone[list].add(node.tag(), node.uses());
    }

    /// The table has so many lists now. One that was split leaves what it knew to both halves.
    fn follow(&mut self, lists: usize) {
        self.gone.truncate(lists);
        if self.gone.capacity() > lists * 2 {
            self.gone.shrink_to(lists);
        }
        if self.gone.capacity() < lists {
            self.gone.reserve_exact(lists - self.gone.len() + lists / 16);
        }
        for list in self.gone.len()..lists {
            let parent = list.checked_ilog2().and_then(|bit| self.gone.get(list ^ 1 << bit));
            self.gone.push(parent.cloned().unwrap_or_default());
        }
    }

    fn way(&self, list: usize, eviction: Eviction) -> Way {
        match (eviction, list % DUEL) {
            (Eviction::Lru, _) | (Eviction::Auto, 0) => Way::LongestUnused,
            (Eviction::Lfu, _) | (Eviction::Auto, 1) => Way::LeastUsed,
            (Eviction::Auto, _) if self.lead < 0 => Way::LongestUnused,
            (Eviction::Auto, _) => Way::LeastUsed,
        }
    }

    /// Some entries that should go now, none only if there are none at all.
    pub(super) fn choose(&self, table: &mut Table<Node>, eviction: Eviction, random: u64) -> Victims {
        let mut state = random;
        let mut best: SmallVec<[Best; BATCH.0]> =
            smallvec![Best::default(); (table.lists() / BATCH.1).clamp(1, BATCH.0)];
        let mut open: SmallVec<[usize; BATCH.0]> = (0..best.len()).collect();
        for _ in 0..DRAWS {
            for at in &open {
                let random = next(&mut state);
                best[*at].draw = (random, table.drawn(random));
                table.prefetch(best[*at].draw.1);
            }
            for at in &open {
                table.prefetch_items(best[*at].draw.1);
            }
            open.retain(|at| {
                let (random, list) = best[*at].draw;
                let taken = best.iter().any(|other| other.place.is_some_and(|place| place.list == list));
                !(table.accepts(list, random) && !taken && self.compare(table, eviction, &mut best[*at]))
            });
        }
        let mut victims: Victims = best.iter().filter_map(|best| best.place).collect();
        if victims.is_empty() {
            victims.extend(table.first_from(table.drawn(next(&mut state))));
        }
        for place in &victims {
            table.at(*place).into_iter().for_each(Node::prefetch_head);
            self.prefetch(place.list);
        }
        victims
    }

    /// Looks for a better entry in the list that was drawn; whether there is none better. Not the last one of the list,
    /// which was perhaps written just now.
    fn compare(&self, table: &mut Table<Node>, eviction: Eviction, best: &mut Best) -> bool {
        let (random, list) = best.draw;
        let way = self.way(list, eviction);
        if best.place.is_some() && way == Way::LongestUnused {
            return false;
        }
        let Some((_, nodes)) = table.list(list).split_last() else { return false };
        // Uses and place in one number: pairs of them cost the search more than all the rest.
        let mut nodes = nodes.iter().enumerate().map(|(index, node)| usize::from(node.uses()) << PLACE_BITS | index);
        let number = match way {
            Way::LongestUnused => nodes.next(),
            Way::LeastUsed => nodes.min(),
        };
        let Some(number) = number else { return false };
        let (uses, index) = (number >> PLACE_BITS, number & ((1 << PLACE_BITS) - 1));
        if best.place.is_none() && mix(random).is_multiple_of(HALVE) {
            table.list_mut(list).iter_mut().for_each(|node| node.set_uses(node.uses() / 2));
        }
        if best.place.is_none() || uses < best.uses {
            *best = Best { uses, place: Some(Place { list, index }), ..*best };
        }
        uses == 0 || way == Way::LongestUnused
    }
}

/// The best of the lists that were drawn for one entry that has to go.
#[derive(Clone, Copy, Default)]
struct Best {
    place: Option<Place>,
    uses: usize,
    /// The latest random number, and the list that it names.
    draw: (u64, usize),
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn next(state: &mut u64) -> u64 {
    let number = mix(*state);
    *state = state.wrapping_add(WEYL);
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_comes_back_once_with_its_uses_and_at_first_with_one_more() {
        for uses in 0..=MOST_USES {
            let mut gone = Gone::default();
            gone.add(0x1230, uses);
            gone.add(0x4560, 0);
            assert_eq!(gone.take(0x9990), 0);
            assert_eq!(gone.take(0x1230), if uses < RETURNS { uses + 1 } else { uses });
            assert_eq!(gone.take(0x1230), 0);
            assert_eq!(gone.take(0x4560), 1);
        }
    }

    #[test]
    fn what_was_used_more_is_remembered_longer_but_not_for_ever() {
        let mut gone = Gone::default();
        gone.add(0x1210, 5);
        // Of one set.
        for i in 1..12 {
            gone.add(i << 8 | 0x10, 0);
        }
        assert_eq!(gone.take(0x1210), 6);
        gone.add(0x1210, 5);
        for i in 0..200 {
            gone.add(i << 7, 0);
        }
        assert_eq!(gone.take(0x1210), 0);
    }

    #[test]
    fn both_halves_of_a_list_know_what_the_list_knew() {
        let mut history = History::default();
        history.follow(1);
        history.gone[0].add(0x1230, 3);
        history.follow(2);
        history.follow(5);
        assert_eq!([0, 1, 2, 3, 4].map(|list| history.added(list, 0x1230)), [4; 5]);
        history.follow(2);
        assert_eq!(history.gone.len(), 2);
    }
}
