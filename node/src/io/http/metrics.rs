//! Figures in the text format of `OpenMetrics`.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use mizuya_wire::admin::{MemberState, StatusReply};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::io::{memory, runtime::Runtime};

/// What the metrics are made of.
pub(super) struct Figures {
    pub(super) status: StatusReply,
    pub(super) connections: u64,
    pub(super) rejected: (u64, u64),
    pub(super) resident: u64,
    pub(super) mirror_hits: u64,
    pub(super) slowed: u64,
    pub(super) budget: u64,
    pub(super) volume: Volume,
}

/// What was written to the volume, and what came back from it.
#[derive(Default)]
pub(super) struct Volume {
    written: u64,
    failed: u64,
    bytes: u64,
    restored: (u64, u64),
}

impl Volume {
    fn of(runtime: &Runtime) -> Self {
        let Some(volume) = runtime.volume() else { return Self::default() };
        let figures = volume.figures();
        Self {
            written: figures.snapshots.load(Ordering::Relaxed),
            failed: figures.failed.load(Ordering::Relaxed),
            bytes: figures.bytes.load(Ordering::Relaxed),
            restored: runtime.node().restored(),
        }
    }
}

impl Figures {
    pub(super) fn of(runtime: &Runtime) -> Self {
        Self {
            status: runtime.status(),
            connections: runtime.connection_count(),
            rejected: runtime.rejected(),
            resident: memory::resident(),
            mirror_hits: runtime.node().mirror_hits(),
            slowed: runtime.throttle().waits(),
            budget: runtime.node().budget(),
            volume: Volume::of(runtime),
        }
    }
}

/// The text that Prometheus reads.
pub(super) fn text(figures: &Figures) -> String {
    let mut registry = Registry::with_prefix("mizuya");
    node(&mut registry, figures);
    cluster(&mut registry, &figures.status);
    volume(&mut registry, &figures.volume);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Gauge::<i64>::default();
    metric.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, metric);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let metric = Counter::<u64>::default();
    metric.inc_by(value);
    registry.register(name, help, metric);
}

