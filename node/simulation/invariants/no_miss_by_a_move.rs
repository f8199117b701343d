//! While members join, leave, drain and restart as planned, no key is missed.

use super::Finding;
use crate::ledger::{Entry, Name, Read, Rules};

pub(crate) const NAME: &str = "no_miss_by_a_move";

pub(crate) fn check(name: Name, entry: &Entry, read: &Read, rules: &Rules) -> Option<Finding> {
    let missed = entry.missed(read, rules)?;
    Some(Finding::new(NAME, format!("{name:?} reads nothing during a move, there must be {missed:?}; {read:?}")))
}
