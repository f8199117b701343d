//! One history: a cluster of some shape, clients, and faults, all drawn from one number.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    cluster::Cluster,
    figures::Figures,
    invariants::{Finding, copies_are_equal, copies_come_back, one_table, within_limits},
    ledger::Name,
    shape::Class,
    trace::Trace,
};

/// A history has at least so many commands and faults.
pub(crate) const OPERATIONS: u64 = 200;
pub(crate) const FAULTS: u64 = 3;
/// One history of so many has mirrors, and in every other one of those nothing but time ends them from afar.
const MIRRORED: u64 = 5;
/// How long a cluster may take to come to rest after the last fault.
const REST: u64 = 60_000;
/// How long what waits may still wait when nothing is asked any more: longer than a forward and a hold.
const SETTLING: u64 = 8500;

pub(crate) struct Played {
    pub(crate) class: Class,
    pub(crate) finding: Option<Finding>,
    pub(crate) figures: Figures,
    pub(crate) watched: Option<Name>,
    pub(crate) trace: Trace,
}

/// Plays the history of a seed.
pub(crate) fn play(seed: u64, trace: Trace) -> Played {
    play_with(seed, trace, |_| ())
}

/// Plays it after `prepare` has changed the cluster that has not begun yet.
pub(crate) fn play_with(seed: u64, trace: Trace, prepare: impl FnOnce(&mut Cluster)) -> Played {
    let mut rng = StdRng::seed_from_u64(seed);
    let (class, mut shape) = Class::draw(&mut rng);
    shape.mirrors = seed.is_multiple_of(MIRRORED);
    shape.deaf_mirrors = seed.is_multiple_of(2 * MIRRORED);
    let mut cluster = Cluster::new(class, shape, rng, trace);
    prepare(&mut cluster);
    if cluster.until(30_000, Cluster::is_quiet) {
        cluster.load(true);
        cluster.run(300);
        strike_all(&mut cluster);
        come_to_rest(&mut cluster);
    } else if cluster.finding.is_none() {
        cluster.find(Some(Finding::new(one_table::NAME, "no cluster began within 30 s".to_owned())));
    }
    let ledger = &cluster.clients.ledger;
    let mut figures = std::mem::take(&mut cluster.figures);
    figures.operations = ledger.operations;
    figures.acknowledged = ledger.acknowledged;
    figures.unknown = ledger.unknown;
    figures.simulated = cluster.now;
    Played { class, finding: cluster.finding, figures, watched: cluster.trace.watched, trace: cluster.trace }
}

fn strike_all(cluster: &mut Cluster) {
    let faults = cluster.rng.random_range(FAULTS..FAULTS + 3);
    let calm = cluster.rng.random_bool(0.4);
    let mut tries = 0;
    while cluster.figures.fault_count() < faults && cluster.finding.is_none() && tries < 400 {
        tries += 1;
        if !cluster.strike() {
            cluster.run(20);
            continue;
        }
        let pause = cluster.rng.random_range(50..1200);
        cluster.run(pause);
        if calm {
            cluster.until(8000, |cluster| cluster.faults.at_rest() && cluster.is_quiet());
        }
    }
}

/// The operator looks after the cluster until all is well: a request that was late may have come after its reversal.
fn become_quiet(cluster: &mut Cluster, limit: u64) {
    let end = cluster.now + limit;
    while cluster.finding.is_none() && cluster.now < end && !cluster.is_quiet() {
        cluster.reconcile();
        cluster.until(500, Cluster::is_quiet);
    }
}

fn come_to_rest(cluster: &mut Cluster) {
    cluster.until(30_000, |cluster| cluster.faults.at_rest());
    become_quiet(cluster, REST);
    cluster.is_one();
    cluster.until(10_000, |cluster| cluster.clients.ledger.operations >= OPERATIONS);
    // What came after was no fault: it must be quiet still, or soon again.
    become_quiet(cluster, 5000);
    if cluster.finding.is_none() {
        let unrest = one_table::check(cluster, REST).or_else(|| copies_come_back::check(cluster, REST));
        cluster.find(unrest);
        cluster.verify();
        // Entries expire and go for want of room at any time: what follows from that may just be under way. And a command
        // whose asker asks no more is given up only when the time of a forward is over.
        let settled =
            |cluster: &Cluster| copies_are_equal::check(cluster).or_else(|| within_limits::check_at_rest(cluster));
        if !cluster.until(SETTLING, |cluster| settled(cluster).is_none()) {
            cluster.find(settled(cluster));
        }
    }
}
