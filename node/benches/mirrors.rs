//! Whether one hot key loads one node: reads after Zipf's law, the same number through each of three members, what each
//! member takes of a core for them, and how many commands it executes on its partitions. Two clusters take turns, one with
//! mirrors of hot remote keys and one without.
//!
//!     cargo bench --profile ci --workspace --bench mirrors -- --rounds 7

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    net::SocketAddr,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::Parser;
use mizuya_node::logic::{keyspace::partition_of, store::mix};
use mizuya_wire::{
    admin::{MemberState, TableRequest},
    settings::{Environment, LONGEST_MIRROR, Settings},
};
use support::{
    Place,
    client::{Answer, Client},
    process::Process,
};

const MEMBERS: u8 = 3;
const PARTITIONS: u16 = 256;

#[derive(Clone, Parser)]
struct Arguments {
    /// Rounds; in each, both clusters have their turn
    #[arg(long, default_value_t = 7)]
    rounds: u64,
    /// Seconds of each turn
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Keys
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// Bytes of one value
    #[arg(long, default_value_t = 100)]
    value: usize,
    /// The law's exponent
    #[arg(long, default_value_t = 1.2)]
    exponent: f64,
    /// Reads a second through each member
    #[arg(long, default_value_t = 4000)]
    rate: u32,
    /// Reads that a connection sends at once; then it waits for the answers
    #[arg(long, default_value_t = 1)]
    pipeline: u32,
    /// Connections to each member
    #[arg(long, default_value_t = 8)]
    connections: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

struct Cluster {
    place: Place,
    members: Vec<Process>,
}

impl Cluster {
    async fn start(mirror: Duration, arguments: &Arguments) -> Self {
        let place = Place::new();
        let settings = |member| Settings {
            environment: Environment::Lan,
            partitions: PARTITIONS,
            max_memory: Some(1 << 30),
            hot_key_mirror: mirror,
            ..place.settings(member, MEMBERS)
        };
        let members = (1..=MEMBERS).map(|member| Process::start(&settings(member))).collect();
        let whole = |status: &mizuya_wire::admin::StatusReply| {
            status.ready
                && status.members.len() == usize::from(MEMBERS)
                && status.members.iter().all(|member| member.reachable && member.state() == MemberState::Active)
                && status.partitions_short_of_copies == 0
        };
        for member in 1..=MEMBERS {
            place.until(member, "whole", whole).await;
        }
        fill(place.address(1, 3320), arguments);
        Self { place, members }
    }

    /// Which share of all reads each member would get if all of them went to primaries.
    async fn say_where(&self, zipf: &Zipf) {
        let mut admin = self.place.admin(1).await;
        let table = admin.table(TableRequest::default()).await.unwrap().into_inner();
        let mut primaries = vec![0; usize::from(PARTITIONS)];
        for owners in &table.partitions {
            primaries[owners.partition as usize] = owners.in_sync[0] as usize;
        }
        let mut shares = vec![0.0; table.members.len()];
        for key in 0..zipf.0.len() as u64 {
            shares[primaries[partition_of(&name(key), PARTITIONS).index()]] += zipf.share(key);
        }
        println!("shares of all reads by primary: {shares:.3?}; the hottest key alone {:.3}", zipf.share(0));
    }

    /// What each member took of a core, and the reads that were answered.
    async fn turn(&self, arguments: &Arguments, zipf: &Arc<Zipf>, seed: u64) -> Turn {
        let commands = self.commands().await;
        let before: Vec<Duration> = self.members.iter().map(Process::cpu).collect();
        let began = Instant::now();
        let reader = |number: u32| {
            let member = (number / arguments.connections) as u8 + 1;
            let (address, arguments, zipf) = (self.place.address(member, 3320), arguments.clone(), zipf.clone());
            thread::spawn(move || read(address, &arguments, &zipf, seed * 1_000 + u64::from(number)))
        };
        let readers: Vec<JoinHandle<u64>> = (0..arguments.connections * u32::from(MEMBERS)).map(reader).collect();
        let reads = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        let since = |(member, before): (&Process, Duration)| member.cpu().saturating_sub(before);
        let cpu = self.members.iter().zip(before).map(since).collect();
        let took = began.elapsed();
        let commands = self.commands().await.into_iter().zip(commands).map(|(after, before)| after - before).collect();
        Turn { cpu, commands, reads, took }
    }

    /// Commands that each member has executed on its partitions.
    async fn commands(&self) -> Vec<u64> {
        let mut commands = Vec::new();
        for member in 1..=MEMBERS {
            let status = self.place.until(member, "there", |_| true).await;
            commands.push(status.totals.map_or(0, |totals| totals.commands));
        }
        commands
    }
}

struct Turn {
    cpu: Vec<Duration>,
    commands: Vec<u64>,
    reads: u64,
    took: Duration,
}

impl Turn {
    /// What the busiest member took of a core, in means.
    fn cpu_of_the_busiest(&self) -> f64 {
        in_means(self.cpu.iter().map(Duration::as_secs_f64))
    }

