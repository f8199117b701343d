//! Which entries go when room is needed: of a random sample, those that were not used for longest.

use super::{entry::Node, table::Table};

/// Sampled for each entry that has to go. Ten find nearly what an exact order would (as Redis measured for its
/// `maxmemory-samples`).
const SAMPLES: u64 = 10;

/// Slots whose entries together free at least `bytes`, or all entries.
pub(super) fn choose(table: &Table<Node>, bytes: u64, total: u64, random: u64) -> Vec<usize> {
    let mean = (total / (table.len() as u64).max(1)).max(1);
    let wanted = bytes.div_ceil(mean).saturating_mul(SAMPLES).saturating_add(SAMPLES);
    if wanted < table.len() as u64 / 2
        && let Some(chosen) = oldest(table, &sample(table, wanted as usize, random), bytes)
    {
        return chosen;
    }
    let all: Vec<usize> = (0..table.slots()).filter(|index| table.at(*index).is_some()).collect();
    oldest(table, &all, bytes).unwrap_or(all)
}

/// Slots in use, each once, drawn at random: a clock hand would favour keys behind a gap, and anyone who knows where it
/// stands could aim at it.
fn sample(table: &Table<Node>, wanted: usize, random: u64) -> Vec<usize> {
    let mut state = random;
    let mut chosen = Vec::with_capacity(wanted);
    // The table is at least one eighth full, so that this finds about `wanted` or more.
    for _ in 0..wanted * 8 {
        let index = ((u128::from(next(&mut state)) * table.slots() as u128) >> 64) as usize;
        if table.at(index).is_some() {
            chosen.push(index);
        }
        if chosen.len() == wanted {
            break;
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

/// The longest unused of the candidates that free enough; none: all together do not.
fn oldest(table: &Table<Node>, candidates: &[usize], bytes: u64) -> Option<Vec<usize>> {
    let mut aged: Vec<(u64, usize, u64)> =
        candidates.iter().filter_map(|index| table.at(*index).map(|node| (node.used, *index, node.bytes()))).collect();
    aged.sort_unstable();
    let mut freed = 0;
    let mut count = 0;
    while freed < bytes {
        freed += aged.get(count)?.2;
        count += 1;
    }
    Some(aged[..count].iter().map(|(_, index, _)| *index).collect())
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
