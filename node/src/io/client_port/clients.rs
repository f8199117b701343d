//! The connections of this node, for `CLIENT LIST` and `INFO`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::logic::{clock::Millis, commands::table};

/// What a client says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    /// Of the connection.
    pub(super) name: String,
    /// Of the library, and its version.
    pub(super) library: (String, String),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    since: Millis,
    pub(super) labels: Mutex<Labels>,
    /// When it last sent a command, in `Millis`.
    last: AtomicU64,
    /// Where that command stands in memory.
    command: AtomicUsize,
    pub(super) resp3: AtomicBool,
    /// Bytes read and not understood yet, and bytes to be written.
    buffered: (AtomicUsize, AtomicUsize),
}

impl Client {
    pub(super) fn new(id: u64, peer: SocketAddr, local: SocketAddr, now: Millis) -> Self {
        Self {
            id,
            peer,
            local,
            since: now,
            labels: Mutex::default(),
            last: AtomicU64::new(now.0),
            command: AtomicUsize::new(0),
            resp3: AtomicBool::new(false),
            buffered: Default::default(),
        }
    }

    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// It sent this command.
    pub(super) fn used(&self, command: &'static table::Command, now: Millis) {
        self.last.store(now.0, Ordering::Relaxed);
        self.command.store(ptr::from_ref(command).addr(), Ordering::Relaxed);
    }

    pub(super) fn buffered(&self, input: usize, output: usize) {
        self.buffered.0.store(input, Ordering::Relaxed);
        self.buffered.1.store(output, Ordering::Relaxed);
    }

    /// Its line in `CLIENT LIST`, in the words of Redis.
    pub(super) fn line(&self, now: Millis) -> String {
        let labels = self.labels.lock().clone();
        let place = self.command.load(Ordering::Relaxed);
        let command = table::all().iter().find(|command| ptr::from_ref::<table::Command>(command).addr() == place);
        let command = command.map_or("NULL", |command| command.name);
        let idle = now.since(Millis(self.last.load(Ordering::Relaxed))) / 1000;
        let resp = if self.resp3.load(Ordering::Relaxed) { 3 } else { 2 };
        format!(
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={idle} flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf={} \
             qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem={} tot-mem=0 events=r cmd={command} \
             user=default redir=-1 resp={resp} lib-name={} lib-ver={}\n",
            self.id,
            self.peer,
            self.local,
            labels.name,
            now.since(self.since) / 1000,
            self.buffered.0.load(Ordering::Relaxed),
            self.buffered.1.load(Ordering::Relaxed),
            labels.library.0,
            labels.library.1,
        )
    }
}

/// All connections, and figures of all that ever were.
#[derive(Debug, Default)]
pub(super) struct Clients {
    open: Mutex<BTreeMap<u64, Arc<Client>>>,
    accepted: AtomicU64,
    rejected: AtomicU64,
    commands: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
}

/// Figures of the client port since its start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    pub(super) open: u64,
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    pub(super) commands: u64,
    pub(super) read: u64,
    pub(super) written: u64,
}

impl Clients {
    pub(super) fn opened(&self, client: Arc<Client>) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(client.id, client);
    }

    pub(super) fn closed(&self, id: u64) {
        self.open.lock().remove(&id);
    }

    pub(super) fn rejected(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_commands(&self, commands: u64) {
        self.commands.fetch_add(commands, Ordering::Relaxed);
    }

    pub(super) fn count_bytes(&self, read: usize, written: usize) {
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        self.written.fetch_add(written as u64, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Traffic {
            open: self.open.lock().len() as u64,
            accepted: load(&self.accepted),
            rejected: load(&self.rejected),
            commands: load(&self.commands),
            read: load(&self.read),
            written: load(&self.written),
        }
    }

    /// Lines of all clients that `which` accepts, in the order of their ids.
    pub(super) fn list(&self, now: Millis, which: impl Fn(u64) -> bool) -> String {
        let open = self.open.lock();
        open.values().filter(|client| which(client.id)).map(|client| client.line(now)).collect()
    }
}
