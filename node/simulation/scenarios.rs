//! One story each.

use bytes::Bytes;
use mizuya_node::logic::{
    cluster::{
        member::{Generation, Intent, State},
        message::{Change, Message},
        table::Live,
    },
    keyspace::{Partition, partition_of},
    node::{Effects, Ticket},
    resp::Reply,
};
use mizuya_wire::quorum::MemberQuorum;

use crate::cluster::{Cluster, PARTITIONS, name, number};
use crate::queue::{Arrival, Event};
use crate::shape::Shape;

impl Cluster {
    fn settled(shape: Shape, seed: u64) -> Self {
        let mut cluster = Self::seeded(shape, seed);
        cluster.within("a cluster of all members", 10_000, Self::is_quiet);
        cluster
    }

    fn within(&mut self, what: &str, limit: u64, done: impl Fn(&Self) -> bool) {
        assert!(self.until(limit, done), "not within {limit} ms: {what}\n{:?}\n{}", self.finding, self.trace.text());
    }

    /// What was under way on a stream that broke arrives.
    fn deliver(&mut self, from: usize, to: usize, (ends, messages): ((u64, u64), Vec<Message>)) {
        self.later(self.now, Event::At(to, Generation(ends.1), Arrival::Frame(from, 0, ends, messages)));
    }

    fn is_fine(&mut self) {
        self.verify();
        assert!(self.finding.is_none(), "{:?}\n{}", self.finding, self.trace.text());
    }

    fn is_fine_and_refused_nothing(&mut self) {
        self.is_fine();
        assert!(self.clients.refusals.is_empty(), "{:?}\n{}", self.clients.refusals, self.trace.text());
    }
}

#[test]
fn three_nodes_form_one_cluster_and_share_the_partitions() {
    let mut cluster = Cluster::settled(Shape::THREE, 1);
    cluster.load(true);
    cluster.run(2000);
    cluster.is_fine_and_refused_nothing();
    for place in 0..3 {
        assert_eq!(cluster.primaries(place), usize::from(PARTITIONS) / 3);
    }
}

#[test]
fn a_joining_node_takes_its_share_and_no_command_fails() {
    let mut cluster = Cluster::settled(Shape::THREE, 2);
    cluster.load(true);
    cluster.run(1000);
    cluster.expect(3);
    cluster.start(3);
    cluster.run(100);
    cluster.within("the fourth member has its share", 30_000, |c| c.is_quiet() && c.primaries(3) >= 1);
    cluster.run(1000);
    // Until it is a member, the joining node itself can only say so.
    cluster.clients.refusals.retain(|text| !text.starts_with("LOADING"));
    cluster.is_fine_and_refused_nothing();
}

#[test]
fn a_departing_node_is_empty_before_it_goes_and_no_command_fails() {
    let mut cluster = Cluster::settled(Shape::THREE, 3);
    cluster.load(true);
    cluster.run(1000);
    cluster.change(2, Change::SetState(name(2), State::Leaving(Intent::Depart)));
    cluster.within("the leaver is empty", 30_000, |c| c.is_empty(2));
    cluster.load(false);
    cluster.run(500);
    cluster.leave(2, Intent::Restart);
    cluster.finish_leave(2);
    cluster.within("the leaver is out", 5000, |c| c.node(2).is_some_and(|node| node.leave_progress().gone));
    cluster.crash(2);
    cluster.load(true);
    cluster.within("two members share everything", 10_000, Cluster::is_quiet);
    cluster.run(500);
    cluster.is_fine_and_refused_nothing();
}

#[test]
fn a_drain_that_is_turned_back_leaves_nothing_cordoned() {
    let mut cluster = Cluster::settled(Shape::THREE, 4);
    cluster.load(true);
    cluster.run(500);
    cluster.change(2, Change::SetState(name(2), State::Leaving(Intent::Depart)));
    cluster.run(300);
    cluster.change(2, Change::SetState(name(2), State::Active));
    cluster.within("all active again", 20_000, |c| c.is_quiet() && c.primaries(2) == 2);
    cluster.is_fine_and_refused_nothing();
}

