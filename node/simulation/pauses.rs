//! The detector that ships, over datagrams that get lost: whoever stands still for less than the suspicion time is not
//! declared down (rule T10).

use std::sync::Mutex;

use mizuya_wire::settings::Environment;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    cluster::Cluster,
    histories::{HISTORIES, number, on_all_cores},
    shape::{Class, Shape},
    trace::Trace,
};

/// Pauses in one history.
const PAUSES: usize = 6;

fn suspicion() -> u64 {
    Environment::Local.timing().suspicion.as_millis() as u64
}

/// Members stand still, also several at once, each for less than `longest` milliseconds, while clients ask. None: nobody
/// was declared down.
fn declared_down(seed: u64, longest: u64, trace: Trace) -> Option<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let members = rng.random_range(3..=5);
    let shape = Shape { members, gossip: true, ..Shape::THREE };
    let mut cluster = Cluster::new(Class::Beyond, shape, rng, trace);
    if !cluster.until(30_000, Cluster::is_quiet) {
        return Some(format!("no cluster began\n{}", cluster.trace.text()));
    }
    cluster.load(true);
    for _ in 0..PAUSES {
        if let Some(victim) = cluster.victim() {
            let millis = cluster.rng.random_range(1..longest);
            cluster.pause(victim, millis);
        }
        let calm = cluster.rng.random_range(20..1200);
        cluster.run(calm);
    }
    cluster.run(suspicion() * 3);
    cluster.until(3000, Cluster::is_quiet);
    // Whoever is declared down starts anew.
    let fine = cluster.finding.is_none() && cluster.is_quiet() && cluster.figures.starts == members as u64;
    (!fine).then(|| format!("{:?}\n{}", cluster.finding, cluster.trace.text()))
}

#[test]
fn who_stands_still_for_less_than_the_suspicion_time_is_not_declared_down() {
    let found = Mutex::new(None);
    on_all_cores(0..number("HISTORIES").unwrap_or(HISTORIES), |seed| {
        let failed = declared_down(seed, suspicion(), Trace::default()).is_some();
        if failed {
            *found.lock().unwrap() = Some((seed, declared_down(seed, suspicion(), Trace::kept())));
        }
        failed
    });
    if let Some((seed, story)) = found.into_inner().unwrap() {
        panic!("seed {seed}: {}", story.unwrap_or_default());
    }
}

#[test]
fn who_stands_still_for_much_longer_is_declared_down() {
    let longest = suspicion() * 10;
    // By chance all pauses of a history may be short ones.
    let found = (0..20).filter(|seed| declared_down(*seed, longest, Trace::default()).is_some()).count();
    assert!(found >= 15, "in {found} of 20 histories");
}
