//! Which entries go when room is needed.
//!
//! A few lists of the table are drawn at random, and of their entries the one that was used least goes; of equals the
//! longest unused. Uses are counted up to 15 in four bits of the slot, and now and then a list's counts are halved, so
//! that what was popular once does not stay for ever. That keeps a scan from emptying the cache, but where only the
//! latest entries are asked for again the longest unused would be the better choice. So a few lists always do the one,
//! a few the other, and all the rest do what lets fewer entries be missed at present (set dueling: Qureshi and others,
//! "Adaptive insertion policies for high performance caching").
//!
//! Lists are drawn at random, not in turn: a clock hand would favour keys behind a gap, and anyone who knows where it
//! stands could aim at it.

use std::collections::BTreeSet;

use super::{
    entry::Node,
    table::{Place, Table},
};

/// One in so many lists always evicts the longest unused, and another the least used.
const DUEL: usize = 32;
/// How far one side can be ahead.
const LEAD: i32 = 512;
/// Lists drawn for an entry that has to go, as long as none has an entry that was never used again.
const LISTS: usize = 4;
/// Counts of uses are halved after one in so many evictions of a list.
const HALVE: u64 = 256;
/// Bits of a place in a list.
const PLACE_BITS: u32 = 32;
/// Draws for each entry that has to go, after which entries are taken as they come.
const DRAWS: u64 = 64;

/// Which of the two ways does better.
#[derive(Default)]
pub(super) struct Eviction {
    /// Entries that were added to lists that evict the longest unused, less those of the other kind: what a list has
    /// to add it missed.
    lead: i32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    LongestUnused,
    LeastUsed,
}

impl Eviction {
    /// An entry is added to this list.
    pub(super) fn added(&mut self, list: usize) {
        let step = match list % DUEL {
            0 => 1,
            1 => -1,
            _ => return,
        };
        self.lead = (self.lead + step).clamp(-LEAD, LEAD);
    }

    fn way(&self, list: usize) -> Way {
        match list % DUEL {
            0 => Way::LongestUnused,
            1 => Way::LeastUsed,
            _ if self.lead < 0 => Way::LongestUnused,
            _ => Way::LeastUsed,
        }
    }

    /// Entries that together free at least `bytes`, or all.
    pub(super) fn choose(&self, table: &mut Table<Node>, bytes: u64, random: u64) -> BTreeSet<Place> {
        let (mut chosen, mut freed, mut state) = (BTreeSet::new(), 0, random);
        let mut draws = DRAWS;
        while freed < bytes && draws > 0 && chosen.len() < table.len() {
            draws -= 1;
            let Some(place) = self.draw(table, &chosen, &mut state) else { continue };
            freed += table.at(place).map_or(0, Node::bytes);
            chosen.insert(place);
            draws = DRAWS;
        }
        let start = (next(&mut state) % table.lists() as u64) as usize;
        for list in (start..table.lists()).chain(0..start) {
            for (index, node) in table.list(list).iter().enumerate() {
                if freed >= bytes {
                    return chosen;
                }
                freed += if chosen.insert(Place { list, index }) { node.bytes() } else { 0 };
            }
        }
        chosen
    }

    /// The best of a few lists that is not among the chosen.
    fn draw(&self, table: &mut Table<Node>, chosen: &BTreeSet<Place>, state: &mut u64) -> Option<Place> {
        let mut best: Option<(u8, Place)> = None;
        for _ in 0..LISTS {
            let Some(list) = draw_list(table, state) else { continue };
            let way = self.way(list);
            if best.is_some() && way == Way::LongestUnused {
                continue;
            }
            let Some((uses, place)) = self.best(table, list, chosen) else { continue };
            if best.is_none() && next(state).is_multiple_of(HALVE) {
                table.list_mut(list).iter_mut().for_each(|node| node.set_uses(node.uses() / 2));
            }
            if uses == 0 || way == Way::LongestUnused {
                return Some(place);
            }
            best = best.filter(|(fewest, _)| *fewest <= uses).or(Some((uses, place)));
        }
        best.map(|(_, place)| place)
    }

    /// The entry of a list that is to go first, and its uses. Not the last one, which was perhaps written just now.
    fn best(&self, table: &Table<Node>, list: usize, chosen: &BTreeSet<Place>) -> Option<(u8, Place)> {
        let (_, nodes) = table.list(list).split_last()?;
        // Uses and place in one number: pairs of them cost the search more than all the rest.
        let nodes = nodes.iter().enumerate().map(|(index, node)| usize::from(node.uses()) << PLACE_BITS | index);
        let place = |number: usize| Place { list, index: number & ((1 << PLACE_BITS) - 1) };
        let mut nodes = nodes.filter(|number| chosen.is_empty() || !chosen.contains(&place(*number)));
        let number = match self.way(list) {
            Way::LongestUnused => nodes.next(),
            Way::LeastUsed => nodes.min(),
        }?;
        Some(((number >> PLACE_BITS) as u8, place(number)))
    }
}

/// A list, with a chance in proportion to its entries.
fn draw_list(table: &Table<Node>, state: &mut u64) -> Option<usize> {
    let long = table.long_list() as u64;
    for _ in 0..DRAWS {
        let random = next(state);
        let list = ((u128::from(random) * table.lists() as u128) >> 64) as usize;
        if next(state) % long < table.list(list).len() as u64 {
            return Some(list);
        }
    }
    None
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
