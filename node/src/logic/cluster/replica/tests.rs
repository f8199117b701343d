//! A copy that has entries already: whatever they are, it ends with the primary's, and hears only what differs (rule W3).

use proptest::prelude::*;

use super::*;
use crate::logic::{
    clock::{Clock, Millis},
    cluster::{
        member::{MemberId, MemberName},
        message::{Append, Chunk, Confirm, Digests, Lost, Message},
        table::{Assignment, Copy, Mark},
    },
    node::{Origin, Ticket},
    resp::Reply,
    store::Cause,
};

const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const CLOCK: Clock = Clock { now: Millis(1000), wall: 1_700_000_000_000 };

fn name(id: MemberId) -> MemberName {
    MemberName::from(if id == A { "a" } else { "b" })
}

/// Carries out a table with this assignment.
fn obey(replica: &mut Replica, me: MemberId, assignment: &Assignment, counter: u64) {
    obey_with(replica, me, assignment, counter, 1);
}

fn obey_with(replica: &mut Replica, me: MemberId, assignment: &Assignment, counter: u64, write_quorum: u32) {
    let names = |id: MemberId| Some(name(id));
    let orders = Orders {
        me,
        counter,
        assignment,
        names: &names,
        begin: Begin::Now,
        write_quorum,
        read_quorum: 1,
        complete: false,
    };
    replica.obey(&orders, CLOCK.now, &mut Vec::new());
}

fn put(key: u16, value: &[u8]) -> Op {
    let (map, key) = (Bytes::from_static(b"m"), Bytes::copy_from_slice(&key.to_be_bytes()));
    Op::Put { map, key, value: Bytes::copy_from_slice(value), expires: None }
}

fn commit(replica: &mut Replica, ops: impl IntoIterator<Item = Op>) {
    for op in ops {
        replica.commit([op.change()]);
    }
}

fn remove(key: u16) -> Op {
    Op::Remove { map: Bytes::from_static(b"m"), key: Bytes::copy_from_slice(&key.to_be_bytes()), cause: Cause::Deleted }
}

/// A primary that nobody follows.
fn primary() -> Replica {
    let mut replica = Replica::new(Partition(0), 7);
    let assignment = Assignment {
        epoch: PartitionEpoch(1),
        began: 1,
        copies: vec![Copy { member: A, mark: Mark::InSync, since: 1 }],
        from: None,
    };
    obey(&mut replica, A, &assignment, 1);
    replica
}

/// Lets a copy follow the primary until it is in sync and has heard and confirmed all. `live` is committed meanwhile,
/// one change a round.
fn follow(primary: &mut Replica, copy: &mut Replica, mut live: Vec<Op>) {
    let second = Copy { member: B, mark: Mark::Building, since: 2 };
    let assignment = Assignment {
        epoch: PartitionEpoch(1),
        began: 1,
        copies: vec![Copy { member: A, mark: Mark::InSync, since: 1 }, second],
        from: None,
    };
    obey(primary, A, &assignment, 2);
    obey(copy, B, &assignment, 2);
    for round in 0..10_000 {
        let now = Millis(CLOCK.now.0 + round * 300);
        let claims = primary.tick(now, Duration::from_hours(1), None);
        // In sync is a copy that has what was acknowledged: the last change may be on its way to it.
        if live.is_empty() && !claims.in_sync.is_empty() && claims.wake.is_empty() {
            return;
        }
        if let Some(op) = live.pop() {
            commit(primary, vec![op]);
        }
        for message in
            primary.messages_for(&MemberName::from("b"), 1 << 20, Some(CHUNK_BYTES), Clock { now, ..CLOCK }).messages
        {
            match message {
                Message::Append(append) => copy.append(append).answers,
                Message::Chunk(chunk) => copy.chunk(&chunk),
                Message::Digests(digests) => copy.digests(&digests),
                other => panic!("{other:?}"),
            };
        }
        for message in copy.messages_for(&MemberName::from("a"), 1 << 20, Some(CHUNK_BYTES), CLOCK).messages {
            let Message::Confirm(confirm) = message else { panic!("{message:?}") };
            primary.confirmed(B, &confirm, now, &mut Vec::new());
        }
    }
    panic!("never in sync");
}