fn by_label(registry: &mut Registry, name: &str, help: &str, label: &str, values: BTreeMap<String, u64>) {
    let family = Family::<Vec<(String, String)>, Gauge>::default();
    for (word, value) in values {
        family.get_or_create(&vec![(label.to_owned(), word)]).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    registry.register(name, help, family);
}

fn node(registry: &mut Registry, figures: &Figures) {
    let totals = figures.status.totals.unwrap_or_default();
    gauge(registry, "keys", "Keys whose primary is here", totals.keys);
    gauge(registry, "backup_keys", "Keys of copies held here", totals.backup_keys);
    gauge(registry, "bytes", "Accounted bytes of all entries held here", totals.bytes);
    gauge(registry, "max_bytes", "Budget of all entries held here, in bytes", totals.max_bytes);
    let budget = "What entries may take now: max_bytes, or less while the process nears its memory limit";
    gauge(registry, "memory_budget_bytes", budget, figures.budget);
    gauge(registry, "connections", "Open client connections", figures.connections);
    gauge(registry, "process_resident_bytes", "Memory that the process holds", figures.resident);
    let slowed = "Times that a client's bytes were read later because the process was near its memory limit";
    counter(registry, "slowed_reads", slowed, figures.slowed);
    counter(registry, "hits", "Reads that found a value", totals.hits);
    counter(
        registry,
        "mirror_hits",
        "Of those, reads that a mirror of another node's key answered",
        figures.mirror_hits,
    );
    counter(registry, "misses", "Reads that found none", totals.misses);
    counter(registry, "evictions", "Entries removed for room", totals.evictions);
    counter(registry, "expirations", "Entries removed at their time", totals.expirations);
    counter(registry, "commands", "Commands executed on partitions", totals.commands);
    counter(registry, "moved_keys", "Entries sent to build copies", totals.moved_keys);
    counter(registry, "moved_bytes", "Bytes sent to build copies", totals.moved_bytes);
    let lost = "Partitions whose keys were lost because no in-sync copy was left";
    counter(registry, "lost_partitions", lost, totals.lost_partitions);
    let diverged = "Copies held here that differed from their primary and were built anew";
    counter(registry, "diverged_copies", diverged, totals.diverged_copies);
    let callers = "Calls to the peer port without a certificate of the cluster";
    counter(registry, "rejected_callers", callers, figures.rejected.0);
    counter(registry, "rejected_datagrams", "Gossip datagrams that could not be opened", figures.rejected.1);
    let version = BTreeMap::from([(figures.status.program_version.clone(), 1)]);
    by_label(registry, "build", "The program's version", "version", version);
}

fn volume(registry: &mut Registry, volume: &Volume) {
    counter(registry, "snapshots", "Snapshots written to the volume", volume.written);
    counter(registry, "snapshot_failures", "Snapshots that could not be written", volume.failed);
    gauge(registry, "snapshot_bytes", "Bytes of the last snapshot written", volume.bytes);
    counter(registry, "restored_partitions", "Partitions that came back from the volume", volume.restored.0);
    let lossy = "Of those, the ones whose snapshot was not the last state (restore: lossy)";
    counter(registry, "restored_lossy", lossy, volume.restored.1);
}

fn cluster(registry: &mut Registry, status: &StatusReply) {
    gauge(registry, "ready", "1 when clients should be sent here", u64::from(status.ready));
    gauge(registry, "epoch", "Counter of the table in force here", status.epoch);
    gauge(registry, "member_quorum", "Voters that must be reachable", u64::from(status.member_quorum));
    gauge(registry, "voters_reachable", "Voters that are reachable", u64::from(status.voters_reachable));
    gauge(registry, "partitions", "Partitions of the cluster", u64::from(status.partitions));
    let short = u64::from(status.partitions_short_of_copies);
    gauge(registry, "partitions_short_of_copies", "Partitions with fewer in-sync copies than wanted", short);
    let unavailable = u64::from(status.partitions_unavailable);
    gauge(registry, "partitions_unavailable", "Partitions that nobody can serve", unavailable);
    gauge(registry, "partitions_moving", "Partitions whose copies still move", u64::from(status.partitions_moving));
    let own = status.members.iter().find(|member| member.name == status.member);
    gauge(registry, "primaries", "Partitions whose primary is here", own.map_or(0, |own| own.primaries.into()));
    gauge(registry, "backups", "Copies held here beside primaries", own.map_or(0, |own| own.backups.into()));
    let syncing = own.map_or(0, |own| own.backups_syncing.into());
    gauge(registry, "backups_syncing", "Copies held here that are not in sync", syncing);
    let mut states: BTreeMap<String, u64> = (1..=6).map(|state| (state_word(state), 0)).collect();
    for member in &status.members {
        *states.entry(state_word(member.state)).or_default() += 1;
    }
    by_label(registry, "members", "Members by state", "state", states);
    let mut problems = BTreeMap::new();
    for problem in &status.problems {
        *problems.entry(problem.code.clone()).or_default() += 1;
    }
    by_label(registry, "problems", "What is wrong, by kind", "code", problems);
}

/// A member's state as people read it.
pub(super) fn state_word(state: i32) -> String {
    let name = MemberState::try_from(state).unwrap_or_default().as_str_name();
    name.trim_start_matches("MEMBER_STATE_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use mizuya_wire::admin::{MemberSummary, Problem, Totals};

    use super::*;

    #[test]
    fn the_figures_are_written_under_stable_names() {
        let member = |name: &str, state: MemberState| MemberSummary {
            name: name.to_owned(),
            state: state.into(),
            primaries: 3,
            ..MemberSummary::default()
        };
        let status = StatusReply {
            member: "a".to_owned(),
            ready: true,
            epoch: 7,
            totals: Some(Totals { keys: 5, hits: 9, ..Totals::default() }),
            members: vec![member("a", MemberState::Active), member("b", MemberState::Down)],
            problems: vec![Problem { code: "PeerUnresolved".to_owned(), ..Problem::default() }],
            ..StatusReply::default()
        };
        let text = text(&Figures {
            status,
            connections: 2,
            rejected: (1, 4),
            resident: 8,
            mirror_hits: 3,
            slowed: 2,
            budget: 3,
            volume: Volume { written: 6, ..Volume::default() },
        });
        for line in [
            "mizuya_keys 5",
            "mizuya_hits_total 9",
            "mizuya_mirror_hits_total 3",
            "mizuya_slowed_reads_total 2",
            "mizuya_ready 1",
            "mizuya_epoch 7",
            "mizuya_primaries 3",
            "mizuya_connections 2",
            "mizuya_memory_budget_bytes 3",
            "mizuya_snapshots_total 6",
            "mizuya_rejected_datagrams_total 4",
            "mizuya_members{state=\"active\"} 1",
            "mizuya_members{state=\"down\"} 1",
            "mizuya_members{state=\"leaving\"} 0",
            "mizuya_problems{code=\"PeerUnresolved\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
    }
}
