//! Clients: each asks one thing at a time, of any node, and remembers what it was told.

use std::collections::BTreeMap;

use bytes::Bytes;
use mizuya_node::logic::{
    keyspace::{Partition, partition_of},
    node::Ticket,
    resp::Reply,
};
use rand::RngExt;

use crate::{
    cluster::{Cluster, PARTITIONS},
    invariants::{Finding, judge, linearizable, one_table, planned_moves_are_not_felt},
    ledger::{Found, Ledger, MAPS, Name, Outcome, Read, Rules, Through, Write},
    linearizability::Command,
    queue::{Arrival, Event},
    registers::{self, Place, Registers},
    shape::{Class, MIRROR},
};

const CLIENTS: usize = 6;
const KEYS: u32 = 14;
/// Longest thinking time between two commands.
const THINKING: u64 = 250;
/// The same where there are mirrors: many commands in the time that one lives.
const LITTLE_THINKING: u64 = 60;
/// How long last reads are asked again when they are refused.
const PATIENCE: u64 = 12_000;
/// How long a reply of the transport may be held back in a history, at most: see `Rules::overtime`.
const OVERTIME: u64 = 10_000;

pub(crate) fn partition(name: Name) -> Partition {
    partition_of(&name.text(), PARTITIONS)
}

/// A command that has no answer yet.
#[derive(Debug)]
struct Asked {
    client: Option<usize>,
    node: usize,
    through: Through,
    name: Name,
    /// Place of the write in the ledger; none: a read.
    write: Option<usize>,
    /// An operation of the strong posture, which the ledger knows nothing of.
    operation: Option<Place>,
    since: u64,
}

#[derive(Default)]
pub(crate) struct Clients {
    pub(crate) ledger: Ledger,
    pub(crate) registers: Registers,
    open: BTreeMap<u64, Asked>,
    asking: bool,
    one_since: Option<u64>,
    next_request: u64,
    next_value: u64,
    last_success: u64,
    /// What was refused last.
    pub(crate) refusals: Vec<String>,
    /// Until when a last read that is refused is asked again; after that it is a finding.
    patience: Option<u64>,
    /// Last reads that are asked again soon.
    pub(crate) again: u32,
}

impl Clients {
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.again == 0
    }

    /// Partitions start empty from now on.
    pub(crate) fn wiped(&mut self, partitions: &[usize], now: u64) {
        if partitions.is_empty() {
            return;
        }
        for (name, entry) in &mut self.ledger.entries {
            if partitions.contains(&partition(*name).index()) {
                entry.wiped.push(now);
            }
        }
    }
}

impl Cluster {
    /// Clients begin to ask, or stop.
    pub(crate) fn load(&mut self, asking: bool) {
        let before = std::mem::replace(&mut self.clients.asking, asking);
        if asking && !before {
            self.clients.last_success = self.now;
            for client in 0..CLIENTS {
                let at = self.now + self.rng.random_range(0..THINKING);
                self.later(at, Event::Client(client));
            }
        }
    }

    /// One command of a client: a write, a removal or a read.
    pub(crate) fn client(&mut self, client: usize) {
        if !self.clients.asking {
            return;
        }
        let alive = self.alive();
        if alive.is_empty() {
            return self.later(self.now + 100, Event::Client(client));
        }
        let node = alive[self.rng.random_range(0..alive.len())];
        if self.class == Class::Strong {
            let (place, command) = self.clients.registers.asks(self.now, &mut self.rng);
            return self.operate(node, place, command, Some(client));
        }
        let name = Name { map: u8::from(self.rng.random_ratio(1, 5)), key: self.any_key() };
        self.clients.ledger.operations += 1;
        let (value, ttl) = match self.rng.random_range(0..20) {
            0..9 => return self.read(node, name, Some(client)),
            9..12 => (None, None),
            12..14 => (Some(self.clients.next_value), Some(self.rng.random_range(100..1500))),
            _ => (Some(self.clients.next_value), None),
        };
        self.clients.next_value += 1;
        let through = self.through(node);
        let write = Write { value, through, asked: self.now, outcome: Outcome::Open, ttl };
        let place = self.clients.ledger.write(name, write);
        let words = words(name, value, ttl);
        let asked =
            Asked { client: Some(client), node, through, name, write: Some(place), operation: None, since: self.now };
        self.ask(asked, partition(name), words);
    }

    fn operate(&mut self, node: usize, place: Place, command: Command, client: Option<usize>) {
        self.clients.ledger.operations += 1;
        let name = Name { map: 0, key: place.0 };
        let words = registers::words(place.0, command);
        let partition = partition_of(&words[1], PARTITIONS);
        let through = self.through(node);
        let asked = Asked { client, node, through, name, write: None, operation: Some(place), since: self.now };
        self.ask(asked, partition, words);
    }

    /// A node as it runs now.
    fn through(&self, node: usize) -> Through {
        (node, self.process(node).map_or(0, |process| process.generation.0))
    }

