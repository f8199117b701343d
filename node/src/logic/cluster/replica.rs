//! One member's part in one partition: its entries, its place in the partition's stream, and, on the primary, the
//! copies that follow it (rules W1 to W6, Q1).

mod commands;
mod copy_state;
mod following;
mod kept;
mod orders;
mod primary;
mod stream;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;

pub use self::{
    commands::{Standing, not_begun, outcome_unknown},
    following::Heard,
    kept::{Held, Kept},
    orders::{Begin, Orders},
    stream::{Claims, Said},
};
use self::{following::Following, primary::Primary};
use super::{
    member::MemberName,
    message::Record,
    table::{PartitionEpoch, Version},
};
use crate::logic::{
    commands::Done,
    keyspace::Partition,
    node::Origin,
    resp::Reply,
    store::{Op, Store},
};

/// Most bytes of changes that a primary keeps for copies that have not confirmed them; beyond, writes are refused.
pub const MAX_LOG_BYTES: usize = 8 << 20;
/// How long a new primary waits for the last changes of the former one (rule T2).
pub const BEGIN: Duration = Duration::from_secs(1);
/// How long a request waits for a primary that begins or cannot be reached: for a client that costs less than an error.
/// Rule T2 names one second; a handover on a machine without idle cores was seen to take longer.
pub const HOLD: Duration = Duration::from_secs(2);
/// How long a write waits for its copies before its outcome is given up as unknown.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long writes are taken that have to wait for copies that are being built.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How long a primary waits for an answer before it sends again.
pub const RESEND: Duration = Duration::from_millis(200);
/// How long a primary that is to hand over waits for its last writes to be confirmed (rule T2).
pub const FREEZE: Duration = Duration::from_millis(500);
/// How long a primary waits for the answer to a chunk before it may send it again: it may take longer than others.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two comparisons of a copy in sync with its primary, by digest.
pub const COMPARE_EVERY: Duration = Duration::from_secs(30);
/// Bytes of existing entries in one chunk, beside the last one.
pub const CHUNK_BYTES: usize = 16 << 10;
/// Bytes of entries in a range that is compared, and that travels as a whole when it differs.
pub const RANGE_BYTES: usize = 16 << 10;
/// Ranges that are compared at a time.
pub const RANGES: usize = 64;

/// A reply that became due, and for whom.
pub type Due = (Origin, Reply);

/// One member's part in one partition.
pub struct Replica {
    partition: Partition,
    /// Entries.
    pub store: Store,
    last: Version,
    log: VecDeque<Record>,
    log_bytes: usize,
    /// Name of the map of the last change that was put there.
    map: Bytes,
    /// Version of the change before the first one in `log`.
    base: Version,
    /// Lower epochs are refused.
    floor: PartitionEpoch,
    role: Role,
    /// Entries that no table has given this member a part in yet.
    kept: Option<Held>,
    /// Figures for the status: entries and bytes sent to build copies.
    pub moved: (u64, u64),
    /// Figures for the status: commands executed here.
    pub served: Served,
}

/// Commands that were executed. Counted where the lock is held anyway: a count that all threads share costs each of them
/// more than the command's execution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Served {
    /// Executed.
    pub commands: u64,
    /// Keys read that were there.
    pub hits: u64,
    /// Keys read that were not.
    pub misses: u64,
}

impl Served {
    /// One more.
    pub fn count(&mut self, done: &Done<'_>) {
        self.commands += 1;
        self.hits += u64::from(done.hits);
        self.misses += u64::from(done.misses);
    }

    /// One more, which read a key.
    pub fn count_read(&mut self, hit: bool) {
        self.commands += 1;
        self.hits += u64::from(hit);
        self.misses += u64::from(!hit);
    }
}

enum Role {
    None,
    Copy(Following),
    Primary(Box<Primary>),
}

impl Replica {
    /// A partition that this member does not hold.
    pub fn new(partition: Partition, seed: u64) -> Self {
        Self {
            partition,
            store: Store::new(seed),
            last: Version::default(),
            log: VecDeque::new(),
            log_bytes: 0,
            map: Bytes::new(),
            base: Version::default(),
            floor: PartitionEpoch::default(),
            role: Role::None,
            kept: None,
            moved: (0, 0),
            served: Served::default(),
        }
    }

    /// Which partition.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Last change that this member has.
    pub fn last(&self) -> Version {
        self.last
    }

    /// Whether this member is the primary, serving or about to.
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Whether requests wait here for something.
    pub fn is_waiting(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if !primary.writes.is_empty() || !primary.reads.is_empty())
    }

    /// Requests that wait here, and changes that a primary keeps for its copies.
    pub fn backlog(&self) -> (usize, usize) {
        match &self.role {
            Role::Primary(primary) => (primary.writes.len() + primary.reads.len(), self.log.len()),
            _ => (0, 0),
        }
    }

    /// Names of the copies that should hear of changes.
    pub fn followers(&self) -> impl Iterator<Item = &MemberName> {
        let primary = if let Role::Primary(primary) = &self.role { Some(primary) } else { None };
        primary.into_iter().flat_map(|primary| primary.copies.values()).map(|copy| &copy.name)
    }

    fn knows(&self, epoch: PartitionEpoch) -> bool {
        match &self.role {
            Role::None => false,
            Role::Copy(following) => following.epoch == epoch,
            Role::Primary(primary) => primary.epoch == epoch,
        }
    }

    fn start_from(&mut self, version: Version) {
        self.store.empty();
        self.restart_log(version);
    }

    fn restart_log(&mut self, version: Version) {
        self.last = version;
        self.base = version;
        self.log.clear();
        self.log_bytes = 0;
    }

    fn push(&mut self, record: Record) {
        self.log_bytes += record_bytes(&record);
        self.log.push_back(record);
    }

    fn forget_to(&mut self, sequence: u64) {
        while self.log.front().is_some_and(|record| record.version.sequence <= sequence) {
            if let Some(record) = self.log.pop_front() {
                self.log_bytes -= record_bytes(&record);
                self.base = record.version;
            }
        }
    }
}

fn record_bytes(record: &Record) -> usize {
    const OVERHEAD: usize = 64;
    OVERHEAD
        + match &record.op {
            Op::Put { map, key, value, .. } => map.len() + key.len() + value.len(),
            Op::Remove { map, key, .. } => map.len() + key.len(),
            Op::Clear { map } => map.as_ref().map_or(0, Bytes::len),
        }
}