/// Copies are built first; the quorums rise when they are there.
#[test]
fn a_higher_factor_and_quorum_refuse_no_command_while_the_copies_are_built() {
    let mut cluster = Cluster::settled(Shape::THREE, 40);
    cluster.load(true);
    cluster.run(500);
    for (generation, factor, quorum) in [(10, 3, 3), (11, 1, 1), (12, 3, 2)] {
        let live = Live { generation, factor, read_quorum: 1, write_quorum: quorum, member_quorum: MemberQuorum::Auto };
        cluster.change(0, Change::Settings(live));
        cluster.within("the settings are in force", 20_000, |c| {
            let table = |place| c.node(place).and_then(|node| node.routing().table.clone());
            (0..3).all(|place| table(place).is_some_and(|table| table.live == live))
        });
        cluster.run(500);
    }
    cluster.is_fine_and_refused_nothing();
}

fn restart(cluster: &mut Cluster, place: usize) {
    cluster.leave(place, Intent::Restart);
    cluster.within("primaries are handed over", 20_000, |c| {
        c.node(place).is_some_and(|node| node.leave_progress().drained)
    });
    // Its clients go elsewhere before it goes.
    cluster.load(false);
    cluster.run(500);
    cluster.finish_leave(place);
    cluster.within("it is out", 5000, |c| c.node(place).is_some_and(|node| node.leave_progress().gone));
    cluster.crash(place);
    cluster.load(true);
    cluster.run(700);
    cluster.start(place);
    cluster.within("it is whole again", 30_000, |c| c.is_quiet() && c.primaries(place) > 0);
}

#[test]
fn a_rolling_restart_of_every_node_loses_nothing_and_no_command_fails() {
    for (seed, write_quorum) in [(5, 1), (6, 2)] {
        let mut cluster = Cluster::settled(Shape { write_quorum, ..Shape::THREE }, seed);
        cluster.load(true);
        cluster.run(500);
        for place in [2, 1, 0] {
            restart(&mut cluster, place);
        }
        cluster.clients.refusals.retain(|text| !text.starts_with("LOADING"));
        cluster.is_fine_and_refused_nothing();
    }
}

#[test]
fn a_killed_node_loses_no_acknowledged_write_and_the_others_soon_answer() {
    for seed in 10..20 {
        let mut cluster = Cluster::settled(Shape { write_quorum: 2, ..Shape::THREE }, seed);
        cluster.load(true);
        cluster.run(1000);
        let victim = (seed % 3) as usize;
        cluster.crash(victim);
        cluster.run(8000);
        cluster.start(victim);
        cluster.within("copies are rebuilt", 30_000, Cluster::is_quiet);
        cluster.is_fine();
        let silence = cluster.figures.longest_unavailable;
        assert!(silence < 6000, "{silence} ms without an answer");
    }
}

#[test]
fn a_cluster_whose_other_voters_all_restarted_goes_on_with_what_the_survivor_has() {
    let mut cluster = Cluster::settled(Shape::THREE, 30);
    cluster.load(true);
    cluster.run(500);
    cluster.load(false);
    cluster.crash(1);
    cluster.crash(2);
    cluster.run(500);
    cluster.start(1);
    cluster.start(2);
    cluster.within("one cluster again", 30_000, Cluster::is_quiet);
    let partitions: usize = (0..3).map(|place| cluster.primaries(place)).sum();
    assert_eq!(partitions, usize::from(PARTITIONS));
}

#[test]
fn a_member_whose_only_other_one_ends_while_it_departs_can_go() {
    let mut cluster = Cluster::settled(Shape { members: 2, factor: 1, ..Shape::THREE }, 32);
    cluster.change(0, Change::SetState(name(1), State::Leaving(Intent::Depart)));
    cluster.within("the leaver is empty", 10_000, |c| c.is_empty(1));
    cluster.crash(0);
    cluster.leave(1, Intent::Restart);
    cluster.finish_leave(1);
    cluster.within("the leaver is out", 5000, |c| c.node(1).is_some_and(|node| node.leave_progress().gone));
}

