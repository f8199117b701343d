//! Stories of volumes (rules S1, S2): what comes back after all was down, and what never does.

use bytes::Bytes;
use mizuya_node::logic::{
    cluster::{
        member::{Intent, State},
        message::Change,
    },
    keyspace::partition_of,
    node::{Effects, Ticket},
};
use mizuya_wire::{quorum::MemberQuorum, settings::Restore};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    cluster::{Cluster, PARTITIONS, name},
    disk::Disk,
    history::play_with,
    shape::{Class, Shape},
    trace::Trace,
};

/// Histories of every fault that are played with volumes.
const HISTORIES: u64 = 300;

fn with_volumes(class: Class, shape: Shape, seed: u64, restore: Restore) -> Cluster {
    let mut cluster = Cluster::new(class, shape, StdRng::seed_from_u64(seed), Trace::kept());
    cluster.give_volumes(restore);
    cluster.faults.stay_dead = true;
    within(&mut cluster, "a cluster of all members", 20_000, Cluster::is_quiet);
    cluster
}

fn within(cluster: &mut Cluster, what: &str, limit: u64, done: impl Fn(&Cluster) -> bool) {
    assert!(
        cluster.until(limit, done),
        "not within {limit} ms: {what}\n{:?}\n{}",
        cluster.finding,
        cluster.trace.text()
    );
}

fn is_fine(cluster: &mut Cluster, seed: u64) {
    cluster.verify();
    assert!(cluster.finding.is_none(), "SEED {seed} {:?}\n{}", cluster.finding, cluster.trace.text());
}

fn load_for(cluster: &mut Cluster, millis: u64) {
    cluster.load(true);
    cluster.run(millis);
    cluster.load(false);
    cluster.run(1500);
}

/// Everyone is told to end at about the same time, as when all pods are deleted.
fn all_leave(cluster: &mut Cluster) {
    let places = cluster.alive();
    for place in &places {
        let apart = cluster.rng.random_range(0..400);
        cluster.run(apart);
        cluster.leave(*place, Intent::Restart);
    }
    let end = cluster.now + 3000;
    for place in &places {
        let left = end.saturating_sub(cluster.now).max(1);
        cluster.until(left, |c| c.node(*place).is_none_or(|node| node.leave_progress().drained));
        let apart = cluster.rng.random_range(0..300);
        cluster.run(apart);
        cluster.finish_leave(*place);
    }
    for place in &places {
        cluster.until(1000, |c| c.node(*place).is_none_or(|node| node.leave_progress().gone));
        cluster.end_in_order(*place);
    }
    within(cluster, "all have ended", 10_000, |c| c.alive().is_empty());
}

fn all_start(cluster: &mut Cluster, places: impl Iterator<Item = usize>) {
    for place in places {
        let apart = cluster.rng.random_range(0..1500);
        cluster.run(apart);
        cluster.start(place);
    }
    within(cluster, "one cluster again", 60_000, Cluster::is_quiet);
}

fn shape_of(seed: u64) -> Shape {
    let (members, factor, quorum) = match seed % 4 {
        0 => (3, 2, MemberQuorum::Auto),
        1 => (3, 3, MemberQuorum::Auto),
        2 => (3, 1, MemberQuorum::Auto),
        _ => (2, 2, MemberQuorum::Auto),
    };
    Shape { members, factor, member_quorum: quorum, ..Shape::THREE }
}

#[test]
fn all_nodes_down_at_once_come_back_with_all_that_was_acknowledged() {
    for seed in 0..40 {
        let shape = shape_of(seed);
        let mut cluster = with_volumes(Class::Moves, shape, seed, Restore::Strict);
        for _ in 0..2 {
            load_for(&mut cluster, 1500);
            all_leave(&mut cluster);
            all_start(&mut cluster, 0..shape.members);
        }
        load_for(&mut cluster, 500);
        is_fine(&mut cluster, seed);
        assert_eq!(cluster.figures.emptied, 0, "SEED {seed}\n{}", cluster.trace.text());
    }
}

