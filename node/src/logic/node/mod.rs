//! A node: events come in, effects go out. This is what the simulation drives and what ships.
//!
//! Locks inside, always taken in this order: control, requests that wait for one partition, that partition, forwards,
//! the way of one partition's forwards, one set of mirrors or what one partition gave, one outbox, what is to be freed.

mod account;
mod control;
mod forwards;
mod headroom;
mod hearing;
mod mirrors;
mod outbox;
mod pacing;
mod requests;
mod status;
mod tables;
#[cfg(test)]
mod tests;
mod volume;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{self, AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use mizuya_wire::settings::{Eviction, Restore, Timing};
use parking_lot::{Mutex, RwLock};

use self::{
    account::Account, control::Control, forwards::Forwards, mirrors::Mirrors, outbox::Outbox, pacing::Pace,
    requests::Moment, waiting::Queues,
};
pub use self::{
    headroom::Headroom,
    mirrors::Mirroring,
    pacing::ASK_EVERY,
    requests::{Ask, Turn, WORTH_A_LOOK},
    volume::{Persist, Recovery},
};
use super::{
    clock::{Clock, Millis},
    cluster::{
        member::{Generation, Member, MemberId, MemberName},
        membership::Setup,
        message::{Forward, Forwarded, Message},
        replica::{CHUNK_BYTES, Due, Replica, Standing},
        table::{Copy, Live, Mark, Table},
    },
    keyspace::Partition,
    resp::Reply,
    store::{Discarded, Order},
};

/// A client's request, as io knows it. Logic only hands it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Connection.
    pub connection: u64,
    /// Number of the request on it.
    pub request: u64,
    /// Part of a request that was split over partitions.
    pub part: u32,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client of this node.
    Client(Ticket),
    /// Another member, which forwarded a command.
    Peer {
        /// Who.
        name: MemberName,
        /// Its number for it.
        id: u64,
        /// How often the command was passed on.
        hops: u8,
        /// It asks whether it may mirror the answer.
        mirrors: bool,
    },
}

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Worth a line in the log.
    Info,
    /// Needs attention.
    Warn,
    /// Something was lost or refused.
    Error,
}

/// A sentence for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub level: Level,
    /// The sentence.
    pub text: String,
}

/// What a call asks io to do.
#[derive(Debug, Default)]
pub struct Effects {
    /// Replies that became due.
    pub replies: Vec<(Ticket, Reply)>,
    /// Peers for whom messages wait.
    pub wake: BTreeSet<MemberName>,
    /// Sentences for the log.
    pub notices: Vec<Notice>,
    /// A new table is in force.
    pub table_changed: bool,
    /// The process must end and start anew: the cluster has gone on without it.
    pub fatal: Option<String>,
    /// A table is to be written to the volume.
    pub persist: Option<Persist>,
    /// The snapshot is to be removed from the volume (rule S2).
    pub erase: bool,
    /// Entries that went all at once, to be freed little by little.
    pub discarded: Vec<Discarded>,
}

impl Effects {
    /// Messages wait for this peer.
    fn will_wake(&mut self, peer: &MemberName) {
        if !self.wake.contains(peer) {
            self.wake.insert(peer.clone());
        }
    }

    fn say(&mut self, level: Level, text: impl Into<String>) {
        self.notices.push(Notice { level, text: text.into() });
    }
}

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the cluster that it was told.
    pub cluster_name: String,
    /// Stable DNS name.
    pub name: MemberName,
    /// This start of the process.
    pub generation: Generation,
    /// Port of clients.
    pub client_port: u16,
    /// Port of peers and gossip.
    pub peer_port: u16,
    /// Preset of the failure detector, as the settings file spells it.
    pub environment: String,
    /// Map of the Redis commands.
    pub default_map: String,
    /// Zone; empty when unknown.
    pub zone: String,
}

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// Partitions of a new cluster.
    pub partitions: u16,
    /// Live settings of a new cluster.
    pub live: Live,
    /// Times.
    pub timing: Timing,
    /// Other members, as host and gossip port.
    pub peers: Vec<(String, u16)>,
    /// Budget of all entries; see [`Node::set_budget`].
    pub max_bytes: u64,
    /// Which entries go when it is used up.
    pub eviction: Eviction,
    /// How long the first peer waits for others before it starts alone.
    pub bootstrap_timeout: Duration,
    /// How long copies of a member that left for a restart are not rebuilt, and how long one that left with a
    /// partition's last copies is waited for (rule S1).
    pub rejoin_timeout: Duration,
    /// What comes back from a volume; none: there is no volume.
    pub restore: Option<Restore>,
    /// Whether hot remote keys are mirrored here, and hot keys of this member elsewhere (rule C4).
    pub mirroring: Mirroring,
    /// Bytes a second at which entries go to one peer at most, where a partition only moves.
    pub move_rate: u64,
}

