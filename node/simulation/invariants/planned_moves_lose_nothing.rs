//! After planned moves every acknowledged write is still there.

use super::Finding;
use crate::ledger::{Entry, Name, Read, Rules};

pub(crate) const NAME: &str = "planned_moves_lose_nothing";

pub(crate) fn check(name: Name, entry: &Entry, read: &Read, rules: &Rules) -> Option<Finding> {
    let lost = entry.missed(read, rules)?;
    Some(Finding::new(NAME, format!("{name:?} is gone after a move, lost is {lost:?}; {read:?}")))
}

/// A table of a history of planned moves that lets a partition start empty.
pub(crate) fn check_emptied(counter: u64, partition: usize) -> Finding {
    Finding::new(NAME, format!("table {counter} lets partition {partition} start empty"))
}
