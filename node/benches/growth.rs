//! What a cluster costs as it grows: the nodes' own logic and failure detector in one process and in simulated time, with
//! nothing to do but to be one cluster. What is counted: messages, frames and datagrams of a quiet cluster, the size of a
//! table, the time to plan one and to take one, and what the end of one member sets in motion. Bytes are those of the
//! messages and of the datagrams before they are sealed; HTTP/2, TLS, TCP and UDP come on top.
//!
//!     cargo bench --profile ci --workspace --bench growth -- --nodes 3 --nodes 10 --nodes 30 --nodes 100

#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use clap::Parser;
use mizuya_node::{
    io::peer::{FRAME_BYTES, convert::to_wire},
    logic::{
        clock::{Clock, Millis},
        cluster::{
            member::{Generation, MemberName, State},
            membership::{Change, Destination, Membership, Output},
            message::Message,
            next_table::{Joiner, Known, Wishes, next_table},
            table::{Live, Table},
        },
        node::{Config, Effects, Identity, Mirroring, Node},
    },
};
use mizuya_wire::{
    peer::Frame,
    quorum::MemberQuorum,
    settings::{Environment, Eviction},
};
use nix::time::{ClockId, clock_gettime};
use prost::Message as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FACTOR: u32 = 2;
/// Milliseconds between two ticks of a node, as in `io`.
const TICK: u64 = 20;
/// Simulated milliseconds that a quiet cluster is watched.
const QUIET: u64 = 5_000;
/// Simulated milliseconds that beginning or healing may take.
const PATIENCE: u64 = 300_000;

#[derive(Parser)]
struct Arguments {
    /// Members, once for each size
    #[arg(long, default_values_t = [3, 10, 30, 100])]
    nodes: Vec<usize>,
    /// Partitions
    #[arg(long, default_value_t = 1024)]
    partitions: u16,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    println!("{} partitions, {FACTOR} copies, timing of `lan`; a quiet cluster, each second:\n", arguments.partitions);
    let mut rows = Vec::new();
    for members in &arguments.nodes {
        let row = measure(*members, arguments.partitions);
        println!("{members} members");
        for (what, figure) in &row {
            println!("  {what:54} {figure:12.1}");
        }
        rows.push((*members as f64, row));
    }
    if rows.len() < 2 {
        return;
    }
    println!("\nas a power of the number of members n, by least squares over all sizes");
    for (at, (what, _)) in rows.first().into_iter().flat_map(|(_, row)| row.iter().enumerate()) {
        let points: Vec<(f64, f64)> = rows.iter().map(|(size, row)| (size.ln(), row[at].1.ln())).collect();
        println!("  {what:54} n^{:.2}", slope(&points));
    }
}

fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    over / points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>()
}

type Figures = Vec<(&'static str, f64)>;

fn measure(members: usize, partitions: u16) -> Figures {
    let mut cluster = Cluster::new(members, partitions);
    cluster.until("begun", Cluster::is_whole);
    cluster.run(QUIET);
    let mut quiet = Counted::default();
    let took = on_cpu(|| quiet = cluster.counted(|cluster| cluster.run(QUIET)));
    let seconds = QUIET as f64 / 1000.0;
    let table = cluster.table();
    let (each, all) = (members as f64 * seconds, seconds);
    let mut figures = vec![
        ("messages on streams, of all members", quiet.messages as f64 / all),
        ("frames, of all members", quiet.frames as f64 / all),
        ("bytes of frames, of all members", quiet.frame_bytes as f64 / all),
        ("bytes of frames, of one member", quiet.frame_bytes as f64 / each),
        ("gossip datagrams, of all members", quiet.datagrams as f64 / all),
        ("gossip datagrams, of one member", quiet.datagrams as f64 / each),
        ("bytes of gossip, of one member", quiet.datagram_bytes as f64 / each),
        ("us of CPU of one member's logic", took.as_micros() as f64 / each),
        ("bytes of a table", to_wire(Message::Propose(Arc::new(table.clone())), Millis(0)).encoded_len() as f64),
    ];
    figures.extend(planning(&table));
    let (epoch, at) = (table.epoch.counter, cluster.now);
    let healing = cluster.counted(|cluster| {
        cluster.end(members - 1);
        cluster.until("healed", |cluster| cluster.table().epoch.counter > epoch && cluster.is_whole());
    });
    let taken = &mut cluster.taken;
    taken.sort();
    figures.extend([
        ("us to take a table, median over members", taken[taken.len() / 2].as_nanos() as f64 / 1e3),
        ("us to take a table, most", taken[taken.len() - 1].as_nanos() as f64 / 1e3),
        ("tables after the end of one member", (cluster.table().epoch.counter - epoch) as f64),
        ("ms until all copies are there again, empty ones", (cluster.now - at) as f64),
        ("KiB of frames until then, of all members", healing.frame_bytes as f64 / 1024.0),
    ]);
    figures
}

/// Time to plan the table after a loss, and the one in which a joiner becomes a member.
fn planning(table: &Table) -> Figures {
    let counter = table.epoch.counter + 1;
    let last = table.members.last().unwrap();
    let lost = Wishes { down: BTreeSet::from([(last.name.clone(), last.generation)]), ..Wishes::default() };
    let joiner = Joiner { generation: Generation(9_999), client_port: 3320, peer_port: 3322, zone: String::new() };
    let asks = Wishes { joiners: BTreeMap::from([(MemberName::from("joiner"), joiner)]), ..Wishes::default() };
    let joining = next_table(table, &asks, counter, Known::InForce).unwrap();
    let caught_up = joining.in_state(State::Joining).map(|member| member.id).collect();
    let joins = Wishes { caught_up, ..asks };
    let plan = |base: &Table, wishes: &Wishes| {
        let one = || {
            let plan = || drop(next_table(base, wishes, counter + 1, Known::InForce).unwrap());
            on_cpu(plan).as_nanos() as f64 / 1e6
        };
        let mut all: Vec<f64> = (0..5).map(|_| one()).collect();
        all.sort_by(f64::total_cmp);
        all[2]
    };
    vec![
        ("ms to plan the table after a loss", plan(table, &lost)),
        ("ms to plan the one of a joiner", plan(&joining, &joins)),
    ]
}

/// Time that this thread ran meanwhile, so that others on the machine count less.
fn on_cpu(work: impl FnOnce()) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let start = now();
    work();
    now().saturating_sub(start)
}

