//! Kinds of work, and what they look like on the wire.

use super::report::Goal;
use super::server::Kind;
use std::sync::Arc;

/// Bytes of a key.
const KEY_BYTES: u64 = 16;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Bytes of a long value.
const LONG_BYTES: usize = 1 << 20;
/// Bytes of a key and its value.
pub(super) const ENTRY_BYTES: u64 = KEY_BYTES + VALUE_BYTES as u64;
/// Keys of most kinds of work.
const KEYS: u64 = 100_000;
/// Nodes where there is a cluster.
pub(super) const CLUSTER: usize = 3;
/// Numbers of nodes beside 1 and [`CLUSTER`].
const GROWTH: [usize; 2] = [5, 9];
/// Connections to a cluster.
const CONNECTIONS: usize = 48;
/// Room for everything.
const ROOMY: u64 = 4 << 30;
/// Room for a fifth of the keys at most, so that most writes evict.
const TIGHT: u64 = 64 << 20;

/// What one request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// One key is read.
    Get,
    /// One key is written.
    Set,
    /// So many keys are read with one command.
    GetMany(usize),
}

/// The keys that requests are about, by their numbers.
#[derive(Clone, Debug)]
pub(super) enum Keys {
    /// So many, from 0 on.
    First(u64),
    /// These.
    Chosen(Arc<[u64]>),
}

impl Keys {
    /// How many.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::First(count) => *count,
            Self::Chosen(keys) => keys.len() as u64,
        }
    }

    /// The number of one of them.
    pub(super) fn at(&self, place: u64) -> u64 {
        match self {
            Self::First(_) => place,
            Self::Chosen(keys) => keys[place as usize],
        }
    }
}

/// One kind of work.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// For people.
    pub(super) name: String,
    /// Each request.
    pub(super) request: Request,
    /// Requests that are sent before an answer is awaited.
    pub(super) pipeline: usize,
    /// What it is about.
    pub(super) keys: Keys,
    /// Bytes of a value.
    pub(super) value: usize,
    /// Bytes that the server may keep.
    pub(super) limit: u64,
    /// Connections, shared out over the nodes.
    pub(super) connections: usize,
    /// Nodes of ours, all on the servers' core.
    pub(super) nodes: usize,
    /// Copies of each key where there are several nodes.
    pub(super) copies: usize,
    /// Clients and servers share both cores.
    pub(super) two_cores: bool,
    /// What it should cost.
    pub(super) goal: Option<Goal>,
}

impl Work {
    /// Every kind.
    pub(super) fn all() -> Vec<Self> {
        let short = |name: &str, request, pipeline, goal| Self {
            name: format!("{name}, pipeline {pipeline}"),
            goal: Some(Goal::Ratio(goal)),
            ..Self::short(request, pipeline)
        };
        let mut all = Vec::new();
        for (pipeline, goal) in [(1, 1.2), (16, 2.5), (64, 4.0)] {
            all.push(short("GET", Request::Get, pipeline, goal));
            all.push(short("SET", Request::Set, pipeline, goal));
        }
        let evicting = short("SET that evicts", Request::Set, 16, 2.0);
        all.push(Self { keys: Keys::First(20 * KEYS), limit: TIGHT, ..evicting });
        all.push(short("MGET of 50", Request::GetMany(50), 1, 2.0));
        let long = short("GET of 1 MiB", Request::Get, 1, 1.0 / 1.1);
        all.push(Self { keys: Keys::First(100), value: LONG_BYTES, connections: 4, ..long });
        // All nodes together may take so many times what one Redis takes: 2.5 and 4, and in batches 3 and 5.
        for (pipeline, get, set) in [(1, 1.0 / 2.5, 1.0 / 4.0), (16, 1.0 / 3.0, 1.0 / 5.0)] {
            for (name, request, goal) in [("GET", Request::Get, get), ("SET", Request::Set, set)] {
                let alone = short(name, request, pipeline, goal);
                let name = format!("{name} by 3 nodes, pipeline {pipeline}");
                all.push(Self { name, nodes: CLUSTER, connections: CONNECTIONS, ..alone });
            }
        }
        // How the cost grows with the number of nodes.
        for nodes in GROWTH {
            for (name, request) in [("GET", Request::Get), ("SET", Request::Set)] {
                let name = format!("{name} by {nodes} nodes, pipeline 16");
                all.push(Self { name, nodes, connections: CONNECTIONS, ..Self::short(request, 16) });
            }
        }
        // With a second core an operation may cost 1.11 times what it costs with one thread.
        for (name, request) in [("GET", Request::Get), ("SET", Request::Set)] {
            let alone = short(name, request, 16, 1.0 / 1.11);
            all.push(Self { name: format!("{name} by 2 threads, pipeline 16"), two_cores: true, ..alone });
        }
        all
    }