#[test]
fn what_was_deleted_while_a_node_was_away_does_not_come_back_with_it() {
    for seed in 0..24 {
        let shape = shape_of(seed);
        let mut cluster = with_volumes(Class::Moves, shape, seed, Restore::Strict);
        load_for(&mut cluster, 1000);
        let away = (seed % shape.members as u64) as usize;
        leave(&mut cluster, away);
        load_for(&mut cluster, 1500);
        if seed % 3 == 0 {
            // All others end too, and the one with the old snapshot is the first to return.
            all_leave(&mut cluster);
        }
        cluster.start(away);
        cluster.run(700);
        for place in (0..shape.members).filter(|place| *place != away) {
            cluster.start(place);
        }
        within(&mut cluster, "all whole again", 60_000, Cluster::is_quiet);
        load_for(&mut cluster, 500);
        is_fine(&mut cluster, seed);
    }
}

fn leave(cluster: &mut Cluster, place: usize) {
    cluster.leave(place, Intent::Restart);
    within(cluster, "primaries are handed over", 20_000, |c| {
        c.node(place).is_some_and(|node| node.leave_progress().drained)
    });
    cluster.finish_leave(place);
    within(cluster, "it is out", 5000, |c| c.node(place).is_some_and(|node| node.leave_progress().gone));
    cluster.end_in_order(place);
    within(cluster, "it has ended", 5000, |c| c.node(place).is_none());
}

#[test]
fn after_a_power_cut_at_any_write_nothing_old_comes_back() {
    for cut in 1..60 {
        let seed = 100 + cut;
        let shape = shape_of(seed);
        let mut cluster = with_volumes(Class::Beyond, shape, seed, Restore::Strict);
        let before = cluster.disks.writes;
        cluster.disks.power_cut = Some((before + cut, cluster.rng.random_bool(0.5)));
        load_for(&mut cluster, 800);
        periodic(&mut cluster);
        load_for(&mut cluster, 800);
        for _ in 0..3 {
            let places = cluster.alive();
            if places.len() == shape.members {
                all_leave(&mut cluster);
            }
            for place in 0..shape.members {
                cluster.start(place);
                cluster.run(300);
            }
            cluster.until(20_000, Cluster::is_quiet);
        }
        for place in 0..shape.members {
            cluster.start(place);
        }
        within(&mut cluster, "one cluster again", 60_000, Cluster::is_quiet);
        is_fine(&mut cluster, seed);
    }
}

fn periodic(cluster: &mut Cluster) {
    for place in cluster.alive() {
        cluster.begin_snapshot(place, false);
    }
    cluster.run(300);
}

#[test]
fn a_crash_of_all_brings_periodic_snapshots_back_only_when_losses_are_allowed() {
    for (restore, back) in [(Restore::Strict, false), (Restore::Lossy, true)] {
        let mut cluster = with_volumes(Class::Beyond, Shape::THREE, 7, restore);
        fill(&mut cluster, 0..300, "1");
        periodic(&mut cluster);
        fill(&mut cluster, 300..400, "2");
        for place in 0..3 {
            cluster.crash(place);
        }
        all_start(&mut cluster, 0..3);
        let keys = keys(&cluster);
        assert_eq!(keys, if back { 300 } else { 0 }, "{restore:?}\n{}", cluster.trace.text());
    }
}

/// Keys of all primaries.
fn keys(cluster: &Cluster) -> u64 {
    let of = |place: usize| {
        let clock = cluster.clock(place);
        cluster.node(place).and_then(|node| node.status(clock).totals).map_or(0, |totals| totals.keys)
    };
    cluster.alive().into_iter().map(of).sum()
}

fn moved(cluster: &Cluster) -> u64 {
    let of = |place: usize| {
        let clock = cluster.clock(place);
        cluster.node(place).and_then(|node| node.status(clock).totals).map_or(0, |totals| totals.moved_keys)
    };
    cluster.alive().into_iter().map(of).sum()
}

/// Writes keys through node 0, and waits until they are there.
fn fill(cluster: &mut Cluster, numbers: std::ops::Range<u64>, value: &str) {
    for number in numbers {
        let key = Bytes::from(format!("filled:{number}"));
        let words = [Bytes::from_static(b"SET"), key.clone(), Bytes::from(value.repeat(100))];
        let (clock, mut effects) = (cluster.clock(0), Effects::default());
        let ticket = Ticket { connection: 0, request: u64::MAX - number, part: 0 };
        let node = cluster.node(0).expect("node 0 runs");
        node.submit(ticket, partition_of(&key, PARTITIONS), &words, clock, 1, &mut effects);
        cluster.carry_out(0, effects);
        if number % 50 == 0 {
            cluster.run(20);
        }
    }
    cluster.run(1500);
}

