//! Once a primary can answer, its predecessors answer no more (rules T2, W7): what they would say may be outdated.

use std::collections::BTreeMap;

use mizuya_node::logic::{
    cluster::table::{ClusterId, PartitionEpoch},
    keyspace::Partition,
};

use super::{Finding, one_primary_an_epoch};
use crate::cluster::{Cluster, PARTITIONS};

pub(crate) const NAME: &str = "predecessor_is_silent";

/// The highest epoch in which each partition has answered.
#[derive(Default)]
pub(crate) struct Answers {
    highest: BTreeMap<(u128, usize), PartitionEpoch>,
}

impl Answers {
    /// A primary of `epoch` executes a command and answers at once.
    pub(crate) fn answers(&mut self, cluster: ClusterId, partition: usize, epoch: PartitionEpoch) -> Option<Finding> {
        let highest = self.highest.entry((cluster.0, partition)).or_insert(epoch);
        let before = std::mem::replace(highest, epoch.max(*highest));
        (epoch < before).then(|| {
            let text = format!("partition {partition} is answered in epoch {} after epoch {}", epoch.0, before.0);
            Finding::new(NAME, text)
        })
    }
}

/// Whether two members would answer for one partition now.
pub(crate) fn check(cluster: &Cluster) -> Option<Finding> {
    (0..PARTITIONS).find_map(|number| {
        let partition = Partition(number);
        let serving = cluster.processes().filter(|process| {
            let now = process.skew.read(cluster.now).now;
            process.node.serves(partition, now)
        });
        let mut servers = serving.filter_map(|process| {
            let routing = process.node.routing();
            let table = routing.table.as_ref()?;
            Some((table.cluster, table.assignment(partition).epoch, process.generation))
        });
        let (first, second) = (servers.next()?, servers.next()?);
        let name = if first.1 == second.1 { one_primary_an_epoch::NAME } else { NAME };
        Some(Finding::new(name, format!("two members would answer for {partition:?}: {first:?} and {second:?}")))
    })
}