impl Config {
    /// What the failure detector of this start needs to know; `wall` in milliseconds.
    pub fn detector(&self, wall: u64, seed: u64) -> Setup {
        Setup {
            name: self.identity.name.clone(),
            generation: self.identity.generation,
            port: self.identity.peer_port,
            peers: self.peers.clone(),
            timing: self.timing,
            wall,
            seed,
        }
    }
}

/// The table in force and this node's place in it.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// The table in force.
    pub table: Option<Arc<Table>>,
    /// This node's number.
    pub me: Option<MemberId>,
    /// Counter of the table; 0 without one.
    pub epoch: u64,
}

#[derive(Default)]
struct Counters {
    evictions: AtomicU64,
    expirations: AtomicU64,
    connections: AtomicU64,
    lost_partitions: AtomicU64,
    diverged_copies: AtomicU64,
    restored_partitions: AtomicU64,
    restored_lossy: AtomicU64,
    rejected_callers: AtomicU64,
}

/// A node.
pub struct Node {
    config: Config,
    default_map: Bytes,
    /// Of that map.
    order: Order,
    control: Mutex<Control>,
    replicas: Box<[Mutex<Replica>]>,
    routing: ArcSwap<Routing>,
    outboxes: RwLock<BTreeMap<MemberName, Arc<Outbox>>>,
    waiting: Queues,
    forwards: Mutex<Forwards>,
    mirrors: Mirrors,
    /// Number of the next request.
    requests: AtomicU64,
    /// Until when this member may answer (rule W7), in `Millis`.
    lease_until: AtomicU64,
    counters: Counters,
    discarded: Mutex<Vec<Discarded>>,
    /// Of the entries, whose budget is at most what is configured.
    account: Account,
    /// Where the next sweep for expired entries starts.
    sweep: AtomicU64,
    /// A snapshot is on the volume.
    stored: AtomicBool,
}

impl Node {
    /// A node that knows nobody yet.
    pub fn new(config: Config, clock: Clock) -> Self {
        // The hash order must be the same everywhere, also before a table is known (rules T8, C2).
        let seed = hash_seed(&config.identity.cluster_name);
        let replicas = (0..config.partitions).map(|p| Mutex::new(Replica::new(Partition(p), seed))).collect();
        Self {
            default_map: Bytes::from(config.identity.default_map.clone().into_bytes()),
            order: Order::new(seed, config.identity.default_map.as_bytes()),
            control: Mutex::new(Control::new(clock.now, config.restore.is_some())),
            replicas,
            routing: ArcSwap::default(),
            outboxes: RwLock::default(),
            waiting: Queues::new(config.partitions),
            forwards: Mutex::new(Forwards::new(config.identity.generation.0)),
            mirrors: Mirrors::new(config.mirroring, config.partitions),
            requests: AtomicU64::new(0),
            lease_until: AtomicU64::new(0),
            counters: Counters::default(),
            discarded: Mutex::default(),
            account: Account::new(config.max_bytes),
            sweep: AtomicU64::new(0),
            stored: AtomicBool::new(false),
            config,
        }
    }

