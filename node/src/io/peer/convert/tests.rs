use bytes::Bytes;
use mizuya_wire::quorum::MemberQuorum;
use proptest::{collection::vec, option, prelude::*};
use prost::Message as _;

use super::*;
use crate::logic::{
    cluster::{
        member::{Intent, Member, MemberId, State},
        memory::{Keeps, Kept},
        message::{Append, Change, Chunk, Claim, Confirm, Digests, Forward, Forwarded, Lost, Range, Record},
        table::{Assignment, ClusterId, Copy, Live, Mark, Table},
    },
    store::{Cause, Op},
};

const NOW: Millis = Millis(1_000_000);

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn name() -> impl Strategy<Value = MemberName> {
    "[a-z]{1,8}".prop_map(|name| MemberName::from(name.as_str()))
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<(u64, u64)>().prop_map(|(counter, proposer)| Epoch { counter, proposer })
}

fn version() -> impl Strategy<Value = Version> {
    any::<(u64, u64)>().prop_map(|(epoch, sequence)| Version { epoch: PartitionEpoch(epoch), sequence })
}

fn partition() -> impl Strategy<Value = Partition> {
    any::<u16>().prop_map(Partition)
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        Just(State::Joining),
        Just(State::Active),
        Just(State::Cordoned),
        Just(State::Leaving(Intent::Restart)),
        Just(State::Leaving(Intent::Depart)),
        Just(State::Away),
        Just(State::Down),
    ]
}

fn live() -> impl Strategy<Value = Live> {
    any::<(u64, u32, u32, u32, u32)>().prop_map(|(generation, factor, read_quorum, write_quorum, members)| Live {
        generation,
        factor,
        read_quorum,
        write_quorum,
        member_quorum: MemberQuorum::from_wire(members),
    })
}

fn op() -> impl Strategy<Value = Op> {
    let cause = prop_oneof![Just(Cause::Deleted), Just(Cause::Expired), Just(Cause::Evicted)];
    prop_oneof![
        (bytes(), bytes(), bytes(), option::of(0..u64::from(u32::MAX))).prop_map(|(map, key, value, left)| Op::Put {
            map,
            key,
            value,
            expires: left.map(|left| Millis(NOW.0 + left)),
        }),
        (bytes(), bytes(), cause).prop_map(|(map, key, cause)| Op::Remove { map, key, cause }),
        option::of(bytes()).prop_map(|map| Op::Clear { map }),
    ]
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    vec((version(), op()).prop_map(|(version, op)| Record { version, op }), 0..4)
}

fn hello() -> impl Strategy<Value = Hello> {
    let table = option::of((any::<u128>().prop_map(ClusterId), epoch()));
    (name(), any::<(u64, u16, u16, u32, u16, bool, u32)>(), table, "[a-z]{0,5}", memory()).prop_map(
        |(name, numbers, table, text, memory)| {
            let (generation, client_port, peer_port, factor, partitions, joining, protocol) = numbers;
            Hello {
                cluster_name: text.clone(),
                name,
                generation: Generation(generation),
                client_port,
                peer_port,
                environment: text.clone(),
                default_map: text.clone(),
                factor,
                partitions,
                zone: text,
                table,
                joining,
                protocol,
                memory,
            }
        },
    )
}

fn memory() -> impl Strategy<Value = Memory> {
    let kept = vec((version(), option::of(any::<u32>())), 0..3).prop_map(|kept| {
        let kept = kept.into_iter().enumerate();
        kept.map(|(number, (last, final_of))| Kept {
            partition: Partition(number as u16),
            last,
            final_of: final_of.map(MemberId),
        })
        .collect()
    });
    (option::of(table()), any::<u128>(), kept).prop_map(|(table, cluster, partitions)| Memory {
        table: table.map(std::sync::Arc::new),
        kept: std::sync::Arc::new(Keeps { cluster: ClusterId(cluster), partitions }),
    })
}