    /// Requests for one short value each, to one node.
    pub(super) fn short(request: Request, pipeline: usize) -> Self {
        Self {
            name: String::new(),
            request,
            pipeline,
            keys: Keys::First(KEYS),
            value: VALUE_BYTES,
            limit: ROOMY,
            connections: 50,
            nodes: 1,
            copies: 2,
            two_cores: false,
            goal: None,
        }
    }

    /// What a cluster holds while it is asked at a fixed rate.
    pub(super) fn open_loop() -> Self {
        Self { nodes: CLUSTER, connections: CONNECTIONS, ..Self::short(Request::Get, 1) }
    }

    /// Two nodes with so many copies; the first one is asked.
    pub(super) fn pair(request: Request, pipeline: usize, copies: usize) -> Self {
        Self { nodes: 2, copies, ..Self::short(request, pipeline) }
    }

    /// Writing every key once.
    pub(super) fn memory(keys: u64) -> Self {
        Self { keys: Keys::First(keys), ..Self::short(Request::Set, 64) }
    }

    /// Whether a server knows such requests.
    pub(super) fn suits(&self, kind: Kind) -> bool {
        if self.two_cores || kind == Kind::OneThread {
            return self.two_cores && matches!(kind, Kind::Mizuya | Kind::OneThread);
        }
        if kind == Kind::Floor {
            return self.nodes == 1 && self.goal.is_some() && !self.evicts();
        }
        if GROWTH.contains(&self.nodes) {
            return kind == Kind::Mizuya;
        }
        // memcached's multiget skips keys that are not there, so its answers have no fixed length; and it refuses some
        // writes while it makes room.
        kind.is_resp() || !(matches!(self.request, Request::GetMany(_)) || self.evicts() || self.nodes > 1)
    }

    /// Whether the server has no room for all keys.
    pub(super) fn evicts(&self) -> bool {
        self.limit == TIGHT
    }

    /// What grows with the number of nodes, and that number.
    pub(super) fn curve(&self) -> Option<(String, f64)> {
        let is_one = self.pipeline == 16 && !self.evicts() && !self.two_cores;
        let name = if self.request == Request::Get { "GET" } else { "SET" };
        is_one.then(|| (format!("{name} at pipeline 16 by nodes"), self.nodes as f64))
    }

    /// Keys that a request is about: what is counted as operations.
    pub(super) fn keys_of_request(&self) -> u64 {
        match self.request {
            Request::GetMany(keys) => keys as u64,
            Request::Get | Request::Set => 1,
        }
    }

    /// Bytes of the requests of a batch, and of their answers.
    pub(super) fn batch_bytes(&self, kind: Kind) -> (usize, usize) {
        let (mut requests, mut answers) = (Vec::new(), 0);
        for _ in 0..self.pipeline {
            answers += self.write(kind, self.request, &mut || 0, &mut requests);
        }
        (requests.len(), answers)
    }

    /// Appends a request whose keys `any` chooses, and returns how long its answer is.
    pub(super) fn write(
        &self,
        kind: Kind,
        request: Request,
        any: &mut impl FnMut() -> u64,
        out: &mut Vec<u8>,
    ) -> usize {
        let value = value(self.value);
        match (kind.is_resp(), request) {
            (true, Request::Get) => {
                words(out, &[b"GET", &key(any())]);
                bulk_bytes(self.value)
            }
            (true, Request::Set) => {
                words(out, &[b"SET", &key(any()), &value]);
                b"+OK\r\n".len()
            }
            (true, Request::GetMany(count)) => {
                let keys: Vec<Vec<u8>> = (0..count).map(|_| key(any())).collect();
                let all: Vec<&[u8]> = [&b"MGET"[..]].into_iter().chain(keys.iter().map(Vec::as_slice)).collect();
                words(out, &all);
                format!("*{count}\r\n").len() + count * bulk_bytes(self.value)
            }
            (false, Request::Set) => {
                out.extend_from_slice(b"set ");
                out.extend_from_slice(&key(any()));
                out.extend_from_slice(format!(" 0 0 {}\r\n", self.value).as_bytes());
                out.extend_from_slice(&value);
                out.extend_from_slice(b"\r\n");
                b"STORED\r\n".len()
            }
            (false, _) => {
                let key = key(any());
                out.extend_from_slice(b"get ");
                out.extend_from_slice(&key);
                out.extend_from_slice(b"\r\n");
                format!("VALUE  0 {}\r\n\r\nEND\r\n", self.value).len() + key.len() + self.value
            }
        }
    }
}

/// The name of a key.
pub(super) fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

fn value(bytes: usize) -> Vec<u8> {
    vec![b'v'; bytes]
}

fn bulk_bytes(value: usize) -> usize {
    format!("${value}\r\n\r\n").len() + value
}

fn words(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}