    /// Some keys are asked for more often, so that commands for one key meet.
    fn any_key(&mut self) -> u32 {
        let hot = self.rng.random_ratio(if self.shape.is_mirrored() { 2 } else { 1 }, 3);
        self.rng.random_range(0..if hot { 2 } else { KEYS })
    }

    fn read(&mut self, node: usize, name: Name, client: Option<usize>) {
        let words = match name.map {
            0 => vec![Bytes::from_static(b"GET"), name.text()],
            map => vec![Bytes::from_static(b"DM.GET"), Bytes::from(MAPS[usize::from(map)]), name.text()],
        };
        let through = self.through(node);
        let asked = Asked { client, node, through, name, write: None, operation: None, since: self.now };
        self.ask(asked, partition(name), words);
    }

    fn ask(&mut self, asked: Asked, partition: Partition, words: Vec<Bytes>) {
        let Some(start) = self.process(asked.node).map(|process| process.generation) else { return };
        self.clients.next_request += 1;
        let request = self.clients.next_request;
        let ticket = Ticket { connection: asked.node as u64, request, part: 0 };
        self.trace.about(self.now, asked.name, || format!("client asks node-{}: {words:?}", asked.node));
        let at = self.now + self.rng.random_range(0..2);
        self.later(at, Event::At(asked.node, start, Arrival::Command(ticket, partition, words)));
        self.clients.open.insert(request, asked);
    }

    /// The connections of a node that ended are gone.
    pub(crate) fn clients_lose(&mut self, node: usize) {
        let lost: Vec<u64> =
            self.clients.open.iter().filter(|(_, asked)| asked.node == node).map(|(request, _)| *request).collect();
        for request in lost {
            if let Some(asked) = self.clients.open.remove(&request) {
                self.conclude(&asked, &Reply::Error("OUTCOMEUNKNOWN connection closed".to_owned()));
            }
        }
    }

    /// A node answers a client: by itself, or with what another one said (`relayed`).
    pub(crate) fn answered(&mut self, node: usize, ticket: Ticket, reply: &Reply, relayed: bool) {
        let Some(asked) = self.clients.open.remove(&ticket.request) else { return };
        if asked.write.is_some() && !reply.is_error() && !relayed {
            let finding = self.process_and_observer(node, |process, observer| {
                observer.acknowledges(process, partition(asked.name).index())
            });
            self.find(finding);
        }
        self.conclude(&asked, reply);
    }

    fn conclude(&mut self, asked: &Asked, reply: &Reply) {
        self.trace.about(self.now, asked.name, || format!("client asked {} at {}: {reply:?}", asked.node, asked.since));
        self.trace.mix(self.now);
        let refused = refusal(reply);
        if let Some(text) = refused {
            self.figures.leases_out += u64::from(text.starts_with("CLUSTERQUORUM"));
            self.refused(asked, text);
        } else {
            let gap = self.now - self.clients.last_success;
            self.figures.longest_unavailable = self.figures.longest_unavailable.max(gap);
            self.clients.last_success = self.now;
            match asked.write {
                _ if asked.operation.is_some() => self.operated(asked, reply),
                Some(place) => self.clients.ledger.wrote(asked.name, place, Outcome::Acknowledged(self.now)),
                None => self.found(asked, reply),
            }
        }
        if let Some(client) = asked.client {
            let thinking = if self.shape.is_mirrored() { LITTLE_THINKING } else { THINKING };
            let at = self.now + self.rng.random_range(1..thinking);
            self.later(at, Event::Client(client));
        }
    }

    fn refused(&mut self, asked: &Asked, text: &str) {
        if let (Some(limit), None, None) = (self.clients.patience, asked.client, asked.operation) {
            if self.now < limit {
                self.clients.again += 1;
                return self.later(self.now + 100, Event::Reread(asked.name));
            }
            let text = format!("{:?} is refused although all is quiet: {text}", asked.name);
            self.find(Some(Finding::new(one_table::NAME, text)));
        }
        self.trace
            .say(self.now, || format!("node-{} refuses {:?} since {}: {text}", asked.node, asked.name, asked.since));
        let what = format!("{:?}, asked of node-{} at {},", asked.name, asked.node, asked.since);
        self.find(planned_moves_are_not_felt::check(self.class, &what, text));
        self.clients.refusals.push(text.to_owned());
        let unknown = text.starts_with("OUTCOMEUNKNOWN");
        if let Some(place) = asked.operation {
            self.clients.ledger.unknown += u64::from(unknown);
            if !unknown {
                self.clients.registers.refused(place);
            }
        }
        let Some(place) = asked.write else { return };
        let outcome = if unknown { Outcome::Unknown } else { Outcome::Refused };
        self.clients.ledger.wrote(asked.name, place, outcome);
    }

    fn operated(&mut self, asked: &Asked, reply: &Reply) {
        let Some(place) = asked.operation else { return };
        self.clients.ledger.acknowledged += 1;
        self.clients.registers.answered(place, self.now, reply);
    }

