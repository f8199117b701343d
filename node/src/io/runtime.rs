//! A running node: sockets and timers in, the node's effects out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use mizuya_wire::{
    admin,
    settings::{Mode, Settings, Timing},
};
use nix::time::{ClockId, clock_gettime};
use parking_lot::RwLock;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinSet, yield_now},
    time::{self, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    client_port,
    connections::{Connections, Replies},
    diagnosis::{self, Problems},
    gossip::{self, HeardOverUdp},
    http,
    log::Quiet,
    memory::{self, Throttle},
    peer::{self, Links},
    security::Security,
    start::{Listeners, Start, StartError, config, load_security},
    threads::{self, Threads},
    volume::{self, Volume},
};
use crate::logic::{
    clock::{Clock, Millis},
    cluster::member::MemberName,
    commands::{self, Context, Done, table},
    keyspace::Partition,
    node::{Ask, Effects, Identity, Level, Node, Notice, Ticket, Turn},
    resp::{Reply, Straight},
    store::{Discarded, Store},
};

/// Entries of a store that has gone that are freed together, such steps between two pauses, and a pause.
const ENTRIES_A_STEP: usize = 16;
const STEPS: usize = 8;
const FREE_EVERY: Duration = Duration::from_millis(1);
/// Between two ticks of the node.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between two updates of the figures that only io knows.
const TICKS_A_FIGURE: u64 = 25;
/// A node whose last tick is older than this is not healthy.
pub const HEALTHY_WITHIN: Duration = Duration::from_secs(5);
/// Between two lines in the log about refused callers or datagrams.
const REFUSALS_EVERY: Duration = Duration::from_secs(10);
/// How long a stop waits for its tasks before it ends them.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A running node, shared by everything that does io for it.
pub struct Runtime {
    node: Node,
    settings: Settings,
    owns_process: bool,
    security: Security,
    threads: Threads,
    throttle: Arc<Throttle>,
    connections: Connections,
    links: Links,
    problems: Problems,
    gossip: mpsc::Sender<gossip::Event>,
    heard: RwLock<HeardOverUdp>,
    dial_changed: Notify,
    last_tick: AtomicU64,
    rejected_callers: AtomicU64,
    rejected_datagrams: AtomicU64,
    quiet_callers: Quiet,
    quiet_datagrams: Quiet,
    fatal: watch::Sender<Option<String>>,
    closing: CancellationToken,
    /// The same, for those who ask all the time: a token takes a lock to answer.
    is_closing: AtomicBool,
    started: Millis,
    volume: Option<Volume>,
}

/// Commands of one connection that came together.
pub struct Batch {
    /// What they share.
    pub turn: Turn,
    /// What they want done.
    pub effects: Effects,
}

