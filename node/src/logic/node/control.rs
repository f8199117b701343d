//! Membership, heartbeats and requests to the coordinator: everything but the table itself.

mod requests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Clock, Effects, Generation, Level, MemberName, Message, Millis, Node, volume::Volume};
use crate::logic::cluster::{
    bootstrap::{Heard, PROTOCOL, mismatch, replaces},
    lease::Pulses,
    member::{Intent, Member, MemberId, State},
    message::{Change, Claim, Hello, Lost, Refusal, Totals},
    next_table::{Joiner, Wishes},
    proposer::{HandedOver, Proposer, Replaced},
    table::{Epoch, Live, Table},
    voter::Voter,
};
use crate::logic::keyspace::Partition;

/// Between two hellos of a node that is not a member.
const HELLO_INTERVAL: u64 = 300;
/// How long a hello lets its sender in, in milliseconds: one that still waits repeats it.
const JOINER_FRESH: u64 = 3 * HELLO_INTERVAL + 100;
/// Between two sendings of a request to the coordinator.
const REQUEST_INTERVAL: u64 = 150;
/// Between two tables that only carry a move on, in milliseconds: each of them is work for every member, and commands wait
/// for it.
const REST: u64 = 250;
/// How long a request is repeated, and how long the coordinator remembers it.
const REQUEST_LIFE: Duration = Duration::from_secs(10);
const WISH_LIFE: Duration = Duration::from_secs(2);
/// A member that is to be forgotten has no memory left once it was silent for so long.
const FORGOTTEN: Duration = Duration::from_secs(5);
/// Most requests of one kind that the coordinator remembers.
const MAX_WISHES: usize = 65_536;
/// How long another node that was refused is remembered after its last word.
const REFUSAL_LIFE: Duration = Duration::from_mins(1);
/// Most other nodes that are remembered.
const MAX_ACQUAINTANCES: usize = 4096;

/// A member's own memory of the cluster.
pub(super) struct Control {
    pub(super) started: Millis,
    /// When the first table came into force here.
    pub(super) member_since: Millis,
    pub(super) voter: Voter,
    pub(super) proposer: Proposer,
    pub(super) proposal_sent: Millis,
    pub(super) highest_seen: u64,
    /// The last table heard of that leaves this member out and may be in force.
    pub(super) left_out_by: Option<Epoch>,
    /// This member has told the others that it is gone.
    pub(super) said_goodbye: bool,
    /// A table in force and wishes for which there is nothing to propose.
    pub(super) considered: Option<(Epoch, Wishes)>,
    /// What the last proposal was for, beside copies that have become in sync, and when it was made.
    last_proposal: Option<(Wishes, Millis)>,
    pub(super) handed_over: HandedOver,
    pub(super) taking: Option<Taking>,
    pub(super) loopback: VecDeque<Message>,
    pub(super) pulses: Pulses,
    pub(super) heard: BTreeMap<MemberName, Heard>,
    pub(super) refusals: BTreeMap<MemberName, Refused>,
    pub(super) leaving: Option<Intent>,
    pub(super) gone: bool,
    pub(super) quorum_lost: Option<Millis>,
    /// Since when it hears as many voters as the quorum needs, without a break.
    pub(super) hears_quorum: Option<Millis>,
    pub(super) detector: BTreeMap<MemberName, (Generation, bool)>,
    pub(super) volume: Volume,
    wishes: Remembered,
    requests: Vec<(Change, Millis)>,
    claims: Vec<Change>,
    away_since: BTreeMap<MemberId, Millis>,
    next_hello: Millis,
    next_heartbeat: Millis,
    next_requests: Millis,
}

/// Why another node and this one cannot be members of one cluster.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) at: Millis,
    /// Where the other one can be told, if it said hello itself.
    peer_port: Option<u16>,
}

/// A table that was taken and whose former primaries here still wait for their last confirmations.
pub(super) struct Taking {
    pub(super) coordinator: MemberName,
    pub(super) epoch: Epoch,
    pub(super) partitions: Vec<Partition>,
    /// A lease of a member that the table leaves out may run until then (rule W7).
    pub(super) leases_until: Millis,
}

