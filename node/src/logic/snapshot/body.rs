//! Sections as protobuf.

use bytes::Bytes;
use prost::Message;

use super::{Header, Section};
use crate::logic::{
    clock::{Clock, Millis},
    cluster::{
        member::{Generation, MemberId, MemberName},
        message::Record,
        table::{ClusterId, PartitionEpoch, Version},
    },
    keyspace::Partition,
    store::Op,
};

const HEADER: u8 = 1;
const PARTITION: u8 = 2;
const ENTRIES: u8 = 3;
const PARTITION_END: u8 = 4;
const END: u8 = 5;

#[derive(Clone, PartialEq, Message)]
struct HeaderBody {
    #[prost(bytes = "bytes", tag = "1")]
    cluster: Bytes,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(fixed64, tag = "3")]
    generation: u64,
    #[prost(uint64, tag = "4")]
    epoch: u64,
    #[prost(uint32, tag = "5")]
    partitions: u32,
    #[prost(uint64, tag = "6")]
    wall: u64,
}

#[derive(Clone, PartialEq, Message)]
struct PartitionBody {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(uint64, tag = "3")]
    sequence: u64,
    #[prost(uint32, optional, tag = "4")]
    final_of: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct EntriesBody {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<EntryBody>,
}

#[derive(Clone, PartialEq, Message)]
struct EntryBody {
    #[prost(bytes = "bytes", tag = "1")]
    map: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    value: Bytes,
    /// Unix time in milliseconds.
    #[prost(uint64, optional, tag = "4")]
    expires: Option<u64>,
    #[prost(uint64, tag = "5")]
    epoch: u64,
    #[prost(uint64, tag = "6")]
    sequence: u64,
}

#[derive(Clone, PartialEq, Message)]
struct CountBody {
    #[prost(uint64, tag = "1")]
    count: u64,
}

/// What a section says.
pub(super) enum Content {
    Plain(Section),
    /// Entries, some of which may be too old to be taken over, and how many there were in the file.
    Entries(Vec<Record>, u64),
}

/// Kind and body of a section.
pub(super) fn encode(section: &Section, clock: Clock) -> (u8, Vec<u8>) {
    match section {
        Section::Header(header) => {
            let body = HeaderBody {
                cluster: Bytes::copy_from_slice(&header.cluster.0.to_le_bytes()),
                name: header.name.to_string(),
                generation: header.generation.0,
                epoch: header.epoch,
                partitions: header.partitions.into(),
                wall: header.wall,
            };
            (HEADER, body.encode_to_vec())
        }
        Section::Partition { partition, last, final_of } => {
            let body = PartitionBody {
                partition: partition.0.into(),
                epoch: last.epoch.0,
                sequence: last.sequence,
                final_of: final_of.map(|id| id.0),
            };
            (PARTITION, body.encode_to_vec())
        }
        Section::Entries(records) => {
            let entries = records.iter().filter_map(|record| entry(record, clock)).collect();
            (ENTRIES, EntriesBody { entries }.encode_to_vec())
        }
        Section::PartitionEnd { entries } => (PARTITION_END, CountBody { count: *entries }.encode_to_vec()),
        Section::End { partitions } => (END, CountBody { count: (*partitions).into() }.encode_to_vec()),
    }
}

fn entry(record: &Record, clock: Clock) -> Option<EntryBody> {
    let Op::Put { map, key, value, expires } = &record.op else { return None };
    Some(EntryBody {
        map: map.clone(),
        key: key.clone(),
        value: value.clone(),
        expires: expires.map(|at| (clock.wall + at.0).saturating_sub(clock.now.0)),
        epoch: record.version.epoch.0,
        sequence: record.version.sequence,
    })
}

/// The section of a body. `taken` is the wall time in the file's header. None: it is none that this program knows.
pub(super) fn decode(kind: u8, body: Bytes, taken: u64, clock: Clock) -> Option<Content> {
    let section = match kind {
        HEADER => {
            let body = HeaderBody::decode(body).ok()?;
            Section::Header(Header {
                cluster: ClusterId(u128::from_le_bytes(body.cluster.as_ref().try_into().ok()?)),
                name: MemberName::from(body.name.as_str()),
                generation: Generation(body.generation),
                epoch: body.epoch,
                partitions: body.partitions.try_into().ok()?,
                wall: body.wall,
            })
        }
        PARTITION => {
            let body = PartitionBody::decode(body).ok()?;
            Section::Partition {
                partition: Partition(body.partition.try_into().ok()?),
                last: Version { epoch: PartitionEpoch(body.epoch), sequence: body.sequence },
                final_of: body.final_of.map(MemberId),
            }
        }
        ENTRIES => {
            let entries = EntriesBody::decode(body).ok()?.entries;
            let count = entries.len() as u64;
            let records = entries.into_iter().filter_map(|entry| record(entry, taken, clock)).collect();
            return Some(Content::Entries(records, count));
        }
        PARTITION_END => Section::PartitionEnd { entries: CountBody::decode(body).ok()?.count },
        END => Section::End { partitions: CountBody::decode(body).ok()?.count.try_into().ok()? },
        _ => return None,
    };
    Some(Content::Plain(section))
}

/// An entry as it was, unless its time is over, or cannot be told because the wall clock went back (rule W9).
fn record(entry: EntryBody, taken: u64, clock: Clock) -> Option<Record> {
    let expires = match entry.expires {
        None => None,
        Some(_) if clock.wall < taken => return None,
        Some(at) => Some(Millis(clock.now.0 + at.checked_sub(clock.wall)?)),
    };
    let version = Version { epoch: PartitionEpoch(entry.epoch), sequence: entry.sequence };
    Some(Record { version, op: Op::Put { map: entry.map, key: entry.key, value: entry.value, expires } })
}
