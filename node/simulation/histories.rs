//! Random histories: whatever happens, an acknowledged write is read back.

use mizuya_node::logic::cluster::member::{Intent, State};
use mizuya_node::logic::cluster::message::Change;
use rand::RngExt;

use crate::cluster::{Cluster, Shape, name};

/// Crashes one at a time, planned leaves, turned-back drains and joins, under load.
fn history(seed: u64) -> Cluster {
    let shape = Shape { members: 3, factor: 2, read_quorum: 1, write_quorum: 1 + (seed % 2) as u32 };
    let mut cluster = Cluster::new(shape, seed);
    cluster.until("a first cluster", 10_000, 0, Cluster::is_quiet);
    cluster.run(300, 300);
    for _ in 0..4 {
        let victim = cluster.rng.random_range(0..3);
        match cluster.rng.random_range(0..4) {
            0 => {
                cluster.crash(victim);
                let pause = cluster.rng.random_range(10..6000);
                cluster.run(pause, 300);
                cluster.start(victim, 3);
            }
            1 => {
                let limit = cluster.rng.random_range(50..3000);
                cluster.leave(victim, Intent::Restart);
                cluster.run(limit, 300);
                // Killed wherever it is, if it was not done in time.
                cluster.finish_leave(victim);
                let last = cluster.rng.random_range(0..500);
                cluster.run(last, 300);
                cluster.crash(victim);
                cluster.run(500, 300);
                cluster.start(victim, 3);
            }
            2 => {
                cluster.ask((victim + 1) % 3, Change::SetState(name(victim), State::Leaving(Intent::Depart)));
                // Whoever asks waits for the answer, as the admin service does.
                cluster.until("the drain has begun", 5000, 300, |c| c.state(victim) != Some(State::Active));
                let pause = cluster.rng.random_range(10..800);
                cluster.run(pause, 300);
                cluster.ask((victim + 2) % 3, Change::SetState(name(victim), State::Active));
            }
            _ => cluster.run(700, 300),
        }
        // Copies are rebuilt before the next fault: one copy is lost at a time.
        cluster.until("quiet after a fault", 60_000, 300, Cluster::is_quiet);
    }
    cluster.verify();
    cluster
}

#[test]
fn no_acknowledged_write_is_lost_in_random_histories() {
    let seeds: Vec<u64> = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED must be a number")],
        Err(_) => (0..std::env::var("HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(40)).collect(),
    };
    let (mut acknowledged, mut unknown) = (0, 0);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| history(seed));
        match outcome {
            Ok(cluster) => {
                acknowledged += cluster.ledger.acknowledged;
                unknown += cluster.ledger.unknown;
            }
            Err(cause) => {
                eprintln!("history failed; replay it with SEED={seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    println!("{acknowledged} acknowledged writes, {unknown} of unknown outcome, 0 lost");
}
