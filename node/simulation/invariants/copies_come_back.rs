//! Every partition gets as many copies in sync as its factor says, as far as there are members.

use super::Finding;
use crate::cluster::Cluster;

pub(crate) const NAME: &str = "copies_come_back";

/// Whether every partition has all its copies, and none too many.
pub(crate) fn holds(cluster: &Cluster) -> bool {
    let Some(table) = cluster.table() else { return false };
    let copies = (cluster.shape.factor as usize).min(table.live().count());
    table.partitions.iter().all(|assignment| {
        assignment.copies.len() == copies && assignment.copies.iter().all(|copy| copy.in_sync)
    })
}

pub(crate) fn check(cluster: &Cluster, limit: u64) -> Option<Finding> {
    (!holds(cluster)).then(|| Finding::new(NAME, format!("copies are missing {limit} ms after the last fault")))
}