fn table() -> impl Strategy<Value = Table> {
    let member = (name(), any::<(u32, u64, u16, u16)>(), state()).prop_map(
        |(name, (id, generation, client_port, peer_port), state)| Member {
            id: MemberId(id),
            name,
            generation: Generation(generation),
            state,
            client_port,
            peer_port,
            zone: "z".into(),
        },
    );
    let mark = prop_oneof![Just(Mark::InSync), Just(Mark::Eligible), Just(Mark::Building)];
    let copy =
        (any::<(u32, u64)>(), mark).prop_map(|((member, since), mark)| Copy { member: MemberId(member), mark, since });
    let assignment = (any::<(u64, u64)>(), vec(copy, 0..4), option::of(any::<u32>()));
    let assignment = assignment.prop_map(|((epoch, began), copies, from)| Assignment {
        epoch: PartitionEpoch(epoch),
        began,
        copies,
        from: from.map(MemberId),
    });
    let numbers = any::<(u128, u64, u32, u32)>();
    (epoch(), live(), numbers, vec(member, 0..4), vec(assignment, 1..6)).prop_map(
        |(epoch, live, numbers, members, partitions)| {
            let (cluster, hash_seed, quorum, next_member) = numbers;
            Table { cluster: ClusterId(cluster), epoch, hash_seed, live, quorum, next_member, members, partitions }
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    let claim = || {
        (partition(), any::<(u64, u32, u64)>()).prop_map(|(partition, (epoch, member, since))| Claim {
            partition,
            epoch: PartitionEpoch(epoch),
            member: MemberId(member),
            since,
        })
    };
    prop_oneof![
        (name(), state()).prop_map(|(name, state)| Change::SetState(name, state)),
        name().prop_map(Change::Forget),
        live().prop_map(Change::Settings),
        claim().prop_map(Change::CopyInSync),
        claim().prop_map(|claim| Change::CopyLost(claim, Lost::Unheard)),
        claim().prop_map(|claim| Change::CopyLost(claim, Lost::Unfit)),
    ]
}

fn control() -> impl Strategy<Value = Message> {
    let handed_over = || vec((partition(), version()), 0..4);
    prop_oneof![
        hello().prop_map(|hello| Message::Hello(Box::new(hello))),
        hello().prop_map(|hello| Message::Welcome(Box::new(hello))),
        any::<(String, String)>().prop_map(|(code, message)| Message::Refused(Refusal { code, message })),
        (any::<(u64, u64)>(), epoch(), epoch()).prop_map(|((sent, keys), taken, in_force)| {
            Message::Heartbeat { sent, taken, in_force, totals: Box::new(Totals { keys, ..Totals::default() }) }
        }),
        any::<(u64, bool)>().prop_map(|(sent, confirms)| Message::HeartbeatAck { sent, confirms }),
        epoch().prop_map(Message::Prepare),
        (epoch(), epoch(), option::of(table().prop_map(Arc::new)))
            .prop_map(|(asked, promised, taken)| Message::Promise { asked, promised, taken }),
        table().prop_map(|table| Message::Propose(Arc::new(table))),
        (epoch(), epoch(), handed_over()).prop_map(|(epoch, promised, handed_over)| Message::Taken {
            epoch,
            promised,
            handed_over
        }),
        (table(), handed_over())
            .prop_map(|(table, handed_over)| Message::InForce { table: Arc::new(table), handed_over }),
        Just(Message::TableWanted),
        change().prop_map(Message::Request),
    ]
}

fn data() -> impl Strategy<Value = Message> {
    let numbers = || (partition(), any::<u64>().prop_map(PartitionEpoch), version());
    let outcome = prop_oneof![
        (bytes(), any::<u64>()).prop_map(|(bytes, mirror)| Forwarded::Reply { bytes, mirror }),
        any::<u64>().prop_map(Forwarded::NotExecuted)
    ];
    prop_oneof![
        (numbers(), records(), any::<(u64, u64, Option<u64>)>()).prop_map(
            |((partition, epoch, previous), records, (stable, probe, digest))| {
                Message::Append(Append { partition, epoch, previous, records, stable, probe, digest })
            }
        ),
        (numbers(), records(), any::<(u64, Option<u64>)>()).prop_map(
            |((partition, epoch, at), entries, (from, next))| {
                Message::Chunk(Chunk { partition, epoch, at, from, next, entries })
            }
        ),
        (numbers(), any::<u64>(), vec(any::<(Option<u64>, u64)>(), 0..4)).prop_map(
            |((partition, epoch, at), from, ranges)| {
                let ranges = ranges.into_iter().map(|(next, digest)| Range { next, digest }).collect();
                Message::Digests(Digests { partition, epoch, at, from, ranges })
            }
        ),
        (numbers(), any::<([bool; 5], u64, u64, Option<u64>)>()).prop_map(|((partition, epoch, version), rest)| {
            let ([gap, refused, pressure, holds, differs], since, probe, needs_from) = rest;
            Message::Confirm(Confirm {
                partition,
                epoch,
                since,
                version,
                gap,
                refused,
                needs_from,
                holds,
                differs,
                probe,
                pressure,
            })
        }),
        (any::<(u64, u64, u8, bool)>(), partition(), vec(bytes(), 1..4)).prop_map(|(numbers, partition, words)| {
            let (id, epoch, hops, mirrors) = numbers;
            Message::Forward(Forward { id, epoch, hops, partition, words, mirrors })
        }),
        (any::<u64>(), outcome).prop_map(|(id, outcome)| Message::Forwarded { id, outcome }),
        (partition(), option::of(bytes())).prop_map(|(partition, key)| Message::MirrorsEnd { partition, key }),
    ]
}

proptest! {
    #[test]
    fn every_message_arrives_as_it_was_sent(message in prop_oneof![control(), data()]) {
        let sent = to_wire(message.clone(), NOW).encode_to_vec();
        let arrived = wire::Message::decode(Bytes::from(sent)).unwrap();
        prop_assert_eq!(from_wire(arrived, NOW), Ok(Some(message)));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(noise in vec(any::<u8>(), 0..300)) {
        if let Ok(frame) = wire::Frame::decode(Bytes::from(noise)) {
            for message in frame.messages {
                let _ = from_wire(message, NOW);
            }
        }
    }

    #[test]
    fn a_message_with_some_bytes_changed_does_not_make_the_reader_panic(
        message in prop_oneof![control(), data()],
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut sent = to_wire(message, NOW).encode_to_vec();
        prop_assume!(!sent.is_empty());
        for (at, byte) in changes {
            let at = at.index(sent.len());
            sent[at] = byte;
        }
        if let Ok(arrived) = wire::Message::decode(Bytes::from(sent)) {
            let _ = from_wire(arrived, NOW);
        }
    }
}

fn put(expires: Option<Millis>) -> Message {
    let key = Bytes::from_static(b"k");
    Message::Chunk(Chunk {
        partition: Partition(0),
        epoch: PartitionEpoch(1),
        at: Version::default(),
        from: 0,
        next: None,
        entries: vec![Record {
            version: Version::default(),
            op: Op::Put { map: key.clone(), key: key.clone(), value: key, expires },
        }],
    })
}

#[test]
fn a_deadline_travels_as_time_left_between_clocks_that_have_nothing_in_common() {
    let sent = to_wire(put(Some(Millis(5_000))), Millis(4_000));
    assert_eq!(from_wire(sent, Millis(77)), Ok(Some(put(Some(Millis(1_077))))));
    let overdue = to_wire(put(Some(Millis(5_000))), Millis(9_000));
    assert_eq!(from_wire(overdue, Millis(77)), Ok(Some(put(Some(Millis(77))))));
}

#[test]
fn a_kind_from_a_newer_program_is_nothing_and_a_broken_one_is_an_error() {
    let newer = wire::Message::decode(&[0xfa, 0x07, 0x02, 0x08, 0x01][..]).unwrap();
    assert_eq!(from_wire(newer, NOW), Ok(None));
    let wide = Kind::Confirm(wire::Confirm {
        partition: 70_000,
        version: Some(wire::Version::default()),
        ..Default::default()
    });
    assert_eq!(from_wire(wire::Message { kind: Some(wide) }, NOW), Err(Malformed::Range("partition", 70_000)));
    let empty = wire::Message { kind: Some(Kind::Heartbeat(Box::default())) };
    assert_eq!(from_wire(empty, NOW), Err(Malformed::Missing("taken")));
}

#[test]
fn a_table_of_an_older_program_tells_when_a_partition_began_by_its_primary() {
    let copies = vec![Copy { member: MemberId(1), mark: Mark::InSync, since: 7 }];
    let assignment =
        |epoch, began| Assignment { epoch: PartitionEpoch(epoch), began, copies: copies.clone(), from: None };
    let table = Table {
        cluster: ClusterId(1),
        epoch: Epoch { counter: 9, proposer: 1 },
        hash_seed: 0,
        live: Live { generation: 1, factor: 1, read_quorum: 1, write_quorum: 1, member_quorum: MemberQuorum::Auto },
        quorum: 1,
        next_member: 2,
        members: Vec::new(),
        partitions: vec![assignment(7, 7), assignment(9, 7)],
    };
    let Some(Kind::Propose(mut sent)) = to_wire(Message::Propose(Arc::new(table.clone())), NOW).kind else {
        panic!("a table")
    };
    sent.partitions.iter_mut().for_each(|assignment| assignment.began = None);
    let read = from_wire(wire::Message { kind: Some(Kind::Propose(sent)) }, NOW);
    let known = Table { partitions: vec![assignment(7, 7), assignment(9, 0)], ..table };
    assert_eq!(read, Ok(Some(Message::Propose(Arc::new(known)))));
}

#[test]
fn values_are_shared_not_copied() {
    let value = Bytes::from(vec![7; 1 << 20]);
    let address = value.as_ptr();
    let forward = Forward { id: 1, epoch: 1, hops: 0, partition: Partition(0), words: vec![value], mirrors: false };
    let Some(Kind::Forward(sent)) = to_wire(Message::Forward(forward), NOW).kind else { panic!("a forward") };
    assert_eq!(sent.words[0].as_ptr(), address);
}
