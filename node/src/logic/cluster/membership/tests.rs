use std::collections::BTreeSet;

use mizuya_wire::settings::Environment;
use proptest::{collection::vec, prelude::*};

use super::*;

/// Members that share a network in which every datagram takes a millisecond.
struct World {
    now: Millis,
    members: BTreeMap<&'static str, Membership>,
    on_the_way: Vec<(Millis, &'static str, Destination, Bytes)>,
    cut: BTreeSet<(&'static str, &'static str)>,
    heard: Vec<(&'static str, Change)>,
}

fn setup(name: &'static str, generation: u64, wall: u64, peers: &[&str]) -> Setup {
    Setup {
        name: name.into(),
        generation: Generation(generation),
        port: 3322,
        peers: peers.iter().map(|peer| ((*peer).to_owned(), 3322)).collect(),
        timing: Environment::Lan.timing(),
        wall,
        seed: generation,
    }
}

impl World {
    fn new() -> Self {
        Self { now: Millis(1_000), members: BTreeMap::new(), on_the_way: vec![], cut: BTreeSet::new(), heard: vec![] }
    }

    fn start(&mut self, name: &'static str, generation: u64, wall: u64, peers: &[&str]) {
        self.members.insert(name, Membership::new(setup(name, generation, wall, peers), self.now));
    }

    fn act(&mut self, name: &'static str, what: impl FnOnce(&mut Membership, Millis, &mut Output)) {
        let mut output = Output::default();
        if let Some(member) = self.members.get_mut(name) {
            what(member, self.now, &mut output);
        }
        for (to, data) in output.datagrams {
            assert!(data.len() <= MAX_DATAGRAM);
            self.on_the_way.push((self.now + Duration::from_millis(1), name, to, data));
        }
        self.heard.extend(output.changes.into_iter().map(|change| (name, change)));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(1);
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.on_the_way).into_iter().partition(|d| d.0 <= self.now);
            self.on_the_way = later;
            for (_, from, to, data) in due {
                // A configured peer may be an alias: the part before the dash.
                let host = match &to {
                    Destination::Member(name, _) => name.as_str().to_owned(),
                    Destination::Peer(host, _) => host.trim_end_matches("-alias").to_owned(),
                };
                let Some(name) = self.members.keys().copied().find(|name| *name == host) else { continue };
                if !self.cut.contains(&(from, name)) {
                    self.act(name, |member, now, output| {
                        member.receive(&data, now, output);
                    });
                }
            }
            for name in self.members.keys().copied().collect::<Vec<_>>() {
                if self.members[name].next_deadline() <= self.now {
                    self.act(name, Membership::tick);
                }
            }
        }
    }

    fn seen_by(&self, name: &str) -> Vec<(&str, u64)> {
        self.members[name].members().map(|(name, generation)| (name.as_str(), generation.0)).collect()
    }

    fn when(&mut self, name: &'static str, change: &Change, limit: Duration) -> Duration {
        let start = self.now;
        self.heard.clear();
        while self.now.since(start) < limit.as_millis() as u64 {
            self.run(Duration::from_millis(1));
            if self.heard.contains(&(name, change.clone())) {
                return Duration::from_millis(self.now.since(start));
            }
        }
        panic!("{name} did not hear {change:?} in {limit:?}; heard {:?}", self.heard);
    }
}

fn three() -> World {
    let mut world = World::new();
    world.start("a", 1, 100, &[]);
    world.start("b", 2, 200, &["a"]);
    world.start("c", 3, 300, &["a-alias"]);
    world.run(Duration::from_secs(3));
    world
}

#[test]
fn members_find_each_other_through_one_that_they_know_even_by_another_name() {
    let world = three();
    assert_eq!(world.seen_by("a"), [("b", 2), ("c", 3)]);
    assert_eq!(world.seen_by("b"), [("a", 1), ("c", 3)]);
    assert_eq!(world.seen_by("c"), [("a", 1), ("b", 2)]);
}