    /// What the busiest member executed, in means.
    fn commands_of_the_busiest(&self) -> f64 {
        in_means(self.commands.iter().map(|count| *count as f64))
    }

    /// Of all reads, those that reached a partition.
    fn executed(&self) -> f64 {
        self.commands.iter().sum::<u64>() as f64 / self.reads as f64
    }

    fn cpu_of_a_read(&self) -> f64 {
        self.cpu.iter().sum::<Duration>().as_secs_f64() * 1e6 / self.reads as f64
    }
}

impl std::fmt::Display for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |cpu: &Duration| cpu.as_secs_f64() * 1e6 / self.reads as f64;
        write!(
            f,
            "busiest/mean: CPU {:.2}, commands {:.2}; executed {:.2}; {:.1} us of a core a read ({:.1?} by member); {:.0} reads/s",
            self.cpu_of_the_busiest(),
            self.commands_of_the_busiest(),
            self.executed(),
            self.cpu_of_a_read(),
            self.cpu.iter().map(of).collect::<Vec<_>>(),
            self.reads as f64 / self.took.as_secs_f64()
        )
    }
}

fn in_means(values: impl Iterator<Item = f64> + Clone) -> f64 {
    values.clone().fold(0.0, f64::max) / values.sum::<f64>() * f64::from(MEMBERS)
}

/// Sums of the keys' weights.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(keys: u64, exponent: f64) -> Self {
        let mut sum = 0.0;
        let add = |rank: u64| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Self((1..=keys).map(add).collect())
    }

    fn draw(&self, random: u64) -> u64 {
        let wanted = random as f64 / u64::MAX as f64 * self.0.last().unwrap();
        self.0.partition_point(|sum| *sum < wanted) as u64
    }

    fn share(&self, key: u64) -> f64 {
        let before = if key == 0 { 0.0 } else { self.0[key as usize - 1] };
        (self.0[key as usize] - before) / self.0.last().unwrap()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let zipf = Arc::new(Zipf::new(arguments.keys, arguments.exponent));
    let mut clusters = Vec::new();
    for (what, mirror) in [("without", Duration::ZERO), ("with", LONGEST_MIRROR)] {
        let cluster = Cluster::start(mirror, &arguments).await;
        print!("{what:8}");
        cluster.say_where(&zipf).await;
        clusters.push((what, cluster, Vec::new()));
    }
    for round in 0..=arguments.rounds {
        for (what, cluster, turns) in &mut clusters {
            let turn = cluster.turn(&arguments, &zipf, round).await;
            // The first one only warms up.
            if round > 0 {
                println!("round {round} {what:8}{turn}");
                turns.push(turn);
            }
        }
    }
    for (what, _, turns) in &clusters {
        println!(
            "{what:8}medians of {}: busiest/mean: CPU {:.2}, commands {:.2}; executed {:.2}; {:.1} us of a core a read",
            turns.len(),
            median(turns, Turn::cpu_of_the_busiest),
            median(turns, Turn::commands_of_the_busiest),
            median(turns, Turn::executed),
            median(turns, Turn::cpu_of_a_read)
        );
    }
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut all: Vec<f64> = turns.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn name(key: u64) -> Vec<u8> {
    format!("key-{key}").into_bytes()
}

/// Reads at the connection's share of the rate, and catches up when it is late. Returns how many.
fn read(address: SocketAddr, arguments: &Arguments, zipf: &Zipf, seed: u64) -> u64 {
    let mut client = Client::open(address);
    let every = Duration::from_secs(1) * arguments.connections / arguments.rate;
    let (began, mut reads) = (Instant::now(), 0_u64);
    while began.elapsed() < Duration::from_secs(arguments.seconds) {
        thread::sleep((every * reads as u32).saturating_sub(began.elapsed()));
        for at in reads..reads + u64::from(arguments.pipeline) {
            client.add(&[b"GET", &name(zipf.draw(mix(seed << 32 | at)))]);
        }
        client.send();
        for _ in 0..arguments.pipeline {
            assert!(matches!(client.answer(), Answer::Value(_)));
        }
        reads += u64::from(arguments.pipeline);
    }
    reads
}

fn fill(address: SocketAddr, arguments: &Arguments) {
    const PIPELINE: u64 = 256;
    let (mut client, value) = (Client::open(address), vec![b'v'; arguments.value]);
    let mut key = 0;
    while key < arguments.keys {
        let end = (key + PIPELINE).min(arguments.keys);
        for key in key..end {
            client.add(&[b"SET", &name(key), &value]);
        }
        client.send();
        for _ in key..end {
            assert_eq!(client.answer(), Answer::Line("+OK"));
        }
        key = end;
    }
}
