//! What waits to be sent to one peer.

use std::collections::{BTreeSet, VecDeque};

use parking_lot::Mutex;

use super::{Millis, pacing::Pace};
use crate::logic::{cluster::message::Message, keyspace::Partition};

/// Most messages that wait for one peer, changes of partitions not counted: those wait in the partitions.
pub(super) const MAX_WAITING: usize = 65_536;
/// Room for so many messages is made at once when they are taken.
const TAKEN: usize = 1024;
/// Bytes that a primary frees when one of its copies says that it is over its budget.
pub(super) const PRESSURE_BYTES: u64 = 64 << 10;

#[derive(Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: bool,
    /// The peer has a stream to this member too, as far as is known: it has spoken since the own one last broke.
    heard: bool,
    messages: VecDeque<Message>,
    marked: BTreeSet<Partition>,
    /// Partitions with existing entries for this peer.
    building: BTreeSet<Partition>,
    pace: Pace,
}

impl Outbox {
    pub(super) fn open(&self) {
        let mut inner = self.inner.lock();
        inner.messages.clear();
        inner.open = true;
    }

    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.open = false;
        inner.heard = false;
        inner.messages.clear();
        inner.marked.clear();
        inner.building.clear();
        inner.pace = Pace::default();
    }

    pub(super) fn heard(&self) {
        self.inner.lock().heard = true;
    }

    /// Nothing was heard on the newest stream of the peer yet.
    pub(super) fn unheard(&self) {
        self.inner.lock().heard = false;
    }

    /// A command can go to the peer, and the answer can come back.
    pub(super) fn answers(&self) -> bool {
        let inner = self.inner.lock();
        inner.open && inner.heard
    }

    pub(super) fn is_open(&self) -> bool {
        self.inner.lock().open
    }

    /// Keeps a message, if there is a stream and room. Everything but forwards is sent again by whoever needs it.
    pub(super) fn push(&self, message: Message) -> bool {
        let mut inner = self.inner.lock();
        let fits = inner.open && inner.messages.len() < MAX_WAITING;
        if fits {
            inner.messages.push_back(message);
        }
        fits
    }

    pub(super) fn mark(&self, partition: Partition) -> bool {
        let mut inner = self.inner.lock();
        inner.open && {
            inner.marked.insert(partition);
            true
        }
    }

    pub(super) fn next_marked(&self) -> Option<Partition> {
        self.inner.lock().marked.pop_first()
    }

    /// A partition has existing entries for this peer.
    pub(super) fn build(&self, partition: Partition) {
        self.inner.lock().building.insert(partition);
    }

    /// The next partition of which a chunk may go now; `full` when live messages leave no room for it. One at a time:
    /// the caller says what it sent.
    pub(super) fn next_building(&self, full: bool, now: Millis) -> Option<Partition> {
        let mut inner = self.inner.lock();
        let Inner { building, pace, .. } = &mut *inner;
        let next = building.iter().copied().find(|partition| pace.allows(*partition, full, now))?;
        building.remove(&next);
        Some(next)
    }

    /// What becomes of chunks, and of the time.
    pub(super) fn pace<T>(&self, change: impl FnOnce(&mut Pace) -> T) -> T {
        change(&mut self.inner.lock().pace)
    }

    /// Whether chunks wait until their pace allows them.
    pub(super) fn builds(&self) -> bool {
        let inner = self.inner.lock();
        inner.open && !inner.building.is_empty()
    }

    pub(super) fn take(&self, max_bytes: usize) -> (Vec<Message>, usize) {
        let mut inner = self.inner.lock();
        let (mut messages, mut bytes) = (Vec::with_capacity(inner.messages.len().min(TAKEN)), 0);
        while bytes < max_bytes {
            let Some(message) = inner.messages.pop_front() else { break };
            bytes += message.weight();
            messages.push(message);
        }
        (messages, bytes)
    }
}
