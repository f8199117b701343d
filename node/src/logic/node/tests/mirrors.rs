//! Mirrors of hot remote keys (rule C4). Two reads make a key hot here, so the second one's answer becomes a mirror.

use super::*;

const LIFE: u64 = 100;

impl Net {
    fn get(&mut self, through: usize, partition: Partition) -> Reply {
        self.call(through, partition, &["GET", "key"])
    }

    /// What a node answers to a read at once.
    fn mirrored(&self, through: usize, partition: Partition) -> Option<Reply> {
        let ticket = Ticket { connection: 9, request: 0, part: 0 };
        let words = [Bytes::from_static(b"GET"), Bytes::from_static(b"key")];
        self.nodes[through].0.submit(ticket, partition, &words, self.clock, 1, &mut Effects::default())
    }

    /// A command whose answer is not waited for.
    fn send(&self, through: usize, partition: Partition, words: &[&str]) {
        let words: Vec<Bytes> = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let ticket = Ticket { connection: 3, request: 0, part: 0 };
        let reply = self.nodes[through].0.submit(ticket, partition, &words, self.clock, 1, &mut Effects::default());
        assert_eq!(reply, None);
    }

    fn deliver(&self) {
        while self.carry(&mut Effects::default()) > 0 {}
    }

    fn later(&mut self, millis: u64) {
        self.clock.now = self.clock.now + Duration::from_millis(millis);
    }
}

fn value(text: &'static str) -> Reply {
    Reply::Bulk(Bytes::from_static(text.as_bytes()))
}

/// The first node reads a hot key of the third. The mirror's forward is sent, answered after `way` milliseconds.
fn mirrored_after(way: u64, set: &[&str]) -> (Net, Partition) {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(2, 1);
    assert_eq!(net.call(2, partition, set), Reply::OK);
    net.send(0, partition, &["GET", "key"]);
    net.deliver();
    assert_eq!(net.nodes[0].0.mirror_hits(), 0);
    net.send(0, partition, &["GET", "key"]);
    net.later(way);
    net.deliver();
    (net, partition)
}

#[test]
fn a_hot_key_is_answered_here_for_as_long_as_a_mirror_lives_from_its_forward_on() {
    let (mut net, partition) = mirrored_after(60, &["SET", "key", "old"]);
    assert_eq!(net.mirrored(0, partition), Some(value("old")));
    net.send(2, partition, &["SET", "key", "new"]);
    net.later(LIFE - 60 - 1);
    assert_eq!(
        net.mirrored(0, partition),
        Some(value("old")),
        "what the primary says of another's write is on its way"
    );
    assert_eq!(net.nodes[0].0.mirror_hits(), 2);
    net.later(1);
    assert_eq!(net.mirrored(0, partition), None);
    net.deliver();
    assert_eq!(net.get(0, partition), value("new"));
}

#[test]
fn the_primary_ends_mirrors_of_what_is_changed_through_another_node() {
    let commands: [&[&str]; 6] = [
        &["SET", "key", "new"],
        &["APPEND", "key", "er"],
        &["DEL", "other", "key"],
        &["MSET", "other", "1", "key", "2"],
        &["EXPIRE", "key", "100"],
        &["FLUSHALL"],
    ];
    for words in commands {
        for through in [1, 2] {
            let (mut net, partition) = mirrored_after(0, &["SET", "key", "old"]);
            assert_eq!(net.mirrored(0, partition), Some(value("old")), "{words:?}");
            net.send(through, partition, words);
            net.deliver();
            let hits = net.nodes[0].0.mirror_hits();
            assert_eq!(net.get(0, partition), net.get(2, partition), "{words:?} through {through}");
            assert_eq!(net.nodes[0].0.mirror_hits(), hits, "{words:?} through {through}");
        }
    }
}

#[test]
fn a_change_of_another_key_leaves_mirrors_as_they_are() {
    let (net, partition) = mirrored_after(0, &["SET", "key", "old"]);
    net.send(2, partition, &["SET", "other", "new"]);
    net.deliver();
    assert_eq!(net.mirrored(0, partition), Some(value("old")));
}

#[test]
fn a_key_that_is_not_hot_or_not_there_is_not_mirrored() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(2, 1);
    assert_eq!(net.set(2, partition), Reply::OK);
    assert_eq!(net.get(0, partition), value("value"));
    net.later(500);
    assert_eq!(net.get(0, partition), value("value"), "one read in each window");
    assert_eq!(net.call(0, partition, &["DEL", "key"]), Reply::Integer(1));
    for _ in 0..5 {
        assert_eq!(net.get(0, partition), Reply::Nil);
    }
    assert_eq!(net.nodes[0].0.mirror_hits(), 0);
}

#[test]
fn a_value_is_not_mirrored_beyond_its_own_time() {
    let (mut net, partition) = mirrored_after(0, &["SET", "key", "value", "PX", "30"]);
    net.later(29);
    assert_eq!(net.mirrored(0, partition), Some(value("value")));
    net.later(1);
    assert_eq!(net.get(0, partition), Reply::Nil);
}

