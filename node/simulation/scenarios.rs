//! One story each.

use mizuya_node::logic::cluster::member::{Intent, State};
use mizuya_node::logic::cluster::message::Change;

use crate::cluster::{Cluster, PARTITIONS, Shape, name};

const THREE: Shape = Shape { members: 3, factor: 2, read_quorum: 1, write_quorum: 1 };

fn settled(shape: Shape, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(shape, seed);
    cluster.until("a cluster of all members", 10_000, 0, Cluster::is_quiet);
    cluster
}

#[test]
fn three_nodes_form_one_cluster_and_share_the_partitions() {
    let mut cluster = settled(THREE, 1);
    cluster.run(2000, 500);
    cluster.verify();
    assert!(cluster.faults.is_empty(), "{:?}", cluster.faults);
    for number in 0..3 {
        assert!((4..=6).contains(&cluster.primaries(number)), "{}", cluster.primaries(number));
    }
}

#[test]
fn a_joining_node_takes_its_share_and_no_command_fails() {
    let mut cluster = settled(THREE, 2);
    cluster.run(1000, 500);
    cluster.start(3, 4);
    cluster.run(100, 500);
    cluster.until("the fourth member has its share", 30_000, 500, |c| c.is_quiet() && c.primaries(3) >= 3);
    cluster.run(1000, 500);
    cluster.verify();
    assert!(cluster.faults.is_empty(), "{:?}", cluster.faults);
}

#[test]
fn a_departing_node_is_empty_before_it_goes_and_no_command_fails() {
    let mut cluster = settled(THREE, 3);
    cluster.run(1000, 500);
    cluster.ask(0, Change::SetState(name(2), State::Leaving(Intent::Depart)));
    cluster.until("the leaver is empty", 30_000, 500, |c| {
        c.node(2).is_some_and(|node| {
            let progress = node.leave_progress();
            progress.drained && progress.primaries + progress.backups == 0
        })
    });
    cluster.leave(2, Intent::Restart);
    cluster.finish_leave(2);
    cluster.until("the leaver is out", 5000, 500, |c| c.node(2).is_some_and(|node| node.leave_progress().gone));
    cluster.run(200, 0);
    cluster.crash(2);
    cluster.until("two members share everything", 10_000, 500, Cluster::is_quiet);
    cluster.run(500, 500);
    cluster.verify();
    assert!(cluster.faults.is_empty(), "{:?}", cluster.faults);
}

#[test]
fn a_drain_that_is_turned_back_leaves_nothing_cordoned() {
    let mut cluster = settled(THREE, 4);
    cluster.run(500, 500);
    cluster.ask(1, Change::SetState(name(2), State::Leaving(Intent::Depart)));
    cluster.run(300, 500);
    cluster.ask(1, Change::SetState(name(2), State::Active));
    cluster.until("all active again", 20_000, 500, |c| c.is_quiet() && c.primaries(2) >= 4);
    cluster.verify();
    assert!(cluster.faults.is_empty(), "{:?}", cluster.faults);
}

fn restart(cluster: &mut Cluster, number: usize, members: usize) {
    cluster.leave(number, Intent::Restart);
    cluster.until("primaries are handed over", 20_000, 500, |c| {
        c.node(number).is_some_and(|node| node.leave_progress().drained)
    });
    cluster.finish_leave(number);
    cluster.until("it is out", 5000, 500, |c| c.node(number).is_some_and(|node| node.leave_progress().gone));
    cluster.run(200, 0);
    cluster.crash(number);
    cluster.run(700, 500);
    cluster.start(number, members);
    cluster.until("it is whole again", 30_000, 500, |c| c.is_quiet() && c.primaries(number) > 0);
}

#[test]
fn a_rolling_restart_of_every_node_loses_nothing_and_no_command_fails() {
    for (seed, write_quorum) in [(5, 1), (6, 2)] {
        let mut cluster = settled(Shape { write_quorum, ..THREE }, seed);
        cluster.run(500, 500);
        for number in [2, 1, 0] {
            restart(&mut cluster, number, 3);
        }
        cluster.verify();
        assert!(cluster.faults.is_empty(), "{:?}\n{}", cluster.faults, cluster.report());
    }
}

#[test]
fn a_killed_node_loses_no_acknowledged_write() {
    for seed in 10..20 {
        let mut cluster = settled(Shape { write_quorum: 2, ..THREE }, seed);
        cluster.run(1000, 500);
        let victim = (seed % 3) as usize;
        cluster.crash(victim);
        cluster.run(8000, 500);
        cluster.start(victim, 3);
        cluster.until("copies are rebuilt", 30_000, 500, Cluster::is_quiet);
        cluster.verify();
        assert!(cluster.longest_silence < 6000, "{} ms without a write", cluster.longest_silence);
    }
}

#[test]
fn a_cluster_whose_other_voters_all_restarted_goes_on_with_what_the_survivor_has() {
    let mut cluster = settled(THREE, 30);
    cluster.run(500, 200);
    cluster.crash(1);
    cluster.crash(2);
    cluster.run(500, 0);
    cluster.start(1, 3);
    cluster.start(2, 3);
    cluster.until("one cluster again", 30_000, 0, Cluster::is_quiet);
    let partitions: usize = (0..3).map(|number| cluster.primaries(number)).sum();
    assert_eq!(partitions, usize::from(PARTITIONS));
}

#[test]
fn all_nodes_killed_at_once_start_a_new_cluster() {
    let mut cluster = settled(THREE, 31);
    for number in 0..3 {
        cluster.crash(number);
    }
    for number in 0..3 {
        cluster.start(number, 3);
    }
    cluster.until("a new cluster", 30_000, 0, Cluster::is_quiet);
}