#[derive(Default)]
struct Remembered {
    /// By start of a member: a late request must not reach the next start of the same name.
    states: BTreeMap<MemberId, (State, Millis)>,
    forget: BTreeMap<MemberName, Millis>,
    live: Option<Live>,
    in_sync: BTreeMap<Claim, Millis>,
    lost: BTreeMap<Claim, (Lost, Millis)>,
}

impl Control {
    pub(super) fn new(now: Millis, volume: bool) -> Self {
        Self {
            started: now,
            member_since: now,
            voter: Voter::default(),
            proposer: Proposer::default(),
            proposal_sent: now,
            highest_seen: 0,
            left_out_by: None,
            said_goodbye: false,
            considered: None,
            last_proposal: None,
            handed_over: HandedOver::new(),
            taking: None,
            loopback: VecDeque::new(),
            pulses: Pulses::default(),
            heard: BTreeMap::new(),
            refusals: BTreeMap::new(),
            leaving: None,
            gone: false,
            quorum_lost: None,
            hears_quorum: None,
            detector: BTreeMap::new(),
            volume: Volume::new(volume),
            wishes: Remembered::default(),
            requests: Vec::new(),
            claims: Vec::new(),
            away_since: BTreeMap::new(),
            next_hello: now,
            next_heartbeat: now,
            next_requests: now,
        }
    }

    pub(super) fn acquaintances(&self) -> impl Iterator<Item = (MemberName, u16)> + '_ {
        let refused = self.refusals.iter().filter_map(|(name, refused)| Some((name.clone(), refused.peer_port?)));
        refused.chain(self.heard.iter().map(|(name, heard)| (name.clone(), heard.hello.peer_port)))
    }

    /// Starts of voters that have ended for certain (see [`Replaced`]), and so long ago that no lease that they have
    /// confirmed runs any more (rule W7).
    pub(super) fn replaced(&self, table: &Table, lease: Duration, now: Millis) -> Replaced {
        let fresh = self.heard.values().filter(|heard| heard.is_fresh(now) && heard.since + lease <= now);
        // Who remembers a higher table has not been heard to the end.
        let knows_more = |heard: &&Heard| {
            let memory = heard.hello.memory.table.as_ref();
            memory.is_some_and(|memory| memory.cluster == table.cluster && memory.epoch > table.epoch)
        };
        let heard = fresh.filter(|heard| !knows_more(heard));
        let replaced = heard.filter_map(|heard| replaces(table, &heard.hello)).map(|(id, _)| id);
        // Who looks after the cluster says that this process has ended and that none will come in its place.
        let asked = |name: &MemberName| self.wishes.forget.get(name).is_some_and(|until| now < *until);
        let silent =
            |name: &MemberName| self.pulses.get(name).is_none_or(|pulse| pulse.heard + FORGOTTEN.max(lease) <= now);
        let forgotten = table.members.iter().filter(|member| asked(&member.name) && silent(&member.name));
        replaced.chain(forgotten.map(|member| member.id)).collect()
    }

    /// Whether a new start of this member has become one of another cluster: the start that the table names has ended.
    pub(super) fn is_elsewhere(&self, table: &Table, member: &Member, now: Millis) -> bool {
        let heard = self.heard.get(&member.name).filter(|heard| heard.is_fresh(now));
        let hello = heard.map(|heard| &heard.hello).filter(|hello| hello.generation != member.generation);
        hello.and_then(|hello| hello.table).is_some_and(|(cluster, _)| cluster != table.cluster)
    }

    /// The highest table above `known` that the volume of a new start remembers.
    pub(super) fn remembered(&self, known: &Table, now: Millis) -> Option<Arc<Table>> {
        let fresh = self.heard.values().filter(|heard| heard.is_fresh(now) && heard.hello.table.is_none());
        let tables = fresh.filter_map(|heard| heard.hello.memory.table.as_ref());
        let higher = tables.filter(|table| table.cluster == known.cluster && table.epoch > known.epoch);
        higher.max_by_key(|table| table.epoch).cloned()
    }

    fn hears(&mut self, from: &MemberName, hello: Hello, now: Millis) {
        let known = self.heard.get(from).map(|heard| (heard.hello.generation, heard.since));
        if known.is_some() || self.heard.len() < MAX_ACQUAINTANCES {
            let since = known.filter(|(generation, _)| *generation == hello.generation).map_or(now, |(_, since)| since);
            self.heard.insert(from.clone(), Heard { hello, at: now, since });
        }
    }

    /// A table is proposed for these wishes.
    pub(super) fn proposed(&mut self, wishes: Wishes, now: Millis) {
        self.last_proposal = Some((without_copies_in_sync(wishes), now));
    }

    /// Whether a table now would only carry a move on, so soon after the one before that it can wait. It cannot while a
    /// partition has too few copies in sync for a write, or while a member that leaves waits for it.
    pub(super) fn rests(&self, base: &Table, wishes: &Wishes, now: Millis) -> bool {
        let Some((before, at)) = &self.last_proposal else { return false };
        let is_writable = |assignment| base.running(assignment).count() >= base.live.write_quorum as usize;
        now.since(*at) < REST
            && *before == without_copies_in_sync(wishes.clone())
            && !base.members.iter().any(|member| matches!(member.state, State::Leaving(_)))
            && base.partitions.iter().all(is_writable)
    }

    /// These starts are members now: what they said before must not let them in again once they have left.
    pub(super) fn admitted(&mut self, table: &Table) {
        for (name, heard) in &mut self.heard {
            heard.hello.joining &= table.start(name, heard.hello.generation).is_none();
        }
    }

    fn remember(&mut self, change: Change, now: Millis) {
        let until = now + WISH_LIFE;
        let wishes = &mut self.wishes;
        match change {
            Change::SetState(name, state) => {
                let member = self.voter.in_force().and_then(|table| table.named(&name));
                if let Some(member) = member.filter(|member| member.state.is_live()) {
                    wishes.states.insert(member.id, (state, until));
                }
            }
            Change::Forget(name) if wishes.forget.len() < MAX_WISHES => {
                wishes.forget.insert(name, until);
            }
            Change::Settings(live) if wishes.live.is_none_or(|known| known.generation < live.generation) => {
                wishes.live = Some(live);
            }
            Change::CopyInSync(claim) if wishes.in_sync.len() < MAX_WISHES => {
                wishes.in_sync.insert(claim, until);
            }
            Change::CopyLost(claim, lost) if wishes.lost.len() < MAX_WISHES => {
                let known = wishes.lost.get(&claim).map_or(lost, |(known, _)| *known);
                wishes.lost.insert(claim, (lost.max(known), until));
            }
            _ => {}
        }
    }
}

