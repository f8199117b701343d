//! What one member has promised and taken (rules T1, T2, T4).

use std::sync::Arc;

use super::{
    member::{Generation, MemberName},
    table::{ClusterId, Epoch, Table},
};

/// A member's memory of tables. It is lost when the process ends, which is why a new start has no vote until it has
/// taken a table that names it (rule T4).
#[derive(Debug, Default)]
pub struct Voter {
    promised: Epoch,
    taken: Option<Arc<Table>>,
    in_force: Option<Arc<Table>>,
}

/// Answer to a table that was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// Taken now, or before.
    Taken,
    /// A higher epoch was promised.
    Refused(Epoch),
    /// The table is of another cluster, or does not name this start of the member: no answer.
    NotForMe,
}

impl Voter {
    /// The highest epoch promised or taken.
    pub fn promised(&self) -> Epoch {
        self.promised
    }

    /// The highest table taken.
    pub fn taken(&self) -> Option<&Arc<Table>> {
        self.taken.as_ref()
    }

    /// The table that is known to be in force.
    pub fn in_force(&self) -> Option<&Arc<Table>> {
        self.in_force.as_ref()
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.in_force.as_ref().map(|table| table.cluster)
    }

    /// Promises to take nothing lower than `asked`, unless a higher one was promised. None: no vote yet. A start that has
    /// taken a table that names it never voted under an earlier one, so it has forgotten nothing.
    pub fn promise(&mut self, asked: Epoch) -> Option<Epoch> {
        self.taken.as_ref()?;
        self.promised = self.promised.max(asked);
        Some(self.promised)
    }

    /// Takes a proposed table, unless something higher was promised.
    pub fn take(&mut self, table: &Arc<Table>, name: &MemberName, generation: Generation) -> Take {
        if self.cluster().is_some_and(|cluster| cluster != table.cluster) || table.start(name, generation).is_none() {
            return Take::NotForMe;
        }
        let first_of_cluster =
            self.in_force.is_none() && self.taken.as_ref().is_none_or(|taken| taken.cluster != table.cluster);
        if !first_of_cluster && table.epoch < self.promised {
            return Take::Refused(self.promised);
        }
        self.promised = table.epoch;
        self.taken = Some(table.clone());
        Take::Taken
    }

    /// A table is in force. Returns whether it is news.
    pub fn enforce(&mut self, table: &Arc<Table>) -> bool {
        if self.cluster().is_some_and(|cluster| cluster != table.cluster) {
            return false;
        }
        if self.in_force.as_ref().is_some_and(|known| known.epoch >= table.epoch) {
            return false;
        }
        if self.taken.as_ref().is_none_or(|taken| taken.cluster != table.cluster || taken.epoch < table.epoch) {
            self.taken = Some(table.clone());
        }
        self.promised = self.promised.max(table.epoch);
        self.in_force = Some(table.clone());
        true
    }
}
