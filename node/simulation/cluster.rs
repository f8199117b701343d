//! A simulated cluster: nodes, what travels between them, and time. One queue of events drives it all.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use mizuya_node::logic::{
    clock::{Clock, Millis},
    cluster::{
        member::{Generation, MemberName, State},
        membership::Membership,
        message::Message,
        table::{Live, Table},
    },
    commands::{table, words_of},
    keyspace::Partition,
    node::{Ask, Config, Effects, Identity, Mirroring, Node, Ticket},
    resp::{Protocol, Reply, Straight},
};
use mizuya_wire::settings::{Environment, Eviction};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    client::Clients,
    disk::Disks,
    faults::Faults,
    figures::Figures,
    invariants::{Finding, copies_come_back, one_table, predecessor_is_silent, within_limits},
    ledger::MAPS,
    network::{Network, PLACES, deadlines},
    observer::Observer,
    queue::{Arrival, Event, Queued},
    shape::{Class, MIRROR, Shape},
    trace::Trace,
};

pub(crate) const PARTITIONS: u16 = 6;
/// How long after a change of tables it is asked at each tick who would answer.
const CHANGING: u64 = 400;
const TICK: u64 = 20;
const WALL: u64 = 1_790_000_000_000;
/// Between two looks of a node at whom it should have a stream to.
const LOOK: u64 = 60;

/// How one node's clocks differ from the true time. Its monotonic clock has an origin of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Skew {
    origin: u64,
    /// Parts per million that it runs too fast.
    rate: i64,
    wall: i64,
}

impl Skew {
    fn random(rng: &mut StdRng) -> Self {
        Self {
            origin: rng.random_range(0..100_000_000),
            rate: rng.random_range(-200..=200),
            wall: rng.random_range(-600_000..=600_000),
        }
    }

    pub(crate) fn read(self, now: u64) -> Clock {
        let drift = now as i64 * self.rate / 1_000_000;
        let since = |origin: u64, more: i64| origin.saturating_add_signed(now as i64 + more);
        Clock { now: Millis(since(self.origin, drift)), wall: since(WALL, drift + self.wall) }
    }
}

/// One start of a node.
pub(crate) struct Process {
    pub(crate) node: Node,
    pub(crate) generation: Generation,
    pub(crate) skew: Skew,
    pub(crate) membership: Option<Box<Membership>>,
    /// It does not run until someone resumes it; what arrives waits.
    paused: bool,
    inbox: Vec<Arrival>,
}

pub(crate) struct Cluster {
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    pub(crate) class: Class,
    pub(crate) shape: Shape,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) observer: Observer,
    pub(crate) faults: Faults,
    pub(crate) figures: Figures,
    pub(crate) trace: Trace,
    pub(crate) disks: Disks,
    /// The first invariant that did not hold. Nothing happens after it.
    pub(crate) finding: Option<Finding>,
    places: [Option<Box<Process>>; PLACES],
    names: Vec<MemberName>,
    queue: BinaryHeap<Reverse<Queued>>,
    order: u64,
    flushes: [[bool; PLACES]; PLACES],
    dialling: [[bool; PLACES]; PLACES],
    /// Until then former primaries may not know yet that they are.
    changing: u64,
}

pub(crate) fn name(number: usize) -> MemberName {
    MemberName::from(format!("node-{number}").as_str())
}

pub(crate) fn number(name: &MemberName) -> usize {
    usize::from(name.as_str().as_bytes()[5] - b'0')
}

impl Cluster {
    pub(crate) fn new(class: Class, shape: Shape, rng: StdRng, trace: Trace) -> Self {
        let mut cluster = Self {
            rng,
            now: 1000,
            class,
            shape,
            network: Network::new(),
            clients: Clients::default(),
            observer: Observer::default(),
            faults: Faults::default(),
            figures: Figures::default(),
            trace,
            disks: Disks::default(),
            finding: None,
            places: std::array::from_fn(|_| None),
            names: (0..PLACES).map(name).collect(),
            queue: BinaryHeap::new(),
            order: 0,
            flushes: [[false; PLACES]; PLACES],
            dialling: [[false; PLACES]; PLACES],
            changing: 0,
        };
        cluster.expect_members();
        cluster.trace.say(cluster.now, || format!("{class:?} {shape:?}"));
        for number in 0..shape.members {
            let at = cluster.now + cluster.rng.random_range(0..300);
            cluster.later(at, Event::Start(number));
        }
        cluster.later(1020, Event::Faults);
        cluster
    }

