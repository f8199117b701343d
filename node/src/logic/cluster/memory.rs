//! What an earlier start of a member left on its volume (rules S1, S2).

use std::sync::Arc;

use super::{
    member::MemberId,
    table::{ClusterId, Table, Version},
};
use crate::logic::keyspace::Partition;

/// A member's memory of its earlier starts. It gives no vote (rule T4): others learn from it, and it decides nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The highest table that an earlier start took.
    pub table: Option<Arc<Table>>,
    /// Its snapshot.
    pub kept: Arc<Keeps>,
}

/// What a snapshot has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keeps {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Its partitions, in their order.
    pub partitions: Vec<Kept>,
}

/// One partition of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub partition: Partition,
    /// The last change that is in it.
    pub last: Version,
    /// The member whose copy it was, in sync or eligible, if nothing was confirmed or acknowledged on it afterwards (rule
    /// S1).
    pub final_of: Option<MemberId>,
}

impl Keeps {
    /// What it has of a partition.
    pub fn get(&self, partition: Partition) -> Option<&Kept> {
        let at = self.partitions.binary_search_by_key(&partition, |kept| kept.partition).ok()?;
        Some(&self.partitions[at])
    }
}
