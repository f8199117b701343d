//! `CLUSTER`: the table in force, in the forms of Redis Cluster. Only in-sync copies are named (rule C5).

use std::fmt::Write;

use bytes::Bytes;
use mizuya_wire::settings::Mode;

use super::{
    here::{help, subcommand},
    session::Session,
};
use crate::{
    io::runtime::Runtime,
    logic::{
        cluster::{
            member::{Member, MemberId, MemberName},
            table::{ClusterId, Table},
        },
        keyspace::{Partition, SLOTS, slot, slots_of},
        resp::Reply,
    },
};

const HELP: &[&str] = &[
    "INFO",
    "    Return information about the cluster.",
    "KEYSLOT <key>",
    "    Return the hash slot for <key>.",
    "MYID",
    "    Return the node id.",
    "NODES",
    "    Return cluster configuration seen by node. Output format:",
    "    <id> <ip:port> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
    "SHARDS",
    "    Return information about slot range mappings and the nodes associated with them.",
    "SLOTS",
    "    Return information about slots range mappings. Each range is made of:",
    "    start, end, master and replicas IP addresses, ports and ids",
];

/// What Redis would call the mode of this node.
pub(super) fn redis_mode(runtime: &Runtime) -> &'static str {
    if runtime.settings().mode == Mode::Ha { "cluster" } else { "standalone" }
}

/// CLUSTER subcommand [argument ...]
pub(super) fn answer(words: &[Bytes], session: &Session) -> Reply {
    let routing = session.runtime().node().routing();
    let table = routing.table.as_deref();
    let own = &session.runtime().identity().name;
    match &subcommand(words)[..] {
        "info" => Reply::Verbatim(info(table)),
        "keyslot" => Reply::Integer(slot(&words[2]).into()),
        "myid" => Reply::text(&node_id(table.map_or(ClusterId(0), |table| table.cluster), own)),
        "nodes" => Reply::Verbatim(table.map(|table| nodes(table, own)).unwrap_or_default()),
        "shards" => Reply::Array(table.map(shards).unwrap_or_default()),
        "slots" => Reply::Array(table.map(slots).unwrap_or_default()),
        _ => help("CLUSTER", HELP),
    }
}

/// 40 hexadecimal digits for a member: the cluster's id, then the 32-bit FNV-1a hash of the name. A pod keeps its id
/// over restarts, and two clusters share none.
fn node_id(cluster: ClusterId, name: &MemberName) -> String {
    let hash =
        name.as_str().bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{:032x}{hash:08x}", cluster.0)
}

/// Slots that follow each other and have the same copies.
struct Range {
    first: u16,
    last: u16,
    /// In sync, the primary first.
    copies: Vec<MemberId>,
}

/// The ranges of all partitions that somebody holds, in order.
fn ranges(table: &Table, copies: impl Fn(Partition) -> Vec<MemberId>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for partition in (0..table.partition_count()).map(Partition) {
        let (slots, copies) = (slots_of(partition, table.partition_count()), copies(partition));
        match ranges.last_mut() {
            _ if slots.is_empty() || copies.is_empty() => {}
            Some(range) if range.last + 1 == slots.start && range.copies == copies => range.last = slots.end - 1,
            _ => ranges.push(Range { first: slots.start, last: slots.end - 1, copies }),
        }
    }
    ranges
}

fn in_sync_ranges(table: &Table) -> Vec<Range> {
    ranges(table, |partition| table.running(table.assignment(partition)).collect())
}

fn slots(table: &Table) -> Vec<Reply> {
    let node = |member: &Member| {
        Reply::Array(vec![
            Reply::text(member.name.as_str()),
            Reply::Integer(member.client_port.into()),
            Reply::text(&node_id(table.cluster, &member.name)),
            Reply::Map(Vec::new()),
        ])
    };
    let row = |range: Range| {
        let nodes = range.copies.iter().filter_map(|id| table.member(*id)).map(node);
        let bounds = [range.first, range.last].map(|slot| Reply::Integer(slot.into()));
        Reply::Array(bounds.into_iter().chain(nodes).collect())
    };
    in_sync_ranges(table).into_iter().map(row).collect()
}