#[test]
fn a_node_that_returns_with_its_snapshot_hears_only_what_differs() {
    let sent = |restore: Option<Restore>| {
        let mut cluster = Cluster::seeded(Shape::THREE, 5);
        cluster.faults.stay_dead = true;
        if let Some(restore) = restore {
            cluster.give_volumes(restore);
        }
        within(&mut cluster, "a cluster of all members", 20_000, Cluster::is_quiet);
        fill(&mut cluster, 0..6000, "a");
        leave(&mut cluster, 2);
        fill(&mut cluster, 0..10, "b");
        let before = moved(&cluster);
        cluster.start(2);
        within(&mut cluster, "it is whole again", 60_000, Cluster::is_quiet);
        assert!(cluster.finding.is_none(), "{:?}", cluster.finding);
        assert!(crate::invariants::copies_are_equal::check(&cluster).is_none());
        moved(&cluster) - before
    };
    let (all, difference) = (sent(None), sent(Some(Restore::Strict)));
    println!(
        "entries sent to a node that returns: {all} without a snapshot, {difference} with it; 10 of 6000 had changed"
    );
    assert!(all > 3500, "{all}");
    assert!(difference > 0 && difference < all / 4, "{difference} of {all}");
}

#[test]
fn a_member_that_departed_and_returns_with_its_old_volume_brings_nothing_back() {
    for seed in 0..12 {
        let mut cluster = with_volumes(Class::Moves, Shape::THREE, seed, Restore::Strict);
        load_for(&mut cluster, 1000);
        periodic(&mut cluster);
        let retained: Disk = cluster.disks.places[2].clone();
        cluster.change(2, Change::SetState(name(2), State::Leaving(Intent::Depart)));
        within(&mut cluster, "the leaver is empty", 30_000, |c| c.is_empty(2));
        assert!(cluster.disks.places[2].snapshot.is_none(), "a drained node erases its snapshot");
        cluster.leave(2, Intent::Restart);
        cluster.finish_leave(2);
        within(&mut cluster, "the leaver is out", 5000, |c| c.node(2).is_some_and(|node| node.leave_progress().gone));
        cluster.end_in_order(2);
        within(&mut cluster, "two members share everything", 20_000, Cluster::is_quiet);
        load_for(&mut cluster, 1500);
        // A volume that was not erased after all, as after a crash in that moment.
        if seed % 2 == 0 {
            cluster.disks.places[2] = retained;
        }
        if seed % 4 < 2 {
            all_leave(&mut cluster);
            all_start(&mut cluster, 0..3);
        } else {
            cluster.start(2);
        }
        within(&mut cluster, "three members share everything", 60_000, Cluster::is_quiet);
        load_for(&mut cluster, 500);
        is_fine(&mut cluster, seed);
    }
}

#[test]
fn of_a_damaged_snapshot_nothing_damaged_is_served() {
    for seed in 0..24 {
        let shape = Shape { members: 1, factor: 1, ..Shape::THREE };
        let mut cluster = with_volumes(Class::Beyond, shape, seed, Restore::Strict);
        load_for(&mut cluster, 1500);
        all_leave(&mut cluster);
        let Some(snapshot) = cluster.disks.places[0].snapshot.as_mut() else { continue };
        let (from, length) = (snapshot.len() / 10, snapshot.len() * 9 / 10);
        for _ in 0..3 {
            snapshot[from + cluster.rng.random_range(0..length)] ^= 1 << cluster.rng.random_range(0..8);
        }
        all_start(&mut cluster, 0..1);
        load_for(&mut cluster, 500);
        is_fine(&mut cluster, seed);
    }
}

#[test]
fn the_snapshot_of_another_cluster_is_not_served() {
    let shape = Shape { members: 1, factor: 1, ..Shape::THREE };
    let mut other = with_volumes(Class::Moves, shape, 1, Restore::Strict);
    fill(&mut other, 0..100, "1");
    all_leave(&mut other);
    let mut cluster = with_volumes(Class::Beyond, shape, 2, Restore::Strict);
    all_leave(&mut cluster);
    // The table is its own, and what was the place of its snapshot is not.
    cluster.disks.places[0].snapshot = other.disks.places[0].snapshot.clone();
    assert!(cluster.disks.places[0].snapshot.is_some());
    all_start(&mut cluster, 0..1);
    assert_eq!(keys(&cluster), 0, "{}", cluster.trace.text());
}

