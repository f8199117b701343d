//! What a primary knows of its partition: the copies that follow it and what waits for them.

use std::collections::{BTreeMap, VecDeque};

use super::{Begin, copy_state::CopyState};
use crate::logic::{
    clock::Millis,
    cluster::{
        member::MemberId,
        table::{Mark, PartitionEpoch},
    },
    node::Origin,
    resp::Reply,
};

pub(super) struct Primary {
    pub(super) epoch: PartitionEpoch,
    pub(super) begin: Begin,
    pub(super) write_quorum: usize,
    pub(super) read_quorum: usize,
    pub(super) copies: BTreeMap<MemberId, CopyState>,
    pub(super) writes: VecDeque<PendingWrite>,
    /// Since when writes wait for copies that are being built.
    pub(super) building_since: Option<Millis>,
    pub(super) reads: VecDeque<PendingRead>,
    pub(super) acknowledged: u64,
    pub(super) probe: u64,
    /// Set while a table that takes the role away is being brought into force.
    pub(super) frozen: Option<Millis>,
}

pub(super) struct PendingWrite {
    pub(super) sequence: u64,
    pub(super) origin: Option<Origin>,
    pub(super) reply: Reply,
    pub(super) deadline: Millis,
}

pub(super) struct PendingRead {
    pub(super) probe: u64,
    /// The last change that it may have read.
    pub(super) sequence: u64,
    pub(super) origin: Origin,
    pub(super) reply: Reply,
    pub(super) deadline: Millis,
}

impl Primary {
    /// Copies in sync, its own among them.
    pub(super) fn in_sync(&self) -> usize {
        1 + self.copies.values().filter(|copy| copy.in_sync()).count()
    }

    /// Whether writes have to wait for copies that are being built.
    pub(super) fn waits_for_builds(&self) -> bool {
        self.in_sync() < self.write_quorum && self.copies.values().any(|copy| copy.mark == Mark::Building)
    }

    /// Whether every copy that counts, and enough copies in sync, have a change (rule W2). A copy that is still being
    /// built would not be promoted: what it has does not survive the loss of the others.
    pub(super) fn holds(&self, sequence: u64) -> bool {
        let holders = 1 + self.copies.values().filter(|copy| copy.in_sync() && copy.has(sequence)).count();
        holders >= self.write_quorum && self.survives(sequence)
    }

    /// Whether every copy that may be promoted has a change: whichever it is, it is there.
    pub(super) fn survives(&self, sequence: u64) -> bool {
        self.copies.values().filter(|copy| copy.may_follow()).all(|copy| copy.keeps() >= Some(sequence))
    }

    /// Last change that every copy that counts has.
    pub(super) fn stable(&self, last: u64) -> u64 {
        self.copies.values().filter(|copy| copy.counts()).map(|copy| copy.confirmed.unwrap_or(0)).min().unwrap_or(last)
    }
}
