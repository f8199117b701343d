//! A quiet cluster comes to one table that every member has, in which every member is active.

use mizuya_node::logic::cluster::member::State;

use super::Finding;
use crate::cluster::Cluster;

pub(crate) const NAME: &str = "one_table";

/// Whether the cluster has come to one table.
pub(crate) fn holds(cluster: &Cluster) -> bool {
    let Some(table) = cluster.table() else { return false };
    let mut alive = 0;
    for process in cluster.processes() {
        let routing = process.node.routing();
        let same = routing.table.as_ref().is_some_and(|t| t.epoch == table.epoch && t.cluster == table.cluster);
        if !same || routing.me.is_none() {
            return false;
        }
        alive += 1;
    }
    table.live().count() == alive && table.members.iter().all(|member| member.state == State::Active)
}

pub(crate) fn check(cluster: &Cluster, limit: u64) -> Option<Finding> {
    (!holds(cluster)).then(|| Finding::new(NAME, format!("no common table {limit} ms after the last fault")))
}