impl Runtime {
    /// Starts a node on these sockets. It runs until it is stopped or dropped.
    pub fn start(start: Start, listeners: Listeners) -> Result<Running, StartError> {
        let settings = start.settings;
        let security = load_security(&settings)?;
        let clock = read_clock().map_err(StartError::Clock)?;
        let node = Node::new(config(&settings, start.zone), clock);
        let (volume, inboxes, recovered) = open_volume(&settings, &node, clock)?;
        let count = start.threads.unwrap_or_else(|| threads::fitting(node.config().max_bytes));
        let threads = Threads::start(count).map_err(|source| StartError::Threads { count, source })?;
        let (gossip_events, gossip_inbox) = mpsc::channel(gossip::MAX_EVENTS);
        let runtime = Arc::new(Self {
            node,
            owns_process: start.owns_process,
            security,
            threads,
            throttle: Arc::default(),
            connections: Connections::default(),
            links: Links::default(),
            problems: Problems::default(),
            gossip: gossip_events,
            heard: RwLock::default(),
            dial_changed: Notify::new(),
            last_tick: AtomicU64::new(clock.now.0),
            rejected_callers: AtomicU64::new(0),
            rejected_datagrams: AtomicU64::new(0),
            quiet_callers: Quiet::default(),
            quiet_datagrams: Quiet::default(),
            fatal: watch::Sender::new(None),
            closing: CancellationToken::new(),
            is_closing: AtomicBool::new(false),
            started: clock.now,
            volume,
            settings,
        });
        runtime.carry_out(recovered);
        if let Some(inboxes) = inboxes {
            volume::start(&runtime, inboxes).map_err(|source| volume_error(&runtime.settings, source))?;
        }
        let mut running = Running { runtime, stop: CancellationToken::new(), tasks: JoinSet::new() };
        running.spawn_all(listeners, gossip_inbox);
        Ok(running)
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Both clocks, now.
    pub fn clock(&self) -> Clock {
        // It was read at the start, so the kernel knows the clock.
        read_clock().unwrap_or_default()
    }

    /// A client's command for one partition. None: the reply comes later to the connection's sender.
    pub fn submit(&self, ticket: Ticket, partition: Partition, words: &[Bytes]) -> Option<Reply> {
        let words = &commands::words_of(words);
        let command = match table::command(words) {
            Ok(command) => command,
            Err(error) => return Some(error),
        };
        let mut batch = self.batch();
        let ask = Ask { command, partition, words, spot: None, settled: true };
        let reply = self.submit_in(&mut batch, ticket, ask, None);
        self.carry_out(batch.effects);
        reply
    }

    /// What commands share that come together; effects are carried out at the end with [`Runtime::carry_out`].
    pub fn batch(&self) -> Batch {
        Batch { turn: self.node.turn(self.clock(), rand::random()), effects: Effects::default() }
    }

    /// As [`Runtime::submit`], for one of several commands. Values may go `straight` to the client.
    pub fn submit_in(
        &self,
        batch: &mut Batch,
        ticket: Ticket,
        ask: Ask<'_>,
        straight: Option<Straight<'_>>,
    ) -> Option<Reply> {
        if self.settings.mode == Mode::Disabled {
            return Some(self.answer_as_empty(batch, ask));
        }
        self.node.submit_in(&mut batch.turn, ticket, ask, straight, &mut batch.effects)
    }

    /// Reads keys of the default map straight to the client, if that needs nobody else; false: nothing was done.
    pub fn read_all(&self, batch: &mut Batch, keys: &[(Partition, &[u8])], straight: Straight<'_>) -> bool {
        self.settings.mode != Mode::Disabled && self.node.read_all(&mut batch.turn, keys, straight)
    }

    /// What a store without entries answers; nothing is kept.
    fn answer_as_empty(&self, batch: &Batch, Ask { command, words, .. }: Ask<'_>) -> Reply {
        let default_map = Bytes::from(self.settings.dmap_name.clone());
        let context = Context { clock: batch.turn.clock(), random: 0, default_map: &default_map, spot: None };
        commands::execute(command, words, &mut Store::new(0), &context, None, &mut Done::default())
    }

    /// Calls the node and carries out what it wants done.
    pub fn with_effects<T>(&self, call: impl FnOnce(&Node, Clock, u64, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let result = call(&self.node, self.clock(), rand::random(), &mut effects);
        self.carry_out(effects);
        result
    }

    /// Carries out what the node wants done.
    pub fn carry_out(&self, effects: Effects) {
        self.connections.deliver(effects.replies);
        if !effects.wake.is_empty() {
            self.links.wake(&effects.wake);
        }
        for Notice { level, text } in effects.notices {
            match level {
                Level::Info => tracing::info!("{text}"),
                Level::Warn => tracing::warn!("{text}"),
                Level::Error => tracing::error!("{text}"),
            }
        }
        if effects.table_changed {
            self.look_whom_to_dial();
            if self.owns_process {
                memory::take_huge_pages(!self.node.is_being_filled());
            }
        }
        if let Some(volume) = &self.volume {
            volume.carry_out(effects.persist, effects.erase);
        }
        if !effects.discarded.is_empty() {
            tokio::spawn(free(effects.discarded));
        }
        if let Some(reason) = effects.fatal {
            tracing::error!("{reason}");
            self.fatal.send_replace(Some(reason));
        }
    }

    /// A connection opens; replies that come later go to this sender.
    pub fn open_connection(&self, replies: Replies) -> u64 {
        self.connections.open(replies)
    }

    /// A connection closes.
    pub fn close_connection(&self, id: u64) {
        self.connections.close(id);
    }

    /// Open client connections.
    pub fn connection_count(&self) -> u64 {
        self.connections.count()
    }

    /// What it was started with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Who this node is.
    pub fn identity(&self) -> &Identity {
        &self.node.config().identity
    }

    /// Partitions of the cluster.
    pub fn partitions(&self) -> u16 {
        self.node.config().partitions
    }

    /// Times of the preset.
    pub fn timing(&self) -> Timing {
        self.node.config().timing
    }

    /// Client connections close between commands once this is cancelled (rule L3).
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Whether [`Runtime::closing`] is cancelled.
    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Lets client connections close between commands (rule L3).
    pub fn close_clients(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.closing.cancel();
    }

    /// How members know each other.
    pub fn security(&self) -> &Security {
        &self.security
    }

    /// Slows those who send much.
    pub fn throttle(&self) -> &Arc<Throttle> {
        &self.throttle
    }

    /// Where connections are served.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The streams to other members.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// What is wrong, as far as io can tell.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// The volume, if there is one.
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    /// When the node was started.
    pub fn started(&self) -> Millis {
        self.started
    }

    /// Whether the node's own loop runs.
    pub fn healthy(&self) -> bool {
        Millis(self.last_tick.load(Ordering::Relaxed)) + HEALTHY_WITHIN > self.clock().now
    }

    /// Whether clients should be sent here, or why not (rule O10).
    pub fn ready(&self) -> Result<(), String> {
        if self.settings.mode == Mode::Disabled { Ok(()) } else { self.node.ready(self.clock()) }
    }

    /// Everything that can be told about the node and its cluster.
    pub fn status(&self) -> admin::StatusReply {
        let mut status = self.node.status(self.clock());
        self.mode().clone_into(&mut status.mode);
        if let Err(reason) = self.ready() {
            status.not_ready_because = reason;
        } else {
            status.ready = true;
            status.not_ready_because.clear();
        }
        status.problems.extend(self.problems.found());
        status
    }

    /// The mode as the settings spell it.
    pub fn mode(&self) -> &'static str {
        match self.settings.mode {
            Mode::Single => "single",
            Mode::Ha => "ha",
            Mode::Disabled => "disabled",
        }
    }

    /// Whom to speak to may have changed.
    pub fn look_whom_to_dial(&self) {
        self.dial_changed.notify_one();
    }

    /// Waits until whom to speak to may have changed.
    pub async fn dial_changed(&self) {
        self.dial_changed.notified().await;
    }

    /// Waits until the node says that the process must end and start anew.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.fatal.subscribe();
        // The sender lives as long as this runtime.
        let reason = fatal.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    /// Tells the failure detector. When it cannot keep up the event is dropped, as a datagram may be.
    pub fn gossip(&self, event: gossip::Event) {
        let _ = self.gossip.try_send(event);
    }

    /// A member was heard over UDP.
    pub fn heard_over_udp(&self, name: &MemberName, now: Millis) {
        self.heard.write().insert(name.clone(), now);
    }

    /// When a member was last heard over UDP.
    pub fn last_heard_over_udp(&self, name: &MemberName) -> Option<Millis> {
        self.heard.read().get(name).copied()
    }

    /// A caller on the peer port had no certificate.
    pub fn reject_caller(&self, from: &str) {
        let count = self.rejected_callers.fetch_add(1, Ordering::Relaxed) + 1;
        if self.quiet_callers.may_speak(self.clock().now, REFUSALS_EVERY) {
            tracing::warn!(from, count, "a caller of the peer port without a certificate of this cluster was refused");
        }
    }

    /// A gossip datagram could not be opened.
    pub fn reject_datagram(&self, from: &str, other_key: bool, reason: &str) {
        let count = self.rejected_datagrams.fetch_add(1, Ordering::Relaxed) + 1;
        if self.quiet_datagrams.may_speak(self.clock().now, REFUSALS_EVERY) {
            tracing::warn!(from, count, other_key, "gossip datagram dropped: {reason}");
        }
    }

    /// Callers and datagrams that were refused.
    pub fn rejected(&self) -> (u64, u64) {
        (self.rejected_callers.load(Ordering::Relaxed), self.rejected_datagrams.load(Ordering::Relaxed))
    }

    async fn tick(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for count in 0_u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            if count % TICKS_A_FIGURE == 0 {
                self.node.set_usage(self.connections.count(), self.rejected_callers.load(Ordering::Relaxed));
            }
            self.with_effects(Node::tick);
            self.last_tick.store(self.clock().now.0, Ordering::Relaxed);
        }
    }

