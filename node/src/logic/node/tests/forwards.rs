//! Commands that cannot go to their primary the direct way (rules F2, F3).

use super::*;
use crate::logic::{
    cluster::{
        member::Intent,
        message::{Append, Record},
        table::{PartitionEpoch, Version},
    },
    store::Op,
};

impl Net {
    /// What is said from one to the other no longer arrives.
    fn cut_one_way(&mut self, from: usize, to: usize) -> Effects {
        let mut effects = Effects::default();
        self.cut.insert((from, to));
        self.nodes[from].0.stream_down(&self.nodes[to].1, self.clock, &mut effects);
        effects
    }

    fn mend(&mut self, from: usize, to: usize) {
        self.cut.remove(&(from, to));
        self.nodes[from].0.stream_up(&self.nodes[to].1, self.clock, &mut Effects::default());
    }

    /// A client's command through a node, without waiting for its answer.
    fn submit(&self, through: usize, partition: Partition, request: u64, words: &[&str], effects: &mut Effects) {
        let words: Vec<Bytes> = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let ticket = Ticket { connection: 1, request, part: 0 };
        let reply = self.nodes[through].0.submit(ticket, partition, &words, self.clock, 1, effects);
        effects.replies.extend(reply.map(|reply| (ticket, reply)));
    }

    /// Waits for the answers to `count` commands, the first ones of which are there, and returns all in the order of the
    /// commands.
    fn answers(&mut self, mut replies: Vec<(Ticket, Reply)>, count: u64, within: Duration) -> Vec<Reply> {
        let limit = self.clock.now + within;
        while replies.len() < count as usize {
            assert!(self.clock.now < limit, "{replies:?}");
            replies.extend(self.step().replies);
        }
        replies.sort_by_key(|(ticket, _)| ticket.request);
        replies.into_iter().map(|(_, reply)| reply).collect()
    }
}

/// Repeatable choices.
struct Chance(u64);

impl Chance {
    fn one_in(&mut self, count: u64) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33).is_multiple_of(count)
    }
}

#[test]
fn a_command_whose_primary_cannot_be_reached_goes_through_a_third_member() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(2, 1);
    net.cut_one_way(0, 2);
    let began = net.clock.now;
    assert_eq!(net.set(0, partition), Reply::OK);
    assert_eq!(net.call(0, partition, &["GET", "key"]), Reply::Bulk(Bytes::from_static(b"value")));
    assert!(net.clock.now.since(began) <= 100, "{} ms", net.clock.now.since(began));
}

#[test]
fn a_command_goes_through_a_third_member_once_and_then_waits_for_its_primary() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(2, 1);
    net.cut_one_way(0, 2);
    net.cut_one_way(1, 2);
    let (b, mut forwards, mut effects) = (net.nodes[1].1.clone(), 0, Effects::default());
    net.submit(0, partition, 1, &["SET", "key", "value"], &mut effects);
    for _ in 0..10 {
        net.clock.now = net.clock.now + Duration::from_millis(20);
        net.nodes[0].0.tick(net.clock, 1, &mut effects);
        for message in net.nodes[0].0.take_messages(&b, 1 << 20, net.clock) {
            forwards += usize::from(matches!(message, Message::Forward(_)));
            net.nodes[1].0.receive(&net.nodes[0].1, net.nodes[0].2, message, net.clock, 1, &mut effects);
        }
        net.carry_from(1, 0, &mut effects);
    }
    assert_eq!((forwards, &effects.replies[..]), (1, &[][..]));
    net.mend(0, 2);
    net.mend(1, 2);
    let limit = net.clock.now + Duration::from_secs(1);
    while effects.replies.is_empty() {
        assert!(net.clock.now < limit, "an answer");
        effects = net.step();
    }
    assert!(matches!(&effects.replies[..], [(_, Reply::Simple("OK"))]), "{:?}", effects.replies);
}

#[test]
fn no_request_overtakes_another_of_its_connection_when_the_way_to_the_primary_changes() {
    for seed in 0..40_u64 {
        let mut net = Net::new(3, MemberQuorum::Auto);
        let partition = net.held_by(2, 1);
        let (mut effects, mut random, mut cut) = (Effects::default(), Chance(seed), false);
        let count = 60;
        for request in 0..count {
            if random.one_in(6) {
                if cut {
                    net.mend(0, 2);
                } else {
                    effects.replies.extend(net.cut_one_way(0, 2).replies);
                }
                cut = !cut;
            }
            net.submit(0, partition, request, &["INCR", "key"], &mut effects);
            // Frames take their time, so that requests are under way on both ways at once.
            for (from, to) in net.pairs() {
                if random.one_in(3) {
                    net.carry_from(from, to, &mut effects);
                }
            }
        }
        let replies = net.answers(effects.replies, count, Duration::from_secs(20));
        let numbers: Vec<i64> = replies
            .iter()
            .filter_map(|reply| if let Reply::Integer(number) = reply { Some(*number) } else { None })
            .collect();
        assert!(numbers.is_sorted(), "seed {seed}: {numbers:?}");
        assert!(numbers.len() > count as usize / 2, "seed {seed}: {replies:?}");
    }
}

#[test]
fn a_primary_that_moves_while_commands_are_on_their_way_is_not_felt() {
    for seed in 0..50_u64 {
        let mut net = Net::new(3, MemberQuorum::Auto);
        let partition = net.held_by(2, 1);
        let mut random = Chance(seed);
        let mut effects = Effects::default();
        let count = 200;
        for request in 0..count {
            if request == 10 {
                net.nodes[2].0.begin_leave(Intent::Restart, net.clock);
            }
            // The new primary's own clients ask while what it had sent to the former one comes back to it.
            net.submit(1, partition, request, &["INCR", "key"], &mut effects);
            net.clock.now = net.clock.now + Duration::from_millis(5);
            for (node, ..) in &net.nodes {
                node.tick(net.clock, 1, &mut effects);
            }
            for (from, to) in net.pairs() {
                if random.one_in(2) {
                    net.carry_from(from, to, &mut effects);
                }
            }
        }
        let wanted: Vec<Reply> = (1..=count as i64).map(Reply::Integer).collect();
        assert_eq!(net.answers(effects.replies, count, Duration::from_secs(10)), wanted, "seed {seed}");
    }
}

#[test]
fn messages_for_partitions_that_are_not_there_change_nothing() {
    let net = Net::new(2, MemberQuorum::Auto);
    let (node, ..) = &net.nodes[0];
    let (name, generation) = (&net.nodes[1].1, net.nodes[1].2);
    let (partition, key) = (Partition(PARTITIONS), Bytes::from_static(b"key"));
    let map = node.default_map.clone();
    let op = Op::Put { map, key: key.clone(), value: key.clone(), expires: None };
    let record = Record { version: Version::default(), op };
    let append = Append {
        partition,
        epoch: PartitionEpoch(1),
        previous: Version::default(),
        records: vec![record],
        stable: 0,
        probe: 0,
        digest: None,
    };
    let words = vec![Bytes::from_static(b"GET"), key];
    let forward = Forward { id: 1, epoch: 0, hops: 1, partition, words, mirrors: false };
    let both = [Message::Append(append), Message::Forward(forward)];
    let messages: Vec<Message> = std::iter::repeat_n(both, WORTH_A_LOOK).flatten().collect();
    node.look_ahead_for(&messages);
    let bytes = node.bytes();
    for message in messages {
        node.receive(name, generation, message, net.clock, 1, &mut Effects::default());
    }
    assert_eq!(node.bytes(), bytes);
}
