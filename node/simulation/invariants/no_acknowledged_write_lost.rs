//! With M above half of the voters and at most W − 1 copies lost at once, an acknowledged write is never lost.

use mizuya_node::logic::cluster::table::{Assignment, Table};

use super::Finding;
use crate::ledger::{Entry, Name, Read, Rules};

pub(crate) const NAME: &str = "no_acknowledged_write_lost";

/// A read that finds nothing where a write was acknowledged that nothing can have removed.
pub(crate) fn check(name: Name, entry: &Entry, read: &Read, rules: &Rules) -> Option<Finding> {
    let lost = entry.missed(read, rules)?;
    Some(Finding::new(NAME, format!("{name:?} reads nothing, lost is {lost:?}; {read:?}")))
}

/// An acknowledgement with fewer than W copies in sync: the loss of W − 1 of them would lose it.
pub(crate) fn check_acknowledgement(copies: usize, write_quorum: u32, partition: usize) -> Option<Finding> {
    (copies < write_quorum as usize).then(|| {
        let text =
            format!("a write to partition {partition} was acknowledged with {copies} of {write_quorum} copies in sync");
        Finding::new(NAME, text)
    })
}

/// Whether a partition starts empty in a table although the one before had copies.
pub(crate) fn emptied(former: &Assignment, now: &Assignment) -> bool {
    let anew = now.copies.first().is_none_or(|primary| primary.since == now.epoch.0);
    !former.copies.is_empty() && former.epoch < now.epoch && anew
}

/// Within the promise no table may give a partition up.
pub(crate) fn check_emptied(table: &Table, partition: usize) -> Finding {
    Finding::new(NAME, format!("table {} lets partition {partition} start empty", table.epoch.counter))
}
