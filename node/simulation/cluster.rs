//! A simulated cluster: nodes, the streams between them, the failure detector's verdicts, and time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use mizuya_node::logic::{
    clock::{Clock, Millis},
    cluster::{
        member::{Generation, Intent, MemberName, State},
        message::{Change, Message, Record},
        table::{Live, Table},
    },
    keyspace::partition_of,
    node::{Config, Effects, Identity, Node, Ticket},
    resp::Reply,
    store::Op,
};
use mizuya_wire::{quorum::MemberQuorum, settings::Environment};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::ledger::{Ledger, Value};

pub(crate) const PARTITIONS: u16 = 16;
const STEP: u64 = 5;
const TICK: u64 = 20;
const WALL: u64 = 1_790_000_000_000;

/// What a simulated cluster is made of.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) members: usize,
    pub(crate) factor: u32,
    pub(crate) read_quorum: u32,
    pub(crate) write_quorum: u32,
}

pub(crate) struct Peer {
    pub(crate) node: Node,
    pub(crate) generation: Generation,
}

struct Stream {
    up: bool,
    ready_at: u64,
    queue: VecDeque<(u64, Message)>,
}

struct Verdict {
    at: u64,
    about: MemberName,
    generation: Generation,
    up: bool,
}

/// A command of the simulated client that has no answer yet.
struct Asked {
    key: u32,
    write: Option<Value>,
    at: u64,
}

pub(crate) struct Cluster {
    pub(crate) rng: StdRng,
    pub(crate) now: u64,
    pub(crate) ledger: Ledger,
    pub(crate) faults: Vec<String>,
    pub(crate) shape: Shape,
    nodes: BTreeMap<MemberName, Peer>,
    streams: BTreeMap<(MemberName, MemberName), Stream>,
    verdicts: Vec<Verdict>,
    asked: BTreeMap<Ticket, Asked>,
    busy: BTreeSet<u32>,
    next_ticket: u64,
    next_value: u64,
    pub(crate) last_write: u64,
    pub(crate) longest_silence: u64,
    pub(crate) trace: Vec<String>,
    /// A key whose commands are traced: `KEY=…` in the environment.
    watched: Option<u32>,
    held: String,
}

pub(crate) fn name(number: usize) -> MemberName {
    MemberName::from(format!("node-{number}").as_str())
}

impl Cluster {
    pub(crate) fn new(shape: Shape, seed: u64) -> Self {
        let mut cluster = Self {
            rng: StdRng::seed_from_u64(seed),
            now: 1000,
            ledger: Ledger::default(),
            faults: Vec::new(),
            shape,
            nodes: BTreeMap::new(),
            streams: BTreeMap::new(),
            verdicts: Vec::new(),
            asked: BTreeMap::new(),
            busy: BTreeSet::new(),
            next_ticket: 0,
            next_value: 0,
            last_write: 0,
            longest_silence: 0,
            trace: Vec::new(),
            watched: std::env::var("KEY").ok().and_then(|key| key.parse().ok()),
            held: String::new(),
        };
        for number in 0..shape.members {
            cluster.start(number, shape.members);
        }
        cluster
    }

    fn clock(&self) -> Clock {
        Clock { now: Millis(self.now), wall: WALL + self.now }
    }

    /// Starts a node that was told of `peers` peers.
    pub(crate) fn start(&mut self, number: usize, peers: usize) {
        let generation = Generation(self.rng.random());
        let timing = Environment::Lan.timing();
        let config = Config {
            identity: Identity {
                cluster_name: "sim".to_owned(),
                name: name(number),
                generation,
                client_port: 3320,
                peer_port: 3322,
                environment: "lan".to_owned(),
                default_map: "cc-relay".to_owned(),
                zone: String::new(),
            },
            partitions: PARTITIONS,
            live: Live {
                generation: 1,
                factor: self.shape.factor,
                read_quorum: self.shape.read_quorum,
                write_quorum: self.shape.write_quorum,
                member_quorum: MemberQuorum::Auto,
            },
            timing,
            peers: (0..peers).map(|n| (name(n).to_string(), 3322)).collect(),
            max_bytes: 1 << 30,
            bootstrap_timeout: std::time::Duration::from_secs(10),
            rejoin_timeout: std::time::Duration::from_mins(1),
        };
        self.note(format!("start {} {:x}", name(number), generation.0));
        let node = Node::new(config, self.clock());
        self.nodes.insert(name(number), Peer { node, generation });
        self.verdicts.push(Verdict { at: self.now + 150, about: name(number), generation, up: true });
    }

