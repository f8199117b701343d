//! Commands of clients: executed here, held for a moment, or passed on to their primary (rules F1, T2, W2, Q1, Q2).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Clock, Effects, Forward, Forwarded, MAX_HOPS, MemberName, Message, Millis, Node, Origin, Partition, Replica, Reply,
    Ticket,
};
use crate::logic::{
    cluster::replica::{HOLD, Held, Standing, not_begun, outcome_unknown},
    commands::{self, Access, Context},
    store::{Cause, Op},
};

/// Most forwarded commands that wait for an answer.
const MAX_FORWARDS: usize = 65_536;
/// Most commands that wait for a primary to be known or reachable.
const MAX_WAITING: usize = 65_536;
/// How long a forwarded command may stay without an answer.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a command waits for a primary that cannot be reached.
const UNREACHABLE_HOLD: Duration = Duration::from_secs(2);
/// Partitions that one tick looks through for expired entries, and entries taken from each.
const SWEEP: (usize, usize) = (16, 64);

pub(super) struct Forwards {
    next: u64,
    open: BTreeMap<u64, Open>,
    waiting: VecDeque<Waiting>,
}

struct Open {
    request: Request,
    target: MemberName,
    deadline: Millis,
}

struct Waiting {
    request: Request,
    deadline: Millis,
    /// Not before a table with this counter is in force.
    epoch: u64,
}

struct Request {
    origin: Origin,
    partition: Partition,
    words: Vec<Bytes>,
}

/// Time and chance, as one call of io gives them.
#[derive(Clone, Copy)]
struct Moment {
    clock: Clock,
    random: u64,
}

impl Forwards {
    pub(super) fn count(&self) -> usize {
        self.open.len() + self.waiting.len()
    }

    /// Numbers of different starts must differ: an answer to a former start may still be under way.
    pub(super) fn new(generation: u64) -> Self {
        Self { next: generation, open: BTreeMap::new(), waiting: VecDeque::new() }
    }
}

impl Node {
    /// A client's command for one partition. None: the reply comes later, as an effect.
    pub fn submit(
        &self,
        ticket: Ticket,
        partition: Partition,
        words: &[Bytes],
        clock: Clock,
        random: u64,
        effects: &mut Effects,
    ) -> Option<Reply> {
        let routing = self.routing.load();
        let Some(table) = &routing.table else {
            return Some(Reply::Error(
                "LOADING the node is not a member of a cluster yet; /readyz says why".to_owned(),
            ));
        };
        let origin = Origin::Client(ticket);
        let moment = Moment { clock, random };
        if table.assignment(partition).primary() == routing.me {
            self.execute_here((origin, partition, words), clock + HOLD, moment, effects)
        } else {
            self.serve(Request { origin, partition, words: words.to_vec() }, clock + UNREACHABLE_HOLD, moment, effects);
            None
        }
    }

    /// Executes a command whose primary this member is, or holds it. None: the reply comes later.
    fn execute_here(
        &self,
        (origin, partition, words): (Origin, Partition, &[Bytes]),
        deadline: Millis,
        moment: Moment,
        effects: &mut Effects,
    ) -> Option<Reply> {
        let now = moment.clock.now;
        let mut replica = self.replicas[partition.index()].lock();
        match replica.standing(now) {
            Standing::Serving if now.0 < self.lease_until.load(Ordering::Acquire) => {
                self.run(&mut replica, origin, words, moment, effects)
            }
            Standing::Beginning => {
                let held = Held { origin, words: words.to_vec(), deadline: deadline.max(now + HOLD) };
                replica.hold(held).err().map(|_| overloaded())
            }
            Standing::Serving | Standing::Elsewhere => {
                drop(replica);
                let request = Request { origin, partition, words: words.to_vec() };
                self.wait(request, deadline, 0, effects);
                None
            }
        }
    }

    fn run(
        &self,
        replica: &mut Replica,
        origin: Origin,
        words: &[Bytes],
        moment: Moment,
        effects: &mut Effects,
    ) -> Option<Reply> {
        let Moment { clock, random } = moment;
        let refusal = match commands::access(words) {
            Access::Write => replica.refuses_write().or_else(|| self.too_large(words)),
            Access::Read => replica.refuses_read(),
        };
        if refusal.is_some() {
            return refusal;
        }
        self.counters.commands.fetch_add(1, Ordering::Relaxed);
        let context = Context { clock, random, default_map: self.default_map.clone() };
        let executed = commands::execute(words, &mut replica.store, &context);
        self.counters.hits.fetch_add(u64::from(executed.hits), Ordering::Relaxed);
        self.counters.misses.fetch_add(u64::from(executed.misses), Ordering::Relaxed);
        if executed.ops.is_empty() {
            // A write that finds nothing to change still promises what it found: a removal that is still on its way to
            // the copies must not come undone after this one was acknowledged too.
            let reply = match commands::access(words) {
                Access::Write => replica.answer_write(origin, executed.reply, replica.last().sequence, clock.now),
                Access::Read => replica.answer_read(origin, executed.reply, clock.now),
            };
            if reply.is_none() {
                self.wake_followers(replica, effects);
            }
            return reply;
        }
        let sequence = self.counting(replica, |replica| replica.commit(executed.ops));
        if self.over_budget() {
            self.make_room(replica, self.bytes() - self.config.max_bytes, random, effects);
        }
        self.wake_followers(replica, effects);
        replica.answer_write(origin, executed.reply, sequence, clock.now)
    }

