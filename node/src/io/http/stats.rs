//! `/_stats`: the same figures as JSON.

use mizuya_wire::admin::{MemberSummary, StatusReply, TableReply};
use serde_json::{Value, json};

use super::metrics::state_word;

/// Hits, misses, keys, bytes and evictions of this node, the members and who holds what.
pub(super) fn json(status: &StatusReply, table: &TableReply) -> Value {
    let totals = status.totals.unwrap_or_default();
    let name = |index: &u32| table.members.get(*index as usize).cloned().unwrap_or_default();
    let owners: Vec<Value> = table
        .partitions
        .iter()
        .map(|owners| {
            json!({
                "partition": owners.partition,
                "inSync": owners.in_sync.iter().map(name).collect::<Vec<_>>(),
                "syncing": owners.syncing.iter().map(name).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "member": status.member,
        "mode": status.mode,
        "version": status.program_version,
        "ready": status.ready,
        "notReadyBecause": status.not_ready_because,
        "hits": totals.hits,
        "misses": totals.misses,
        "hitRatio": hit_ratio(totals.hits, totals.misses),
        "keys": totals.keys,
        "backupKeys": totals.backup_keys,
        "bytes": totals.bytes,
        "maxBytes": totals.max_bytes,
        "evictions": totals.evictions,
        "expirations": totals.expirations,
        "commands": totals.commands,
        "connections": totals.connections,
        "clusterId": status.cluster_id,
        "epoch": status.epoch,
        "coordinator": status.coordinator,
        "partitionsShortOfCopies": status.partitions_short_of_copies,
        "partitionsUnavailable": status.partitions_unavailable,
        "problems": status.problems.iter().map(|p| json!({"code": p.code, "subject": p.subject, "message": p.message})).collect::<Vec<_>>(),
        "members": status.members.iter().map(member).collect::<Vec<_>>(),
        "table": { "epoch": table.epoch, "partitions": owners },
    })
}

fn member(member: &MemberSummary) -> Value {
    let totals = member.totals.unwrap_or_default();
    json!({
        "name": member.name,
        "state": state_word(member.state),
        "reachable": member.reachable,
        "primaries": member.primaries,
        "backups": member.backups,
        "backupsSyncing": member.backups_syncing,
        "keys": totals.keys,
        "bytes": totals.bytes,
        "hits": totals.hits,
        "misses": totals.misses,
        "evictions": totals.evictions,
    })
}

/// Share of reads that found a value; null before the first read.
pub(super) fn hit_ratio(hits: u64, misses: u64) -> Option<f64> {
    let reads = hits + misses;
    (reads > 0).then(|| hits as f64 / reads as f64)
}

#[cfg(test)]
mod tests {
    use mizuya_wire::admin::{PartitionOwners, Totals};

    use super::*;

    #[test]
    fn owners_are_named_and_the_ratio_is_null_before_the_first_read() {
        let status =
            StatusReply { totals: Some(Totals { hits: 3, misses: 1, ..Totals::default() }), ..StatusReply::default() };
        let table = TableReply {
            epoch: 4,
            members: vec!["a".to_owned(), "b".to_owned()],
            partitions: vec![PartitionOwners { partition: 0, in_sync: vec![1, 0], syncing: vec![9] }],
        };
        let json = json(&status, &table);
        assert_eq!(json["hitRatio"], 0.75);
        assert_eq!(json["table"]["partitions"][0]["inSync"], json!(["b", "a"]));
        assert_eq!(hit_ratio(0, 0), None);
    }
}
