//! At rest every copy in sync holds what its primary holds: the same keys, values and versions (rule W3).

use mizuya_node::logic::{cluster::message::Record, keyspace::Partition, store::Op};

use super::Finding;
use crate::cluster::Cluster;

pub(crate) const NAME: &str = "copies_are_equal";

/// Records without their deadlines, which differ by the time that they travelled.
fn timeless(records: Vec<Record>) -> Vec<Record> {
    let mut records = records;
    for record in &mut records {
        if let Op::Put { expires, .. } = &mut record.op {
            *expires = None;
        }
    }
    records
}

pub(crate) fn check(cluster: &Cluster) -> Option<Finding> {
    let table = cluster.table()?;
    for (number, assignment) in table.partitions.iter().enumerate() {
        let partition = Partition(number as u16);
        let held = |id| {
            let member = table.member(id)?;
            let process = cluster.processes().find(|process| process.generation == member.generation)?;
            let (last, records) = process.node.holding(partition);
            Some((last, timeless(records)))
        };
        let mut copies = assignment.in_sync();
        let Some(first) = copies.next().and_then(held) else { continue };
        for id in copies {
            let Some(other) = held(id) else { continue };
            if other != first {
                let text = format!("partition {number} differs on {id}: {other:?}, its primary holds {first:?}");
                return Some(Finding::new(NAME, text));
            }
        }
    }
    None
}