    /// Lets the budget of entries follow the memory of the process, where it is the node's own.
    async fn watch_memory(self: Arc<Self>, stop: CancellationToken) {
        let mut watch = memory::Watch::new(self.node.config().max_bytes);
        let look = async {
            loop {
                time::sleep(watch.look(&self.node, &self.threads, &self.throttle, self.clock().now).await).await;
            }
        };
        stop.run_until_cancelled(look).await;
    }
}

/// A started node. Dropping it ends it at once.
pub struct Running {
    runtime: Arc<Runtime>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    /// What the node's io shares.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    fn spawn_all(&mut self, listeners: Listeners, inbox: mpsc::Receiver<gossip::Event>) {
        let (runtime, stop) = (self.runtime.clone(), self.stop.clone());
        self.tasks.spawn(runtime.clone().tick(stop.clone()));
        if runtime.owns_process {
            self.tasks.spawn(runtime.clone().watch_memory(stop.clone()));
        }
        let clustered = runtime.settings.mode == Mode::Ha;
        if let Some((streams, datagrams)) = listeners.peer {
            self.spawn_fallible("peer port", peer::server::serve(streams, runtime.clone(), stop.clone()));
            if clustered {
                self.tasks.spawn(gossip::run(runtime.clone(), datagrams, inbox, stop.clone()));
            }
        }
        if clustered {
            self.tasks.spawn(peer::streams::run(runtime.clone(), stop.clone()));
            self.tasks.spawn(diagnosis::run(runtime.clone(), stop.clone()));
        }
        if runtime.volume.is_some() && !runtime.settings.snapshot_interval.is_zero() {
            let interval = runtime.settings.snapshot_interval;
            self.tasks.spawn(volume::run_periodic(runtime.clone(), interval, stop.clone()));
        }
        if let Some(listener) = listeners.http {
            self.spawn_fallible("http", http::serve(listener, runtime.clone(), stop.clone()));
        }
        if let Some(listener) = listeners.client {
            self.tasks.spawn(async move {
                tokio::select! {
                    () = client_port::serve(listener, runtime) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    fn spawn_fallible<E: std::fmt::Display + 'static>(
        &mut self,
        what: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            if let Err(error) = task.await {
                tracing::error!(%error, "the {what} ended");
            }
        });
    }

    /// Ends the node: streams, timers and listeners. It does not hand anything over; see [`super::shutdown`].
    pub async fn stop(mut self) {
        self.runtime.close_clients();
        self.stop.cancel();
        let ended = time::timeout(STOP_TIMEOUT, async { while self.tasks.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            self.tasks.abort_all();
        }
    }
}

impl Drop for Running {
    // Connections that were accepted have tasks of their own, which look at this.
    fn drop(&mut self) {
        self.runtime.close_clients();
        self.stop.cancel();
    }
}

/// Frees entries in steps between which whatever else there is has its turn. When the program ends they go at once.
async fn free(discarded: Vec<Discarded>) {
    let mut steps = 0;
    for mut entries in discarded {
        while entries.free(ENTRIES_A_STEP) {
            steps += 1;
            if steps % STEPS == 0 {
                time::sleep(FREE_EVERY).await;
            } else {
                yield_now().await;
            }
        }
    }
}

/// Opens the volume of the settings and gives the node what is there.
fn open_volume(
    settings: &Settings,
    node: &Node,
    clock: Clock,
) -> Result<(Option<Volume>, Option<volume::Inboxes>, Effects), StartError> {
    let mut effects = Effects::default();
    let Some(folder) = &settings.data_dir else { return Ok((None, None, effects)) };
    let mut open = || {
        let (volume, inboxes) = Volume::open(folder.as_ref())?;
        volume.recover(node, clock, &mut effects)?;
        Ok((volume, inboxes))
    };
    let (volume, inboxes) = open().map_err(|source| volume_error(settings, source))?;
    Ok((Some(volume), Some(inboxes), effects))
}

fn volume_error(settings: &Settings, source: std::io::Error) -> StartError {
    StartError::Volume { folder: settings.data_dir.clone().unwrap_or_default(), source }
}

fn read_clock() -> nix::Result<Clock> {
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Clock { now: Millis(boot.as_millis() as u64), wall: wall.as_millis() as u64 })
}
