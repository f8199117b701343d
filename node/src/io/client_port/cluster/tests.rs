//! A table as clients of Redis Cluster see it.

use super::*;
use crate::logic::cluster::{
    member::{Generation, State},
    table::{Assignment, Copy, Epoch, Live, Mark, PartitionEpoch},
};

fn member(id: u32, name: &str, state: State) -> Member {
    Member {
        id: MemberId(id),
        name: MemberName::from(name),
        generation: Generation(1),
        state,
        client_port: 3320,
        peer_port: 3322,
        zone: String::new(),
    }
}

fn table(copies: &[&[(u32, bool)]]) -> Table {
    let assignment = |copies: &&[(u32, bool)]| Assignment {
        epoch: PartitionEpoch(1),
        began: 1,
        copies: copies
            .iter()
            .map(|(id, in_sync)| {
                let mark = if *in_sync { Mark::InSync } else { Mark::Building };
                Copy { member: MemberId(*id), mark, since: 1 }
            })
            .collect(),
        from: None,
    };
    Table {
        cluster: ClusterId(0xabc),
        epoch: Epoch { counter: 7, proposer: 1 },
        hash_seed: 0,
        live: Live {
            generation: 0,
            factor: 2,
            read_quorum: 1,
            write_quorum: 1,
            member_quorum: mizuya_wire::quorum::MemberQuorum::Auto,
        },
        quorum: 1,
        next_member: 4,
        members: vec![member(1, "x-0", State::Active), member(2, "x-1", State::Active), member(3, "x-2", State::Down)],
        partitions: copies.iter().map(assignment).collect(),
    }
}

#[test]
fn neighbouring_partitions_with_the_same_in_sync_copies_are_one_range() {
    let table = table(&[&[(1, true), (2, true)], &[(1, true), (2, true)], &[(2, true), (1, false)], &[]]);
    let found: Vec<_> =
        in_sync_ranges(&table).into_iter().map(|range| (range.first, range.last, range.copies)).collect();
    let ids = |ids: &[u32]| ids.iter().copied().map(MemberId).collect::<Vec<_>>();
    assert_eq!(found, [(0, 8191, ids(&[1, 2])), (8192, 12_287, ids(&[2]))]);
    assert!(info(Some(&table)).starts_with("cluster_state:fail\r\ncluster_slots_assigned:12288\r\n"));
}

#[test]
fn nodes_have_lasting_ids_and_the_slots_of_their_primaries() {
    let table = table(&[&[(1, true), (2, true)], &[(2, true)], &[(1, true)], &[(1, true), (2, true)]]);
    let id = |name: &str| node_id(table.cluster, &MemberName::from(name));
    assert_eq!(id("x-0").len(), 40);
    assert_ne!(id("x-0"), id("x-1"));
    assert_eq!(
        nodes(&table, &MemberName::from("x-1")),
        format!(
            "{} x-0:3320@3322 master - 0 0 7 connected 0-4095 8192-16383\n\
             {} x-1:3320@3322 myself,master - 0 0 7 connected 4096-8191\n\
             {} x-2:3320@3322 master,fail - 0 0 7 disconnected\n",
            id("x-0"),
            id("x-1"),
            id("x-2")
        )
    );
    assert_eq!(shards(&table).len(), 3);
    assert_eq!(slots(&table).len(), 4);
    assert!(info(Some(&table)).starts_with("cluster_state:ok\r\n"));
}
