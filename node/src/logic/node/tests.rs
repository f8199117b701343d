use std::time::Duration;

use bytes::Bytes;
use mizuya_wire::{quorum::MemberQuorum, settings::Environment};

use super::*;

/// Two nodes with streams between them that carry everything at once.
struct Pair {
    nodes: [(Node, MemberName, Generation); 2],
    clock: Clock,
}

impl Pair {
    fn new() -> Self {
        let clock = Clock { now: Millis(1_000), wall: 1_000_000 };
        let name = |number: usize| MemberName::from(["a", "b"][number]);
        let nodes = [0, 1].map(|number| {
            let generation = Generation(7 + number as u64);
            (Node::new(config(name(number), &name(1 - number), generation), clock), name(number), generation)
        });
        let mut pair = Self { nodes, clock };
        for number in [0, 1] {
            let (_, peer, generation) = &pair.nodes[1 - number];
            let node = &pair.nodes[number].0;
            node.member_up(peer, *generation, clock, &mut Effects::default());
            node.stream_up(peer, clock, &mut Effects::default());
        }
        while pair.nodes.iter().any(|(node, ..)| node.ready(pair.clock).is_err()) {
            assert!(pair.clock.now < Millis(60_000), "{:?}", pair.nodes[0].0.ready(pair.clock));
            pair.step();
        }
        pair
    }

    fn step(&mut self) -> Effects {
        let mut effects = Effects::default();
        self.clock.now = self.clock.now + Duration::from_millis(20);
        for (node, ..) in &self.nodes {
            node.tick(self.clock, 1, &mut effects);
        }
        while self.carry(&mut effects) > 0 {}
        effects
    }

    fn carry(&self, effects: &mut Effects) -> usize {
        let mut carried = 0;
        for (from, to) in [(0, 1), (1, 0)] {
            let (sender, name, generation) = &self.nodes[from];
            let (receiver, to, _) = &self.nodes[to];
            for message in sender.take_messages(to, 1 << 20, self.clock) {
                carried += 1;
                receiver.receive(name, *generation, message, self.clock, 1, effects);
            }
        }
        carried
    }
}

fn config(name: MemberName, peer: &MemberName, generation: Generation) -> Config {
    Config {
        identity: Identity {
            cluster_name: "test".to_owned(),
            name,
            generation,
            client_port: 3320,
            peer_port: 3322,
            environment: "local".to_owned(),
            default_map: "map".to_owned(),
            zone: String::new(),
        },
        partitions: 4,
        live: Live { generation: 1, factor: 2, read_quorum: 1, write_quorum: 1, member_quorum: MemberQuorum::Fixed(1) },
        timing: Environment::Local.timing(),
        peers: vec![(peer.to_string(), 3322)],
        max_bytes: 1 << 20,
        bootstrap_timeout: Duration::from_secs(10),
        rejoin_timeout: Duration::from_mins(1),
    }
}

#[test]
fn a_request_never_overtakes_an_earlier_one_of_its_connection_that_waits_for_the_stream() {
    let mut pair = Pair::new();
    let (a, b) = (&pair.nodes[0].0, &pair.nodes[1].1);
    let table = a.routing().table.clone().expect("a table");
    let of_b = |partition: &Partition| {
        table.assignment(*partition).primary().and_then(|id| table.member(id)).is_some_and(|member| member.name == *b)
    };
    let partition = (0..4).map(Partition).find(of_b).expect("b is primary of a partition");
    let (count, mut effects) = (10, Effects::default());
    a.stream_down(b, pair.clock, &mut effects);
    for request in 0..count {
        if request == count / 2 {
            a.stream_up(b, pair.clock, &mut effects);
        }
        let ticket = Ticket { connection: 1, request, part: 0 };
        let words = [Bytes::from_static(b"INCR"), Bytes::from_static(b"key")];
        assert_eq!(a.submit(ticket, partition, &words, pair.clock, 1, &mut effects), None);
    }
    let mut replies = Vec::new();
    while replies.len() < count as usize {
        assert!(pair.clock.now < Millis(60_000), "{replies:?}");
        replies.extend(pair.step().replies);
    }
    replies.sort_by_key(|(ticket, _)| ticket.request);
    let expected: Vec<Reply> = (1..=count as i64).map(Reply::Integer).collect();
    assert_eq!(replies.into_iter().map(|(_, reply)| reply).collect::<Vec<_>>(), expected);
}
