//! Every partition gets as many copies in sync as its factor says, as far as there are members.

use mizuya_node::logic::cluster::table::Assignment;

use super::Finding;
use crate::cluster::Cluster;

pub(crate) const NAME: &str = "copies_come_back";

/// A partition that has not all its copies in sync, or too many, in the newest table.
fn short(cluster: &Cluster) -> Option<String> {
    let Some(table) = cluster.table() else { return Some("there is no table".to_owned()) };
    let copies = (cluster.shape.factor as usize).min(table.live().count());
    let whole = |a: &Assignment| {
        a.copies.len() == copies && a.copies.iter().all(|copy| copy.in_sync() && table.is_live(copy.member))
    };
    let short = table.partitions.iter().position(|assignment| !whole(assignment))?;
    Some(format!("partition {short}: {:?}", table.partitions[short]))
}

/// Whether every partition has all its copies, and none too many.
pub(crate) fn holds(cluster: &Cluster) -> bool {
    short(cluster).is_none()
}

pub(crate) fn check(cluster: &Cluster, limit: u64) -> Option<Finding> {
    short(cluster).map(|short| Finding::new(NAME, format!("{limit} ms after the last fault: {short}")))
}