    /// Ends a process at once. Its streams break; the failure detector notices after the suspicion time.
    pub(crate) fn crash(&mut self, number: usize) {
        let gone = name(number);
        let Some(peer) = self.nodes.remove(&gone) else { return };
        self.note(format!("end {gone}"));
        let detected = self.now + 1500 + self.rng.random_range(0..1000);
        self.verdicts.push(Verdict { at: detected, about: gone.clone(), generation: peer.generation, up: false });
        let clock = self.clock();
        let broken: Vec<_> = self.streams.keys().filter(|(from, to)| *from == gone || *to == gone).cloned().collect();
        for (from, to) in broken {
            self.streams.remove(&(from.clone(), to.clone()));
            if let Some(survivor) = self.nodes.get(&from) {
                let mut effects = Effects::default();
                survivor.node.stream_down(&to, clock, &mut effects);
                self.carry_out(&from, effects);
            }
        }
        // A client of that node gets no answer.
        let lost: Vec<Ticket> = self.asked.keys().filter(|t| t.connection == number as u64).copied().collect();
        for ticket in lost {
            self.answered(ticket, &Reply::Error("OUTCOMEUNKNOWN connection closed".to_owned()));
        }
    }

    pub(crate) fn note(&mut self, text: String) {
        self.trace.push(format!("{:>7} {text}", self.now));
    }

    pub(crate) fn node(&self, number: usize) -> Option<&Node> {
        self.nodes.get(&name(number)).map(|peer| &peer.node)
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        self.nodes.keys().filter_map(|name| name.as_str().strip_prefix("node-")?.parse().ok()).collect()
    }

    pub(crate) fn ask(&mut self, number: usize, change: Change) {
        self.note(format!("ask node-{number}: {change:?}"));
        let clock = self.clock();
        if let Some(node) = self.node(number) {
            node.change(change, clock);
        }
    }

    pub(crate) fn leave(&mut self, number: usize, intent: Intent) {
        self.note(format!("leave node-{number} {intent:?}"));
        let clock = self.clock();
        if let Some(node) = self.node(number) {
            node.begin_leave(intent, clock);
        }
    }

    pub(crate) fn finish_leave(&mut self, number: usize) {
        let clock = self.clock();
        if let Some(node) = self.node(number) {
            node.finish_leave(clock);
        }
    }

    /// Lets time pass for `millis`, with `writes` client commands a second.
    pub(crate) fn run(&mut self, millis: u64, writes: u64) {
        let until = self.now + millis;
        while self.now < until {
            self.step(writes);
        }
    }

    /// Lets time pass until `done`, at most `limit` milliseconds.
    pub(crate) fn until(&mut self, what: &str, limit: u64, writes: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !done(self) {
            assert!(self.now < end, "not within {limit} ms: {what}\n{}", self.report());
            self.step(writes);
        }
    }

    pub(crate) fn report(&self) -> String {
        let mut report = self.trace.join("\n");
        for (name, peer) in &self.nodes {
            report += &format!("\n{name}: {:?} {:?}", peer.node.ready(self.clock()), peer.node.leave_progress());
            if let Some(table) = &peer.node.routing().table {
                report += &format!(" epoch {:?} quorum {}", table.epoch, table.quorum);
                for member in &table.members {
                    report += &format!("\n    {} {} {:?}", member.id, member.name, member.state);
                }
                for (number, assignment) in table.partitions.iter().enumerate() {
                    report += &format!(
                        "\n    p{number} {:?} {:?} from {:?}",
                        assignment.epoch.0, assignment.copies, assignment.from
                    );
                }
            }
        }
        report
    }

    fn step(&mut self, writes: u64) {
        self.now += STEP;
        self.connect();
        self.judge();
        self.deliver();
        if self.now.is_multiple_of(TICK) {
            self.tick();
        }
        let due = (self.now * writes / 1000) - ((self.now - STEP) * writes / 1000);
        for _ in 0..due {
            self.command();
        }
        self.collect();
        self.watch();
        if self.ledger.acknowledged > 0 {
            self.longest_silence = self.longest_silence.max(self.now - self.last_write);
        }
    }

    /// Traces what every node holds of the watched key.
    fn watch(&mut self) {
        let Some(key) = self.watched else { return };
        let text = key_text(key);
        let partition = partition_of(&text, PARTITIONS);
        let mut held = String::new();
        for (name, peer) in &self.nodes {
            let (last, records) = peer.node.holding(partition);
            let entry = records.iter().find(|record| matches!(&record.op, Op::Put { key, .. } if *key == text));
            held += &format!(" {name}@{}.{}", last.epoch.0 % 1000, last.sequence);
            if let Some(Record { version, op: Op::Put { value, .. } }) = entry {
                held += &format!(" {value:?} {}.{}", version.epoch.0 % 1000, version.sequence);
            }
        }
        if self.held != held {
            self.note(held.clone());
            self.held = held;
        }
    }

