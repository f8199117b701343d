//! What members say to each other over the peer streams.
//!
//! A message may be lost, repeated or late; every one can be handled at any time. The transport tells who sent it
//! (name and generation, from the `Hello` that opens each stream).

use std::sync::Arc;

use bytes::Bytes;

use super::{
    member::{Generation, MemberId, MemberName, State},
    memory::Memory,
    table::{ClusterId, Epoch, Live, PartitionEpoch, Table, Version},
};
use crate::logic::{keyspace::Partition, store::Op};

/// Who a node is and what it was told: sent first on every stream and repeated until it is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Name of the cluster that it was told.
    pub cluster_name: String,
    /// Who it is.
    pub name: MemberName,
    /// Which start.
    pub generation: Generation,
    /// Port of clients.
    pub client_port: u16,
    /// Port of peers and gossip.
    pub peer_port: u16,
    /// Preset of the failure detector, as the settings file spells it.
    pub environment: String,
    /// Name of the default map.
    pub default_map: String,
    /// Copies of each key that it was told.
    pub factor: u32,
    /// Partition count that it was told.
    pub partitions: u16,
    /// Zone; empty when unknown.
    pub zone: String,
    /// The cluster whose table it has, and that table's epoch.
    pub table: Option<(ClusterId, Epoch)>,
    /// Wants to be a member.
    pub joining: bool,
    /// Version of the peer protocol.
    pub protocol: u32,
    /// What its earlier starts left on its volume. Without the table once it has one itself.
    pub memory: Memory,
}

/// Answer to a `Hello` that could not be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A stable word, such as `EnvironmentMismatch`.
    pub code: String,
    /// One sentence with the way out.
    pub message: String,
}

/// Figures that every heartbeat carries, so that any member can tell about all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Keys of primaries.
    pub keys: u64,
    /// Keys of backups.
    pub backup_keys: u64,
    /// Accounted bytes.
    pub bytes: u64,
    /// Budget.
    pub max_bytes: u64,
    /// Reads that found a value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Entries removed for room.
    pub evictions: u64,
    /// Entries removed at their time.
    pub expirations: u64,
    /// Commands executed on partitions.
    pub commands: u64,
    /// Open client connections.
    pub connections: u64,
    /// Partitions whose keys were lost because no in-sync copy was left.
    pub lost_partitions: u64,
    /// Copies held here that differed from their primary and were built anew.
    pub diverged_copies: u64,
    /// Entries sent to build copies.
    pub moved_keys: u64,
    /// Bytes sent to build copies.
    pub moved_bytes: u64,
    /// Calls to the peer port without a certificate.
    pub rejected_callers: u64,
    /// A snapshot is on its volume.
    pub stored: bool,
}

/// What a member asks the coordinator to change. Repeated until the table in force shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Cordon, uncordon, leave, away: the member with this name gets this state.
    SetState(MemberName, State),
    /// Remove a member that is down and will not return, or that has left.
    Forget(MemberName),
    /// New live settings; refused when their generation is not higher.
    Settings(Live),
    /// A primary says that a copy has confirmed every acknowledged write (rule W2).
    CopyInSync(Claim),
    /// A primary says that a copy must not count as in sync, and why.
    CopyLost(Claim, Lost),
}

/// Why a copy must not count as in sync. The higher one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// It was silent, or has a tail of its own. What was acknowledged while it counted it has.
    Unheard,
    /// Its entries differ from the primary's, or it lacks some (rule W6); or it may have some of before the partition began
    /// anew.
    Unfit,
}

/// Which copy a primary speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Whose copy.
    pub partition: Partition,
    /// The primary's epoch.
    pub epoch: PartitionEpoch,
    /// Who holds the copy.
    pub member: MemberId,
    /// The copy's `since` in the table.
    pub since: u64,
}

