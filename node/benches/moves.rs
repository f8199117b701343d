//! How long reads wait while copies move: fills three members, lets a fourth one join, and compares the reads meanwhile
//! with those just before. Reads come at a fixed rate whatever the answers take, and each is counted from when it was
//! due. After each run the fourth member is killed and forgotten.
//!
//!     cargo bench --profile ci --workspace --bench moves -- --size 1Gi --runs 7

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use clap::Parser;
use mizuya_wire::{
    admin::{ForgetRequest, MemberState, StatusReply, StatusRequest},
    settings::{Environment, Settings, parse_bytes},
};
use support::{
    Place,
    client::{Answer, Client},
    process::Process,
};
use tokio::time::sleep;

const MEMBERS: u8 = 3;
const JOINER: u8 = MEMBERS + 1;
const PARTITIONS: u16 = 256;
const FACTOR: u64 = 2;
/// Connections that read, and that fill.
const READERS: u64 = 16;
const FILLERS: u64 = 6;
/// Commands that a filler sends before it reads the answers.
const PIPELINE: u64 = 256;
/// How long filling, moving or settling may take.
const PATIENCE: Duration = Duration::from_mins(10);
/// Rarely: looking is work for a member and for this program, at rest as well as in a move.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Clone, Parser)]
struct Arguments {
    /// Bytes of all values, such as 1Gi; each is stored twice, and a quarter of that moves
    #[arg(long, default_value = "1Gi")]
    size: String,
    /// Bytes of one value
    #[arg(long, default_value_t = 1024)]
    value: u64,
    /// Reads a second
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Runs, each quiet and moving
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Seconds of the quiet part of each run
    #[arg(long, default_value_t = 10)]
    quiet: u64,
    /// Also print the slowest read of each tenth of a second of the moving parts
    #[arg(long)]
    timeline: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let size = parse_bytes(&arguments.size).unwrap_or_else(|| panic!("--size {}: write 64Mi or 1Gi", arguments.size));
    let keys = (size / arguments.value).max(1);
    let place = Place::new();
    let settings = |member| Settings {
        environment: Environment::Lan,
        partitions: PARTITIONS,
        // Room for all copies on two members, and what an entry costs beside its value.
        max_memory: Some(keys * (arguments.value + 512) * FACTOR + (64 << 20)),
        ..place.settings(member, MEMBERS)
    };
    let _members: Vec<Process> = (1..=MEMBERS).map(|member| Process::start(&settings(member))).collect();
    until(&place, "ready", |status| whole(status, MEMBERS)).await;
    fill(&place, keys, arguments.value).await;
    until(&place, "whole", |status| whole(status, MEMBERS)).await;
    println!("{keys} keys of {} bytes on {MEMBERS} members, {} reads a second", arguments.value, arguments.rate);
    let mut runs = Vec::new();
    for number in 1..=arguments.runs {
        let before = moved(&place).await;
        let run = one_run(&place, &arguments, keys, || Process::start(&settings(JOINER))).await;
        let bytes = moved(&place).await.saturating_sub(before);
        println!("run {number}: {run}, {} MiB moved", bytes >> 20);
        runs.push(run);
        until(&place, "whole again", |status| whole(status, MEMBERS)).await;
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (quiet, moving) = (median(&runs, |run| micros(run.quiet)), median(&runs, |run| micros(run.moving)));
    println!(
        "P99 of reads, medians of {} runs: quiet {quiet:.0} us, moving {moving:.0} us, ratio {:.2}; the median of the \
         runs' own ratios {:.2}",
        runs.len(),
        moving / quiet,
        median(&runs, |run| micros(run.moving) / micros(run.quiet))
    );
}

struct Run {
    quiet: Duration,
    moving: Duration,
    reads: (usize, usize),
    failed: usize,
    took: Duration,
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "P99 quiet {} us of {} reads, moving {} us of {} reads in {:.1} s, {} misses and errors",
            self.quiet.as_micros(),
            self.reads.0,
            self.moving.as_micros(),
            self.reads.1,
            self.took.as_secs_f64(),
            self.failed
        )
    }
}

async fn one_run(place: &Place, arguments: &Arguments, keys: u64, join: impl FnOnce() -> Process) -> Run {
    let readers = Readers::start(place, arguments.rate, keys);
    sleep(Duration::from_secs(1)).await;
    let quiet = Instant::now();
    let end = quiet + Duration::from_secs(arguments.quiet);
    until(place, "at rest", |_| Instant::now() >= end).await;
    let quiet = quiet..Instant::now();
    let mut joiner = join();
    until(place, "moving", |status| status.partitions_moving > 0 && listed(status, JOINER)).await;
    let began = Instant::now();
    until(place, "moved", |status| whole(status, JOINER) && has_its_share(place, status)).await;
    let moving = began..Instant::now();
    let samples = readers.stop();
    joiner.kill();
    let name = place.name(JOINER);
    let is_down =
        |status: &StatusReply| status.members.iter().any(|m| m.name == name && m.state() == MemberState::Down);
    until(place, "the fourth one is down", is_down).await;
    place.admin(1).await.forget(ForgetRequest { member: name }).await.unwrap();
    if arguments.timeline {
        print_timeline(&samples, &moving);
    }
    let of = |part: &std::ops::Range<Instant>| {
        let mut took: Vec<Duration> = samples.iter().filter(|s| part.contains(&s.due)).map(|s| s.took).collect();
        took.sort();
        (took[took.len() * 99 / 100], took.len())
    };
    let failed = samples.iter().filter(|sample| !sample.found).count();
    let ((quiet, quiet_reads), took) = (of(&quiet), moving.end - moving.start);
    let (moving, moving_reads) = of(&moving);
    Run { quiet, moving, reads: (quiet_reads, moving_reads), failed, took }
}

