//! Whether memory stays within its bounds: loads one real node with values from 16 B to 1 MiB, whose sizes shift again and
//! again so that freed memory has the wrong sizes, with overwrites, times to live, deletes and evictions. Looks five times
//! a second what is accounted and what the process has, and ends with an error if the former passed `maxMemory` or the
//! latter the limit that the node keeps below: the container's, or one that follows from `maxMemory`, 100/70 of it.
//!
//!     cargo bench --profile ci --workspace --bench memory -- --minutes 10

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use mizuya_node::io::memory::process_limit;
use mizuya_wire::settings::{Settings, parse_bytes};
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use support::{
    Place,
    client::{Answer, Client},
    process::Process,
};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Commands of one batch, and about how many bytes of values it has at most.
const BATCH: usize = 64;
const BATCH_BYTES: usize = 1 << 20;
/// So many times more keys than fit, so that there are evictions.
const TOO_MANY: u64 = 2;

/// What is written at a time: sizes between two bounds, equally often in each power of two, and how often a key is
/// deleted instead.
struct Phase {
    name: &'static str,
    sizes: (usize, usize),
    deletes: u32,
}

const PHASES: [Phase; 6] = [
    Phase { name: "16 B to 256 B", sizes: (16, 256), deletes: 5 },
    Phase { name: "256 B to 8 KiB", sizes: (256, 8 << 10), deletes: 5 },
    Phase { name: "8 KiB to 64 KiB", sizes: (8 << 10, 64 << 10), deletes: 5 },
    Phase { name: "16 B to 256 B, half of it deletes", sizes: (16, 256), deletes: 50 },
    Phase { name: "64 KiB to 1 MiB", sizes: (64 << 10, 1 << 20), deletes: 5 },
    Phase { name: "16 B to 1 MiB, a third of it deletes", sizes: (16, 1 << 20), deletes: 33 },
];