#[test]
fn whatever_else_passes_for_its_key_ends_a_mirror() {
    let commands: [&[&str]; 8] = [
        &["SET", "key", "new"],
        &["DEL", "other", "key"],
        &["MSET", "other", "1", "key", "2"],
        &["EXPIRE", "key", "100"],
        &["GETEX", "key", "PERSIST"],
        &["DM.PUT", "map", "key", "new"],
        &["FLUSHALL"],
        &["STRLEN", "key"],
    ];
    for words in commands {
        let (net, partition) = mirrored_after(0, &["SET", "key", "old"]);
        assert_eq!(net.mirrored(0, partition), Some(value("old")), "{words:?}");
        net.send(0, partition, words);
        assert_eq!(net.mirrored(0, partition), None, "{words:?} is under way");
        net.deliver();
        let expected = net.nodes[2].0.submit(
            Ticket { connection: 5, request: 0, part: 0 },
            partition,
            &[Bytes::from_static(b"GET"), Bytes::from_static(b"key")],
            net.clock,
            1,
            &mut Effects::default(),
        );
        if let Some(found) = net.mirrored(0, partition) {
            assert_eq!(Some(found), expected, "{words:?}: the read behind it made a mirror");
        }
    }
}

#[test]
fn a_command_for_another_key_leaves_a_mirror() {
    let (net, partition) = mirrored_after(0, &["SET", "key", "old"]);
    net.send(0, partition, &["SET", "other", "new"]);
    assert_eq!(net.mirrored(0, partition), Some(value("old")));
}

#[test]
fn an_answer_that_was_under_way_when_a_write_passed_makes_no_mirror() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(2, 1);
    assert_eq!(net.call(2, partition, &["SET", "key", "old"]), Reply::OK);
    for _ in 0..2 {
        net.send(0, partition, &["GET", "key"]);
    }
    net.send(0, partition, &["SET", "key", "new"]);
    net.deliver();
    assert_eq!(net.mirrored(0, partition), None);
    net.deliver();
    assert_eq!(net.mirrored(0, partition), Some(value("new")));
}

#[test]
fn a_read_through_a_node_finds_nothing_older_than_one_before_it() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(2, 1);
    assert_eq!(net.call(2, partition, &["SET", "key", "old"]), Reply::OK);
    net.send(0, partition, &["GET", "key"]);
    net.send(0, partition, &["GET", "key"]);
    net.carry_from(0, 2, &mut Effects::default());
    // Sent before the answer to the other that becomes a mirror, executed after the write.
    net.send(0, partition, &["GET", "key"]);
    assert!(net.carry_from(2, 0, &mut Effects::default()) > 0);
    assert_eq!(net.mirrored(0, partition), Some(value("old")));
    net.send(2, partition, &["SET", "key", "new"]);
    net.deliver();
    assert_eq!(net.mirrored(0, partition), None, "it was sent before the primary spoke of the write");
    net.deliver();
    assert_eq!(net.mirrored(0, partition), Some(value("new")));
}

#[test]
fn a_client_that_waits_for_an_answer_of_the_partition_is_not_answered_by_a_mirror() {
    let (net, partition) = mirrored_after(0, &["SET", "key", "old"]);
    let words = [b"GET".as_slice(), b"key"];
    let command = crate::logic::commands::table::command(&words).expect("a command");
    let ask = |settled| Ask { command, partition, words: &words, spot: None, settled };
    let submit = |settled| {
        let ticket = Ticket { connection: 4, request: 0, part: 0 };
        let turn = &mut net.nodes[0].0.turn(net.clock, 1);
        net.nodes[0].0.submit_in(turn, ticket, ask(settled), None, &mut Effects::default())
    };
    assert_eq!(submit(false), None);
    assert_eq!(submit(true), Some(value("old")));
}

#[test]
fn with_a_read_quorum_above_1_there_are_no_mirrors() {
    let live = Live { generation: 1, factor: 2, read_quorum: 2, write_quorum: 1, member_quorum: MemberQuorum::Auto };
    let mut net = Net::with(3, live);
    let partition = net.held_by(2, 1);
    assert_eq!(net.set(2, partition), Reply::OK);
    for _ in 0..5 {
        assert_eq!(net.get(0, partition), value("value"));
    }
    assert_eq!(net.nodes[0].0.mirror_hits(), 0);
}

#[test]
fn under_another_epoch_of_its_partition_a_mirror_is_not_used() {
    let (net, partition) = mirrored_after(0, &["SET", "key", "old"]);
    let node = &net.nodes[0].0;
    let routing = node.routing();
    let mut table = (**routing.table.as_ref().expect("a table")).clone();
    table.partitions[partition.index()].epoch.0 += 1;
    node.routing.store(Arc::new(Routing { table: Some(Arc::new(table)), ..(*routing).clone() }));
    assert_eq!(net.mirrored(0, partition), None);
    // Nor does the answer to a forward of another epoch make one.
    node.routing.store(routing);
    net.deliver();
    assert_eq!(net.mirrored(0, partition), None);
}