    fn too_large(&self, words: &[Bytes]) -> Option<Reply> {
        let bytes: usize = words.iter().map(Bytes::len).sum();
        (bytes as u64 > self.config.max_bytes)
            .then(|| Reply::Error("OOM command not allowed when used memory > 'maxmemory'.".to_owned()))
    }

    fn wake_followers(&self, replica: &Replica, effects: &mut Effects) {
        for name in replica.followers() {
            self.mark(&name, replica.partition(), effects);
        }
    }

    /// Frees at least `bytes` in this partition, or all of it (rule W4).
    pub(super) fn make_room(&self, replica: &mut Replica, bytes: u64, random: u64, effects: &mut Effects) {
        if !replica.is_primary() {
            return;
        }
        let victims = replica.store.victims(bytes, random);
        self.counters.evictions.fetch_add(victims.len() as u64, Ordering::Relaxed);
        self.remove(replica, victims, Cause::Evicted, effects);
    }

    fn remove(&self, replica: &mut Replica, keys: Vec<(Bytes, Bytes)>, cause: Cause, effects: &mut Effects) {
        if keys.is_empty() {
            return;
        }
        let ops = keys.into_iter().map(|(map, key)| Op::Remove { map, key, cause }).collect();
        self.counting(replica, |replica| replica.commit(ops));
        self.wake_followers(replica, effects);
    }

    /// Removes entries whose time is over, some partitions at a time (rule W4).
    pub(super) fn sweep_expired(&self, clock: Clock, effects: &mut Effects) {
        let first = self.sweep.fetch_add(SWEEP.0 as u64, Ordering::Relaxed) as usize;
        for number in first..first + SWEEP.0.min(self.replicas.len()) {
            let mut replica = self.replicas[number % self.replicas.len()].lock();
            if !replica.is_primary() || replica.standing(clock.now) != Standing::Serving {
                continue;
            }
            let expired = replica.store.expired(clock.now, SWEEP.1);
            self.counters.expirations.fetch_add(expired.len() as u64, Ordering::Relaxed);
            self.remove(&mut replica, expired, Cause::Expired, effects);
        }
    }

    // ---- passing on

    fn serve(&self, request: Request, deadline: Millis, moment: Moment, effects: &mut Effects) {
        let routing = self.routing.load();
        let owner = routing.table.as_ref().and_then(|table| {
            let primary = table.assignment(request.partition).primary()?;
            table.member(primary).map(|member| (primary, member.name.clone()))
        });
        match owner {
            Some((id, _)) if Some(id) == routing.me => {
                let Request { origin, partition, words } = request;
                if let Some(reply) = self.execute_here((origin.clone(), partition, &words), deadline, moment, effects) {
                    self.reply(origin, reply, effects);
                }
            }
            Some((_, name)) => self.pass_on(request, (name, routing.epoch), deadline, moment.clock.now, effects),
            None => self.wait(request, deadline, 0, effects),
        }
    }

    fn pass_on(
        &self,
        request: Request,
        (target, epoch): (MemberName, u64),
        deadline: Millis,
        now: Millis,
        effects: &mut Effects,
    ) {
        let hops = match &request.origin {
            Origin::Client(_) => 1,
            Origin::Peer { hops, .. } => hops + 1,
        };
        if hops > MAX_HOPS {
            return self.not_executed(request.origin, epoch, effects);
        }
        if !self.outbox(&target).is_open() {
            return self.wait(request, deadline, 0, effects);
        }
        let mut forwards = self.forwards.lock();
        if forwards.open.len() >= MAX_FORWARDS {
            drop(forwards);
            return self.reply(request.origin, overloaded(), effects);
        }
        forwards.next = forwards.next.wrapping_add(1);
        let id = forwards.next;
        let forward = Forward { id, epoch, hops, partition: request.partition, words: request.words.clone() };
        // Under the lock, so that commands leave in the order of their numbers.
        if self.outbox(&target).push(Message::Forward(forward)) {
            effects.wake.insert(target.clone());
            forwards.open.insert(id, Open { request, target, deadline: now + FORWARD_TIMEOUT });
        } else {
            drop(forwards);
            self.wait(request, deadline, 0, effects);
        }
    }

    fn wait(&self, request: Request, deadline: Millis, epoch: u64, effects: &mut Effects) {
        let mut forwards = self.forwards.lock();
        if forwards.waiting.len() < MAX_WAITING {
            forwards.waiting.push_back(Waiting { request, deadline, epoch });
        } else {
            drop(forwards);
            self.reply(request.origin, overloaded(), effects);
        }
    }