impl Remembered {
    fn forget_old(&mut self, now: Millis) {
        self.states.retain(|_, (_, until)| now < *until);
        self.forget.retain(|_, until| now < *until);
        self.in_sync.retain(|_, until| now < *until);
        self.lost.retain(|_, (_, until)| now < *until);
    }
}

impl Node {
    pub(super) fn hello(&self, control: &Control) -> Hello {
        let identity = &self.config.identity;
        let table = control.voter.in_force();
        Hello {
            cluster_name: identity.cluster_name.clone(),
            name: identity.name.clone(),
            generation: identity.generation,
            client_port: identity.client_port,
            peer_port: identity.peer_port,
            environment: identity.environment.clone(),
            default_map: identity.default_map.clone(),
            factor: self.config.live.factor,
            partitions: self.config.partitions,
            zone: identity.zone.clone(),
            table: table.map(|table| (table.cluster, table.epoch)),
            joining: table.is_none() && control.leaving.is_none(),
            protocol: PROTOCOL,
            memory: control.volume.told(table.is_some()),
        }
    }

    // ---- messages

    pub(super) fn greet(&self, peer: &MemberName, clock: Clock, effects: &mut Effects) {
        let mut control = self.control.lock();
        let hello = self.hello(&control);
        control.next_hello = control.next_hello.min(clock.now);
        drop(control);
        self.send(peer, Message::Hello(Box::new(hello)), effects);
    }

    pub(super) fn receive_control(
        &self,
        from: &MemberName,
        generation: Generation,
        message: Message,
        clock: Clock,
        random: u64,
        effects: &mut Effects,
    ) {
        self.outbox(from).heard();
        let mut guard = self.control.lock();
        let control = &mut *guard;
        self.handle(control, from, generation, message, clock, effects);
        self.loop_back(control, clock, effects);
        drop(guard);
        // Who waited for a table need not wait for the next tick too.
        if effects.table_changed {
            self.tick_waiting(clock, random, effects);
        }
    }

