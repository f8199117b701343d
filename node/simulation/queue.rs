//! What happens next: events in the order of their times.

use bytes::Bytes;
use mizuya_node::logic::{
    cluster::{member::Generation, message::Message},
    keyspace::Partition,
    node::Ticket,
};

use crate::{disk::Write, ledger::Name};

/// What reaches a node.
pub(crate) enum Arrival {
    StreamUp(usize),
    StreamDown(usize),
    /// A stream of that peer to this node began or ended.
    StreamFrom(usize),
    /// From whom, the stream's number, both ends, and the messages.
    Frame(usize, u64, (u64, u64), Vec<Message>),
    Datagram(Bytes),
    Command(Ticket, Partition, Vec<Bytes>),
    /// About whom, which start of it, and whether it lives.
    Verdict(usize, Generation, bool),
}

pub(crate) enum Event {
    /// For one start of a node.
    At(usize, Generation, Arrival),
    Tick(usize, Generation),
    Look(usize, Generation),
    Connect(usize, usize, (u64, u64)),
    Flush(usize, usize),
    /// The sender's side of a stream notices that it broke.
    Break(usize, usize, u64),
    Client(usize),
    /// A last read is asked again.
    Reread(Name),
    Start(usize),
    Resume(usize, Generation),
    /// Something is written on a volume.
    Disk(usize, Generation, Write),
    /// A step of the faults under way.
    Faults,
}

pub(crate) struct Queued {
    pub(crate) at: u64,
    pub(crate) order: u64,
    pub(crate) event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