#[derive(Clone, Parser)]
struct Arguments {
    /// How long
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The node's budget for entries
    #[arg(long, default_value = "512Mi")]
    max_memory: String,
    /// Bytes of values that are written each second, by all connections
    #[arg(long, default_value = "60Mi")]
    rate: String,
    /// Commands each second, by all connections
    #[arg(long, default_value_t = 20_000)]
    commands: u64,
    /// Connections that write
    #[arg(long, default_value_t = 4)]
    connections: u64,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn bytes(flag: &str, text: &str) -> u64 {
    parse_bytes(text).unwrap_or_else(|| panic!("--{flag} {text}: write 64Mi or 1Gi"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let max = bytes("max-memory", &arguments.max_memory);
    let place = Place::new();
    let settings = Settings { max_memory: Some(max), partitions: 256, ..place.settings(1, 1) };
    let _process = Process::start(&settings);
    place.until(1, "ready", |status| status.ready).await;
    let (address, limit) = (place.address(1, 3320), process_limit(max));
    let seen = tokio::task::spawn_blocking(move || run(address, &arguments, max)).await.unwrap();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("accounted: {:.1} MiB at most, maxMemory {:.1} MiB", mib(seen.accounted), mib(max));
    println!(
        "process: {:.1} MiB at most ({:.2} times what is accounted), its limit {:.1} MiB",
        mib(seen.resident),
        seen.resident as f64 / seen.accounted as f64,
        mib(limit)
    );
    if seen.accounted > max || seen.resident > limit {
        println!("A BOUND WAS PASSED");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

struct Seen {
    accounted: u64,
    resident: u64,
}

fn run(address: SocketAddr, arguments: &Arguments, max: u64) -> Seen {
    let lasting = Duration::from_secs(arguments.minutes * 60);
    // Each phase comes twice, so that every change of sizes does.
    let every = lasting / (2 * PHASES.len() as u32);
    let (stop, phase, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::default());
    let writer = |number: u64| {
        let load = Load {
            client: Client::open(address),
            random: SmallRng::seed_from_u64(number),
            rate: bytes("rate", &arguments.rate) / arguments.connections,
            commands: arguments.commands / arguments.connections,
            max,
            written: Arc::clone(&written),
        };
        let (stop, phase) = (Arc::clone(&stop), Arc::clone(&phase));
        thread::spawn(move || load.until(&stop, &phase))
    };
    let writers: Vec<_> = (0..arguments.connections).map(writer).collect();
    let (mut client, mut seen, began) = (Client::open(address), Seen { accounted: 0, resident: 0 }, Instant::now());
    let process = figure(&mut client, "server", "process_id");
    let mut last = Seen { accounted: 0, resident: 0 };
    for at in 0..2 * PHASES.len() {
        phase.store((at % PHASES.len()) as u64, Ordering::Relaxed);
        let (mut accounted, mut resident, mut budget) = (0, 0, max);
        while began.elapsed() < every * (at as u32 + 1) {
            last.accounted = figure(&mut client, "memory", "used_memory");
            last.resident = figure(&mut client, "memory", "used_memory_rss");
            (accounted, resident) = (last.accounted.max(accounted), last.resident.max(resident));
            budget = budget.min(figure(&mut client, "memory", "mizuya_memory_budget"));
            thread::sleep(LOOK_EVERY);
        }
        // What the kernel saw between two looks counts too.
        (seen.accounted, seen.resident) = (seen.accounted.max(accounted), seen.resident.max(peak(process)));
        println!(
            "{:4} s, {:38} budget at least {:6.1} MiB, accounted at most {:6.1}, process {:6.1} (now {:.2} times); {} evicted",
            began.elapsed().as_secs(),
            PHASES[at % PHASES.len()].name,
            budget as f64 / f64::from(1 << 20),
            accounted as f64 / f64::from(1 << 20),
            resident as f64 / f64::from(1 << 20),
            last.resident as f64 / last.accounted as f64,
            figure(&mut client, "stats", "evicted_keys")
        );
    }
    let cpu =
        (seconds(&mut client, "used_cpu_user") + seconds(&mut client, "used_cpu_sys")) / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let refused: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
    println!(
        "{} GiB of values written, {} commands, {refused} answered by an error; the node took {:.1} % of a core",
        written.load(Ordering::Relaxed) >> 30,
        figure(&mut client, "stats", "total_commands_processed"),
        cpu * 100.0
    );
    seen
}

/// The most memory that the process ever had, in bytes.
fn peak(process: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// What one connection writes.
struct Load {
    client: Client,
    random: SmallRng,
    /// Bytes of values a second.
    rate: u64,
    /// Commands a second.
    commands: u64,
    max: u64,
    written: Arc<AtomicU64>,
}

impl Load {
    /// How many commands were answered by an error.
    fn until(mut self, stop: &AtomicBool, phase: &AtomicU64) -> u64 {
        let (mut due, mut refused, mut value) = (Instant::now(), 0, vec![0; 1 << 20]);
        self.random.fill_bytes(&mut value);
        while !stop.load(Ordering::Relaxed) {
            let phase = &PHASES[phase.load(Ordering::Relaxed) as usize];
            let (mut commands, mut bytes) = (0, 0);
            while commands < BATCH && bytes < BATCH_BYTES {
                bytes += self.command(phase, &value);
                commands += 1;
            }
            self.client.send();
            for _ in 0..commands {
                let answer = self.client.answer();
                refused += u64::from(matches!(answer, Answer::Line(line) if line.starts_with('-')));
            }
            self.written.fetch_add(bytes as u64, Ordering::Relaxed);
            let takes = (bytes as f64 / self.rate as f64).max(commands as f64 / self.commands as f64);
            // What was late is not made good.
            due = due.max(Instant::now()) + Duration::from_secs_f64(takes);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        refused
    }

    /// Adds a command; bytes of its value.
    fn command(&mut self, phase: &Phase, value: &[u8]) -> usize {
        let (least, most) = phase.sizes;
        let exponent = self.random.random_range((least as f64).ln()..=(most as f64).ln());
        let size = (exponent.exp() as usize).clamp(least, most);
        // On average a value has so many bytes; what an entry takes beside it matters for short ones only.
        let average = (most - least) as f64 / (most as f64 / least as f64).ln() + 64.0;
        // Keys of all phases begin at 0: those that others wrote are overwritten with other sizes.
        let key = format!("key-{}", self.random.random_range(0..TOO_MANY * (self.max as f64 / average) as u64));
        match self.random.random_range(0..100) {
            chance if chance < phase.deletes => self.client.add(&[b"DEL", key.as_bytes()]),
            chance if chance < phase.deletes + 5 => self.client.add(&[b"GET", key.as_bytes()]),
            chance => {
                let at = self.random.random_range(0..=value.len() - size);
                let value = &value[at..at + size];
                let millis = self.random.random_range(50..20_000).to_string();
                if chance < phase.deletes + 20 {
                    self.client.add(&[b"SET", key.as_bytes(), value, b"PX", millis.as_bytes()]);
                } else {
                    self.client.add(&[b"SET", key.as_bytes(), value]);
                }
                return size;
            }
        }
        0
    }
}

/// One line of INFO.
fn info(client: &mut Client, section: &str, name: &str) -> String {
    let Answer::Value(text) = client.call(&[b"INFO", section.as_bytes()]) else { panic!("no INFO {section}") };
    let text = String::from_utf8_lossy(text).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("INFO {section} has no {name}: {text}")).to_owned()
}

fn figure(client: &mut Client, section: &str, name: &str) -> u64 {
    info(client, section, name).parse().unwrap()
}

fn seconds(client: &mut Client, name: &str) -> f64 {
    info(client, "cpu", name).parse().unwrap()
}