#[test]
fn all_nodes_killed_at_once_start_a_new_cluster() {
    let mut cluster = Cluster::settled(Shape::THREE, 31);
    for place in 0..3 {
        cluster.crash(place);
    }
    for place in 0..3 {
        cluster.start(place);
    }
    cluster.within("a new cluster", 30_000, Cluster::is_quiet);
}

#[test]
fn a_former_primary_that_hears_of_it_late_is_waited_for() {
    let mut cluster = Cluster::settled(Shape::THREE, 11);
    cluster.load(true);
    cluster.run(500);
    let coordinator = cluster.coordinator().expect("a table has a coordinator");
    let leaver = (coordinator + 1) % 3;
    cluster.network.slow[coordinator][leaver] = 350;
    cluster.change(leaver, Change::SetState(name(leaver), State::Leaving(Intent::Depart)));
    cluster.within("the leaver is empty", 30_000, |c| c.is_empty(leaver));
    cluster.network.slow[coordinator][leaver] = 0;
    cluster.run(1000);
    cluster.load(false);
    cluster.run(1000);
    cluster.is_fine();
}

/// A partition's primary and its copy do not hear each other, so the copy was taken out of sync. Both of them.
fn with_a_copy_out_of_sync(partition: usize, seed: u64) -> (Cluster, usize, usize) {
    let mut cluster = Cluster::settled(Shape { write_quorum: 2, ..Shape::THREE }, seed + partition as u64);
    cluster.load(true);
    cluster.run(1000);
    let (primary, other) = holders(&cluster, partition);
    for (from, to) in [(primary, other), (other, primary)] {
        cluster.network.block(from, to);
    }
    write(&mut cluster, primary, partition);
    cluster.within("the copy is out of sync", 10_000, |c| is_alone(c, partition));
    (cluster, primary, other)
}

fn primary_ends_and_returns(cluster: &mut Cluster, primary: usize, other: usize) {
    cluster.crash(primary);
    for (from, to) in [(primary, other), (other, primary)] {
        cluster.unblock(from, to);
    }
    cluster.run(3000);
    cluster.start(primary);
    cluster.within("copies are rebuilt", 30_000, Cluster::is_quiet);
    cluster.is_fine();
}

#[test]
fn a_copy_that_its_primary_could_not_reach_goes_on_with_all_that_was_acknowledged() {
    for partition in 0..usize::from(PARTITIONS) {
        let (mut cluster, primary, other) = with_a_copy_out_of_sync(partition, 50);
        cluster.run(300);
        primary_ends_and_returns(&mut cluster, primary, other);
        assert_eq!(cluster.figures.emptied, 0, "{}", cluster.trace.text());
        assert!(cluster.figures.eligible_promoted > 0, "{}", cluster.trace.text());
    }
}

#[test]
fn a_copy_that_writes_no_longer_wait_for_is_not_promoted() {
    for partition in 0..usize::from(PARTITIONS) {
        let (mut cluster, primary, other) = with_a_copy_out_of_sync(partition, 60);
        let live =
            Live { generation: 10, factor: 2, read_quorum: 1, write_quorum: 1, member_quorum: MemberQuorum::Auto };
        cluster.change(other, Change::Settings(live));
        cluster.within("the primary alone is enough", 5000, |c| {
            let table = c.node(primary).and_then(|node| node.routing().table.clone());
            table.is_some_and(|table| table.live == live)
        });
        cluster.run(8000);
        primary_ends_and_returns(&mut cluster, primary, other);
        assert!(cluster.figures.emptied > 0, "{}", cluster.trace.text());
    }
}

