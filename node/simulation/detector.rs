//! Who tells nodes that a member lives or is down: the detector that ships, over lossy datagrams, or an oracle.

use std::ops::Range;

use bytes::Bytes;
use mizuya_node::logic::{
    clock::Clock,
    cluster::{
        member::{Generation, MemberName},
        membership::{Change, Destination, Membership, Output},
    },
    node::{Config, Effects},
};
use rand::RngExt;

use crate::{
    cluster::{Cluster, number},
    network::PLACES,
    queue::{Arrival, Event},
};

impl Cluster {
    pub(crate) fn new_membership(&mut self, config: &Config, clock: Clock) -> Box<Membership> {
        let setup = config.detector(clock.wall, self.rng.random());
        Box::new(Membership::new(setup, clock.now))
    }

    pub(crate) fn tick_membership(&mut self, place: usize) {
        let now = self.now;
        let mut output = Output::default();
        let Some(process) = self.process_mut(place) else { return };
        let clock = process.skew.read(now);
        let Some(membership) = &mut process.membership else { return };
        if membership.next_deadline() <= clock.now {
            membership.tick(clock.now, &mut output);
            self.detected(place, output);
        }
    }

    pub(crate) fn datagram(&mut self, place: usize, bytes: &Bytes) {
        let now = self.now;
        let mut output = Output::default();
        let Some(process) = self.process_mut(place) else { return };
        let clock = process.skew.read(now);
        let Some(membership) = &mut process.membership else { return };
        membership.receive(bytes, clock.now, &mut output);
        self.detected(place, output);
    }

    /// A stream of a node broke or works again.
    pub(crate) fn stream_news(&mut self, place: usize, peer: &MemberName, works: bool) {
        let now = self.now;
        let mut output = Output::default();
        let Some(process) = self.process_mut(place) else { return };
        let clock = process.skew.read(now);
        let Some(membership) = &mut process.membership else { return };
        if works {
            membership.stream_works(peer);
        } else {
            membership.stream_broke(peer, clock.now, &mut output);
        }
        self.detected(place, output);
    }

    fn detected(&mut self, place: usize, output: Output) {
        for (to, bytes) in output.datagrams {
            let to = match &to {
                Destination::Member(name, _) => number(name),
                Destination::Peer(host, _) => number(&MemberName::from(host.as_str())),
            };
            let Some(start) = self.process(to).map(|process| process.generation).filter(|_| to != place) else {
                continue;
            };
            for at in self.network.datagram(place, to, self.now, &mut self.rng) {
                self.later(at, Event::At(to, start, Arrival::Datagram(bytes.clone())));
            }
        }
        let now = self.now;
        for change in output.changes {
            let Some(process) = self.process(place) else { return };
            let (clock, mut effects) = (process.skew.read(now), Effects::default());
            match change {
                Change::Up(name, start) => process.node.member_up(&name, start, clock, &mut effects),
                Change::Down(name, start) => process.node.member_down(&name, start, clock, &mut effects),
            }
            self.carry_out(place, effects);
        }
    }

    /// The oracle tells everyone about a start of a node, each at a time of its own.
    pub(crate) fn verdicts(&mut self, about: usize, start: Generation, up: bool, after: Range<u64>) {
        if self.shape.gossip {
            return;
        }
        for observer in (0..PLACES).filter(|observer| *observer != about) {
            self.verdict(observer, about, start, up, after.clone());
        }
    }

    pub(crate) fn verdict(&mut self, observer: usize, about: usize, start: Generation, up: bool, after: Range<u64>) {
        let Some(generation) = self.process(observer).map(|process| process.generation) else { return };
        if !self.shape.gossip {
            let at = self.now + self.rng.random_range(after);
            self.later(at, Event::At(observer, generation, Arrival::Verdict(about, start, up)));
        }
    }
}
