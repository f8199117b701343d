//! In one epoch of a partition one start of one member acknowledges and sends changes, and no other.

use std::collections::BTreeMap;

use mizuya_node::logic::cluster::{
    member::Generation,
    table::{ClusterId, PartitionEpoch},
};

use super::Finding;

pub(crate) const NAME: &str = "one_primary_an_epoch";

/// Who spoke as primary.
#[derive(Default)]
pub(crate) struct Speakers {
    seen: BTreeMap<(u128, usize, PartitionEpoch), Generation>,
}

impl Speakers {
    pub(crate) fn speaks(
        &mut self,
        cluster: ClusterId,
        partition: usize,
        epoch: PartitionEpoch,
        start: Generation,
    ) -> Option<Finding> {
        let first = *self.seen.entry((cluster.0, partition, epoch)).or_insert(start);
        (first != start).then(|| {
            let text = format!(
                "starts {:x} and {:x} are both primary of partition {partition} in epoch {}",
                first.0, start.0, epoch.0
            );
            Finding::new(NAME, text)
        })
    }
}