    /// What it was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn name(&self) -> &MemberName {
        &self.config.identity.name
    }

    /// This start of this member in a table.
    fn own<'a>(&self, table: &'a Table) -> Option<&'a Member> {
        table.start(self.name(), self.config.identity.generation)
    }

    /// Whether a table has this start of this member as running.
    fn lives_in(&self, table: &Table) -> bool {
        self.own(table).is_some_and(|own| own.state.is_live())
    }

    /// The table in force and this node's place in it.
    pub fn routing(&self) -> Arc<Routing> {
        self.routing.load_full()
    }

    /// Counter of the table in force; 0 without one.
    pub fn epoch(&self) -> u64 {
        self.routing.load().epoch
    }

    /// Figures that only io knows.
    pub fn set_usage(&self, connections: u64, rejected_callers: u64) {
        self.counters.connections.store(connections, Ordering::Relaxed);
        self.counters.rejected_callers.store(rejected_callers, Ordering::Relaxed);
    }

    fn has_lease(&self, now: Millis) -> bool {
        now.0 < self.lease_until.load(Ordering::Acquire)
    }

    /// Whether a command for the partition would be executed here at `now`. At no time two members may do that (rules T2,
    /// W7).
    pub fn serves(&self, partition: Partition, now: Millis) -> bool {
        self.has_lease(now) && self.replicas[partition.index()].lock().stands(now) == Standing::Serving
    }

    // ---- streams

    fn outbox(&self, peer: &MemberName) -> Arc<Outbox> {
        if let Some(outbox) = self.outboxes.read().get(peer) {
            return outbox.clone();
        }
        self.outboxes.write().entry(peer.clone()).or_default().clone()
    }

    fn send(&self, to: &MemberName, message: Message, effects: &mut Effects) {
        if self.outbox(to).push(message) {
            effects.will_wake(to);
        }
    }

    /// Marks a partition as having something to say to a peer.
    fn mark(&self, to: &MemberName, partition: Partition, effects: &mut Effects) {
        if self.outbox(to).mark(partition) {
            effects.will_wake(to);
        }
    }

    /// A stream to a peer is up: from now on messages for it are kept until taken.
    pub fn stream_up(&self, peer: &MemberName, clock: Clock, effects: &mut Effects) {
        self.outbox(peer).open();
        self.greet(peer, clock, effects);
    }

    /// The stream to a peer broke. What it was sent may or may not have arrived.
    pub fn stream_down(&self, peer: &MemberName, clock: Clock, effects: &mut Effects) {
        self.outbox(peer).close();
        for replica in &self.replicas {
            replica.lock().stream_broke(peer);
        }
        self.forwards_broke(peer, clock, effects);
    }

    /// A stream of a peer to this member began or ended: replies that were under way on a former one do not come any more.
    pub fn replies_lost(&self, peer: &MemberName, clock: Clock, effects: &mut Effects) {
        self.outbox(peer).unheard();
        self.forwards_broke(peer, clock, effects);
    }

    /// Messages for a peer, of about `max_bytes`; empty: nothing now. Live changes, commands and everything else go before
    /// existing entries, of which there is one chunk at most: entries that nobody asked for lately may be slow to read, and
    /// whoever sends them can let others have their turn between two chunks.
    pub fn take_messages(&self, peer: &MemberName, max_bytes: usize, clock: Clock) -> Vec<Message> {
        let outbox = self.outbox(peer);
        let (mut messages, mut bytes) = outbox.take(max_bytes);
        while bytes < max_bytes {
            let Some(partition) = outbox.next_marked() else { break };
            let said = self.replicas[partition.index()].lock().messages_for(peer, max_bytes - bytes, None, clock);
            if said.more {
                outbox.mark(partition);
            }
            if said.builds {
                outbox.build(partition);
            }
            bytes += self.add(said.messages, &mut messages);
        }
        let full = bytes >= max_bytes;
        if full {
            outbox.pace(Pace::hinder);
        }
        if let Some(partition) = outbox.next_building(full, clock.now) {
            let room = Some(CHUNK_BYTES.min(max_bytes));
            let said = self.replicas[partition.index()].lock().messages_for(peer, max_bytes, room, clock);
            if said.more {
                outbox.mark(partition);
            }
            let sent = self.add(said.messages, &mut messages);
            if said.builds {
                let routing = self.routing.load();
                let urgent = routing.table.as_ref().is_some_and(|table| table.is_urgent(table.assignment(partition)));
                outbox.pace(|pace| pace.sent(partition, sent, urgent, clock.now));
            }
        }
        messages
    }

    /// Whether existing entries for a peer wait until their pace allows them. Then [`Node::take_messages`] is to be asked
    /// every [`ASK_EVERY`], until it gives nothing: a pace gives what it has for a moment and forgets what was not taken.
    pub fn builds_for(&self, peer: &MemberName) -> bool {
        self.outbox(peer).builds()
    }

    /// Whether copies are being built on this member.
    pub fn is_being_filled(&self) -> bool {
        let routing = self.routing();
        let (Some(table), Some(me)) = (&routing.table, routing.me) else { return false };
        let builds = |copy: &Copy| copy.member == me && copy.mark == Mark::Building;
        table.partitions.iter().any(|assignment| assignment.copies.iter().any(builds))
    }

    /// Whoever sends to this peer came late to a core.
    pub fn sends_late(&self, peer: &MemberName) {
        self.outbox(peer).pace(Pace::hinder);
    }

    fn add(&self, stream: Vec<Message>, messages: &mut Vec<Message>) -> usize {
        let mut bytes = 0;
        for mut message in stream {
            if let Message::Confirm(confirm) = &mut message {
                confirm.pressure = self.over_budget();
            }
            bytes += message.weight();
            messages.push(message);
        }
        bytes
    }

    /// Whom to keep a stream to: members, configured peers, everyone who said hello lately. Host and peer port.
    pub fn dial(&self) -> Vec<(MemberName, u16)> {
        let mut dial: BTreeMap<MemberName, u16> =
            self.config.peers.iter().map(|(host, port)| (MemberName::from(host.as_str()), *port)).collect();
        dial.extend(self.control.lock().acquaintances());
        if let Some(table) = &self.routing.load().table {
            dial.extend(table.members.iter().map(|member| (member.name.clone(), member.peer_port)));
        }
        dial.remove(self.name());
        dial.into_iter().collect()
    }

    /// A message came from a peer.
    pub fn receive(
        &self,
        from: &MemberName,
        generation: Generation,
        message: Message,
        clock: Clock,
        random: u64,
        effects: &mut Effects,
    ) {
        match message {
            Message::Append(append) => {
                let partition = append.partition;
                let Some(replica) = self.replicas.get(partition.index()) else { return };
                let heard = self.with_bytes(replica, |replica| replica.append(append));
                if heard.answers {
                    self.mark(from, partition, effects);
                }
                if heard.differs {
                    self.counters.diverged_copies.fetch_add(1, Ordering::Relaxed);
                    let text =
                        format!("the copy of partition {} here differs from {from}'s; it is built anew", partition.0);
                    effects.say(Level::Error, text);
                }
            }
            Message::Chunk(chunk) => {
                let partition = chunk.partition;
                let Some(replica) = self.replicas.get(partition.index()) else { return };
                let answers = self.with_bytes(replica, |replica| replica.chunk(&chunk));
                if answers {
                    self.mark(from, partition, effects);
                }
            }
            Message::Digests(digests) => {
                let partition = digests.partition;
                let Some(replica) = self.replicas.get(partition.index()) else { return };
                let answers = replica.lock().digests(&digests);
                if answers {
                    self.mark(from, partition, effects);
                }
            }
            Message::Confirm(confirm) => {
                let Some(member) = self.started(from, generation) else { return };
                let Some(replica) = self.replicas.get(confirm.partition.index()) else { return };
                let mut due = Vec::new();
                let mut replica = replica.lock();
                let more = replica.confirmed(member, &confirm, clock.now, &mut due);
                if !replica.awaits_chunk(member) {
                    self.outbox(from).pace(|pace| pace.answered(confirm.partition, clock.now));
                }
                if confirm.pressure {
                    self.make_room(&mut replica, outbox::PRESSURE_BYTES, random, effects);
                }
                drop(replica);
                if more {
                    self.mark(from, confirm.partition, effects);
                }
                self.reply_all(due, effects);
            }
            Message::Forward(forward) => self.forwarded_here(from, forward, clock, random, effects),
            Message::Forwarded { id, outcome } => {
                self.forward_answered(id, outcome, Moment { clock, random }, effects);
            }
            Message::MirrorsEnd { partition, key } => self.mirrors_end(partition, key.as_deref()),
            control => self.receive_control(from, generation, control, clock, random, effects),
        }
    }

    /// The number of this start of a member in the table in force.
    fn started(&self, name: &MemberName, generation: Generation) -> Option<MemberId> {
        let routing = self.routing.load();
        routing.table.as_ref()?.start(name, generation).map(|member| member.id)
    }

    fn reply_all(&self, due: Vec<Due>, effects: &mut Effects) {
        for (origin, reply) in due {
            self.reply(origin, reply, effects);
        }
    }

    fn reply(&self, origin: Origin, reply: Reply, effects: &mut Effects) {
        self.reply_for(origin, reply, 0, effects);
    }

    /// A reply that another member may mirror for so many milliseconds.
    fn reply_for(&self, origin: Origin, reply: Reply, mirror: u64, effects: &mut Effects) {
        match origin {
            Origin::Client(ticket) => effects.replies.push((ticket, reply)),
            Origin::Peer { .. } => self.reply_written(origin, reply.to_resp3(), mirror, effects),
        }
    }

    /// As [`Node::reply_for`], for a reply to another member as it is read by [`Reply::from_resp3`].
    fn reply_written(&self, origin: Origin, bytes: Bytes, mirror: u64, effects: &mut Effects) {
        if let Origin::Peer { name, id, .. } = origin {
            let outcome = Forwarded::Reply { bytes, mirror };
            self.send(&name, Message::Forwarded { id, outcome }, effects);
        }
    }

    fn with_bytes<T>(&self, replica: &Mutex<Replica>, change: impl FnOnce(&mut Replica) -> T) -> T {
        let mut replica = replica.lock();
        self.counting(&mut replica, change)
    }

    /// Runs a change of a partition and books the bytes that it added or freed.
    fn counting<T>(&self, replica: &mut Replica, change: impl FnOnce(&mut Replica) -> T) -> T {
        let before = replica.store.bytes();
        let result = change(replica);
        self.keep_discarded(replica);
        self.account.book(replica.store.bytes() as i64 - before as i64);
        result
    }

    /// What a partition threw away whole is freed later.
    fn keep_discarded(&self, replica: &mut Replica) {
        let discarded = replica.store.take_discarded();
        if !discarded.is_empty() {
            self.discarded.lock().extend(discarded);
        }
    }

    /// Accounted bytes of all entries held here.
    pub fn bytes(&self) -> u64 {
        self.account.bytes()
    }

    /// What entries may take now, in bytes.
    pub fn budget(&self) -> u64 {
        self.account.budget()
    }

    /// Entries may take so many bytes from now on, at most what is configured. What is too much goes little by little.
    pub fn set_budget(&self, bytes: u64) {
        self.account.set_budget(bytes.min(self.config.max_bytes));
    }

    fn over_budget(&self) -> bool {
        self.account.excess() > 0
    }

    /// Time passes. To be called every 20 ms or so.
    pub fn tick(&self, clock: Clock, random: u64, effects: &mut Effects) {
        effects.discarded.append(&mut self.discarded.lock());
        self.tick_control(clock, random, effects);
        self.tick_partitions(clock, random, effects);
        self.tick_paces(clock, effects);
        self.tick_waiting(clock, random, effects);
        self.tick_forwards(clock, effects);
        self.mirrors.tick(clock.now);
    }

    fn tick_paces(&self, clock: Clock, effects: &mut Effects) {
        let outboxes = self.outboxes.read();
        let waits = outboxes.iter().filter(|(_, outbox)| {
            outbox.pace(|pace| pace.tick(self.config.move_rate, clock.now));
            outbox.builds()
        });
        effects.wake.extend(waits.map(|(name, _)| name.clone()));
    }

    fn tick_partitions(&self, clock: Clock, random: u64, effects: &mut Effects) {
        let mut due = Vec::new();
        let mut claims = Vec::new();
        let hears = self.control.lock().hears_quorum;
        for (number, replica) in self.replicas.iter().enumerate() {
            let partition = Partition(number as u16);
            let mut replica = replica.lock();
            if !replica.is_primary() {
                continue;
            }
            let claimed = replica.tick(clock.now, self.config.timing.replica_timeout, hears);
            if replica.is_waiting() {
                replica.settle(&mut due);
                replica.overdue(clock.now, &mut due);
            }
            drop(replica);
            for name in &claimed.wake {
                self.mark(name, partition, effects);
            }
            if !claimed.in_sync.is_empty() || !claimed.lost.is_empty() {
                claims.push(claimed);
            }
        }
        self.sweep_expired(clock, effects);
        self.evict_excess(clock, random, effects);
        self.reply_all(due, effects);
        self.take_claims(claims, clock, effects);
    }
}

/// Seed of the entries' hash order: the same for every member of a cluster (rule T8).
fn hash_seed(cluster_name: &str) -> u64 {
    // FNV-1a, 64 bits.
    cluster_name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A forward's own number of hops may not pass this (rule F1).
pub const MAX_HOPS: u8 = 2;