fn print_timeline(samples: &[Sample], part: &std::ops::Range<Instant>) {
    let mut slowest: BTreeMap<u128, Duration> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| part.contains(&sample.due)) {
        let slot = slowest.entry((sample.due - part.start).as_millis() / 100).or_default();
        *slot = sample.took.max(*slot);
    }
    let text: Vec<String> = slowest.values().map(|took| took.as_millis().to_string()).collect();
    println!("slowest reads in ms: {}", text.join(" "));
}

struct Sample {
    due: Instant,
    took: Duration,
    found: bool,
}

/// Threads that read at a fixed rate.
struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Sample>>>,
}

impl Readers {
    fn start(place: &Place, rate: u64, keys: u64) -> Self {
        let (stop, began) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let every = Duration::from_secs(1) * READERS as u32 / rate as u32;
        let thread = |number: u64| {
            let (stop, address) = (stop.clone(), place.address((number % u64::from(MEMBERS)) as u8 + 1, 3320));
            let first = began + every * number as u32 / READERS as u32;
            thread::spawn(move || read_until(&stop, address, first, every, keys))
        };
        let threads = (0..READERS).map(thread).collect();
        Self { stop, threads }
    }

    fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

fn read_until(stop: &AtomicBool, address: SocketAddr, first: Instant, every: Duration, keys: u64) -> Vec<Sample> {
    let (mut client, mut samples, mut due) = (Client::open(address), Vec::new(), first);
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let found = matches!(client.call(&[b"GET", &key(rand::random_range(0..keys))]), Answer::Value(_));
        samples.push(Sample { due, took: due.elapsed(), found });
        due += every;
    }
    samples
}

fn key(number: u64) -> Vec<u8> {
    format!("key-{number}").into_bytes()
}

async fn fill(place: &Place, keys: u64, value: u64) {
    let filler = |number: u64| {
        let address = place.address((number % u64::from(MEMBERS)) as u8 + 1, 3320);
        thread::spawn(move || {
            let (mut client, value) = (Client::open(address), vec![b'v'; value as usize]);
            let mine: Vec<u64> = (number..keys).step_by(FILLERS as usize).collect();
            for part in mine.chunks(PIPELINE as usize) {
                for at in part {
                    client.add(&[b"SET", &key(*at), &value]);
                }
                client.send();
                for _ in part {
                    assert_eq!(client.answer(), Answer::Line("+OK"));
                }
            }
        })
    };
    let fillers: Vec<JoinHandle<()>> = (0..FILLERS).map(filler).collect();
    let ended = tokio::task::spawn_blocking(|| fillers.into_iter().for_each(|filler| filler.join().unwrap()));
    ended.await.unwrap();
}

async fn status(place: &Place) -> Option<StatusReply> {
    place.try_admin(1).await.ok()?.status(StatusRequest {}).await.ok().map(tonic::Response::into_inner)
}

async fn until(place: &Place, what: &str, wanted: impl Fn(&StatusReply) -> bool) {
    let began = Instant::now();
    while !status(place).await.is_some_and(|status| wanted(&status)) {
        assert!(began.elapsed() < PATIENCE, "not {what}");
        sleep(LOOK_EVERY).await;
    }
}

/// Bytes that all members have sent to build copies.
async fn moved(place: &Place) -> u64 {
    let status = status(place).await.unwrap();
    status.members.iter().filter_map(|member| member.totals).map(|totals| totals.moved_bytes).sum()
}

fn listed(status: &StatusReply, members: u8) -> bool {
    status.members.len() == usize::from(members)
}

fn whole(status: &StatusReply, members: u8) -> bool {
    status.ready
        && listed(status, members)
        && status.members.iter().all(|member| member.reachable && member.state() == MemberState::Active)
        && status.partitions_short_of_copies == 0
        && status.partitions_moving == 0
}

fn has_its_share(place: &Place, status: &StatusReply) -> bool {
    let share = u32::from(PARTITIONS) * FACTOR as u32 / u32::from(JOINER);
    let name = place.name(JOINER);
    status.members.iter().any(|member| member.name == name && member.primaries + member.backups >= share)
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut all: Vec<f64> = runs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
