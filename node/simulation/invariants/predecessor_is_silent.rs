//! Once a primary has answered, its predecessors answer no more (rules T2, W7): what they would say may be outdated.

use std::collections::BTreeMap;

use mizuya_node::logic::cluster::table::{ClusterId, PartitionEpoch};

use super::Finding;

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