/// A copy that has some changes of its primary, and goes out of sync as `mark` says; and the table that says so.
fn demoted(primary: &mut Replica, mark: Mark) -> (Replica, Assignment) {
    let mut copy = Replica::new(Partition(0), 7);
    follow(primary, &mut copy, Vec::new());
    let copies =
        vec![Copy { member: A, mark: Mark::InSync, since: 1 }, Copy { member: B, mark: Mark::InSync, since: 2 }];
    let mut assignment = Assignment { epoch: PartitionEpoch(1), began: 1, copies, from: None };
    obey(&mut copy, B, &assignment, 3);
    assignment.copies[1] = Copy { member: B, mark, since: 4 };
    obey(&mut copy, B, &assignment, 4);
    (copy, assignment)
}

/// The first chunk of a primary that takes a copy for empty.
fn first_chunk(primary: &Replica) -> Chunk {
    let (entries, next) = primary.store.read_from(0, 1);
    Chunk { partition: Partition(0), epoch: PartitionEpoch(1), at: primary.last(), from: 0, next, entries }
}

fn said(copy: &mut Replica) -> Confirm {
    let said = copy.messages_for(&name(A), 1 << 20, Some(CHUNK_BYTES), CLOCK).messages;
    let [Message::Confirm(confirm)] = &said[..] else { panic!("{said:?}") };
    confirm.clone()
}

#[test]
fn while_a_copy_takes_long_to_be_built_only_the_first_writes_wait_for_it() {
    let (mut primary, write, copy) = (primary(), put(1, b"value"), Copy { member: B, mark: Mark::Building, since: 2 });
    let mut assignment = Assignment {
        epoch: PartitionEpoch(1),
        began: 1,
        copies: vec![Copy { member: A, mark: Mark::InSync, since: 1 }, copy],
        from: None,
    };
    obey_with(&mut primary, A, &assignment, 2, 2);
    assert_eq!(primary.refuses_write(CLOCK.now), None);
    let sequence = primary.commit([write.change()]);
    let origin = Origin::Client(Ticket { connection: 1, request: 1, part: 0 });
    assert_eq!(primary.answer_write(&origin, Reply::OK, sequence, CLOCK.now), None);
    let late = CLOCK.now + PATIENCE;
    assert_eq!(primary.refuses_write(Millis(late.0 - 1)), None);
    let Some(Reply::Error(text)) = primary.refuses_write(late) else { panic!("it waits for the copy") };
    assert!(text.starts_with("WRITEQUORUM not executed: ") && text.contains("1 of the 2 copies"), "{text}");
    // Also when nothing waits any more.
    let (later, mut due) = (CLOCK.now + WRITE_TIMEOUT, Vec::new());
    primary.overdue(later, &mut due);
    assert_eq!(due.len(), 1);
    assert!(primary.refuses_write(later).is_some());
    // A silent one comes back by itself.
    assignment.copies[1].mark = Mark::Eligible;
    obey_with(&mut primary, A, &assignment, 3, 2);
    assert_eq!(primary.refuses_write(later), None);
    assignment.copies[1].mark = Mark::InSync;
    obey_with(&mut primary, A, &assignment, 4, 2);
    assert_eq!(primary.refuses_write(later), None);
}

#[test]
fn a_late_word_of_a_copy_that_was_removed_says_nothing_of_the_one_that_was_added_since() {
    let mut primary = Replica::new(Partition(0), 7);
    let mut copy = Replica::new(Partition(0), 7);
    follow(&mut primary, &mut copy, Vec::new());
    let with = |copies: &[Copy]| Assignment { epoch: PartitionEpoch(1), began: 1, copies: copies.to_vec(), from: None };
    let first = Copy { member: A, mark: Mark::InSync, since: 1 };
    let mut append = Append {
        partition: Partition(0),
        epoch: PartitionEpoch(1),
        previous: primary.last(),
        records: Vec::new(),
        stable: 0,
        probe: 0,
        digest: None,
    };
    assert!(copy.append(append.clone()).answers);
    let late = said(&mut copy);
    for replica in [(&mut primary, A), (&mut copy, B)] {
        obey(replica.0, replica.1, &with(&[first]), 3);
        obey(replica.0, replica.1, &with(&[first, Copy { member: B, mark: Mark::Building, since: 4 }]), 4);
    }
    assert_eq!(late.version, primary.last());
    primary.confirmed(B, &late, CLOCK.now, &mut Vec::new());
    let claims = |primary: &mut Replica| primary.tick(CLOCK.now, Duration::from_secs(1), None).in_sync;
    assert!(claims(&mut primary).is_empty());
    // The same word of the new copy would do.
    append.previous = Version::default();
    assert!(copy.append(append).answers);
    let now = Confirm { version: late.version, since: said(&mut copy).since, ..late };
    primary.confirmed(B, &now, CLOCK.now, &mut Vec::new());
    assert_eq!(claims(&mut primary).len(), 1);
}

