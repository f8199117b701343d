//! A copy that has entries already: whatever they are, it ends with the primary's, and hears only what differs (rule W3).

use proptest::prelude::*;

use super::*;
use crate::logic::{
    clock::{Clock, Millis},
    cluster::{
        member::{MemberId, MemberName},
        message::Message,
        table::{Assignment, Copy},
    },
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
    let names = |id: MemberId| Some(name(id));
    let orders = Orders {
        me,
        counter,
        assignment,
        names: &names,
        begin: Begin::Now,
        write_quorum: 1,
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
    let assignment =
        Assignment { epoch: PartitionEpoch(1), copies: vec![Copy { member: A, in_sync: true, since: 1 }], from: None };
    obey(&mut replica, A, &assignment, 1);
    replica
}

/// Lets a copy follow the primary until it is in sync. `live` is committed meanwhile, one change a round.
fn follow(primary: &mut Replica, copy: &mut Replica, mut live: Vec<Op>) {
    let second = Copy { member: B, in_sync: false, since: 2 };
    let assignment = Assignment {
        epoch: PartitionEpoch(1),
        copies: vec![Copy { member: A, in_sync: true, since: 1 }, second],
        from: None,
    };
    obey(primary, A, &assignment, 2);
    obey(copy, B, &assignment, 2);
    for round in 0..10_000 {
        let now = Millis(CLOCK.now.0 + round * 300);
        let claims = primary.tick(now, Duration::from_hours(1), None);
        if live.is_empty() && !claims.in_sync.is_empty() {
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
fn what_a_member_leaves_is_final_only_where_it_was_in_sync() {
    let mut leaver = primary();
    commit(&mut leaver, vec![put(1, b"x")]);
    assert_eq!(snapshot(&leaver).final_of, None);
    leaver.retire(A, &mut Vec::new());
    assert_eq!(snapshot(&leaver).final_of, Some(A));
    assert!(!leaver.is_primary());

    let mut building = Replica::new(Partition(0), 7);
    let copies = vec![Copy { member: A, in_sync: true, since: 1 }, Copy { member: B, in_sync: false, since: 2 }];
    let assignment = Assignment { epoch: PartitionEpoch(1), copies, from: None };
    obey(&mut building, B, &assignment, 2);
    building.retire(B, &mut Vec::new());
    assert_eq!(building.for_snapshot(), None);
}
