//! The parts of a node by themselves, on one thread and without network. What the store's work costs with millions of
//! entries, and what an entry takes, is in `store.rs`.
//!
//!     cargo bench --profile ci --workspace --bench parts

#![allow(missing_docs, clippy::unwrap_used)]

use std::{collections::BTreeSet, hint::black_box, sync::Arc};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mizuya_node::{
    io::peer::convert::{from_wire, to_wire},
    logic::{
        clock::Millis,
        cluster::{
            member::{Generation, Member, MemberId, MemberName, State},
            message::{Append, Message, Record},
            next_table::{Known, Wishes, first_table, next_table},
            table::{Assignment, ClusterId, Epoch, Live, PartitionEpoch, Table, Version},
        },
        keyspace::Partition,
        resp::{Limits, RequestParser},
        store::{Op, Store},
    },
};
use mizuya_wire::{peer::Frame, quorum::MemberQuorum};
use prost::Message as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As a client pipelines, and as many changes as a frame of a busy primary carries.
const BATCH: u64 = 64;
/// Entries of a store: as many as one partition of a node with a gigabyte has.
const ENTRIES: u64 = 20_000;
const MEMBERS: u32 = 30;
const PARTITIONS: usize = 1024;

fn key(number: u64) -> Bytes {
    format!("key:{number:012}").into()
}

fn value() -> Bytes {
    Bytes::from(vec![b'v'; 100])
}

fn parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request parser");
    group.throughput(Throughput::Elements(BATCH));
    let get = |number| [&b"*2\r\n$3\r\nGET\r\n$16\r\n"[..], &key(number), b"\r\n"].concat();
    let set = |number| [&b"*3\r\n$3\r\nSET\r\n$16\r\n"[..], &key(number), b"\r\n$100\r\n", &value(), b"\r\n"].concat();
    let batches = [("GET", (0..BATCH).flat_map(get).collect::<Vec<u8>>()), ("SET", (0..BATCH).flat_map(set).collect())];
    for (name, buffer) in batches {
        let mut parser = RequestParser::new(Limits::default());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (mut at, mut found) = (0, 0);
                while let Some((_, end)) = parser.next(black_box(&buffer[at..]), |_| found += 1).unwrap() {
                    at += end;
                }
                found
            });
        });
    }
    group.finish();
}

fn store(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("store");
    let map = Bytes::from_static(b"default");
    let (mut store, mut sequence) = (Store::new(42), 0);
    let mut put = |store: &mut Store, key: &Bytes| {
        sequence += 1;
        let op = Op::Put { map: map.clone(), key: key.clone(), value: value(), expires: None };
        store.apply(&op, Version { epoch: PartitionEpoch(1), sequence });
    };
    let keys: Vec<Bytes> = (0..ENTRIES).map(key).collect();
    for key in &keys {
        put(&mut store, key);
    }
    let mut any = keys.iter().cycle().step_by(7919);
    group.throughput(Throughput::Elements(1));
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            store.get(b"default", &any.next().unwrap()[..], Millis(0)).map(|entry| entry.value().to_bytes().len())
        });
    });
    group.bench_function("set", |bencher| bencher.iter(|| put(&mut store, any.next().unwrap())));
    group.finish();
}

/// A table of members that have everything.
fn table() -> Table {
    let member = |number: u32| Member {
        id: MemberId(number),
        name: MemberName::from(format!("sessions-{number}.sessions-peers.default.svc").as_str()),
        generation: Generation(u64::from(number) + 1),
        state: State::Active,
        client_port: 3320,
        peer_port: 3322,
        zone: String::new(),
    };
    first_table(Table {
        cluster: ClusterId(1),
        epoch: Epoch { counter: 1, proposer: 1 },
        hash_seed: 42,
        live: Live { generation: 1, factor: 2, read_quorum: 1, write_quorum: 1, member_quorum: MemberQuorum::Auto },
        quorum: 1,
        next_member: MEMBERS,
        members: (0..MEMBERS).map(member).collect(),
        partitions: (0..PARTITIONS).map(|_| Assignment::default()).collect(),
    })
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("table of {MEMBERS} members and {PARTITIONS} partitions"));
    group.sample_size(20);
    let table = table();
    let last = table.members.last().map(|last| (last.name.clone(), last.generation));
    let lost = Wishes { down: BTreeSet::from_iter(last), ..Wishes::default() };
    group.bench_function("plan after a loss", |bencher| {
        bencher.iter(|| next_table(black_box(&table), &lost, 2, Known::InForce).unwrap());
    });
    let wire = to_wire(Message::Propose(Arc::new(table.clone())), Millis(0)).encode_to_vec();
    group.bench_function("encode", |bencher| {
        let message = || Message::Propose(Arc::new(table.clone()));
        bencher.iter_batched(message, |message| to_wire(message, Millis(0)).encode_to_vec(), BatchSize::SmallInput);
    });
    group.bench_function("decode", |bencher| {
        let decode = |bytes: &[u8]| from_wire(mizuya_wire::peer::Message::decode(bytes).unwrap(), Millis(0)).unwrap();
        bencher.iter(|| decode(black_box(&wire)));
    });
    group.finish();
}

/// A frame with so many changes of one partition, as a primary sends it to a copy.
fn frame() -> Message {
    let version = |sequence| Version { epoch: PartitionEpoch(1), sequence };
    let record = |number| Record {
        version: version(number + 1),
        op: Op::Put { map: Bytes::from_static(b"default"), key: key(number), value: value(), expires: None },
    };
    Message::Append(Append {
        partition: Partition(7),
        epoch: PartitionEpoch(1),
        previous: version(0),
        records: (0..BATCH).map(record).collect(),
        stable: 0,
        probe: 0,
        digest: None,
    })
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("peer frame of {BATCH} changes"));
    group.throughput(Throughput::Elements(BATCH));
    let out = |message| Frame { messages: vec![to_wire(message, Millis(0))], ..Frame::default() };
    let wire = Bytes::from(out(frame()).encode_to_vec());
    group.bench_function("encode", |bencher| {
        bencher.iter_batched(frame, |message| out(message).encode_to_vec(), BatchSize::SmallInput);
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            let frame = Frame::decode(black_box(wire.clone())).unwrap();
            frame.messages.into_iter().map(|message| from_wire(message, Millis(0)).unwrap()).collect::<Vec<_>>()
        });
    });
    group.finish();
}

criterion_group!(parts, parser, store, tables, frames);
criterion_main!(parts);