/// One change of a partition, in its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the stream.
    pub version: Version,
    /// What changes. Deadlines are the sender's; the transport turns them into time left (rule W9).
    pub op: Op,
}

/// Live changes of one partition from its primary (rule W3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Whose changes.
    pub partition: Partition,
    /// The primary's epoch; a copy that knows a higher one refuses.
    pub epoch: PartitionEpoch,
    /// Version of the change before the first record.
    pub previous: Version,
    /// The changes, without a gap.
    pub records: Vec<Record>,
    /// Every in-sync copy has these: a copy need not keep records up to here.
    pub stable: u64,
    /// Number to be confirmed, for reads that need more than one copy (rule Q1); 0 is none.
    pub probe: u64,
    /// Digest of the sender's entries after these changes: an in-sync copy that has another one is built anew.
    pub digest: Option<u64>,
}

/// Existing entries for a copy that is being built (rule W3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Whose entries.
    pub partition: Partition,
    /// The primary's epoch.
    pub epoch: PartitionEpoch,
    /// The stream's version at which the entries were read; the copy must be exactly there.
    pub at: Version,
    /// First position in hash order; 0 starts anew, and the copy empties the partition first.
    pub from: u64,
    /// Where the next chunk starts; none: this was the last.
    pub next: Option<u64>,
    /// `Op::Put` only, each with the version that the entry has.
    pub entries: Vec<Record>,
}

/// What a primary has, for a copy that has entries already: equal ranges need not travel (rule W3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Whose entries.
    pub partition: Partition,
    /// The primary's epoch.
    pub epoch: PartitionEpoch,
    /// The stream's version at which the entries were read; the copy must be exactly there.
    pub at: Version,
    /// First position in hash order; 0 starts anew, and the copy keeps what it has until it is found to differ.
    pub from: u64,
    /// One range after the other.
    pub ranges: Vec<Range>,
}

/// Entries between two positions in hash order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where the next range starts; none: this was the last.
    pub next: Option<u64>,
    /// The sum of its entries' digests.
    pub digest: u64,
}

/// A copy's answer to `Append`, `Chunk` and `Digests`: where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
pub struct Confirm {
    /// Of what.
    pub partition: Partition,
    /// The epoch that it answers.
    pub epoch: PartitionEpoch,
    /// The table that added or demoted the copy, as far as it knows: what it said before is void, as it is in a
    /// [`Claim`]. 0: a program that does not tell.
    pub since: u64,
    /// Last change that it has.
    pub version: Version,
    /// What it got does not follow on what it has: replay from `version`, or build anew.
    pub gap: bool,
    /// It knows a higher epoch of this partition; the sender is no longer primary.
    pub refused: bool,
    /// While it is being built: the position from which it needs entries; none when it has all.
    pub needs_from: Option<u64>,
    /// It has entries of its own there, which may be the right ones.
    pub holds: bool,
    /// Those at `needs_from` are not: it needs the primary's.
    pub differs: bool,
    /// Highest probe seen.
    pub probe: u64,
    /// It is over its memory budget: the primary should evict (rule W4).
    pub pressure: bool,
}

/// A client's command for a partition whose primary is elsewhere (rule F1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Chosen by the sender, unique for it.
    pub id: u64,
    /// Counter of the sender's table.
    pub epoch: u64,
    /// How often it was passed on.
    pub hops: u8,
    /// Where it belongs.
    pub partition: Partition,
    /// The command.
    pub words: Vec<Bytes>,
    /// The sender asks whether it may mirror the answer (rule C4).
    pub mirrors: bool,
}

/// Outcome of a `Forward`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// It was executed.
    Reply {
        /// The reply in RESP3.
        bytes: Bytes,
        /// Milliseconds, from when the forward was sent, for which it may be mirrored; 0: not at all (rule C4).
        mirror: u64,
    },
    /// It was not executed, and may be sent again, best after the table with this counter is known.
    NotExecuted(u64),
}