    fn not_executed(&self, origin: Origin, epoch: u64, effects: &mut Effects) {
        match origin {
            Origin::Peer { name, id, .. } => {
                let outcome = Forwarded::NotExecuted(epoch);
                self.send(&name, Message::Forwarded { id, outcome }, effects);
            }
            Origin::Client(_) => {}
        }
    }

    pub(super) fn forwarded_here(
        &self,
        from: &MemberName,
        forward: Forward,
        clock: Clock,
        random: u64,
        effects: &mut Effects,
    ) {
        let Forward { id, epoch, hops, partition, words } = forward;
        let origin = Origin::Peer { name: from.clone(), id, hops };
        let routing = self.routing.load();
        if partition.index() >= self.replicas.len() || words.is_empty() {
            return self.not_executed(origin, routing.epoch, effects);
        }
        let request = Request { origin, partition, words };
        if routing.epoch < epoch {
            self.send(from, Message::TableWanted, effects);
            self.wait(request, clock.now + HOLD, epoch, effects);
        } else {
            self.serve(request, clock.now + HOLD, Moment { clock, random }, effects);
        }
    }

    pub(super) fn forward_answered(&self, id: u64, outcome: Forwarded, clock: Clock, effects: &mut Effects) {
        let Some(open) = self.forwards.lock().open.remove(&id) else { return };
        match outcome {
            Forwarded::Reply(bytes) => {
                let reply = Reply::from_resp3(&bytes).unwrap_or_else(|error| {
                    Reply::Error(format!("OUTCOMEUNKNOWN {} sent a reply that cannot be read: {error}", open.target))
                });
                self.reply(open.request.origin, reply, effects);
            }
            Forwarded::NotExecuted(epoch) => self.wait(open.request, clock.now + UNREACHABLE_HOLD, epoch, effects),
        }
    }

    /// The stream to a peer broke: what was not executed for certain, and reads, go again.
    pub(super) fn forwards_broke(&self, peer: &MemberName, clock: Clock, effects: &mut Effects) {
        let mut broken = Vec::new();
        self.forwards.lock().open.retain(|_, open| {
            let keep = open.target != *peer;
            if !keep {
                broken.push(Request {
                    origin: open.request.origin.clone(),
                    partition: open.request.partition,
                    words: std::mem::take(&mut open.request.words),
                });
            }
            keep
        });
        for request in broken {
            match commands::access(&request.words) {
                Access::Read => self.wait(request, clock.now + UNREACHABLE_HOLD, 0, effects),
                Access::Write => self.reply(request.origin, outcome_unknown(request.partition), effects),
            }
        }
    }

    pub(super) fn resubmit(&self, held: Vec<(Partition, Held)>, clock: Clock, effects: &mut Effects) {
        for (partition, Held { origin, words, deadline }) in held {
            let request = Request { origin, partition, words };
            self.wait(request, deadline.max(clock + HOLD), 0, effects);
        }
    }

    pub(super) fn tick_requests(&self, clock: Clock, random: u64, effects: &mut Effects) {
        let epoch = self.routing.load().epoch;
        let (waiting, late) = {
            let mut forwards = self.forwards.lock();
            let mut late = Vec::new();
            while let Some(open) = forwards.open.first_entry().filter(|open| clock.now >= open.get().deadline) {
                late.push(open.remove());
            }
            (std::mem::take(&mut forwards.waiting), late)
        };
        for Open { request, .. } in late {
            let reply = match commands::access(&request.words) {
                Access::Read => not_begun(request.partition),
                Access::Write => outcome_unknown(request.partition),
            };
            self.reply(request.origin, reply, effects);
        }
        for Waiting { request, deadline, epoch: needed } in waiting {
            if clock.now >= deadline {
                let reply = self.cluster_quorum(clock).unwrap_or_else(|| not_begun(request.partition));
                self.reply(request.origin, reply, effects);
            } else if epoch < needed {
                self.wait(request, deadline, needed, effects);
            } else {
                self.serve(request, deadline, Moment { clock, random }, effects);
            }
        }
    }

    /// The answer below the member quorum (rule Q2).
    fn cluster_quorum(&self, clock: Clock) -> Option<Reply> {
        (clock.now.0 >= self.lease_until.load(Ordering::Acquire)).then(|| {
            let quorum = self.routing.load().table.as_ref().map_or(1, |table| table.quorum);
            Reply::Error(format!(
                "CLUSTERQUORUM fewer than {quorum} members reach each other; see the status page or admin status"
            ))
        })
    }
}

fn overloaded() -> Reply {
    Reply::Error("OVERLOADED not executed: too many requests wait; try again later".to_owned())
}

impl std::ops::Add<Duration> for Clock {
    type Output = Millis;

    fn add(self, duration: Duration) -> Millis {
        self.now + duration
    }
}