#[test]
fn a_silent_member_is_down_after_its_probes_and_the_suspicion() {
    let mut world = three();
    world.members.remove("c");
    let took = world.when("a", &Change::Down("c".into(), Generation(3)), Duration::from_secs(10));
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_member_whose_stream_broke_is_down_when_the_suspicion_ends() {
    let mut world = three();
    world.members.remove("c");
    world.act("a", |member, now, output| member.stream_broke(&"c".into(), now, output));
    let took = world.when("a", &Change::Down("c".into(), Generation(3)), Duration::from_secs(10));
    assert_eq!(took, Duration::from_secs(1));
}

#[test]
fn a_broken_stream_does_not_kill_a_member_that_answers_or_is_reached_again() {
    let mut world = three();
    world.heard.clear();
    world.act("a", |member, now, output| member.stream_broke(&"c".into(), now, output));
    world.run(Duration::from_secs(5));
    assert_eq!(world.heard, []);

    // Datagrams to it are lost, but the stream comes back before the suspicion ends.
    world.cut.insert(("a", "c"));
    world.act("a", |member, now, output| member.stream_broke(&"c".into(), now, output));
    world.run(Duration::from_millis(500));
    world.act("a", |member, _, _| member.stream_works(&"c".into()));
    world.run(Duration::from_millis(700));
    assert_eq!(world.heard, []);
}

#[test]
fn a_member_that_was_taken_for_dead_comes_back_as_the_same_start() {
    let mut world = three();
    world.cut.extend([("a", "c"), ("b", "c"), ("c", "a"), ("c", "b")]);
    world.run(Duration::from_secs(10));
    assert_eq!(world.seen_by("a"), [("b", 2)]);
    assert_eq!(world.seen_by("c"), []);
    world.cut.clear();
    world.run(Duration::from_secs(15));
    for name in ["a", "b"] {
        assert!(world.seen_by(name).contains(&("c", 3)), "{name}: {:?}", world.seen_by(name));
    }
    assert_eq!(world.seen_by("c"), [("a", 1), ("b", 2)]);
}

#[test]
fn a_cluster_that_fell_in_two_becomes_one_again() {
    let mut world = World::new();
    let names = ["a", "b", "c", "d"];
    for (index, name) in names.into_iter().enumerate() {
        world.start(name, index as u64 + 1, 100, &["a"]);
    }
    world.run(Duration::from_secs(3));
    for (one, other) in [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")] {
        world.cut.extend([(one, other), (other, one)]);
    }
    world.run(Duration::from_secs(20));
    assert_eq!(world.seen_by("a"), [("b", 2)]);
    assert_eq!(world.seen_by("d"), [("c", 3)]);
    world.cut.clear();
    world.run(Duration::from_secs(20));
    for name in names {
        assert_eq!(world.seen_by(name).len(), 3, "{name}: {:?}", world.seen_by(name));
    }
}

#[test]
fn a_restart_is_heard_under_the_same_name_whatever_its_clock_says() {
    for wall in [1_000_000_000, 0] {
        let mut world = three();
        world.members.remove("c");
        world.start("c", 77, wall, &["a"]);
        world.when("a", &Change::Up("c".into(), Generation(77)), Duration::from_secs(2));
        world.run(Duration::from_secs(3));
        assert_eq!(world.seen_by("a"), [("b", 2), ("c", 77)]);
        assert_eq!(world.seen_by("b"), [("a", 1), ("c", 77)]);
        assert_eq!(world.seen_by("c"), [("a", 1), ("b", 2)]);
    }
}

#[test]
fn a_restart_with_a_clock_years_behind_is_heard_in_seconds() {
    let mut world = World::new();
    world.start("a", 1, 1_700_000_000_000, &[]);
    world.start("c", 3, 1_700_000_000_000, &["a"]);
    world.run(Duration::from_secs(2));
    world.members.remove("c");
    world.start("c", 4, 0, &["a"]);
    world.when("a", &Change::Up("c".into(), Generation(4)), Duration::from_secs(30));
}

#[test]
fn who_leaves_is_known_to_be_gone_at_once_and_stays_gone() {
    let mut world = three();
    world.act("c", Membership::leave);
    for name in ["a", "b"] {
        world.heard.retain(|(who, _)| *who != name);
    }
    world.run(Duration::from_millis(500));
    assert_eq!(world.seen_by("a"), [("b", 2)]);
    world.run(Duration::from_secs(20));
    assert_eq!(world.seen_by("b"), [("a", 1)]);
}

proptest! {
    #[test]
    fn no_datagram_makes_the_detector_panic(datagrams in vec(vec(any::<u8>(), 0..200), 1..20)) {
        let mut member = Membership::new(setup("a", 1, 1, &["b"]), Millis(0));
        let mut output = Output::default();
        for (index, datagram) in datagrams.iter().enumerate() {
            member.receive(datagram, Millis(index as u64), &mut output);
            member.tick(Millis(index as u64 * 100), &mut output);
        }
    }
}