#[derive(Clone, Copy, Default)]
struct Counted {
    messages: u64,
    frames: u64,
    frame_bytes: u64,
    datagrams: u64,
    datagram_bytes: u64,
}

/// Members that all have streams to each other; what is sent arrives in the next millisecond.
struct Cluster {
    now: u64,
    names: Vec<MemberName>,
    nodes: Vec<Node>,
    detectors: Vec<Membership>,
    running: Vec<bool>,
    frames: Vec<(usize, usize, Vec<Message>)>,
    datagrams: Vec<(usize, Bytes)>,
    counted: Option<Counted>,
    /// How long members needed for each table that was proposed or came into force.
    taken: Vec<Duration>,
    random: u64,
}

impl Cluster {
    fn new(members: usize, partitions: u16) -> Self {
        let names: Vec<MemberName> = (0..members)
            .map(|n| MemberName::from(format!("sessions-{n}.sessions-peers.default.svc").as_str()))
            .collect();
        let clock = Clock { now: Millis(1_000), wall: 1_800_000_000_000 };
        let configs: Vec<Config> = (0..members).map(|member| config(&names, member, partitions)).collect();
        let detector =
            |(seed, config): (usize, &Config)| Membership::new(config.detector(clock.wall, seed as u64), clock.now);
        let mut cluster = Self {
            now: clock.now.0,
            detectors: configs.iter().enumerate().map(detector).collect(),
            nodes: configs.into_iter().map(|config| Node::new(config, clock)).collect(),
            running: vec![true; members],
            names,
            frames: Vec::new(),
            datagrams: Vec::new(),
            counted: None,
            taken: Vec::new(),
            random: 1,
        };
        for from in 0..members {
            for to in (0..members).filter(|to| *to != from) {
                let name = cluster.names[to].clone();
                cluster.with(from, |node, clock, effects| node.stream_up(&name, clock, effects));
                cluster.detectors[from].stream_works(&name);
            }
        }
        cluster
    }

    fn clock(&self) -> Clock {
        Clock { now: Millis(self.now), wall: 1_800_000_000_000 + self.now }
    }

    fn with(&mut self, member: usize, act: impl FnOnce(&Node, Clock, &mut Effects)) {
        let (clock, mut effects) = (self.clock(), Effects::default());
        act(&self.nodes[member], clock, &mut effects);
        assert!(effects.fatal.is_none(), "{}: {:?}", self.names[member], effects.fatal);
        for peer in effects.wake {
            self.flush(member, &peer);
        }
    }

    fn place(&self, name: &str) -> usize {
        self.names.iter().position(|known| known.as_str() == name).unwrap()
    }

    fn flush(&mut self, from: usize, peer: &MemberName) {
        let to = self.place(peer.as_str());
        loop {
            let messages = self.nodes[from].take_messages(peer, FRAME_BYTES, self.clock());
            if messages.is_empty() {
                return;
            }
            if let Some(counted) = &mut self.counted {
                counted.messages += messages.len() as u64;
                counted.frames += 1;
                let messages = messages.iter().map(|message| to_wire(message.clone(), Millis(self.now))).collect();
                counted.frame_bytes += Frame { messages, ..Frame::default() }.encoded_len() as u64;
            }
            self.frames.push((from, to, messages));
        }
    }

