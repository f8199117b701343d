//! Where a client's command goes.

use std::collections::BTreeMap;

use super::{
    Words, errors,
    scan::Walk,
    table::{self, Command, Merging, Place},
};
use crate::logic::{
    keyspace::{Partition, partition_of},
    resp::Reply,
};

/// Longest key.
pub const MAX_KEY_BYTES: usize = 65_535;

/// Where a command goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Route<'a> {
    /// It is about the connection or the whole server: the client port answers it.
    Here,
    /// To one partition, as it is.
    One(Partition),
    /// In parts to several partitions.
    Split(Vec<(Partition, Vec<&'a [u8]>)>, Merge),
    /// To every partition, as it is.
    Each(Merge),
    /// From partition to partition.
    Scan(Walk),
}

/// How the replies to the parts of one command become its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The sum of all.
    Sum,
    /// `OK` if all are.
    AllOk,
    /// For each part, which places of the whole list its items take.
    InOrder(Vec<Vec<usize>>),
}

impl Merge {
    /// The reply. `parts` are in the order of the command's parts; the first error is the reply (rule C3).
    pub fn merge(self, parts: Vec<Reply>) -> Reply {
        if let Some(error) = parts.iter().find(|part| part.is_error()) {
            return error.clone();
        }
        match self {
            Self::Sum => parts.iter().try_fold(0_i64, sum).map_or_else(|| unreadable(&parts), Reply::Integer),
            Self::AllOk => Reply::OK,
            Self::InOrder(places) => in_order(&places, parts),
        }
    }
}

fn sum(sum: i64, part: &Reply) -> Option<i64> {
    if let Reply::Integer(n) = part { sum.checked_add(*n) } else { None }
}

fn in_order(places: &[Vec<usize>], parts: Vec<Reply>) -> Reply {
    let mut all = vec![Reply::Nil; places.iter().map(Vec::len).sum()];
    for (places, part) in places.iter().zip(parts) {
        let Reply::Array(items) = part else { return unreadable(&[part]) };
        for (place, item) in places.iter().zip(items) {
            if let Some(slot) = all.get_mut(*place) {
                *slot = item;
            }
        }
    }
    Reply::Array(all)
}

fn unreadable(parts: &[Reply]) -> Reply {
    Reply::error(format!("ERR {} partitions answered in a form that is not known", parts.len()))
}

/// Where a command goes in a cluster of `partitions`, or why it goes nowhere. The words fit the command.
pub fn route<'a>(command: &Command, words: &Words<'a>, partitions: u16) -> Result<Route<'a>, Reply> {
    match command.place {
        Place::Here => Ok(Route::Here),
        Place::Key(_) => Ok(Route::One(partition(words[command.keys.first], partitions)?)),
        Place::Keys(_, merging) => split(command, merging, words, partitions),
        Place::Each(_, merging) => Ok(Route::Each(merging.merge(Vec::new()))),
        Place::Scan(_) => Walk::begin(words, partitions).map(Route::Scan),
    }
}

/// If the words are a command for one key: which one, and the key's partition.
pub fn for_one_key(words: &Words<'_>, partitions: u16) -> Option<(&'static Command, Partition)> {
    let command = table::command(words).ok()?;
    let Place::Key(_) = command.place else { return None };
    Some((command, partition(words[command.keys.first], partitions).ok()?))
}

/// The partition of a key, if it is not too long.
pub fn partition(key: &[u8], partitions: u16) -> Result<Partition, Reply> {
    if key.len() > MAX_KEY_BYTES {
        return Err(errors::key_too_long(MAX_KEY_BYTES));
    }
    Ok(partition_of(key, partitions))
}

/// Sends each key, with the words that belong to it, to its partition.
fn split<'a>(command: &Command, merging: Merging, words: &Words<'a>, partitions: u16) -> Result<Route<'a>, Reply> {
    let (common, keyed) = words.split_at(command.keys.first);
    let groups = keyed.chunks_exact(command.keys.step);
    if !groups.remainder().is_empty() {
        return Err(errors::arity(command.name));
    }
    let mut of: Vec<Partition> = Vec::with_capacity(groups.len());
    for group in groups.clone() {
        of.push(partition(group[0], partitions)?);
    }
    if of.iter().all(|partition| *partition == of[0]) {
        return Ok(Route::One(of[0]));
    }
    let mut parts: BTreeMap<Partition, (Vec<&'a [u8]>, Vec<usize>)> = BTreeMap::new();
    for (place, (group, partition)) in groups.zip(of).enumerate() {
        let (words, places) = parts.entry(partition).or_insert_with(|| (common.to_vec(), Vec::new()));
        words.extend_from_slice(group);
        places.push(place);
    }
    let (mut requests, mut places) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
    for (partition, (words, of_part)) in parts {
        requests.push((partition, words));
        places.push(of_part);
    }
    Ok(Route::Split(requests, merging.merge(places)))
}
