//! Messages to protobuf and back.
//!
//! Both directions are total: what cannot be read is an error or, where it is a kind from a newer program, nothing;
//! never a panic. Values are not copied: both forms share the bytes. Deadlines travel as time left, because members'
//! clocks have nothing in common (rule W9).

mod records;
mod table;

use std::sync::Arc;

pub(in crate::io) use self::table::{table_in, table_out};
use mizuya_wire::peer as wire;
use wire::message::Kind;

use crate::logic::{
    clock::Millis,
    cluster::{
        member::{Generation, MemberName},
        memory::Memory,
        message::{Hello, Message, Refusal, Totals},
        table::{Epoch, PartitionEpoch, Version},
    },
    keyspace::Partition,
};

/// Why a message from a peer cannot be used. It is dropped; the stream goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A part that every message of this kind has is not there.
    #[error("a message without its '{0}'")]
    Missing(&'static str),
    /// A number outside its range.
    #[error("'{0}' is {1}, which is out of range")]
    Range(&'static str, u64),
}

/// A message as it goes on the wire at `now`.
pub fn to_wire(message: Message, now: Millis) -> wire::Message {
    let kind = match message {
        Message::Hello(hello) => Kind::Hello(Box::new(hello_out(*hello))),
        Message::Welcome(hello) => Kind::Welcome(Box::new(hello_out(*hello))),
        Message::Refused(Refusal { code, message }) => Kind::Refused(wire::Refusal { code, message }),
        Message::Heartbeat { sent, taken, in_force, totals } => Kind::Heartbeat(Box::new(wire::Heartbeat {
            sent,
            taken: Some(epoch_out(taken)),
            in_force: Some(epoch_out(in_force)),
            totals: Some(totals_out(*totals)),
        })),
        Message::HeartbeatAck { sent, confirms } => Kind::HeartbeatAck(wire::HeartbeatAck { sent, confirms }),
        Message::Prepare(epoch) => Kind::Prepare(epoch_out(epoch)),
        Message::Promise { asked, promised, taken } => Kind::Promise(Box::new(wire::Promise {
            asked: Some(epoch_out(asked)),
            promised: Some(epoch_out(promised)),
            taken: taken.map(|table| table::table_out(&table)),
        })),
        Message::Propose(table) => Kind::Propose(Box::new(table::table_out(&table))),
        Message::Taken { epoch, promised, handed_over } => Kind::Taken(wire::Taken {
            epoch: Some(epoch_out(epoch)),
            promised: Some(epoch_out(promised)),
            handed_over: handed_over_out(handed_over),
        }),
        Message::InForce { table, handed_over } => Kind::InForce(Box::new(wire::InForce {
            table: Some(table::table_out(&table)),
            handed_over: handed_over_out(handed_over),
        })),
        Message::TableWanted => Kind::TableWanted(wire::TableWanted {}),
        Message::Request(change) => Kind::Request(table::change_out(change)),
        Message::Append(append) => Kind::Append(records::append_out(append, now)),
        Message::Chunk(chunk) => Kind::Chunk(records::chunk_out(chunk, now)),
        Message::Digests(digests) => Kind::Digests(records::digests_out(digests)),
        Message::Confirm(confirm) => Kind::Confirm(records::confirm_out(&confirm)),
        Message::Forward(forward) => Kind::Forward(records::forward_out(forward)),
        Message::Forwarded { id, outcome } => Kind::Forwarded(records::forwarded_out(id, outcome)),
        Message::MirrorsEnd { partition, key } => {
            Kind::MirrorsEnd(wire::MirrorsEnd { partition: u32::from(partition.0), key })
        }
    };
    wire::Message { kind: Some(kind) }
}

/// A message that came from the wire at `now`. None: a kind that this program does not know.
pub fn from_wire(message: wire::Message, now: Millis) -> Result<Option<Message>, Malformed> {
    let Some(kind) = message.kind else { return Ok(None) };
    Ok(Some(match kind {
        Kind::Hello(hello) => Message::Hello(Box::new(hello_in(*hello)?)),
        Kind::Welcome(hello) => Message::Welcome(Box::new(hello_in(*hello)?)),
        Kind::Refused(wire::Refusal { code, message }) => Message::Refused(Refusal { code, message }),
        Kind::Heartbeat(beat) => Message::Heartbeat {
            sent: beat.sent,
            taken: epoch_in(need(beat.taken, "taken")?),
            in_force: epoch_in(need(beat.in_force, "in_force")?),
            totals: Box::new(totals_in(beat.totals.unwrap_or_default())),
        },
        Kind::HeartbeatAck(wire::HeartbeatAck { sent, confirms }) => Message::HeartbeatAck { sent, confirms },
        Kind::Prepare(epoch) => Message::Prepare(epoch_in(epoch)),
        Kind::Promise(promise) => Message::Promise {
            asked: epoch_in(need(promise.asked, "asked")?),
            promised: epoch_in(need(promise.promised, "promised")?),
            taken: promise.taken.map(|table| table::table_in(table).map(Arc::new)).transpose()?,
        },
        Kind::Propose(table) => Message::Propose(Arc::new(table::table_in(*table)?)),
        Kind::Taken(taken) => Message::Taken {
            epoch: epoch_in(need(taken.epoch, "epoch")?),
            promised: epoch_in(need(taken.promised, "promised")?),
            handed_over: handed_over_in(taken.handed_over)?,
        },
        Kind::InForce(in_force) => Message::InForce {
            table: Arc::new(table::table_in(need(in_force.table, "table")?)?),
            handed_over: handed_over_in(in_force.handed_over)?,
        },
        Kind::TableWanted(wire::TableWanted {}) => Message::TableWanted,
        Kind::Request(change) => match table::change_in(change)? {
            Some(change) => Message::Request(change),
            None => return Ok(None),
        },
        Kind::Append(append) => Message::Append(records::append_in(append, now)?),
        Kind::Chunk(chunk) => Message::Chunk(records::chunk_in(chunk, now)?),
        Kind::Digests(digests) => Message::Digests(records::digests_in(digests)?),
        Kind::Confirm(confirm) => Message::Confirm(records::confirm_in(confirm)?),
        Kind::Forward(forward) => Message::Forward(records::forward_in(forward)?),
        Kind::Forwarded(forwarded) => match records::forwarded_in(forwarded) {
            Some((id, outcome)) => Message::Forwarded { id, outcome },
            None => return Ok(None),
        },
        Kind::MirrorsEnd(wire::MirrorsEnd { partition, key }) => {
            Message::MirrorsEnd { partition: partition_in(partition)?, key }
        }
    }))
}

fn need<T>(part: Option<T>, name: &'static str) -> Result<T, Malformed> {
    part.ok_or(Malformed::Missing(name))
}

fn small(value: u32, name: &'static str) -> Result<u16, Malformed> {
    u16::try_from(value).map_err(|_| Malformed::Range(name, u64::from(value)))
}

fn partition_in(value: u32) -> Result<Partition, Malformed> {
    small(value, "partition").map(Partition)
}

fn epoch_out(epoch: Epoch) -> wire::Epoch {
    wire::Epoch { counter: epoch.counter, proposer: epoch.proposer }
}

fn epoch_in(epoch: wire::Epoch) -> Epoch {
    Epoch { counter: epoch.counter, proposer: epoch.proposer }
}

fn version_out(version: Version) -> wire::Version {
    wire::Version { epoch: version.epoch.0, sequence: version.sequence }
}

fn version_in(version: wire::Version) -> Version {
    Version { epoch: PartitionEpoch(version.epoch), sequence: version.sequence }
}

fn handed_over_out(list: Vec<(Partition, Version)>) -> Vec<wire::HandedOver> {
    let item = |(partition, version): (Partition, Version)| wire::HandedOver {
        partition: u32::from(partition.0),
        version: Some(version_out(version)),
    };
    list.into_iter().map(item).collect()
}

fn handed_over_in(list: Vec<wire::HandedOver>) -> Result<Vec<(Partition, Version)>, Malformed> {
    let item = |item: wire::HandedOver| Ok((partition_in(item.partition)?, version_in(need(item.version, "version")?)));
    list.into_iter().map(item).collect()
}

fn hello_out(hello: Hello) -> wire::Hello {
    wire::Hello {
        cluster_name: hello.cluster_name,
        name: hello.name.as_str().to_owned(),
        generation: hello.generation.0,
        client_port: u32::from(hello.client_port),
        peer_port: u32::from(hello.peer_port),
        environment: hello.environment,
        default_map: hello.default_map,
        factor: hello.factor,
        partitions: u32::from(hello.partitions),
        zone: hello.zone,
        cluster: hello.table.map(|(cluster, _)| table::cluster_out(cluster)),
        epoch: hello.table.map(|(_, epoch)| epoch_out(epoch)),
        joining: hello.joining,
        protocol: hello.protocol,
        memory: (hello.memory != Memory::default()).then(|| table::memory_out(&hello.memory)),
    }
}

fn hello_in(hello: wire::Hello) -> Result<Hello, Malformed> {
    let table = match hello.cluster {
        None => None,
        Some(cluster) => Some((table::cluster_in(cluster), epoch_in(need(hello.epoch, "epoch")?))),
    };
    Ok(Hello {
        cluster_name: hello.cluster_name,
        name: MemberName::from(hello.name.as_str()),
        generation: Generation(hello.generation),
        client_port: small(hello.client_port, "client_port")?,
        peer_port: small(hello.peer_port, "peer_port")?,
        environment: hello.environment,
        default_map: hello.default_map,
        factor: hello.factor,
        partitions: small(hello.partitions, "partitions")?,
        zone: hello.zone,
        table,
        joining: hello.joining,
        protocol: hello.protocol,
        memory: hello.memory.map(table::memory_in).transpose()?.unwrap_or_default(),
    })
}

fn totals_out(totals: Totals) -> wire::Totals {
    wire::Totals {
        keys: totals.keys,
        backup_keys: totals.backup_keys,
        bytes: totals.bytes,
        max_bytes: totals.max_bytes,
        hits: totals.hits,
        misses: totals.misses,
        evictions: totals.evictions,
        expirations: totals.expirations,
        commands: totals.commands,
        connections: totals.connections,
        lost_partitions: totals.lost_partitions,
        diverged_copies: totals.diverged_copies,
        moved_keys: totals.moved_keys,
        moved_bytes: totals.moved_bytes,
        rejected_callers: totals.rejected_callers,
        stored: totals.stored,
    }
}

fn totals_in(totals: wire::Totals) -> Totals {
    Totals {
        keys: totals.keys,
        backup_keys: totals.backup_keys,
        bytes: totals.bytes,
        max_bytes: totals.max_bytes,
        hits: totals.hits,
        misses: totals.misses,
        evictions: totals.evictions,
        expirations: totals.expirations,
        commands: totals.commands,
        connections: totals.connections,
        lost_partitions: totals.lost_partitions,
        diverged_copies: totals.diverged_copies,
        moved_keys: totals.moved_keys,
        moved_bytes: totals.moved_bytes,
        rejected_callers: totals.rejected_callers,
        stored: totals.stored,
    }
}

#[cfg(test)]
mod tests;