/// Everything that one member sends to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Opens a stream; asks to join.
    Hello(Box<Hello>),
    /// The sender's `Hello` to a `Hello`, without a request to join.
    Welcome(Box<Hello>),
    /// The hello cannot be accepted.
    Refused(Refusal),
    /// Alive; the highest table taken and the one in force; echoed.
    Heartbeat {
        /// Sender's clock in milliseconds, to be echoed.
        sent: u64,
        /// Highest table taken.
        taken: Epoch,
        /// Table in force as far as the sender knows.
        in_force: Epoch,
        /// Figures.
        totals: Box<Totals>,
    },
    /// Answer to a heartbeat. `confirms`: the answerer's highest table has the sender as live (rule W7).
    HeartbeatAck {
        /// The heartbeat's clock.
        sent: u64,
        /// The sender is live in the answerer's highest table.
        confirms: bool,
    },
    /// Promise to take nothing lower? (rule T1)
    Prepare(Epoch),
    /// Answer: what was promised (the asked epoch, or a higher one: refused), and the highest table taken.
    Promise {
        /// The epoch asked for.
        asked: Epoch,
        /// The epoch now promised.
        promised: Epoch,
        /// Highest table taken.
        taken: Option<Arc<Table>>,
    },
    /// Take this table (rule T2).
    Propose(Arc<Table>),
    /// Answer: taken (`promised` is the table's epoch) or refused (higher), with the last version of each partition
    /// that the answerer was primary of and is no longer.
    Taken {
        /// The table's epoch.
        epoch: Epoch,
        /// The epoch now promised.
        promised: Epoch,
        /// Last versions of partitions handed over.
        handed_over: Vec<(Partition, Version)>,
    },
    /// The table is in force; new primaries serve once they reach these versions.
    InForce {
        /// The table.
        table: Arc<Table>,
        /// Last versions of partitions handed over.
        handed_over: Vec<(Partition, Version)>,
    },
    /// Send me the table in force.
    TableWanted,
    /// For the coordinator.
    Request(Change),
    /// Live changes.
    Append(Append),
    /// Existing entries.
    Chunk(Chunk),
    /// What existing entries would be.
    Digests(Digests),
    /// Where a copy stands.
    Confirm(Confirm),
    /// A command for its owner.
    Forward(Forward),
    /// The outcome of one.
    Forwarded {
        /// The forward's id.
        id: u64,
        /// Outcome.
        outcome: Forwarded,
    },
    /// The value of a key, or of every key, was changed here: whoever mirrors it should do so no longer (rule C4).
    MirrorsEnd {
        /// Of which partition.
        partition: Partition,
        /// Which key; none: all.
        key: Option<Bytes>,
    },
}

impl Message {
    /// About how many bytes it takes in a frame: what carries keys and values is counted, tables are guessed, and the rest
    /// is taken for small.
    pub fn weight(&self) -> usize {
        const FIXED: usize = 48;
        let op = |op: &Op| match op {
            Op::Put { map, key, value, .. } => FIXED + map.len() + key.len() + value.len(),
            Op::Remove { map, key, .. } => FIXED + map.len() + key.len(),
            Op::Clear { .. } => FIXED,
        };
        let bytes = match self {
            Self::Append(append) => append.records.iter().map(|record| op(&record.op)).sum(),
            Self::Chunk(chunk) => chunk.entries.iter().map(|record| op(&record.op)).sum(),
            Self::Digests(digests) => digests.ranges.len() * 20,
            Self::Forward(forward) => forward.words.iter().map(|word| 4 + word.len()).sum(),
            Self::Forwarded { outcome: Forwarded::Reply { bytes, .. }, .. } => bytes.len(),
            Self::MirrorsEnd { key: Some(key), .. } => key.len(),
            Self::Propose(table) | Self::InForce { table, .. } => table.partitions.len() * 24,
            _ => 0,
        };
        FIXED + bytes
    }
}
