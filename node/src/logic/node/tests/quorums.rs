//! When a write is acknowledged, waits, fails or is refused (rules W2, Q1, Q2), and where buffers end.

use super::*;
use crate::logic::{
    cluster::replica::{MAX_LOG_BYTES, WRITE_TIMEOUT},
    resp::{Protocol, Straight},
};

fn live(factor: u32, write_quorum: u32, read_quorum: u32, member_quorum: MemberQuorum) -> Live {
    Live { generation: 1, factor, read_quorum, write_quorum, member_quorum }
}

impl Net {
    /// A member's process is gone, and the others know it.
    fn kill(&mut self, number: usize) {
        for other in 0..self.nodes.len() {
            if other != number {
                self.cut(number, other);
            }
        }
        let (name, generation) = (self.nodes[number].1.clone(), self.nodes[number].2);
        let suspicion = Environment::Local.timing().suspicion;
        self.pass(suspicion * 2);
        for other in 0..self.nodes.len() {
            self.nodes[other].0.member_down(&name, generation, self.clock, &mut Effects::default());
        }
        self.pass(suspicion);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.clock.now + time;
        while self.clock.now < end {
            self.step();
        }
    }

    /// A command's answer, and after how many milliseconds it came.
    fn timed(&mut self, through: usize, partition: Partition, words: &[&str]) -> (String, u64) {
        let began = self.clock.now;
        let text = match self.call(through, partition, words) {
            Reply::Error(text) => text,
            other => format!("{other:?}"),
        };
        (text, self.clock.now.since(began))
    }

    fn in_sync(&self, number: usize, partition: Partition) -> usize {
        let routing = self.nodes[number].0.routing();
        routing.table.as_ref().map_or(0, |table| table.assignment(partition).in_sync().count())
    }
}

/// Milliseconds of an answer that waits for nobody: a tick or two of these tests.
const SOON: u64 = 60;
const SET: [&str; 3] = ["SET", "key", "value"];

#[test]
fn a_copy_that_cannot_be_reached_delays_a_write_until_a_table_removes_it_and_does_not_fail_it() {
    let timeout = Environment::Local.timing().replica_timeout.as_millis() as u64;
    // With three copies and W = 2 the other one is enough; with two and W = 1 the primary alone is.
    for (factor, write_quorum) in [(2, 1), (3, 2)] {
        let mut net = Net::with(3, live(factor, write_quorum, 1, MemberQuorum::Auto));
        let partition = net.held_by(0, 1);
        assert!(net.timed(0, partition, &SET).1 <= SOON);
        net.cut.insert((0, 1));
        let b = net.nodes[1].1.clone();
        net.nodes[0].0.stream_down(&b, net.clock, &mut Effects::default());
        let (answer, took) = net.timed(0, partition, &SET);
        assert_eq!(answer, format!("{:?}", Reply::OK));
        assert!((timeout..timeout * 2).contains(&took), "{took} ms");
        assert_eq!(net.in_sync(0, partition), factor as usize - 1);
        // From then on nothing waits for it.
        assert!(net.timed(0, partition, &SET).1 <= SOON);
    }
}

#[test]
fn a_write_whose_copies_become_too_few_is_not_acknowledged_and_later_ones_are_refused() {
    let mut net = Net::with(2, live(2, 2, 1, MemberQuorum::Fixed(1)));
    let partition = net.held_by(0, 1);
    assert_eq!(net.set(0, partition), Reply::OK);
    net.cut(0, 1);
    let (answer, took) = net.timed(0, partition, &["SET", "key", "other"]);
    assert!(answer.starts_with("OUTCOMEUNKNOWN "), "{answer}");
    assert_eq!(took, WRITE_TIMEOUT.as_millis() as u64);
    net.kill(1);
    let (answer, took) = net.timed(0, partition, &SET);
    assert!(answer.starts_with("WRITEQUORUM not executed: "), "{answer}");
    assert!(took <= SOON, "{took} ms");
    // Reads with R = 1 go on, and so does what changes nothing on W copies.
    assert_eq!(net.call(0, partition, &["GET", "key"]), Reply::Bulk(Bytes::from_static(b"other")));
}

#[test]
fn a_read_is_refused_when_too_few_copies_are_in_sync() {
    let mut net = Net::with(2, live(2, 1, 2, MemberQuorum::Fixed(1)));
    let partition = net.held_by(0, 1);
    assert_eq!(net.set(0, partition), Reply::OK);
    assert_eq!(net.call(0, partition, &["GET", "key"]), Reply::Bulk(Bytes::from_static(b"value")));
    net.kill(1);
    let (answer, _) = net.timed(0, partition, &["GET", "key"]);
    assert!(answer.starts_with("READQUORUM "), "{answer}");
    assert_eq!(net.set(0, partition), Reply::OK);
}

