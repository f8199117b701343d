//! Client connections, as far as replies that come later are concerned.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
};

use futures::channel::mpsc::UnboundedSender;
use parking_lot::RwLock;

use crate::logic::{node::Ticket, resp::Reply};

/// Where a connection takes its replies. Unbounded, because a connection only has so many requests open; takes memory
/// for those that wait and none for more.
pub type Replies = UnboundedSender<(Ticket, Reply)>;

/// The open connections.
#[derive(Default)]
pub struct Connections {
    open: RwLock<HashMap<u64, Replies>>,
    last: AtomicU64,
}

impl Connections {
    /// A connection opens; returns its number.
    pub fn open(&self, replies: Replies) -> u64 {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.write().insert(id, replies);
        id
    }

    /// A connection closes. Replies for it go nowhere from now on.
    pub fn close(&self, id: u64) {
        self.open.write().remove(&id);
    }

    /// How many are open.
    pub fn count(&self) -> u64 {
        self.open.read().len() as u64
    }

    /// Hands replies to their connections.
    pub fn deliver(&self, replies: Vec<(Ticket, Reply)>) {
        if replies.is_empty() {
            return;
        }
        let open = self.open.read();
        for (ticket, reply) in replies {
            if let Some(connection) = open.get(&ticket.connection) {
                // A connection that is just closing has dropped its half; nobody waits for this reply.
                let _ = connection.unbounded_send((ticket, reply));
            }
        }
    }
}
