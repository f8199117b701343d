//! What was counted, over one history or many.

use std::collections::BTreeMap;

/// Events that must not stay at zero over a whole run, and what goes into its table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) promotions: u64,
    pub(crate) eligible_promoted: u64,
    pub(crate) refused_epochs: u64,
    pub(crate) rival_proposals: u64,
    pub(crate) resyncs: u64,
    pub(crate) replays: u64,
    pub(crate) leases_out: u64,
    pub(crate) turned_back: u64,
    pub(crate) starts: u64,
    pub(crate) tables: u64,
    pub(crate) mirrored: u64,
    pub(crate) emptied: u64,
    pub(crate) operations: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Longest time without an acknowledged command while clients asked, in milliseconds.
    pub(crate) longest_unavailable: u64,
    pub(crate) simulated: u64,
}

impl Figures {
    pub(crate) fn add(&mut self, other: &Self) {
        self.promotions += other.promotions;
        self.eligible_promoted += other.eligible_promoted;
        self.refused_epochs += other.refused_epochs;
        self.rival_proposals += other.rival_proposals;
        self.resyncs += other.resyncs;
        self.replays += other.replays;
        self.leases_out += other.leases_out;
        self.turned_back += other.turned_back;
        self.starts += other.starts;
        self.tables += other.tables;
        self.mirrored += other.mirrored;
        self.emptied += other.emptied;
        self.operations += other.operations;
        self.acknowledged += other.acknowledged;
        self.unknown += other.unknown;
        for (fault, times) in &other.faults {
            *self.faults.entry(fault).or_default() += times;
        }
        self.longest_unavailable = self.longest_unavailable.max(other.longest_unavailable);
        self.simulated += other.simulated;
    }

    pub(crate) fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }

    /// What a run must have seen, or it has proved nothing.
    pub(crate) fn required(&self) -> [(&'static str, u64); 9] {
        [
            ("promotions", self.promotions),
            ("promotions of eligible copies", self.eligible_promoted),
            ("refused older epochs", self.refused_epochs),
            ("two proposals for one table", self.rival_proposals),
            ("resyncs", self.resyncs),
            ("replays", self.replays),
            ("leases run out", self.leases_out),
            ("turned-back drains", self.turned_back),
            ("reads that a mirror answered", self.mirrored),
        ]
    }
}