#[test]
fn a_read_that_asks_copies_is_not_answered_with_what_a_copy_lacks_that_may_be_promoted() {
    let timeout = Environment::Local.timing().replica_timeout;
    let mut net = Net::with(3, live(3, 3, 2, MemberQuorum::Auto));
    let (partition, get) = (net.held_by(0, 1), ["GET", "key"]);
    let found = |value: &'static [u8]| Reply::Bulk(Bytes::from_static(value));
    assert_eq!(net.set(0, partition), Reply::OK);
    net.cut.insert((0, 1));
    let b = net.nodes[1].1.clone();
    net.nodes[0].0.stream_down(&b, net.clock, &mut Effects::default());
    assert_eq!(net.call(0, partition, &get), found(b"value"));
    net.pass(timeout * 2);
    assert_eq!(net.in_sync(0, partition), 2);
    // It is known to have that.
    assert_eq!(net.call(0, partition, &get), found(b"value"));
    let (answer, _) = net.timed(0, partition, &["SET", "key", "other"]);
    assert!(answer.starts_with("OUTCOMEUNKNOWN "), "{answer}");
    let (answer, _) = net.timed(0, partition, &get);
    assert!(answer.starts_with("READQUORUM "), "{answer}");
    // Once the silent one has ended nothing but what was read is left.
    net.kill(1);
    assert_eq!(net.call(0, partition, &get), found(b"other"));
}

#[test]
fn a_primary_that_cannot_reach_its_quorum_answers_nothing_but_that() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(0, 1);
    assert_eq!(net.set(0, partition), Reply::OK);
    net.cut(0, 1);
    net.cut(0, 2);
    net.pass(Environment::Local.timing().lease * 2);
    for words in [&SET[..], &["GET", "key"]] {
        let (answer, _) = net.timed(0, partition, words);
        assert!(answer.starts_with("CLUSTERQUORUM "), "{answer}");
    }
}

#[test]
fn changes_that_a_copy_does_not_confirm_are_kept_within_a_bound_and_then_writes_are_refused() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(0, 1);
    assert_eq!(net.set(0, partition), Reply::OK);
    net.cut.insert((0, 1));
    let b = net.nodes[1].1.clone();
    net.nodes[0].0.stream_down(&b, net.clock, &mut Effects::default());
    let value = Bytes::from(vec![b'v'; 256 << 10]);
    let words = [Bytes::from_static(b"SET"), Bytes::from_static(b"key"), value.clone()];
    let (mut effects, mut taken) = (Effects::default(), 0);
    let refusal = loop {
        let ticket = Ticket { connection: 1, request: taken, part: 0 };
        match net.nodes[0].0.submit(ticket, partition, &words, net.clock, 1, &mut effects) {
            Some(reply) => break reply,
            None => taken += 1,
        }
        assert!(taken as usize * value.len() <= 2 * MAX_LOG_BYTES, "no bound");
    };
    assert!(matches!(&refusal, Reply::Error(text) if text.starts_with("OVERLOADED not executed: ")), "{refusal:?}");
    assert!(taken as usize * value.len() >= MAX_LOG_BYTES, "{taken}");
    // What was taken is acknowledged once the copy is removed, and writes go on.
    while effects.replies.len() < taken as usize {
        assert!(net.clock.now < Millis(60_000), "{:?}", effects.replies.len());
        effects.replies.extend(net.step().replies);
    }
    assert!(effects.replies.iter().all(|(_, reply)| *reply == Reply::OK));
    assert_eq!(net.set(0, partition), Reply::OK);
}

#[test]
fn requests_that_wait_are_kept_within_a_bound_and_then_refused() {
    const MOST: u64 = 65_536;
    let mut net = Net::new(2, MemberQuorum::Fixed(1));
    let partition = net.held_by(1, 0);
    net.cut(0, 1);
    let (mut effects, words) = (Effects::default(), SET.map(|word| Bytes::copy_from_slice(word.as_bytes())));
    for request in 0..=MOST {
        let ticket = Ticket { connection: 1, request, part: 0 };
        assert_eq!(net.nodes[0].0.submit(ticket, partition, &words, net.clock, 1, &mut effects), None);
    }
    let [(ticket, Reply::Error(text))] = &effects.replies[..] else { panic!("{:?}", effects.replies.len()) };
    assert_eq!(ticket.request, MOST);
    assert!(text.starts_with("OVERLOADED not executed: "), "{text}");
}

/// What a list of one key of this partition answers straight at this node.
fn straight(net: &Net, partition: Partition) -> (bool, Bytes) {
    let (node, mut output) = (&net.nodes[0].0, bytes::BytesMut::new());
    let straight = Straight { sink: &mut output, protocol: Protocol::Resp2 };
    let answered = node.read_all(&mut node.turn(net.clock, 1), &[(partition, b"key")], straight);
    (answered, output.freeze())
}

#[test]
fn a_value_goes_straight_to_the_client_only_where_this_member_may_answer_alone() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let (own, other) = (net.held_by(0, 1), net.held_by(1, 0));
    assert_eq!(net.set(0, own), Reply::OK);
    assert_eq!(straight(&net, own), (true, Bytes::from_static(b"*1\r\n$5\r\nvalue\r\n")));
    assert_eq!(straight(&net, other), (false, Bytes::new()));
    // Without a lease nobody does (rule W7).
    net.cut(0, 1);
    net.cut(0, 2);
    net.pass(Environment::Local.timing().lease * 2);
    assert_eq!(straight(&net, own), (false, Bytes::new()));
    // With R > 1 copies are asked first (rule Q1).
    let mut net = Net::with(3, live(3, 2, 2, MemberQuorum::Auto));
    let own = net.held_by(0, 1);
    assert_eq!(net.set(0, own), Reply::OK);
    assert_eq!(straight(&net, own), (false, Bytes::new()));
}
