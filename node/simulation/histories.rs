//! Many histories on all cores, and the table of what they showed.

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    figures::Figures,
    history::{FAULTS, OPERATIONS, Played, play},
    invariants::{Finding, Kind},
    ledger::Name,
    shape::Class,
    trace::Trace,
};

/// Histories of a run, unless `HISTORIES` says otherwise.
pub(crate) const HISTORIES: u64 = 10_000;
/// An invariant of its own: the code does not panic.
const PANIC: &str = "no_panic";

pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text}")))
}

/// What a run of many histories showed.
#[derive(Default)]
pub(crate) struct Run {
    histories: u64,
    figures: BTreeMap<&'static str, (u64, Figures)>,
    all: Figures,
    fewest: Option<(u64, u64)>,
    pub(crate) findings: BTreeMap<u64, Finding>,
}

impl Run {
    fn add(&mut self, seed: u64, played: Played) {
        self.histories += 1;
        let (histories, figures) = self.figures.entry(played.class.name()).or_default();
        *histories += 1;
        figures.add(&played.figures);
        self.all.add(&played.figures);
        let (operations, faults) = (played.figures.operations, played.figures.fault_count());
        if let Some(finding) = played.finding {
            self.findings.insert(seed, finding);
        } else {
            let (o, f) = self.fewest.unwrap_or((u64::MAX, u64::MAX));
            self.fewest = Some((o.min(operations), f.min(faults)));
        }
    }

    fn count(&self, kind: Kind) -> usize {
        self.findings.values().filter(|finding| finding.kind() == kind).count()
    }

    fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<28}{:>10}{:>10}{:>14}{:>10}{:>10}{:>8}{:>8}{:>8}{:>16}",
            "histories",
            "tried",
            "faults",
            "acknowledged",
            "unknown",
            "emptied",
            "lost",
            "wrong",
            "stale",
            "unavailable ms"
        )];
        let mut line = |name: &str, tried: u64, figures: &Figures, found: [String; 3]| {
            lines.push(format!(
                "{name:<28}{tried:>10}{:>10}{:>14}{:>10}{:>10}{:>8}{:>8}{:>8}{:>16}",
                figures.fault_count(),
                figures.acknowledged,
                figures.unknown,
                figures.emptied,
                found[0],
                found[1],
                found[2],
                figures.longest_unavailable
            ));
        };
        for class in Class::ALL {
            if let Some((tried, figures)) = self.figures.get(class.name()) {
                line(class.name(), *tried, figures, std::array::from_fn(|_| String::new()));
            }
        }
        let found = [Kind::Lost, Kind::Wrong, Kind::Stale].map(|kind| self.count(kind).to_string());
        line("all", self.histories, &self.all, found);
        for (fault, times) in &self.all.faults {
            lines.push(format!("{:<28}{times:>10}", format!("  fault: {fault}")));
        }
        for (event, times) in self.all.required() {
            lines.push(format!("{:<28}{times:>10}", format!("  seen: {event}")));
        }
        let (operations, faults) = self.fewest.unwrap_or_default();
        lines.push(format!(
            "fewest in one history: {operations} commands, {faults} faults; {} s simulated",
            self.all.simulated / 1000
        ));
        lines.join("\n")
    }
}

fn attempt(seed: u64, trace: Trace) -> Result<Played, Finding> {
    catch_unwind(AssertUnwindSafe(|| play(seed, trace))).map_err(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        let text = text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string));
        Finding::new(PANIC, text.unwrap_or_default())
    })
}

/// Goes through seeds on all cores, until `enough` says of one that no more are wanted.
pub(crate) fn on_all_cores(seeds: Range<u64>, enough: impl Fn(u64) -> bool + Sync) {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    if enough(seed) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// Plays the histories of these seeds on all cores, until `enough` of what was found.
pub(crate) fn play_all(first: u64, count: u64, enough: impl Fn(&Finding) -> bool + Sync) -> Run {
    let run = Mutex::new(Run::default());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    on_all_cores(first..first + count, |seed| {
        let played = attempt(seed, Trace::default());
        let mut run = run.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match played {
            Ok(played) => run.add(seed, played),
            Err(finding) => drop(run.findings.insert(seed, finding)),
        }
        run.findings.get(&seed).is_some_and(&enough)
    });
    std::panic::set_hook(hook);
    run.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Plays one history again and returns its trace.
fn replay(seed: u64) -> (Option<Finding>, String) {
    let watched = number("KEY").map(|key| Name { map: u8::from(key >= 100), key: (key % 100) as u32 });
    let watched = match (watched, attempt(seed, Trace::default())) {
        (Some(name), _) => Some(name),
        (None, Ok(played)) => played.watched,
        (None, Err(finding)) => return (Some(finding), String::new()),
    };
    match attempt(seed, Trace::watching(watched)) {
        Ok(played) => (played.finding, played.trace.text()),
        Err(finding) => (Some(finding), String::new()),
    }
}

/// Plays until an invariant is found not to hold, and says so in the line of `make sim-mutants`.
fn until(invariant: &str, count: u64) {
    let run = play_all(0, count, |finding| finding.invariant == invariant);
    let caught = run.findings.values().any(|finding| finding.invariant == invariant);
    let found = [Kind::Lost, Kind::Wrong, Kind::Stale].map(|kind| run.count(kind));
    println!(
        "{} {:>10}{:>10}{:>14}{:>8}{:>8}{:>8}{:>16}",
        if caught { "CAUGHT" } else { "NOT CAUGHT" },
        run.histories,
        run.all.fault_count(),
        run.all.acknowledged,
        found[0],
        found[1],
        found[2],
        run.all.longest_unavailable
    );
    let mut others: BTreeMap<&str, usize> = BTreeMap::new();
    run.findings.values().for_each(|finding| *others.entry(finding.invariant).or_default() += 1);
    println!("found: {others:?}");
}

#[test]
fn whatever_happens_the_cluster_keeps_its_promises() {
    if let Some(seed) = number("SEED") {
        let (finding, trace) = replay(seed);
        println!("{trace}");
        if let Some(Finding { invariant, text }) = finding {
            panic!("SEED={seed} {invariant}: {text}");
        }
        return;
    }
    let count = number("HISTORIES").unwrap_or(HISTORIES);
    if let Ok(invariant) = std::env::var("UNTIL") {
        return until(&invariant, count);
    }
    let run = play_all(number("FIRST").unwrap_or(0), count, |_| false);
    println!("{}", run.table());
    for (seed, finding) in run.findings.iter().take(20) {
        println!("SEED={seed} {}: {}", finding.invariant, finding.text.chars().take(300).collect::<String>());
    }
    if let Some((seed, _)) = run.findings.first_key_value() {
        println!("{}", replay(*seed).1);
        panic!(
            "{} of {count} histories failed; the first one's trace is above; `make sim SEED={seed}` replays it",
            run.findings.len()
        );
    }
    let (operations, faults) = run.fewest.unwrap_or_default();
    assert!(operations >= OPERATIONS && faults >= FAULTS, "a history had {operations} commands and {faults} faults");
    if count >= 1000 {
        for (event, times) in run.all.required() {
            assert!(times > 0, "{event}: not seen in {count} histories, so nothing was shown about them");
        }
    }
}

#[test]
fn a_seed_always_plays_the_same_history() {
    for seed in 0..12 {
        let digest = || play(seed, Trace::default()).trace.digest;
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}