#[test]
fn a_silent_copy_keeps_what_it_confirmed_and_one_that_was_never_heard_since_it_began_has_nothing() {
    for (heard, why) in [(true, Lost::Unheard), (false, Lost::Unfit)] {
        let mut primary = Replica::new(Partition(0), 7);
        let copies = [A, B].map(|member| Copy { member, mark: Mark::InSync, since: 1 }).to_vec();
        let assignment = Assignment { epoch: PartitionEpoch(1), began: 1, copies, from: None };
        obey(&mut primary, A, &assignment, 1);
        let mut copy = Replica::new(Partition(0), 7);
        obey(&mut copy, B, &assignment, 1);
        let said = primary.messages_for(&name(B), 1 << 20, None, CLOCK).messages;
        let [Message::Append(append)] = &said[..] else { panic!("{said:?}") };
        assert!(copy.append(append.clone()).answers);
        if heard {
            primary.confirmed(B, &self::said(&mut copy), CLOCK.now, &mut Vec::new());
        }
        commit(&mut primary, vec![put(1, b"x")]);
        let timeout = Duration::from_millis(800);
        let claims = primary.tick(CLOCK.now + timeout, timeout, Some(Millis(0)));
        assert_eq!(claims.lost.iter().map(|(_, lost)| *lost).collect::<Vec<_>>(), [why]);
    }
}

#[test]
fn a_copy_that_may_be_promoted_is_not_emptied_to_be_built_anew() {
    for (mark, kept) in [(Mark::Eligible, true), (Mark::Building, false)] {
        let mut primary = primary();
        commit(&mut primary, (0..100).map(|key| put(key, &[1; 400])));
        let (mut copy, _) = demoted(&mut primary, mark);
        let before = all(&copy);
        commit(&mut primary, vec![put(200, b"new")]);
        assert!(copy.chunk(&first_chunk(&primary)));
        assert_eq!(all(&copy) == before, kept, "{mark:?}");
        let confirm = said(&mut copy);
        assert_eq!((confirm.holds, confirm.gap), (kept, kept), "{mark:?}");
    }
}

#[test]
fn a_primary_whose_entries_are_of_more_than_one_moment_is_at_no_version_of_another_member() {
    let mut primary = primary();
    commit(&mut primary, (0..500).map(|key| put(key, &[1; 400])));
    let (mut copy, mut assignment) = demoted(&mut primary, Mark::Eligible);
    commit(&mut primary, (0..500).map(|key| put(key, &[2; 400])));
    let ranges = primary.store.digests(0, RANGE_BYTES, RANGES);
    let (partition, epoch, at) = (Partition(0), PartitionEpoch(1), primary.last());
    assert!(copy.digests(&Digests { partition, epoch, at, from: 0, ranges }));
    assert_eq!((copy.last(), copy.store.len()), (primary.last(), 500));
    // The primary ends: what the copy has is what holds, and its version is nobody else's.
    assignment.epoch = PartitionEpoch(5);
    assignment.copies = vec![Copy { member: B, mark: Mark::InSync, since: 4 }];
    obey(&mut copy, B, &assignment, 5);
    assert!(copy.is_primary());
    assert_eq!(copy.last(), Version { epoch: PartitionEpoch(5), sequence: primary.last().sequence + 1 });
}

fn snapshot(replica: &Replica) -> Kept {
    replica.for_snapshot().expect("it is whole")
}

fn keeper(kept: &Kept, whole: bool) -> Replica {
    let mut replica = Replica::new(Partition(0), 7);
    replica.keep(&kept.entries);
    replica.keep_until(kept.last, None, whole);
    replica
}

fn all(replica: &Replica) -> (Version, Vec<Record>) {
    (replica.last(), replica.store.read_from(0, usize::MAX).0)
}