    /// Messages of this member to itself.
    pub(super) fn loop_back(&self, control: &mut Control, clock: Clock, effects: &mut Effects) {
        while let Some(message) = control.loopback.pop_front() {
            let (name, generation) = (self.name().clone(), self.config.identity.generation);
            self.handle(control, &name, generation, message, clock, effects);
        }
    }

    /// To another member, or to this one.
    pub(super) fn deliver(&self, control: &mut Control, to: &MemberName, message: Message, effects: &mut Effects) {
        if to == self.name() {
            control.loopback.push_back(message);
        } else {
            self.send(to, message, effects);
        }
    }

    fn handle(
        &self,
        control: &mut Control,
        from: &MemberName,
        generation: Generation,
        message: Message,
        clock: Clock,
        effects: &mut Effects,
    ) {
        match message {
            Message::Hello(hello) => self.hello_from(control, from, *hello, clock, effects),
            Message::Welcome(hello) => Self::welcome_from(control, from, *hello, clock),
            Message::Refused(refusal) => Self::refused(control, from, (&refusal, None), clock, effects),
            Message::Heartbeat { sent, taken, in_force, totals } => {
                control.pulses.heartbeat(from, generation, clock.now, (taken, in_force), *totals);
                self.answer_heartbeat(control, (from, generation), (sent, in_force), clock, effects);
            }
            Message::HeartbeatAck { sent, confirms } => {
                control.pulses.answer(from, generation, clock.now, Millis(sent), confirms);
                self.renew_lease(control);
            }
            Message::Prepare(asked) => self.prepare_from(control, from, asked, effects),
            Message::Promise { asked, promised, taken } => {
                self.promise_from(control, (from, generation), (asked, promised), taken, clock, effects);
            }
            Message::Propose(table) => self.propose_from(control, from, &table, clock, effects),
            Message::Taken { epoch, promised, handed_over } => {
                self.taken_from(control, (from, generation), (epoch, promised), handed_over, clock, effects);
            }
            Message::InForce { table, handed_over } => {
                self.enforce(control, &table, handed_over, clock, effects);
            }
            Message::TableWanted => self.send_table(control, from, effects),
            Message::Request(change) => self.request_from(control, from, change, clock, effects),
            Message::Append(_)
            | Message::Chunk(_)
            | Message::Digests(_)
            | Message::Confirm(_)
            | Message::Forward(_)
            | Message::Forwarded { .. }
            | Message::MirrorsEnd { .. } => {}
        }
    }

    fn hello_from(&self, control: &mut Control, from: &MemberName, hello: Hello, clock: Clock, effects: &mut Effects) {
        let own = self.hello(control);
        if let Some(refusal) = mismatch(&own, &hello) {
            Self::refused(control, from, (&refusal, Some(hello.peer_port)), clock, effects);
            return self.send(from, Message::Refused(refusal), effects);
        }
        control.refusals.remove(from);
        control.hears(from, hello, clock.now);
        self.send(from, Message::Welcome(Box::new(own)), effects);
    }

    fn welcome_from(control: &mut Control, from: &MemberName, hello: Hello, clock: Clock) {
        control.refusals.remove(from);
        control.hears(from, hello, clock.now);
    }

    fn refused(
        control: &mut Control,
        by: &MemberName,
        (refusal, peer_port): (&Refusal, Option<u16>),
        clock: Clock,
        effects: &mut Effects,
    ) {
        if control.refusals.len() >= MAX_ACQUAINTANCES {
            return;
        }
        let peer_port = peer_port.or_else(|| control.refusals.get(by).and_then(|known| known.peer_port));
        let refused = Refused { refusal: refusal.clone(), at: clock.now, peer_port };
        let before = control.refusals.insert(by.clone(), refused);
        if before.is_none_or(|known| known.refusal != *refusal) {
            effects.say(Level::Error, format!("{}: {}", refusal.code, refusal.message));
        }
    }