    pub(crate) fn seeded(shape: Shape, seed: u64) -> Self {
        Self::new(Class::Beyond, shape, StdRng::seed_from_u64(seed), Trace::kept())
    }

    pub(crate) fn later(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Queued { at, order: self.order, event }));
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.say(self.now, text);
    }

    pub(crate) fn find(&mut self, finding: Option<Finding>) {
        self.trace.found(&mut self.finding, self.now, finding);
    }

    // ---- time

    /// Lets time pass until `done`, at most `limit` milliseconds. Whether it is done.
    pub(crate) fn until(&mut self, limit: u64, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        let mut look = self.now;
        while self.finding.is_none() {
            if self.now >= look {
                if done(self) {
                    return true;
                }
                look = self.now + 20;
            }
            match self.queue.peek() {
                Some(Reverse(next)) if next.at <= end => {}
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
            if let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() {
                self.now = self.now.max(at);
                self.happen(event);
            }
        }
        false
    }

    pub(crate) fn run(&mut self, millis: u64) {
        self.until(millis, |_| false);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::At(place, start, arrival) => self.arrive(place, start, arrival),
            Event::Tick(place, start) => self.tick(place, start),
            Event::Look(place, start) => self.look(place, start),
            Event::Connect(from, to, ends) => self.connect(from, to, ends),
            Event::Flush(from, to) => {
                self.flushes[from][to] = false;
                self.flush(from, to);
            }
            Event::Break(from, to, stream) => {
                if self.network.stream(from, to).is_some_and(|open| open.id == stream) {
                    self.break_stream(from, to);
                }
            }
            Event::Client(client) => self.client(client),
            Event::Reread(name) => {
                self.clients.again -= 1;
                self.last_read(name);
            }
            Event::Start(place) => self.start(place),
            Event::Resume(place, start) => self.resume(place, start),
            Event::Disk(place, start, write) => self.disk(place, start, write),
            Event::Faults => {
                self.later(self.now + 20, Event::Faults);
                self.step_faults();
            }
        }
    }

    fn starts(&self, place: usize, start: Generation) -> Option<&Process> {
        self.places[place].as_deref().filter(|process| process.generation == start)
    }

    fn tick(&mut self, place: usize, start: Generation) {
        let now = self.now;
        let Some(process) = self.places[place].as_deref_mut().filter(|process| process.generation == start) else {
            return;
        };
        let next = Event::Tick(place, start);
        if process.paused {
            return self.later(now + TICK, next);
        }
        let clock = process.skew.read(now);
        let mut effects = Effects::default();
        let random = self.rng.random();
        process.node.tick(clock, random, &mut effects);
        if self.shape.max_bytes < 1 << 20 || now.is_multiple_of(16) {
            let finding = within_limits::check(process, self.shape.max_bytes);
            self.find(finding);
        }
        self.carry_out(place, effects);
        if now < self.changing {
            self.one_primary_serves();
        }
        self.tick_membership(place);
        let jitter = if self.rng.random_ratio(1, 30) { self.rng.random_range(0..25) } else { 0 };
        self.later(now + TICK + jitter, next);
    }

    // ---- processes

    /// Starts a node, unless it runs.
    pub(crate) fn start(&mut self, place: usize) {
        if self.places[place].is_some() {
            return;
        }
        let generation = Generation(self.rng.random());
        let skew = Skew::random(&mut self.rng);
        let clock = skew.read(self.now);
        let config = self.config(place, generation);
        self.note(|| format!("start node-{place} {:x} {skew:?}", generation.0));
        let membership = self.shape.gossip.then(|| self.new_membership(&config, clock));
        let node = Node::new(config, clock);
        self.recover(place, &node, clock);
        self.places[place] =
            Some(Box::new(Process { node, generation, skew, membership, paused: false, inbox: Vec::new() }));
        self.figures.starts += 1;
        let (tick, look) = (self.rng.random_range(0..TICK), self.rng.random_range(0..LOOK));
        self.later(self.now + tick, Event::Tick(place, generation));
        self.later(self.now + look, Event::Look(place, generation));
        self.verdicts(place, generation, true, 20..200);
        // Streams to the former start are reset as soon as the new one answers.
        for other in 0..PLACES {
            if let Some(id) = self.network.stream(other, place).map(|stream| stream.id) {
                let at = self.now + self.rng.random_range(1..50);
                self.later(at, Event::Break(other, place, id));
            }
        }
    }

    fn config(&self, place: usize, generation: Generation) -> Config {
        let shape = &self.shape;
        Config {
            identity: Identity {
                cluster_name: "sim".to_owned(),
                name: name(place),
                generation,
                client_port: 3320,
                peer_port: 3322,
                environment: "local".to_owned(),
                default_map: MAPS[0].to_owned(),
                zone: String::new(),
            },
            partitions: PARTITIONS,
            live: Live {
                generation: 1,
                factor: shape.factor,
                read_quorum: shape.read_quorum,
                write_quorum: shape.write_quorum,
                member_quorum: shape.member_quorum,
            },
            timing: Environment::Local.timing(),
            peers: self.faults.members(place).map(|n| (name(n).to_string(), 3322)).collect(),
            max_bytes: shape.max_bytes,
            eviction: Eviction::Auto,
            // Alone it begins only where there is nobody to wait for.
            bootstrap_timeout: Duration::from_millis(if shape.members == 1 { 500 } else { 10_000_000 }),
            rejoin_timeout: Duration::from_mins(1),
            restore: self.disks.restore,
            mirroring: Mirroring { lasts: Duration::from_millis(if shape.mirrors { MIRROR } else { 0 }), hot_reads: 1 },
            move_rate: 2 << 20,
        }
    }

    /// Ends a process at once, with its memory.
    pub(crate) fn crash(&mut self, place: usize) {
        let Some(process) = self.places[place].take() else { return };
        self.note(|| format!("end node-{place} {:x}", process.generation.0));
        let died = self.now;
        self.verdicts(place, process.generation, false, 400..1100);
        for other in 0..PLACES {
            if let Some(id) = self.network.stream(other, place).map(|stream| stream.id) {
                let hears = self.network.both_ways(other, place);
                let after = self.rng.random_range(if hears { 0..250 } else { 500..3000 });
                self.later(died + after, Event::Break(other, place, id));
            }
            self.network.close(place, other, died, &mut self.rng);
        }
        self.clients_lose(place);
        let alive: Vec<Generation> = self.processes().map(|process| process.generation).collect();
        self.observer.ended(&alive, self.class);
    }

    pub(crate) fn pause(&mut self, place: usize, millis: u64) {
        let now = self.now;
        let Some(process) = self.places[place].as_deref_mut().filter(|process| !process.paused) else { return };
        process.paused = true;
        let start = process.generation;
        self.note(|| format!("pause node-{place} for {millis} ms"));
        self.later(now + millis, Event::Resume(place, start));
    }

    fn resume(&mut self, place: usize, start: Generation) {
        let Some(process) = self.places[place].as_deref_mut().filter(|process| process.generation == start) else {
            return;
        };
        process.paused = false;
        let inbox = std::mem::take(&mut process.inbox);
        self.note(|| format!("resume node-{place}"));
        for arrival in inbox {
            self.arrive(place, start, arrival);
        }
        for other in 0..PLACES {
            self.flush(place, other);
        }
    }

    pub(crate) fn is_paused(&self, place: usize) -> bool {
        self.places[place].as_deref().is_some_and(|process| process.paused)
    }

    // ---- streams

    fn look(&mut self, place: usize, start: Generation) {
        let Some(process) = self.starts(place, start) else { return };
        let wanted = if process.paused { Vec::new() } else { process.node.dial() };
        for (peer, _) in wanted {
            let to = number(&peer);
            if self.network.stream(place, to).is_none() && !self.dialling[place][to] {
                self.dial(place, to, start);
            }
        }
        let after = self.rng.random_range(LOOK / 2..LOOK * 2);
        self.later(self.now + after, Event::Look(place, start));
    }

    fn dial(&mut self, from: usize, to: usize, start: Generation) {
        let Some(peer) = self.places[to].as_deref().filter(|peer| !peer.paused) else { return };
        let ends = (start.0, peer.generation.0);
        if self.network.both_ways(from, to) {
            self.dialling[from][to] = true;
            let at = self.now + self.rng.random_range(1..30);
            self.later(at, Event::Connect(from, to, ends));
        }
    }

    fn connect(&mut self, from: usize, to: usize, ends: (u64, u64)) {
        self.dialling[from][to] = false;
        let opens = self.starts(from, Generation(ends.0)).is_some_and(|process| !process.paused)
            && self.starts(to, Generation(ends.1)).is_some_and(|process| !process.paused)
            && self.network.both_ways(from, to)
            && self.network.stream(from, to).is_none();
        if opens {
            self.network.open(from, to, ends);
            self.note(|| format!("stream node-{from} to node-{to} is up"));
            self.arrive(to, Generation(ends.1), Arrival::StreamFrom(from));
            self.arrive(from, Generation(ends.0), Arrival::StreamUp(to));
        }
    }

    /// Breaks a stream, and tells the one who opened it.
    pub(crate) fn break_stream(&mut self, from: usize, to: usize) {
        if self.network.close(from, to, self.now, &mut self.rng) {
            self.note(|| format!("stream node-{from} to node-{to} broke"));
            if let Some(start) = self.places[from].as_deref().map(|process| process.generation) {
                self.arrive(from, start, Arrival::StreamDown(to));
            }
            let start = self.places[to].as_deref().map(|process| process.generation);
            if let Some(start) = start.filter(|_| self.network.passes(from, to)) {
                let at = self.now + self.rng.random_range(0..50);
                self.later(at, Event::At(to, start, Arrival::StreamFrom(from)));
            }
        }
    }

    /// Takes what a node has to say to another and puts it under way.
    fn flush(&mut self, from: usize, to: usize) {
        let Some(process) = self.places[from].as_deref().filter(|process| !process.paused) else { return };
        let ends = self.network.stream(from, to).map(|stream| stream.ends);
        if ends.is_none_or(|ends| ends.0 != process.generation.0) {
            return;
        }
        let clock = process.skew.read(self.now);
        loop {
            let Some(process) = self.places[from].as_deref() else { return };
            let mut messages = process.node.take_messages(&self.names[to], self.shape.frame_bytes, clock);
            if messages.is_empty() {
                break;
            }
            for message in &mut messages {
                deadlines(message, |expires| Millis(expires.since(clock.now)));
                let finding = self.observer.said(process, (from, to), message, &mut self.figures);
                self.trace.found(&mut self.finding, self.now, finding);
            }
            let dies = self.faults.is_moment(from, &messages);
            self.trace.frame(self.now, from, to, &messages);
            if let Some(frame) = self.network.send((from, to), messages, self.now, &mut self.rng) {
                let arrival = Arrival::Frame(from, frame.stream, frame.ends, frame.messages);
                self.later(frame.at, Event::At(to, Generation(frame.ends.1), arrival));
            }
            if dies {
                self.note(|| format!("node-{from} ends in the middle of that"));
                self.crash(from);
                return;
            }
        }
    }

    pub(crate) fn unblock(&mut self, from: usize, to: usize) {
        for (from, _, frame) in self.network.unblock(from, to, self.now, &mut self.rng) {
            let to = self.place_of(Generation(frame.ends.1));
            let arrival = Arrival::Frame(from, frame.stream, frame.ends, frame.messages);
            if let Some(to) = to {
                self.later(frame.at, Event::At(to, Generation(frame.ends.1), arrival));
            }
        }
    }

    fn place_of(&self, start: Generation) -> Option<usize> {
        (0..PLACES).find(|place| self.starts(*place, start).is_some())
    }

    // ---- events of one node

    fn arrive(&mut self, place: usize, start: Generation, arrival: Arrival) {
        let now = self.now;
        let Some(process) = self.places[place].as_deref_mut().filter(|process| process.generation == start) else {
            return;
        };
        if process.paused {
            return process.inbox.push(arrival);
        }
        let clock = process.skew.read(now);
        let (mut effects, mut relayed) = (Effects::default(), Vec::new());
        let names = &self.names;
        let news = match &arrival {
            Arrival::StreamUp(peer) => Some((*peer, true)),
            Arrival::StreamDown(peer) => Some((*peer, false)),
            _ => None,
        };
        match arrival {
            Arrival::StreamUp(peer) => process.node.stream_up(&names[peer], clock, &mut effects),
            Arrival::StreamDown(peer) => process.node.stream_down(&names[peer], clock, &mut effects),
            Arrival::StreamFrom(peer) => process.node.replies_lost(&names[peer], clock, &mut effects),
            Arrival::Verdict(about, which, up) if up => {
                process.node.member_up(&names[about], which, clock, &mut effects)
            }
            Arrival::Verdict(about, which, _) => process.node.member_down(&names[about], which, clock, &mut effects),
            Arrival::Frame(from, stream, ends, messages) => {
                if self.network.is_lost(stream, now) {
                    return;
                }
                let generation = Generation(ends.0);
                for mut message in messages {
                    deadlines(&mut message, |left| Millis(clock.now.0 + left.0));
                    let random = self.rng.random();
                    if self.shape.deaf_mirrors && matches!(message, Message::MirrorsEnd { .. }) {
                        continue;
                    }
                    let answer = matches!(message, Message::Forwarded { .. });
                    let known = effects.replies.len();
                    process.node.receive(&names[from], generation, message, clock, random, &mut effects);
                    relayed.extend(effects.replies.drain(if answer { known } else { effects.replies.len() }..));
                }
            }
            Arrival::Command(ticket, partition, words) => {
                let random = self.rng.random();
                let moment = (clock, random);
                let mirrored = process.node.mirror_hits();
                let reply = submit(&process.node, ticket, partition, &words, moment, &mut effects);
                let mirrored = process.node.mirror_hits() - mirrored;
                self.figures.mirrored += mirrored;
                if mirrored == 0 && reply.as_ref().is_some_and(|reply| !reply.is_error()) {
                    let finding = self.observer.answers(process, partition.index());
                    self.trace.found(&mut self.finding, now, finding);
                }
                effects.replies.extend(reply.map(|reply| (ticket, reply)));
            }
            Arrival::Datagram(bytes) => return self.datagram(place, &bytes),
        }
        self.carry_out(place, effects);
        for (ticket, reply) in relayed {
            self.answered(place, ticket, &reply, true);
        }
        if let Some((peer, works)) = news {
            self.stream_news(place, &self.names[peer].clone(), works);
        }
    }

    pub(crate) fn carry_out(&mut self, place: usize, effects: Effects) {
        for notice in effects.notices {
            self.trace.say(self.now, || format!("node-{place}: {}", notice.text));
        }
        for peer in effects.wake {
            let to = number(&peer);
            if !std::mem::replace(&mut self.flushes[place][to], true) {
                let at = self.now + self.rng.random_range(0..3);
                self.later(at, Event::Flush(place, to));
            }
        }
        self.write(place, effects.persist, effects.erase);
        if effects.table_changed {
            self.table_changed(place);
        }
        for (ticket, reply) in effects.replies {
            self.answered(place, ticket, &reply, false);
        }
        if let Some(reason) = effects.fatal {
            self.note(|| format!("node-{place} must start anew: {reason}"));
            self.crash(place);
            let at = self.now + self.rng.random_range(20..500);
            self.later(at, Event::Start(place));
        }
    }

    fn table_changed(&mut self, place: usize) {
        let Some(process) = self.places[place].as_deref() else { return };
        let Some(table) = process.node.routing().table.clone() else { return };
        self.trace.table(self.now, place, &table);
        let alive: Vec<Generation> = self.processes().map(|process| process.generation).collect();
        let finding = self.observer.table(&table, &alive, self.class, &mut self.figures);
        self.find(finding);
        let emptied = std::mem::take(&mut self.observer.emptied);
        self.clients.wiped(&emptied, self.now);
        self.changing = self.now + CHANGING;
        self.one_primary_serves();
    }

    fn one_primary_serves(&mut self) {
        if !self.observer.amnesia {
            self.find(predecessor_is_silent::check(self));
        }
    }

    // ---- what others ask

    pub(crate) fn process(&self, place: usize) -> Option<&Process> {
        self.places[place].as_deref()
    }

    pub(crate) fn process_mut(&mut self, place: usize) -> Option<&mut Process> {
        self.places[place].as_deref_mut()
    }

    pub(crate) fn process_and_observer(
        &mut self,
        place: usize,
        look: impl FnOnce(&Process, &mut Observer) -> Option<Finding>,
    ) -> Option<Finding> {
        look(self.places[place].as_deref()?, &mut self.observer)
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.places.iter().filter_map(|process| process.as_deref())
    }

    pub(crate) fn node(&self, place: usize) -> Option<&Node> {
        self.process(place).map(|process| &process.node)
    }

    pub(crate) fn clock(&self, place: usize) -> Clock {
        self.process(place).map_or_else(Clock::default, |process| process.skew.read(self.now))
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..PLACES).filter(|place| self.places[*place].is_some()).collect()
    }

    /// The newest table that any node has.
    pub(crate) fn table(&self) -> Option<Arc<Table>> {
        self.processes().filter_map(|process| process.node.routing().table.clone()).max_by_key(|table| table.epoch)
    }

    pub(crate) fn coordinator(&self) -> Option<usize> {
        self.table()?.coordinator().map(|member| number(&member.name))
    }

    /// One table, and every copy in its place.
    pub(crate) fn is_quiet(&self) -> bool {
        one_table::holds(self) && copies_come_back::holds(self)
    }

    pub(crate) fn state(&self, place: usize) -> Option<State> {
        self.table()?.named(&self.names[place]).map(|member| member.state)
    }

    pub(crate) fn primaries(&self, place: usize) -> usize {
        let Some(table) = self.table() else { return 0 };
        let Some(id) = table.named(&self.names[place]).map(|member| member.id) else { return 0 };
        table.partitions.iter().filter(|assignment| assignment.primary() == Some(id)).count()
    }
}

/// As the client port does it: a value may go straight to where the client's replies go.
fn submit(
    node: &Node,
    ticket: Ticket,
    partition: Partition,
    words: &[Bytes],
    (clock, random): (Clock, u64),
    effects: &mut Effects,
) -> Option<Reply> {
    let words = &words_of(words);
    let command = match table::command(words) {
        Ok(command) => command,
        Err(error) => return Some(error),
    };
    let mut output = BytesMut::new();
    let straight = Straight { sink: &mut output, protocol: Protocol::Resp3 };
    let spot = command.key_of_default_map(words).map(|key| node.spot(key));
    let ask = Ask { command, partition, words, spot, settled: true };
    let reply = node.submit_in(&mut node.turn(clock, random), ticket, ask, Some(straight), effects)?;
    let written = (reply == Reply::Written).then(|| Reply::from_resp3(&output.freeze()).expect("a whole reply"));
    Some(written.unwrap_or(reply))
}
