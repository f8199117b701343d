//! How long writes wait for a dead member: kills a process again and again, and measures from SIGKILL to the first
//! acknowledged write of a key whose primary it was. And whether a member that was only paused, for less than the
//! suspicion time, is declared down.
//!
//!     cargo bench --profile ci --workspace --bench failover -- --environment lan --kills 30

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use clap::Parser;
use mizuya_node::logic::keyspace::partition_of;
use mizuya_wire::{
    admin::{StatusReply, TableRequest},
    settings::{Environment, Settings},
};
use nix::sys::signal::Signal;
use support::{LIMIT, Place, process::Process};
use tokio::{task::spawn_blocking, time::sleep};

const MEMBERS: u8 = 3;
/// Between two tries of a write that was refused.
const RETRY: Duration = Duration::from_millis(5);

#[derive(Parser)]
struct Arguments {
    /// local, lan or wan
    #[arg(long, default_value = "lan")]
    environment: String,
    /// How often
    #[arg(long, default_value_t = 30)]
    kills: usize,
    /// How often a member is paused for nine tenths of the suspicion time
    #[arg(long, default_value_t = 10)]
    pauses: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let environment = match arguments.environment.as_str() {
        "local" => Environment::Local,
        "wan" => Environment::Wan,
        _ => Environment::Lan,
    };
    let place = Place::new();
    let settings = |member| Settings { environment, partitions: 256, ..place.settings(member, MEMBERS) };
    let mut processes: Vec<Process> = (1..=MEMBERS).map(|member| Process::start(&settings(member))).collect();
    let mut took = Vec::new();
    for kill in 0..arguments.kills {
        let victim = (kill % usize::from(MEMBERS)) as u8 + 1;
        took.push(kill_one(&place, &mut processes[usize::from(victim) - 1], victim).await);
        println!("kill {:2} of {}: {:4} ms", kill + 1, place.name(victim), took[kill].as_millis());
        processes[usize::from(victim) - 1] = Process::start(&settings(victim));
        place.until(victim, "back", |status| status.ready).await;
    }
    took.sort();
    let at =
        |share: f64| took.get((took.len().saturating_sub(1) as f64 * share) as usize).map_or(0, Duration::as_millis);
    println!(
        "{}: {} kills, first acknowledged write after {} ms at the median, {} ms at the 90th percentile, {} ms at most",
        arguments.environment,
        took.len(),
        at(0.5),
        at(0.9),
        at(1.0)
    );
    let mut declared = 0;
    for pause in 0..arguments.pauses {
        let paused = (pause % usize::from(MEMBERS)) as u8 + 1;
        let process = &processes[usize::from(paused) - 1];
        declared += usize::from(pause_one(&place, process, paused, environment.timing().suspicion).await);
    }
    println!("{}: {} pauses, {declared} declared down", arguments.environment, arguments.pauses);
}

async fn kill_one(place: &Place, process: &mut Process, victim: u8) -> Duration {
    let survivor = victim % MEMBERS + 1;
    place.until(survivor, "whole", whole).await;
    let key = key_of(place, survivor, victim).await;
    let address = place.address(survivor, 3320);
    write_until_taken(address, &key);
    let began = Instant::now();
    process.kill();
    let written = spawn_blocking(move || {
        write_until_taken(address, &key);
        began.elapsed()
    });
    written.await.unwrap()
}

/// Whether the members made a table meanwhile, as they do when one is declared down.
async fn pause_one(place: &Place, process: &Process, paused: u8, suspicion: Duration) -> bool {
    let asked = paused % MEMBERS + 1;
    let before = place.until(asked, "whole", whole).await.epoch;
    process.signal(Signal::SIGSTOP);
    sleep(suspicion.mul_f64(0.9)).await;
    process.signal(Signal::SIGCONT);
    sleep(suspicion * 2).await;
    place.until(asked, "whole", whole).await.epoch != before
}

fn whole(status: &StatusReply) -> bool {
    status.ready
        && status.members.iter().filter(|member| member.reachable).count() == usize::from(MEMBERS)
        && status.partitions_short_of_copies == 0
        && status.partitions_moving == 0
}

/// A key whose primary is `owner`.
async fn key_of(place: &Place, asked: u8, owner: u8) -> String {
    let table = place.admin(asked).await.table(TableRequest {}).await.unwrap().into_inner();
    let name = place.name(owner);
    let index = table.members.iter().position(|member| *member == name).unwrap() as u32;
    let count = table.partitions.len() as u16;
    let owned =
        |key: &String| table.partitions[partition_of(key.as_bytes(), count).index()].in_sync.first() == Some(&index);
    (0..100_000).map(|number| format!("key-{number}")).find(owned).unwrap()
}

fn write_until_taken(address: SocketAddr, key: &str) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    loop {
        stream.write_all(format!("SET {key} value\r\n").as_bytes()).unwrap();
        let mut reply = String::new();
        replies.read_line(&mut reply).unwrap();
        if reply == "+OK\r\n" {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{reply}");
        std::thread::sleep(RETRY);
    }
}