/// A shard is all slots with the same copies in the same order.
fn shards(table: &Table) -> Vec<Reply> {
    let mut shards: Vec<(Vec<MemberId>, Vec<Reply>)> = Vec::new();
    for range in in_sync_ranges(table) {
        let bounds = [range.first, range.last].map(|slot| Reply::Integer(slot.into()));
        match shards.iter_mut().find(|(copies, _)| *copies == range.copies) {
            Some((_, slots)) => slots.extend(bounds),
            None => shards.push((range.copies, bounds.to_vec())),
        }
    }
    let shard = |(copies, slots): (Vec<MemberId>, Vec<Reply>)| {
        let nodes =
            copies.iter().enumerate().filter_map(|(place, id)| Some(shard_node(table, table.member(*id)?, place)));
        let nodes = Reply::Array(nodes.collect());
        Reply::Map(vec![(Reply::text("slots"), Reply::Array(slots)), (Reply::text("nodes"), nodes)])
    };
    shards.into_iter().map(shard).collect()
}

fn shard_node(table: &Table, member: &Member, place: usize) -> Reply {
    let text = |name: &str, value: &str| (Reply::text(name), Reply::text(value));
    let number = |name: &str, value: i64| (Reply::text(name), Reply::Integer(value));
    Reply::Map(vec![
        text("id", &node_id(table.cluster, &member.name)),
        number("port", member.client_port.into()),
        text("ip", member.name.as_str()),
        text("endpoint", member.name.as_str()),
        text("role", if place == 0 { "master" } else { "replica" }),
        number("replication-offset", 0),
        text("health", if member.state.is_live() { "online" } else { "fail" }),
    ])
}

/// Every member is a master of the slots that it is primary of.
fn nodes(table: &Table, own: &MemberName) -> String {
    let runs = |id: &MemberId| table.is_live(*id);
    let primaries = ranges(table, |partition| table.assignment(partition).primary().filter(runs).into_iter().collect());
    let mut text = String::new();
    for member in &table.members {
        let myself = if member.name == *own { "myself," } else { "" };
        let (fail, link) = if member.state.is_live() { ("", "connected") } else { (",fail", "disconnected") };
        let (id, name) = (node_id(table.cluster, &member.name), &member.name);
        let (client, peer, epoch) = (member.client_port, member.peer_port, table.epoch.counter);
        // Writing to a string does not fail.
        let _ = write!(text, "{id} {name}:{client}@{peer} {myself}master{fail} - 0 0 {epoch} {link}");
        for range in primaries.iter().filter(|range| range.copies == [member.id]) {
            let _ = match range {
                Range { first, last, .. } if first == last => write!(text, " {first}"),
                Range { first, last, .. } => write!(text, " {first}-{last}"),
            };
        }
        text.push('\n');
    }
    text
}

fn info(table: Option<&Table>) -> String {
    let assigned: u16 =
        table.map_or(0, |table| in_sync_ranges(table).iter().map(|range| range.last - range.first + 1).sum());
    let state = if assigned == SLOTS { "ok" } else { "fail" };
    let members = table.map_or(0, |table| table.members.len());
    let live = table.map_or(0, |table| table.live().count());
    let epoch = table.map_or(0, |table| table.epoch.counter);
    format!(
        "cluster_state:{state}\r\ncluster_slots_assigned:{assigned}\r\ncluster_slots_ok:{assigned}\r\n\
         cluster_slots_pfail:0\r\ncluster_slots_fail:{}\r\ncluster_known_nodes:{members}\r\ncluster_size:{live}\r\n\
         cluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\ncluster_stats_messages_sent:0\r\n\
         cluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n",
        SLOTS - assigned
    )
}

#[cfg(test)]
mod tests;
