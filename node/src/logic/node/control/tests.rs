//! When a table may wait.

use mizuya_wire::quorum::MemberQuorum;

use super::*;
use crate::logic::cluster::{
    next_table::first_table,
    table::{Assignment, ClusterId, Mark},
};

/// Three members, two copies in sync of the one partition; W is 2.
fn table() -> Table {
    let member = |number: u32| Member {
        id: MemberId(number),
        name: MemberName::from(format!("node-{number}").as_str()),
        generation: Generation(1),
        state: State::Active,
        client_port: 3320,
        peer_port: 3322,
        zone: String::new(),
    };
    first_table(Table {
        cluster: ClusterId(1),
        epoch: Epoch { counter: 1, proposer: 1 },
        hash_seed: 7,
        live: Live { generation: 1, factor: 2, read_quorum: 1, write_quorum: 2, member_quorum: MemberQuorum::Auto },
        quorum: 2,
        next_member: 3,
        members: (0..3).map(member).collect(),
        partitions: vec![Assignment::default()],
    })
}

#[test]
fn a_table_that_only_carries_a_move_on_waits_and_no_other_one_does() {
    let (table, at) = (table(), Millis(1000));
    let mut control = Control::new(at, false);
    let moves = |member| {
        let (partition, epoch) = (Partition(0), table.partitions[0].epoch);
        let claim = Claim { partition, epoch, member: MemberId(member), since: 1 };
        Wishes { in_sync: [claim].into(), ..Wishes::default() }
    };
    assert!(!control.rests(&table, &moves(2), at), "nothing was proposed yet");
    control.proposed(moves(1), at);
    assert!(control.rests(&table, &moves(2), Millis(at.0 + REST - 1)));
    assert!(!control.rests(&table, &moves(2), Millis(at.0 + REST)));
    let down = Wishes { down: [(MemberName::from("node-2"), Generation(1))].into(), ..moves(2) };
    assert!(!control.rests(&table, &down, at));
    let mut leaving = table.clone();
    leaving.members[2].state = State::Leaving(Intent::Depart);
    assert!(!control.rests(&leaving, &moves(2), at));
    let mut short = table.clone();
    short.partitions[0].copies[1].mark = Mark::Building;
    assert!(!control.rests(&short, &moves(2), at), "writes wait for that copy");
}

#[test]
fn copies_are_urgent_where_there_are_too_few_or_a_member_leaves() {
    let is_urgent = |table: &Table| table.is_urgent(&table.partitions[0]);
    let table = table();
    assert!(!is_urgent(&table));
    let mut short = table.clone();
    short.partitions[0].copies[1].mark = Mark::Building;
    assert!(is_urgent(&short));
    let mut leaving = table.clone();
    leaving.members[1].state = State::Leaving(Intent::Restart);
    assert!(is_urgent(&leaving));
}
