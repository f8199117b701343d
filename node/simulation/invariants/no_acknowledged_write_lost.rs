//! With M above half of the voters and at most W − 1 copies lost at once, an acknowledged write is never lost.

use std::collections::BTreeSet;

use mizuya_node::logic::cluster::{
    member::MemberId,
    table::{Assignment, Table},
};

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
    !former.copies.is_empty() && (former.began < now.began || now.copies.is_empty())
}

/// Partition by partition, who was in sync in the last table under which a write could be acknowledged, still runs, and
/// was not told to drop its copy: each of them has every acknowledged write, whatever happened to the others.
#[derive(Default)]
pub(crate) struct Keepers {
    of: Vec<BTreeSet<MemberId>>,
    /// Partitions of which a write was acknowledged since they began.
    written: BTreeSet<usize>,
}

impl Keepers {
    /// A write was acknowledged.
    pub(crate) fn acknowledged(&mut self, partition: usize) {
        self.written.insert(partition);
    }

    /// The next table is in force, and these partitions start empty in it. None of them may have a keeper.
    pub(crate) fn follow(&mut self, table: &Table, emptied: &[usize]) -> Option<Finding> {
        self.of.resize(table.partitions.len(), BTreeSet::new());
        self.of.iter_mut().for_each(|keepers| keepers.retain(|id| table.is_live(*id)));
        let lost = |partition: &&usize| self.written.contains(partition) && !self.of[**partition].is_empty();
        let given_up = emptied.iter().find(lost).map(|partition| {
            let (counter, keepers) = (table.epoch.counter, &self.of[*partition]);
            let text = format!("table {counter} lets partition {partition} start empty, which {keepers:?} still have");
            Finding::new(NAME, text)
        });
        self.written.retain(|partition| !emptied.contains(partition));
        for (keepers, assignment) in self.of.iter_mut().zip(&table.partitions) {
            let in_sync: BTreeSet<MemberId> = table.running(assignment).collect();
            let acknowledges = in_sync.len() >= table.live.write_quorum as usize;
            keepers.retain(|id| assignment.holds(*id) && !acknowledges);
            keepers.extend(in_sync);
        }
        given_up
    }
}

/// Within the promise no table may give a partition up.
pub(crate) fn check_emptied(table: &Table, partition: usize) -> Finding {
    Finding::new(NAME, format!("table {} lets partition {partition} start empty", table.epoch.counter))
}