    fn detected(&mut self, member: usize, output: Output) {
        for (to, datagram) in output.datagrams {
            let to = match &to {
                Destination::Member(name, _) => self.place(name.as_str()),
                Destination::Peer(host, _) => self.place(host),
            };
            if let Some(counted) = &mut self.counted {
                counted.datagrams += 1;
                counted.datagram_bytes += datagram.len() as u64;
            }
            self.datagrams.push((to, datagram));
        }
        for change in output.changes {
            self.with(member, |node, clock, effects| match &change {
                Change::Up(name, start) => node.member_up(name, *start, clock, effects),
                Change::Down(name, start) => node.member_down(name, *start, clock, effects),
            });
        }
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += 1;
        let (frames, datagrams) = (std::mem::take(&mut self.frames), std::mem::take(&mut self.datagrams));
        for (from, to, messages) in frames.into_iter().filter(|(_, to, _)| self.running[*to]).collect::<Vec<_>>() {
            let (name, start) = (self.names[from].clone(), Generation(from as u64 + 1));
            for message in messages {
                self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let random = self.random;
                let is_table = matches!(message, Message::Propose(_) | Message::InForce { .. });
                let took = on_cpu(|| {
                    self.with(to, |node, clock, effects| node.receive(&name, start, message, clock, random, effects));
                });
                if is_table {
                    self.taken.push(took);
                }
            }
        }
        for (to, datagram) in datagrams {
            if self.running[to] {
                let mut output = Output::default();
                self.detectors[to].receive(&datagram, Millis(self.now), &mut output);
                self.detected(to, output);
            }
        }
        for member in (0..self.nodes.len()).filter(|member| self.running[*member]).collect::<Vec<_>>() {
            if self.detectors[member].next_deadline() <= Millis(self.now) {
                let mut output = Output::default();
                self.detectors[member].tick(Millis(self.now), &mut output);
                self.detected(member, output);
            }
            if (self.now + member as u64).is_multiple_of(TICK) {
                let random = self.now * 31 + member as u64;
                self.with(member, |node, clock, effects| node.tick(clock, random, effects));
            }
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.step();
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = self.now + PATIENCE;
        while !done(self) {
            assert!(self.now < end, "not {what} after {PATIENCE} ms");
            self.run(TICK);
        }
    }

    fn counted(&mut self, act: impl FnOnce(&mut Self)) -> Counted {
        self.counted = Some(Counted::default());
        self.taken.clear();
        act(self);
        self.counted.take().unwrap()
    }

    /// A member ends, and its peers' streams to it break.
    fn end(&mut self, member: usize) {
        self.running[member] = false;
        let name = self.names[member].clone();
        for other in (0..self.nodes.len()).filter(|other| *other != member) {
            self.with(other, |node, clock, effects| node.stream_down(&name, clock, effects));
            let mut output = Output::default();
            self.detectors[other].stream_broke(&name, Millis(self.now), &mut output);
            self.detected(other, output);
        }
    }

    /// The table in force at the first member.
    fn table(&self) -> Table {
        self.nodes[0].routing().table.as_deref().unwrap().clone()
    }

    /// All have one table, by which every copy is in sync with a member that runs.
    fn is_whole(&self) -> bool {
        let routing = self.nodes[0].routing();
        let Some(table) = &routing.table else { return false };
        let running = self.running.iter().filter(|running| **running).count();
        let factor = (FACTOR as usize).min(running);
        let followed =
            self.nodes.iter().zip(&self.running).all(|(node, running)| !running || node.epoch() == routing.epoch);
        followed
            && table.live().count() == running
            && table.partitions.iter().all(|partition| {
                partition.copies.len() == factor
                    && table.running(partition).count() == factor
                    && partition.from.is_none()
            })
    }
}

fn config(names: &[MemberName], member: usize, partitions: u16) -> Config {
    Config {
        identity: Identity {
            cluster_name: "sessions".to_owned(),
            name: names[member].clone(),
            generation: Generation(member as u64 + 1),
            client_port: 3320,
            peer_port: 3322,
            environment: "lan".to_owned(),
            default_map: "default".to_owned(),
            zone: String::new(),
        },
        partitions,
        live: Live {
            generation: 1,
            factor: FACTOR,
            read_quorum: 1,
            write_quorum: 1,
            member_quorum: MemberQuorum::Auto,
        },
        timing: Environment::Lan.timing(),
        peers: names.iter().map(|name| (name.to_string(), 3322)).collect(),
        max_bytes: 1 << 30,
        eviction: Eviction::Auto,
        bootstrap_timeout: Duration::from_secs(5),
        rejoin_timeout: Duration::from_mins(1),
        restore: None,
        mirroring: Mirroring::default(),
        move_rate: 2 << 20,
    }
}
