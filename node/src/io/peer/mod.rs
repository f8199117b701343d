//! Streams between members: each member dials every other one and speaks on the stream that it opened.

pub mod convert;
mod frames;
pub mod server;
pub mod streams;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::logic::{clock::Millis, cluster::member::MemberName};

/// Largest value is 64 MiB; a frame has room for one with its key and its envelope.
pub const MAX_FRAME_BYTES: usize = 72 << 20;
/// About how many bytes of messages one frame carries.
pub const FRAME_BYTES: usize = 256 << 10;
/// Streams that other members may hold open here.
pub const MAX_STREAMS: usize = 1024;
/// Gossip datagrams that wait for one peer's stream; older ones go.
const MAX_DATAGRAMS: usize = 64;

/// What is known of the stream to one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Since when it is up.
    pub up_since: Option<Millis>,
    /// Since when it is not, when it is not.
    pub down_since: Option<Millis>,
    /// Why the last try failed.
    pub error: Option<String>,
    /// The name that the peer gave itself, when it is another one than was dialled.
    pub calls_itself: Option<MemberName>,
}

/// The stream to one peer.
#[derive(Default)]
pub struct Link {
    wake: Notify,
    /// The peer was just heard: no need to wait before the next try.
    heard: Notify,
    up: AtomicBool,
    datagrams: Mutex<VecDeque<Bytes>>,
    state: Mutex<LinkState>,
}

impl Link {
    /// What is known of it.
    pub fn state(&self) -> LinkState {
        self.state.lock().clone()
    }

    /// Whether messages can be sent.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Sends a gossip datagram over the stream. False: there is none.
    pub fn relay(&self, datagram: Bytes) -> bool {
        if !self.is_up() {
            return false;
        }
        let mut waiting = self.datagrams.lock();
        if waiting.len() >= MAX_DATAGRAMS {
            waiting.pop_front();
        }
        waiting.push_back(datagram);
        drop(waiting);
        self.wake.notify_one();
        true
    }

    fn take_datagrams(&self) -> Vec<Bytes> {
        self.datagrams.lock().drain(..).collect()
    }
}

/// The streams to all peers.
#[derive(Default)]
pub struct Links {
    links: RwLock<BTreeMap<MemberName, Arc<Link>>>,
}

impl Links {
    /// The link to a peer, if one is kept.
    pub fn get(&self, peer: &MemberName) -> Option<Arc<Link>> {
        self.links.read().get(peer).cloned()
    }

    /// All links.
    pub fn all(&self) -> Vec<(MemberName, Arc<Link>)> {
        self.links.read().iter().map(|(name, link)| (name.clone(), link.clone())).collect()
    }

    /// Messages wait for these peers.
    pub fn wake<'a>(&self, peers: impl IntoIterator<Item = &'a MemberName>) {
        let links = self.links.read();
        for link in peers.into_iter().filter_map(|peer| links.get(peer)) {
            link.wake.notify_one();
        }
    }

    /// A peer was heard: a stream to it is tried at once.
    pub fn heard(&self, peer: &MemberName) {
        if let Some(link) = self.get(peer).filter(|link| !link.is_up()) {
            link.heard.notify_one();
        }
    }

    fn add(&self, peer: &MemberName, now: Millis) -> Arc<Link> {
        let link = Arc::new(Link::default());
        link.state.lock().down_since = Some(now);
        self.links.write().insert(peer.clone(), link.clone());
        link
    }

    /// Forgets a link, unless another one took its place.
    fn remove(&self, peer: &MemberName, link: &Arc<Link>) {
        let mut links = self.links.write();
        if links.get(peer).is_some_and(|present| Arc::ptr_eq(present, link)) {
            links.remove(peer);
        }
    }
}