/// A copy is removed, emptied and added again while a word of its former life is under way.
#[test]
fn a_late_word_of_a_former_copy_makes_no_empty_one_a_successor() {
    let mut cluster = Cluster::settled(Shape { members: 2, ..Shape::THREE }, 70);
    cluster.load(true);
    cluster.run(1000);
    cluster.load(false);
    cluster.run(500);
    let (primary, other) = holders(&cluster, 0);
    cluster.network.block(other, primary);
    let key = write(&mut cluster, primary, 0);
    cluster.run(50);
    let late = cluster.network.withhold(other, primary).expect("a stream");
    cluster.unblock(other, primary);
    cluster.break_stream(other, primary);
    cluster.change(other, Change::SetState(name(other), State::Leaving(Intent::Depart)));
    cluster.within("the leaver is empty", 30_000, |c| c.is_empty(other));
    // Whatever it hears of its new copy takes a while.
    cluster.network.slow[primary][other] = 300;
    cluster.change(other, Change::SetState(name(other), State::Active));
    let copies =
        |c: &Cluster| c.node(primary).map(|node| node.routing().table.clone().expect("one").partitions[0].copies.len());
    cluster.within("a copy is built", 5000, |c| copies(c) == Some(2) && is_alone(c, 0));
    cluster.deliver(other, primary, late);
    cluster.within("it is in sync", 10_000, |c| !is_alone(c, 0));
    cluster.crash(primary);
    cluster.within("it is the primary", 10_000, |c| c.primaries(other) == usize::from(PARTITIONS));
    cluster.run(1000);
    let words = [Bytes::from_static(b"GET"), key];
    assert_eq!(
        execute(&mut cluster, other, 0, &words),
        Some(Reply::Bulk(Bytes::from_static(b"value"))),
        "{}",
        cluster.trace.text()
    );
    cluster.is_fine();
}

/// Has a member execute a write of which no client knows. Returns its key.
fn write(cluster: &mut Cluster, place: usize, partition: usize) -> Bytes {
    let keys = (0..).map(|number| Bytes::from(format!("unknown:{number}")));
    let key = keys.into_iter().find(|key| partition_of(key, PARTITIONS).index() == partition).expect("a key");
    let words = [Bytes::from_static(b"SET"), key.clone(), Bytes::from_static(b"value")];
    execute(cluster, place, partition, &words);
    key
}

fn execute(cluster: &mut Cluster, place: usize, partition: usize, words: &[Bytes]) -> Option<Reply> {
    let (clock, mut effects) = (cluster.clock(place), Effects::default());
    let ticket = Ticket { connection: place as u64, request: u64::MAX, part: 0 };
    let node = cluster.node(place).expect("it runs");
    let reply = node.submit(ticket, Partition(partition as u16), words, clock, 1, &mut effects);
    cluster.carry_out(place, effects);
    reply
}

/// Where a partition's primary and its copy are.
fn holders(cluster: &Cluster, partition: usize) -> (usize, usize) {
    let table = cluster.table().expect("a table");
    let copies = &table.partitions[partition].copies;
    let place = |at: usize| table.member(copies[at].member).map(|member| number(&member.name)).expect("a member");
    (place(0), place(1))
}

/// Whether only the primary of a partition is in sync.
fn is_alone(cluster: &Cluster, partition: usize) -> bool {
    cluster.table().is_some_and(|table| table.partitions[partition].in_sync().count() == 1)
}

#[test]
fn a_joining_node_whose_cluster_ended_joins_the_next_one() {
    for early in (0..1500).step_by(50) {
        joins_the_next_cluster(early);
    }
}

/// Two members end, and begin a new cluster so many milliseconds after the second one is back; a third was joining.
fn joins_the_next_cluster(early: u64) {
    let mut cluster = Cluster::settled(Shape { members: 2, ..Shape::THREE }, 9);
    // The first is taken for dead, and does not know of the third.
    cluster.crash(0);
    cluster.start(0);
    let awake = cluster.now + 5000;
    cluster.pause(0, 5000);
    cluster.leave(1, Intent::Restart);
    cluster.expect(2);
    cluster.start(2);
    cluster.within("the third is joining", 3000, |c| c.node(2).is_some_and(|n| n.routing().table.is_some()));
    cluster.finish_leave(1);
    cluster.within("the second is out", 5000, |c| c.node(1).is_some_and(|node| node.leave_progress().gone));
    cluster.crash(1);
    // The first two begin a new cluster before the third can be sure that the old one has ended.
    cluster.run(awake.saturating_sub(cluster.now + early));
    cluster.start(1);
    cluster.within("one cluster of three", 30_000, |c| c.alive().len() == 3 && c.is_quiet());
    cluster.is_fine();
}