    fn connect(&mut self) {
        let mut wanted = Vec::new();
        for (from, peer) in &self.nodes {
            for (to, _) in peer.node.dial() {
                if self.nodes.contains_key(&to) {
                    wanted.push((from.clone(), to));
                }
            }
        }
        let clock = self.clock();
        for pair in wanted {
            let delay = self.now + 20 + self.rng.random_range(0..80);
            let stream = self.streams.entry(pair.clone()).or_insert(Stream {
                up: false,
                ready_at: delay,
                queue: VecDeque::new(),
            });
            if !stream.up && self.now >= stream.ready_at {
                stream.up = true;
                let mut effects = Effects::default();
                self.nodes[&pair.0].node.stream_up(&pair.1, clock, &mut effects);
                self.carry_out(&pair.0, effects);
            }
        }
    }

    fn judge(&mut self) {
        let now = self.now;
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.verdicts).into_iter().partition(|v| v.at <= now);
        self.verdicts = later;
        let clock = self.clock();
        for verdict in due {
            let names: Vec<MemberName> = self.nodes.keys().filter(|n| **n != verdict.about).cloned().collect();
            for observer in names {
                let mut effects = Effects::default();
                let node = &self.nodes[&observer].node;
                if verdict.up {
                    node.member_up(&verdict.about, verdict.generation, clock, &mut effects);
                } else {
                    node.member_down(&verdict.about, verdict.generation, clock, &mut effects);
                }
                self.carry_out(&observer, effects);
            }
        }
    }

    /// Takes what nodes have to say and puts it under way.
    fn collect(&mut self) {
        let clock = self.clock();
        let pairs: Vec<_> = self.streams.iter().filter(|(_, stream)| stream.up).map(|(pair, _)| pair.clone()).collect();
        for pair in pairs {
            let messages = self.nodes[&pair.0].node.take_messages(&pair.1, 64 << 10, clock);
            if messages.is_empty() {
                continue;
            }
            let arrival = self.now + self.rng.random_range(0..15);
            if let Some(stream) = self.streams.get_mut(&pair) {
                // One stream keeps its order.
                let arrival = stream.queue.back().map_or(arrival, |(last, _)| arrival.max(*last));
                stream.queue.extend(messages.into_iter().map(|message| (arrival, message)));
            }
        }
    }

    fn deliver(&mut self) {
        let clock = self.clock();
        let pairs: Vec<_> = self.streams.keys().cloned().collect();
        for (from, to) in pairs {
            loop {
                let Some(stream) = self.streams.get_mut(&(from.clone(), to.clone())) else { break };
                if stream.queue.front().is_none_or(|(at, _)| *at > self.now) {
                    break;
                }
                let Some((_, message)) = stream.queue.pop_front() else { break };
                let generation = self.nodes[&from].generation;
                let random = self.rng.random();
                let mut effects = Effects::default();
                self.nodes[&to].node.receive(&from, generation, message, clock, random, &mut effects);
                self.carry_out(&to, effects);
            }
        }
    }

    fn tick(&mut self) {
        let clock = self.clock();
        let names: Vec<MemberName> = self.nodes.keys().cloned().collect();
        for name in names {
            let Some(peer) = self.nodes.get(&name) else { continue };
            let mut effects = Effects::default();
            let random = self.rng.random();
            peer.node.tick(clock, random, &mut effects);
            self.carry_out(&name, effects);
        }
    }

    fn carry_out(&mut self, at: &MemberName, effects: Effects) {
        for notice in effects.notices {
            self.note(format!("{at}: {}", notice.text));
        }
        if let (true, Some(key), Some(peer)) = (effects.table_changed, self.watched, self.nodes.get(at)) {
            let partition = partition_of(&key_text(key), PARTITIONS);
            let table = peer.node.routing().table.clone();
            let assignment = table.as_ref().map(|table| (table.epoch.counter, table.assignment(partition).clone()));
            self.note(format!("{at}: in force {assignment:?}"));
        }
        for (ticket, reply) in effects.replies {
            self.answered(ticket, &reply);
        }
        if let Some(reason) = effects.fatal {
            let number: usize = at.as_str()[5..].parse().unwrap();
            self.note(format!("{at} must start anew: {reason}"));
            let peers = self.shape.members;
            self.crash(number);
            self.start(number, peers);
        }
    }

    // ---- the client

    /// One command of a client, to any node that is ready: a write, a delete or a read.
    fn command(&mut self) {
        let clock = self.clock();
        let ready: Vec<usize> = self
            .alive()
            .into_iter()
            .filter(|number| self.node(*number).is_some_and(|n| n.ready(clock).is_ok()))
            .collect();
        if ready.is_empty() {
            return;
        }
        let number = ready[self.rng.random_range(0..ready.len())];
        let key = self.rng.random_range(0..400);
        if !self.busy.insert(key) {
            return;
        }
        let kind = self.rng.random_range(0..10);
        self.next_value += 1;
        let (verb, write) = match kind {
            0 => ("DEL", Some(None)),
            1..=5 => ("SET", Some(Some(self.next_value))),
            _ => ("GET", None),
        };
        self.submit(number, key, verb, write);
    }

    fn submit(&mut self, number: usize, key: u32, verb: &'static str, write: Option<Value>) {
        self.next_ticket += 1;
        let ticket = Ticket { connection: number as u64, request: self.next_ticket, part: 0 };
        let text = key_text(key);
        let mut words = vec![Bytes::from_static(verb.as_bytes()), text.clone()];
        if let Some(Some(value)) = write {
            words.push(Bytes::from(value.to_string()));
        }
        let random = self.rng.random();
        let clock = self.clock();
        self.asked.insert(ticket, Asked { key, write, at: self.now });
        let mut effects = Effects::default();
        let partition = partition_of(&text, PARTITIONS);
        let Some(peer) = self.nodes.get(&name(number)) else { return };
        let reply = peer.node.submit(ticket, partition, &words, clock, random, &mut effects);
        self.carry_out(&name(number), effects);
        if let Some(reply) = reply {
            self.answered(ticket, &reply);
        }
    }

    fn answered(&mut self, ticket: Ticket, reply: &Reply) {
        let Some(asked) = self.asked.remove(&ticket) else { return };
        self.busy.remove(&asked.key);
        if self.watched == Some(asked.key) {
            let partition = partition_of(&key_text(asked.key), PARTITIONS);
            self.note(format!(
                "p{} {:?} by node-{} since {}: {reply:?}",
                partition.0, asked.write, ticket.connection, asked.at
            ));
            if let Some(table) = self.table() {
                self.note(format!("  newest table {} {:?}", table.epoch.counter, table.assignment(partition)));
            }
        }
        match (reply, asked.write) {
            (Reply::Error(text), Some(value)) if text.starts_with("OUTCOMEUNKNOWN") => {
                self.faults.push(text.clone());
                self.ledger.outcome_unknown(asked.key, value);
            }
            (Reply::Error(text), _) => {
                self.faults.push(text.clone());
                self.ledger.refused += 1;
            }
            (_, Some(value)) => {
                self.last_write = self.now;
                self.ledger.acknowledge(asked.key, value);
            }
            (reply, None) => {
                let value = value_of(reply);
                if let Err(wrong) = self.ledger.check(asked.key, value) {
                    panic!("at {}: {wrong}\n{}", self.now, self.report());
                }
            }
        }
    }

    /// Reads every key that was ever written, through every node.
    pub(crate) fn verify(&mut self) {
        self.until("answers to all commands", 20_000, 0, |cluster| cluster.asked.is_empty());
        for number in self.alive() {
            for key in self.ledger.keys() {
                self.busy.insert(key);
                self.submit(number, key, "GET", None);
            }
        }
        let before = self.ledger.refused;
        self.until("answers to all reads", 20_000, 0, |cluster| cluster.asked.is_empty());
        assert_eq!(self.ledger.refused, before, "reads were refused: {:?}\n{}", self.faults.last(), self.report());
    }

    // ---- the table

    pub(crate) fn table(&self) -> Option<Arc<Table>> {
        self.nodes.values().filter_map(|peer| peer.node.routing().table.clone()).max_by_key(|table| table.epoch)
    }

    /// Every node has the same table, every partition has all its copies, and nothing moves.
    pub(crate) fn is_quiet(&self) -> bool {
        let Some(table) = self.table() else { return false };
        let same = self.nodes.values().all(|peer| {
            let routing = peer.node.routing();
            routing.table.as_ref().is_some_and(|known| known.epoch == table.epoch) && routing.me.is_some()
        });
        let live = table.live().count();
        let copies = (self.shape.factor as usize).min(live);
        same && live == self.nodes.len()
            && table.members.iter().all(|member| member.state == State::Active)
            && table.partitions.iter().all(|assignment| {
                assignment.copies.len() == copies && assignment.copies.iter().all(|copy| copy.in_sync)
            })
    }

    pub(crate) fn state(&self, number: usize) -> Option<State> {
        self.table()?.named(&name(number)).map(|member| member.state)
    }

    pub(crate) fn primaries(&self, number: usize) -> usize {
        let Some(table) = self.table() else { return 0 };
        let Some(id) = table.named(&name(number)).map(|member| member.id) else { return 0 };
        table.partitions.iter().filter(|assignment| assignment.primary() == Some(id)).count()
    }
}

fn key_text(key: u32) -> Bytes {
    Bytes::from(format!("key:{key}"))
}

fn value_of(reply: &Reply) -> Value {
    match reply {
        Reply::Bulk(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
        _ => None,
    }
}