fn changes() -> impl Strategy<Value = Vec<Op>> {
    let change = prop_oneof![
        6 => (0..300_u16, any::<u8>()).prop_map(|(key, value)| put(key, &[value; 400])),
        3 => (0..300_u16).prop_map(remove),
        1 => Just(Op::Clear { map: None }),
    ];
    prop::collection::vec(change, 0..60)
}

proptest! {
    #[test]
    fn a_copy_with_a_base_ends_with_what_its_primary_has(
        before in changes(),
        after in changes(),
        foreign in changes(),
        live in changes(),
        fill in 0..300_u16,
        whole in any::<bool>(),
    ) {
        let mut primary = primary();
        commit(&mut primary, (0..fill).map(|key| put(key, &[1; 400])));
        commit(&mut primary, before);
        let kept = snapshot(&primary);
        commit(&mut primary, after);
        let mut copy = keeper(&kept, whole);
        if !whole {
            // Entries that were dropped, and others that the primary never had.
            for (number, op) in foreign.iter().enumerate() {
                let version = Version { epoch: PartitionEpoch(0), sequence: number as u64 + 1 };
                copy.store.apply(op, version);
            }
        }
        follow(&mut primary, &mut copy, live);
        prop_assert_eq!(all(&copy), all(&primary));
    }
}

#[test]
fn what_did_not_change_does_not_travel() {
    let mut primary = primary();
    commit(&mut primary, (0..5000).map(|key| put(key, &[1; 200])));
    let kept = snapshot(&primary);
    commit(&mut primary, vec![put(17, b"new"), remove(18)]);
    let mut copy = keeper(&kept, true);
    follow(&mut primary, &mut copy, Vec::new());
    assert_eq!(all(&copy), all(&primary));
    let (entries, bytes) = primary.moved;
    assert!(entries < 200 && bytes < 3 * RANGE_BYTES as u64, "{entries} entries, {bytes} bytes of 5000 travelled");

    let mut empty = Replica::new(Partition(0), 7);
    let mut primary = self::primary();
    commit(&mut primary, (0..5000).map(|key| put(key, &[1; 200])));
    follow(&mut primary, &mut empty, Vec::new());
    assert_eq!(primary.moved.0, 5000);
}

#[test]
fn what_was_half_built_before_the_partition_started_empty_is_void_also_in_a_later_epoch() {
    let mut primary = primary();
    commit(&mut primary, (0..5000).map(|key| put(key, &[1; 200])));
    let mut copy = Replica::new(Partition(0), 7);
    let mut assignment = Assignment {
        epoch: PartitionEpoch(1),
        began: 1,
        copies: vec![
            Copy { member: A, mark: Mark::InSync, since: 1 },
            Copy { member: B, mark: Mark::Building, since: 2 },
        ],
        from: None,
    };
    obey(&mut copy, B, &assignment, 2);
    copy.chunk(&first_chunk(&primary));
    assert!(!copy.store.is_empty());
    // Table 3 let it start empty on a third member and here, and the third one ended before that was in force anywhere.
    assignment.copies = vec![Copy { member: B, mark: Mark::InSync, since: 3 }];
    (assignment.epoch, assignment.began) = (PartitionEpoch(4), 3);
    obey(&mut copy, B, &assignment, 4);
    assert!(copy.is_primary() && copy.store.is_empty());
    assert_eq!(copy.last(), Version { epoch: PartitionEpoch(3), sequence: 0 });
    // What is written from then on stays.
    commit(&mut copy, vec![put(1, b"x")]);
    assignment.epoch = PartitionEpoch(5);
    obey(&mut copy, B, &assignment, 5);
    assert_eq!(copy.store.len(), 1);
}

#[test]
fn what_a_member_leaves_is_final_only_where_it_was_in_sync() {
    let mut leaver = primary();
    commit(&mut leaver, vec![put(1, b"x")]);
    assert_eq!(snapshot(&leaver).final_of, None);
    leaver.retire(A, &mut Vec::new());
    assert_eq!(snapshot(&leaver).final_of, Some(A));
    assert!(!leaver.is_primary());

    let mut building = Replica::new(Partition(0), 7);
    let copies =
        vec![Copy { member: A, mark: Mark::InSync, since: 1 }, Copy { member: B, mark: Mark::Building, since: 2 }];
    let assignment = Assignment { epoch: PartitionEpoch(1), began: 1, copies, from: None };
    obey(&mut building, B, &assignment, 2);
    building.retire(B, &mut Vec::new());
    assert_eq!(building.for_snapshot(), None);
}
