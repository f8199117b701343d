//! How the coordinator brings a table into force (rules T1 to T3).
//!
//! Two rounds: promises from a quorum, which show the highest table that anyone has taken; then the new table, taken
//! by a quorum of the voters before and after it, and by every live member that loses a primary role or gets it from one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    member::MemberId,
    table::{Epoch, Table, Version},
};
use crate::logic::{clock::Millis, keyspace::Partition};

/// Last versions that former primaries reported, for their successors.
pub type HandedOver = Vec<(Partition, Version)>;

/// Where a proposal stands.
#[derive(Debug, Default)]
pub enum Proposer {
    /// Nothing is being proposed.
    #[default]
    Idle,
    /// Promises are being collected.
    Preparing {
        /// The epoch to be proposed.
        epoch: Epoch,
        /// Highest table seen so far, the own one to begin with.
        highest: Arc<Table>,
        /// Who has promised.
        promises: BTreeSet<MemberId>,
        /// When it began.
        since: Millis,
    },
    /// The table is out.
    Proposing {
        /// The table before it; none for the first table of a cluster.
        base: Option<Arc<Table>>,
        /// The table.
        table: Arc<Table>,
        /// Who has taken it.
        takes: BTreeMap<MemberId, HandedOver>,
        /// When it began.
        since: Millis,
    },
}

/// Voters whose process has ended for certain, because a new start under the same name has said hello without a
/// table, or because they are to be forgotten and are silent. Their memory cannot come back, so nothing that only they have taken can be in force any more.
pub type Replaced = BTreeSet<MemberId>;

/// Whether `answers` are enough under `table`: its quorum of voters; or every voter has either answered or been
/// replaced, so that no memory of a higher table can exist anywhere.
pub fn enough(table: &Table, answers: &BTreeSet<MemberId>, replaced: &Replaced) -> bool {
    let voted = table.voters().filter(|member| answers.contains(&member.id)).count();
    voted >= table.quorum as usize || (voted > 0 && all(table, answers, replaced))
}

/// Whether every voter of `table` has either answered or been replaced.
fn all(table: &Table, answers: &BTreeSet<MemberId>, replaced: &Replaced) -> bool {
    table.voters().all(|member| answers.contains(&member.id) || replaced.contains(&member.id))
}

impl Proposer {
    /// Starts to collect promises.
    pub fn prepare(epoch: Epoch, own: Arc<Table>, now: Millis) -> Self {
        Self::Preparing { epoch, highest: own, promises: BTreeSet::new(), since: now }
    }

    /// Puts a table out.
    pub fn propose(base: Option<Arc<Table>>, table: Arc<Table>, now: Millis) -> Self {
        Self::Proposing { base, table, takes: BTreeMap::new(), since: now }
    }

    /// A member promised `asked`, and has taken `taken`. Returns the highest table once promises suffice, and whether
    /// all memory that there is of it has answered: then its voters may change although it is not known to be in force.
    pub fn promised(
        &mut self,
        from: MemberId,
        asked: Epoch,
        taken: Option<Arc<Table>>,
        replaced: &Replaced,
    ) -> Option<(Arc<Table>, bool)> {
        let Self::Preparing { epoch, highest, promises, .. } = self else { return None };
        if *epoch != asked {
            return None;
        }
        if let Some(table) = taken
            && table.cluster == highest.cluster
            && table.epoch > highest.epoch
        {
            *highest = table;
        }
        promises.insert(from);
        enough(highest, promises, replaced).then(|| (highest.clone(), all(highest, promises, replaced)))
    }

    /// A member took the table of `epoch`.
    pub fn taken(&mut self, from: MemberId, epoch: Epoch, handed_over: HandedOver) {
        if let Self::Proposing { table, takes, .. } = self
            && table.epoch == epoch
        {
            takes.insert(from, handed_over);
        }
    }

    /// The table and what was handed over, once it is in force.
    pub fn in_force(&self, replaced: &Replaced) -> Option<(Arc<Table>, HandedOver)> {
        let Self::Proposing { base, table, takes, .. } = self else { return None };
        let answers: BTreeSet<MemberId> = takes.keys().copied().collect();
        let quorums = match base {
            Some(base) => enough(base, &answers, replaced) && enough(table, &answers, &Replaced::new()),
            // The first table: every member must have it, so that no other first table can be taken beside it.
            None => table.members.iter().all(|member| answers.contains(&member.id)),
        };
        // Who takes over must have taken it as well: with a quorum of 1 nobody else might know, once the loser has gone.
        let moved = table.partitions.iter().filter(|assignment| assignment.from.is_some());
        let mut sides = moved.flat_map(|assignment| assignment.from.into_iter().chain(assignment.primary()));
        let taken_by_both = sides.all(|side| !table.is_live(side) || answers.contains(&side));
        (quorums && taken_by_both).then(|| (table.clone(), takes.values().flatten().copied().collect()))
    }

    /// Since when, if something is being proposed.
    pub fn since(&self) -> Option<Millis> {
        match self {
            Self::Idle => None,
            Self::Preparing { since, .. } | Self::Proposing { since, .. } => Some(*since),
        }
    }
}
