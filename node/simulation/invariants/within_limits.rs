//! Accounted bytes stay within the budget, queues within their bounds, and at rest nothing waits any more.

use super::Finding;
use crate::cluster::{Cluster, Process};

pub(crate) const NAME: &str = "within_limits";

/// Bytes that copies may hold beyond the budget until their primaries have made room.
const ON_THE_WAY: u64 = 2_000;
/// Requests that this load can ever have waiting on one member.
const MOST_WAITING: usize = 200;

/// While the history runs.
pub(crate) fn check(process: &Process, budget: u64) -> Option<Finding> {
    let backlog = process.node.backlog();
    if backlog.bytes > budget + ON_THE_WAY {
        return Some(Finding::new(NAME, format!("{} bytes are held, the budget is {budget}", backlog.bytes)));
    }
    (backlog.requests > MOST_WAITING).then(|| Finding::new(NAME, format!("more waits than was asked: {backlog:?}")))
}

/// When nothing is asked any more.
pub(crate) fn check_at_rest(cluster: &Cluster) -> Option<Finding> {
    cluster.processes().find_map(|process| {
        let backlog = process.node.backlog();
        let over = backlog.bytes > cluster.shape.max_bytes;
        (over || backlog.requests > 0 || backlog.changes > 0)
            .then(|| Finding::new(NAME, format!("at rest there is still {backlog:?}")))
    })
}