    fn answer_heartbeat(
        &self,
        control: &mut Control,
        (from, generation): (&MemberName, Generation),
        (sent, theirs): (u64, Epoch),
        clock: Clock,
        effects: &mut Effects,
    ) {
        let confirms = control
            .voter
            .taken()
            .and_then(|table| table.start(from, generation))
            .is_some_and(|member| member.state.is_live());
        if confirms {
            control.pulses.grant(from, generation, clock.now);
        }
        self.send(from, Message::HeartbeatAck { sent, confirms }, effects);
        let ours = control.voter.in_force().map(|table| table.epoch).unwrap_or_default();
        if ours > theirs {
            self.send_table(control, from, effects);
        } else if theirs > ours {
            self.send(from, Message::TableWanted, effects);
        }
    }

    fn send_table(&self, control: &mut Control, to: &MemberName, effects: &mut Effects) {
        if let Some(table) = control.voter.in_force() {
            let message = Message::InForce { table: table.clone(), handed_over: control.handed_over.clone() };
            self.send(to, message, effects);
        }
    }

    pub(super) fn renew_lease(&self, control: &Control) {
        // Who has said goodbye, or has taken a table that leaves it out, answers nothing any more: others count on that.
        let resigned = control.said_goodbye || control.voter.taken().is_some_and(|table| !self.lives_in(table));
        let until = control
            .voter
            .in_force()
            .filter(|table| !resigned && self.lives_in(table))
            .and_then(|table| control.pulses.lease_until(table, self.name(), self.config.timing.lease));
        self.lease_until.store(until.map_or(0, |until| until.0), Ordering::Release);
    }

    /// Ends the lease of a member that has resigned: afterwards no command is under way any more either.
    pub(super) fn resign(&self, control: &Control) {
        self.renew_lease(control);
        for replica in &self.replicas {
            drop(replica.lock());
        }
    }

    // ---- time

    pub(super) fn tick_control(&self, clock: Clock, random: u64, effects: &mut Effects) {
        let mut guard = self.control.lock();
        let control = &mut *guard;
        control.refusals.retain(|_, refused| clock.now < refused.at + REFUSAL_LIFE);
        self.say_hello(control, clock, effects);
        self.start_cluster(control, clock, random, effects);
        self.send_heartbeats(control, clock, effects);
        self.renew_lease(control);
        self.watch_quorum(control, clock);
        if control.volume.is_stuck(clock.now) {
            self.fail_volume(control, "a write to it takes longer than 10 s", clock, effects);
        }
        self.finish_taking(control, clock, effects);
        self.send_requests(control, clock, effects);
        self.drive_proposer(control, clock, effects);
        self.give_up_joining(control, clock, effects);
        self.give_up_an_old_table(control, clock, effects);
        self.loop_back(control, clock, effects);
    }

    fn say_hello(&self, control: &mut Control, clock: Clock, effects: &mut Effects) {
        if control.voter.in_force().is_some() || control.leaving.is_some() || clock.now < control.next_hello {
            return;
        }
        control.next_hello = Millis(clock.now.0 + HELLO_INTERVAL);
        let hello = self.hello(control);
        let peers: Vec<MemberName> = self.outboxes.read().keys().cloned().collect();
        for peer in peers {
            self.send(&peer, Message::Hello(Box::new(hello.clone())), effects);
        }
    }

    fn send_heartbeats(&self, control: &mut Control, clock: Clock, effects: &mut Effects) {
        if clock.now < control.next_heartbeat {
            return;
        }
        let Some(table) = control.voter.in_force().cloned() else { return };
        control.next_heartbeat = clock.now + self.config.timing.heartbeat;
        let taken = control.voter.taken().map(|table| table.epoch).unwrap_or_default();
        let totals = Box::new(self.totals());
        for member in table.members.iter().filter(|member| member.name != *self.name()) {
            let message =
                Message::Heartbeat { sent: clock.now.0, taken, in_force: table.epoch, totals: totals.clone() };
            self.send(&member.name, message, effects);
        }
    }

    fn watch_quorum(&self, control: &mut Control, clock: Clock) {
        let lost = control.voter.in_force().is_some() && !self.has_lease(clock.now);
        control.quorum_lost = if lost { control.quorum_lost.or(Some(clock.now)) } else { None };
        if let Some(table) = control.voter.in_force().cloned() {
            self.listen(control, &table, clock.now);
        }
    }