    fn found(&mut self, asked: &Asked, reply: &Reply) {
        let found = match reply {
            Reply::Bulk(bytes) => value_of(asked.name, bytes),
            _ => Found::Nothing,
        };
        let read = Read {
            through: asked.through,
            found,
            asked: asked.since,
            answered: self.now,
            last: asked.client.is_none(),
        };
        let (rules, class, values) = (self.rules(), self.class, self.values_count_since());
        let entry = self.clients.ledger.entries.entry(asked.name).or_default();
        entry.reads.push(read);
        let finding = judge(asked.name, entry, &read, (class, values), &rules);
        if finding.is_some() {
            self.trace.watched = self.trace.watched.or(Some(asked.name));
        }
        self.find(finding);
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            read_quorum: self.shape.read_quorum,
            evicts: self.shape.max_bytes < crate::shape::ROOMY,
            overtime: OVERTIME,
            stale: if self.shape.is_mirrored() { MIRROR + 2 } else { 0 },
        }
    }

    /// Waits for all answers, reads every entry once more, and judges every read with what is known in the end.
    pub(crate) fn verify(&mut self) {
        self.load(false);
        if !self.until(20_000, |cluster| cluster.clients.is_idle()) {
            let text = format!("after 20 s these have no answer: {:?}", self.clients.open);
            return self.find(Some(Finding::new(one_table::NAME, text)));
        }
        self.clients.patience = Some(self.now + PATIENCE);
        for name in self.clients.ledger.names() {
            self.last_read(name);
        }
        self.last_operations();
        if !self.until(20_000, |cluster| cluster.clients.is_idle()) {
            let text = "a last read has no answer after 20 s".to_owned();
            self.find(Some(Finding::new(one_table::NAME, text)));
        }
        self.clients.patience = None;
        self.judge_all();
        if !self.observer.amnesia {
            self.find(linearizable::check(&self.clients.registers));
        }
    }

    fn last_operations(&mut self) {
        let (keys, alive): (Vec<u32>, _) = (self.clients.registers.keys.keys().copied().collect(), self.alive());
        for key in keys.into_iter().filter(|_| !alive.is_empty()) {
            let place = self.clients.registers.ask(key, Command::Get, self.now);
            self.operate(alive[key as usize % alive.len()], place, Command::Get, None);
        }
    }

    pub(crate) fn last_read(&mut self, name: Name) {
        let alive = self.alive();
        if alive.is_empty() {
            self.clients.again += 1;
            return self.later(self.now + 100, Event::Reread(name));
        }
        let node = alive[self.rng.random_range(0..alive.len())];
        self.read(node, name, None);
    }

    /// Since when values say anything.
    fn values_count_since(&self) -> u64 {
        if self.observer.amnesia { self.clients.one_since.unwrap_or(u64::MAX) } else { 0 }
    }

    /// The cluster is one, and whoever was on the side that lost has been told.
    pub(crate) fn is_one(&mut self) {
        self.clients.one_since = Some(self.now);
    }

    fn judge_all(&mut self) {
        let (rules, class, values) = (self.rules(), self.class, self.values_count_since());
        let entries = &self.clients.ledger.entries;
        let finding = entries.iter().find_map(|(name, entry)| {
            let judged = |read| judge(*name, entry, read, (class, values), &rules);
            entry.reads.iter().find_map(judged).map(|finding| (*name, finding))
        });
        if let Some((name, finding)) = finding {
            self.trace.watched = self.trace.watched.or(Some(name));
            self.find(Some(finding));
        }
    }
}

fn words(name: Name, value: Option<u64>, ttl: Option<u64>) -> Vec<Bytes> {
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    let map = Bytes::from(MAPS[usize::from(name.map)]);
    let mut words = match (name.map, value) {
        (0, None) => vec![word("DEL"), name.text()],
        (0, Some(value)) => vec![word("SET"), name.text(), name.value(value)],
        (_, None) => vec![word("DM.DEL"), map, name.text()],
        (_, Some(value)) => vec![word("DM.PUT"), map, name.text(), name.value(value)],
    };
    if let Some(ttl) = ttl {
        words.extend([word("PX"), Bytes::from(ttl.to_string())]);
    }
    words
}

/// An error, unless it only says that there is no such key.
fn refusal(reply: &Reply) -> Option<&str> {
    match reply {
        Reply::Error(text) if !text.starts_with("KEYNOTFOUND") => Some(text),
        _ => None,
    }
}

fn value_of(name: Name, bytes: &[u8]) -> Found {
    let number = std::str::from_utf8(bytes).ok().and_then(|text| {
        let (map, rest) = text.split_once('/')?;
        let (key, number) = rest.split_once('/')?;
        let own = map.parse() == Ok(name.map) && key.parse() == Ok(name.key);
        own.then(|| number.parse().ok()).flatten()
    });
    number.map_or(Found::Foreign, Found::Value)
}