/// A member leaves with a final snapshot, the others go on without it and end without one.
fn others_go_on_and_crash(cluster: &mut Cluster, left: usize) {
    leave(cluster, left);
    cluster.load(true);
    cluster.run(400);
    for place in cluster.alive() {
        cluster.crash(place);
    }
    cluster.load(false);
}

#[test]
fn what_was_final_before_others_went_on_does_not_come_back() {
    for seed in 0..12 {
        let mut cluster = with_volumes(Class::Beyond, Shape::THREE, seed, Restore::Strict);
        load_for(&mut cluster, 1000);
        others_go_on_and_crash(&mut cluster, seed as usize % 3);
        all_start(&mut cluster, 0..3);
        is_fine(&mut cluster, seed);
    }
}

#[test]
fn a_table_that_writes_rest_on_is_remembered_however_slow_volumes_are() {
    for seed in 0..12 {
        let mut cluster = with_volumes(Class::Beyond, Shape::THREE, seed, Restore::Strict);
        load_for(&mut cluster, 1000);
        let left = seed as usize % 3;
        cluster.leave(left, Intent::Restart);
        within(&mut cluster, "primaries are handed over", 20_000, |c| {
            c.node(left).is_some_and(|node| node.leave_progress().drained)
        });
        // The table without it takes its time.
        cluster.disks.slowest = 2500;
        cluster.finish_leave(left);
        within(&mut cluster, "it is out", 20_000, |c| c.node(left).is_some_and(|node| node.leave_progress().gone));
        cluster.disks.slowest = 5;
        cluster.end_in_order(left);
        within(&mut cluster, "it has ended", 5000, |c| c.node(left).is_none());
        cluster.load(true);
        cluster.run(300);
        for place in cluster.alive() {
            cluster.crash(place);
        }
        cluster.load(false);
        cluster.disks.slowest = 20;
        all_start(&mut cluster, 0..3);
        is_fine(&mut cluster, seed);
    }
}

#[test]
fn where_losses_are_allowed_the_newest_snapshot_comes_back() {
    for seed in 0..4 {
        let mut cluster = with_volumes(Class::Beyond, Shape::THREE, seed, Restore::Lossy);
        fill(&mut cluster, 0..100, "1");
        periodic(&mut cluster);
        fill(&mut cluster, 100..200, "2");
        // Each partition is on one of these two, and maybe on the third.
        for place in 0..2 {
            cluster.begin_snapshot(place, false);
        }
        cluster.run(300);
        for place in 0..3 {
            cluster.crash(place);
        }
        all_start(&mut cluster, 0..3);
        assert_eq!(keys(&cluster), 200, "SEED {seed}\n{}", cluster.trace.text());
    }
}

#[test]
fn a_partition_whose_only_holder_restarts_waits_for_it() {
    for seed in 0..12 {
        let shape = Shape { factor: 1, ..Shape::THREE };
        let mut cluster = with_volumes(Class::Beyond, shape, seed, Restore::Strict);
        load_for(&mut cluster, 1000);
        // It is not given the time to hand anything over.
        let left = seed as usize % 3;
        cluster.leave(left, Intent::Restart);
        cluster.finish_leave(left);
        within(&mut cluster, "it is out", 5000, |c| c.node(left).is_some_and(|node| node.leave_progress().gone));
        cluster.end_in_order(left);
        within(&mut cluster, "it has ended", 5000, |c| c.node(left).is_none());
        cluster.run(5000);
        cluster.start(left);
        within(&mut cluster, "it is whole again", 30_000, Cluster::is_quiet);
        load_for(&mut cluster, 500);
        is_fine(&mut cluster, seed);
        assert_eq!(cluster.figures.emptied, 0, "SEED {seed}\n{}", cluster.trace.text());
    }
}

/// Histories of every fault, with volumes that are slow at times.
#[test]
fn histories_with_volumes_hold() {
    for seed in 0..HISTORIES {
        let prepare = |cluster: &mut Cluster| {
            cluster.give_volumes(Restore::Strict);
            cluster.disks.slowest = [5, 20, 300][seed as usize % 3];
        };
        let played = play_with(seed, Trace::default(), prepare);
        if let Some(finding) = played.finding {
            let played = play_with(seed, Trace::watching(played.watched), prepare);
            panic!("with volumes, seed {seed}: {finding:?}\n{}", played.trace.text());
        }
    }
}