    /// Everything that the coordinator has seen and been asked.
    pub(super) fn wishes(&self, control: &mut Control, table: &Table, clock: Clock) -> Wishes {
        let now = clock.now;
        control.wishes.forget_old(now);
        let down = self.down(control, table, now);
        // Who proposes leaves itself out only where another voter can take that: else nobody would remember the cluster.
        let mut others = table.voters().filter(|member| member.name != *self.name());
        let followed = others.any(|m| self.reachable(control, &m.name, m.generation, now));
        let remembered = &control.wishes;
        Wishes {
            down,
            joiners: joiners(control, now),
            caught_up: caught_up(control, table),
            overdue: BTreeSet::new(),
            states: remembered.states.iter().map(|(id, (state, _))| (*id, *state)).collect(),
            forget: remembered.forget.keys().filter(|name| followed || *name != self.name()).cloned().collect(),
            live: remembered.live,
            in_sync: remembered.in_sync.keys().copied().collect(),
            lost: remembered.lost.iter().map(|(claim, (lost, _))| (*claim, *lost)).collect(),
            restoring: self.restoring(control, table),
            young: young(control, table, self.config.timing.lease, now),
        }
        .with_overdue(self.overdue(control, table, now))
    }

    fn overdue(&self, control: &mut Control, table: &Table, now: Millis) -> BTreeSet<MemberId> {
        let away: BTreeSet<MemberId> = table.in_state(State::Away).map(|member| member.id).collect();
        control.away_since.retain(|id, _| away.contains(id));
        let limit = self.config.rejoin_timeout;
        let late = |id: &MemberId| now >= *control.away_since.entry(*id).or_insert(now) + limit;
        away.into_iter().filter(late).collect()
    }

    pub(super) fn totals(&self) -> Totals {
        let counters = &self.counters;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let mut totals = Totals {
            bytes: self.bytes(),
            max_bytes: self.config.max_bytes,
            evictions: load(&counters.evictions),
            expirations: load(&counters.expirations),
            connections: load(&counters.connections),
            lost_partitions: load(&counters.lost_partitions),
            diverged_copies: load(&counters.diverged_copies),
            rejected_callers: load(&counters.rejected_callers),
            stored: self.stored.load(Ordering::Relaxed),
            hits: self.mirror_hits(),
            ..Totals::default()
        };
        for replica in &self.replicas {
            let replica = replica.lock();
            let keys = replica.store.len() as u64;
            *(if replica.is_primary() { &mut totals.keys } else { &mut totals.backup_keys }) += keys;
            totals.commands += replica.served.commands;
            totals.hits += replica.served.hits;
            totals.misses += replica.served.misses;
            totals.moved_keys += replica.moved.0;
            totals.moved_bytes += replica.moved.1;
        }
        totals
    }
}

impl Wishes {
    fn with_overdue(mut self, overdue: BTreeSet<MemberId>) -> Self {
        self.overdue = overdue;
        self
    }
}

fn without_copies_in_sync(wishes: Wishes) -> Wishes {
    Wishes { in_sync: BTreeSet::new(), ..wishes }
}

fn young(control: &Control, table: &Table, lease: Duration, now: Millis) -> BTreeSet<MemberId> {
    let is_young = |member: &&Member| {
        let heard = control.heard.get(&member.name).filter(|heard| heard.hello.generation == member.generation);
        heard.is_some_and(|heard| now < heard.since + lease)
    };
    table.live().filter(is_young).map(|member| member.id).collect()
}

fn joiners(control: &Control, now: Millis) -> BTreeMap<MemberName, Joiner> {
    let fresh = control.heard.iter().filter(|(_, heard)| heard.hello.joining && now.since(heard.at) <= JOINER_FRESH);
    let joiner = |hello: &Hello| Joiner {
        generation: hello.generation,
        client_port: hello.client_port,
        peer_port: hello.peer_port,
        zone: hello.zone.clone(),
    };
    fresh.map(|(name, heard)| (name.clone(), joiner(&heard.hello))).collect()
}

fn caught_up(control: &Control, table: &Table) -> BTreeSet<MemberId> {
    let has_table = |name: &MemberName, generation| {
        control.pulses.get(name).is_some_and(|pulse| pulse.generation == generation && pulse.in_force.counter > 0)
    };
    table
        .in_state(State::Joining)
        .filter(|member| has_table(&member.name, member.generation))
        .map(|member| member.id)
        .collect()
}
