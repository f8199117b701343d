//! Commands of clients: executed here, or given to those that wait or are passed on (rules T2, W2, W4, Q1, Q2).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::Guard;
use bytes::{Bytes, BytesMut};
use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::{
    Clock, Effects, Millis, Node, Origin, Partition, Replica, Reply, Routing, Ticket,
    forwards::Owner,
    mirrors::{self, Seen},
    waiting::Waiting,
};
use crate::logic::{
    cluster::{
        message::{Append, Forward, Message},
        replica::{HOLD, Standing, not_begun},
    },
    commands::{
        self, Access, Changes, Context, Done, Words, kept_with_name,
        table::{self, Command},
        words_of,
    },
    resp::{Protocol, Straight},
    store::{Cause, Change, Key, Op, Spot},
};

/// With fewer commands or messages than this, looking ahead costs more than it brings.
pub const WORTH_A_LOOK: usize = 4;
/// Room that is made for a reply that goes back to another member; longer ones make their own.
const SMALL_REPLY: usize = 256;
/// Partitions that one tick looks through for expired entries, and entries taken from each.
const SWEEP: (usize, usize) = (16, 64);

/// Bytes that a write frees beyond what it adds when entries are over their budget.
const WRITE_FREES: u64 = 16 << 10;
/// Bytes that one tick frees in a partition when entries are over their budget, at least and at most.
const TICK_FREES: (u64, u64) = (4 << 10, 64 << 10);
/// And about how many entries in all: more would take longer than a few milliseconds.
const TICK_EVICTS: usize = 4096;

/// A command for one partition.
pub(super) struct Request {
    pub(super) origin: Origin,
    pub(super) partition: Partition,
    pub(super) words: Vec<Bytes>,
    /// Its place among all requests that came to this member.
    pub(super) order: u64,
    /// It was sent to a third member before (rule F3).
    pub(super) third: bool,
    /// A client's read of a hot key: its answer may become a mirror (rule C4).
    pub(super) hot: bool,
}

/// Time and chance, as one call of io gives them.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) clock: Clock,
    pub(super) random: u64,
}

/// What came of a command that was to be executed here.
enum Execution {
    /// With the milliseconds for which who asked may mirror it.
    Answered(Reply, u64),
    /// The answer waits for copies.
    Pending,
    /// It was not executed, and may wait until this time.
    Waits(Millis),
}

/// A command that fits its words, and the partition that it is for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Command.
    pub command: &'static Command,
    /// Partition.
    pub partition: Partition,
    /// Its words.
    pub words: &'a Words<'a>,
    /// Of the second one, if that is a key of the default map and its place was found out: see [`Node::spot`].
    pub spot: Option<Spot>,
    /// Its client waits for no other answer of this partition, so a mirror may answer it.
    pub settled: bool,
}

/// What commands share that come together: one look at the table, at the clocks and at chance.
pub struct Turn {
    routing: Guard<Arc<Routing>>,
    moment: Moment,
}

impl Turn {
    /// Counter of the table that it looked at; 0 without one.
    pub fn epoch(&self) -> u64 {
        self.routing.epoch
    }

    /// When it is.
    pub fn clock(&self) -> Clock {
        self.moment.clock
    }

    /// Fresh chance for the next command; Weyl's sequence is even enough for choosing samples.
    fn next(&mut self) -> Moment {
        self.moment.random = self.moment.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.moment
    }
}

impl Node {
    /// Commands are to come.
    pub fn turn(&self, clock: Clock, random: u64) -> Turn {
        Turn { routing: self.routing.load(), moment: Moment { clock, random } }
    }

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
        let words = &words_of(words);
        match table::command(words) {
            Ok(command) => {
                let ask = Ask { command, partition, words, spot: None, settled: true };
                self.submit_in(&mut self.turn(clock, random), ticket, ask, None, effects)
            }
            Err(error) => Some(error),
        }
    }

    /// As [`Node::submit`], for one of several commands. Values may go `straight` to the client.
    pub fn submit_in(
        &self,
        turn: &mut Turn,
        ticket: Ticket,
        ask: Ask<'_>,
        mut straight: Option<Straight<'_>>,
        effects: &mut Effects,
    ) -> Option<Reply> {
        let Ask { partition, words, .. } = ask;
        let moment = turn.next();
        let origin = Origin::Client(ticket);
        let mut deadline = moment.clock + HOLD;
        let here = self.is_here(turn, partition);
        let mut hot = false;
        if here {
            if let Some(straight) = &mut straight
                && self.read_at_once(&ask, moment.clock.now, straight)
            {
                return Some(Reply::Written);
            }
            match self.execute_here(&origin, ask, deadline, moment, straight, effects) {
                Execution::Answered(reply, _) => return Some(reply),
                Execution::Pending => return None,
                Execution::Waits(until) => deadline = until,
            }
        } else {
            match self.seen(&turn.routing, ask, moment.clock.now) {
                Seen::Mirrored(value) => return Some(mirrors::reply(value, straight)),
                Seen::Hot => hot = true,
                Seen::Cold => {}
            }
        }
        let request = Request { hot, ..self.request(origin, partition, kept_with_name(ask.command, words)) };
        let waiting = Waiting { request, deadline, epoch: 0 };
        if here {
            self.wait(waiting, effects)
        } else {
            self.serve_in_turn(waiting, moment, effects)
        }
        None
    }

    /// Where the entry of a key of the default map stands, or would.
    pub fn spot(&self, key: &[u8]) -> Spot {
        Spot::new(self.order.position(key))
    }

    /// Keys of the default map will be asked for in this order: what their lookups read is asked for now, so that memory
    /// gives it for several at a time. `key_of` finds a key's partition and spot, to which is added where the entry was
    /// seen. Partitions that are not there are left out.
    pub fn look_ahead<T>(&self, items: &mut [T], key_of: impl Fn(&mut T) -> Option<(Partition, &mut Spot)>) {
        let replica = |partition: Partition| self.replicas.get(partition.index());
        for (partition, spot) in items.iter_mut().filter_map(&key_of) {
            if let Some(replica) = replica(partition) {
                replica.lock().store.prefetch_list(*spot);
            }
        }
        for (partition, spot) in items.iter_mut().filter_map(&key_of) {
            if let Some(replica) = replica(partition) {
                *spot = replica.lock().store.prefetch_entry(*spot);
            }
        }
    }

    /// As [`Node::look_ahead`], for messages of another member that will be received; keys of other maps are left out.
    pub fn look_ahead_for(&self, messages: &[Message]) {
        if messages.len() < WORTH_A_LOOK {
            return;
        }
        let appends = messages.iter().filter_map(|message| match message {
            Message::Append(Append { partition, records, .. }) => Some((*partition, records)),
            _ => None,
        });
        let changed = appends.flat_map(|(partition, records)| {
            records.iter().filter_map(move |record| match &record.op {
                Op::Put { map, key, .. } | Op::Remove { map, key, .. } if *map == self.default_map => {
                    Some((partition, self.spot(key)))
                }
                _ => None,
            })
        });
        // Most commands name one key of the default map, in their second word; a wrong guess costs little.
        let asked = messages.iter().filter_map(|message| match message {
            Message::Forward(Forward { partition, words, .. }) => Some((*partition, self.spot(words.get(1)?))),
            _ => None,
        });
        let mut places: SmallVec<[_; 32]> = changed.chain(asked).collect();
        self.look_ahead(&mut places, |(partition, spot)| Some((*partition, spot)));
    }

    /// Reads these keys of the default map at one moment, as a list that goes straight to the client, if that needs nobody
    /// else; false: nothing was done. Nobody else locks more than one partition.
    pub fn read_all(&self, turn: &mut Turn, keys: &[(Partition, &[u8])], mut straight: Straight<'_>) -> bool {
        let now = turn.next().clock.now;
        if !keys.iter().all(|(partition, _)| self.is_here(turn, *partition)) {
            return false;
        }
        let mut sought: SmallVec<[(Spot, usize); 64]> = keys.iter().map(|(_, key)| (self.spot(key), 0)).collect();
        let mut order: SmallVec<[(Partition, usize); 64]> =
            keys.iter().enumerate().map(|(at, (partition, _))| (*partition, at)).collect();
        order.sort_unstable();
        let mut replicas: Vec<MutexGuard<'_, Replica>> = Vec::with_capacity(keys.len());
        let mut last = None;
        for (partition, at) in order {
            if last.replace(partition) != Some(partition) {
                replicas.push(self.replicas[partition.index()].lock());
            }
            sought[at].1 = replicas.len() - 1;
        }
        if !replicas.iter_mut().all(|replica| self.answers(replica, now) && replica.answers_reads_at_once()) {
            return false;
        }
        for (spot, place) in &sought {
            replicas[*place].store.prefetch_list(*spot);
        }
        for (spot, place) in &mut sought {
            *spot = replicas[*place].store.prefetch_entry(*spot);
        }
        straight.list(keys.len());
        for ((_, key), (spot, place)) in keys.iter().zip(sought) {
            self.answer_value(&mut replicas[place], Key::at(key, spot), now, &mut straight);
        }
        true
    }

    /// Answers a GET of a client straight from where the value is kept, if that needs nobody else; false: nothing was done.
    /// What [`Node::execute_here`] would do, in fewer steps: it is what caches are asked most.
    fn read_at_once(&self, ask: &Ask<'_>, now: Millis, straight: &mut Straight<'_>) -> bool {
        let ([_, key], true) = (ask.words, ask.command.is_get()) else { return false };
        let mut replica = self.replicas[ask.partition.index()].lock();
        let answers = self.answers(&mut replica, now) && replica.answers_reads_at_once();
        if answers {
            self.answer_value(&mut replica, Key::at(key, ask.spot), now, straight);
        }
        answers
    }

    fn answer_value(&self, replica: &mut Replica, key: Key<'_>, now: Millis, straight: &mut Straight<'_>) {
        let hit = commands::answer_value(&mut replica.store, (&self.default_map, key), now, straight);
        replica.served.count_read(hit);
    }

    /// Whether this member may answer for a partition now (rules T2, W7). At no time two members may.
    fn answers(&self, replica: &mut Replica, now: Millis) -> bool {
        replica.standing(now) == Standing::Serving && self.has_lease(now)
    }

    /// Whether a command for the partition can be executed here, as far as the table tells, and none goes before it.
    fn is_here(&self, turn: &Turn, partition: Partition) -> bool {
        turn.routing.table.as_ref().is_some_and(|table| table.assignment(partition).primary() == turn.routing.me)
            && self.waiting.is_empty(partition)
            && !self.waiting.is_away(partition)
    }

    pub(super) fn request(&self, origin: Origin, partition: Partition, words: Vec<Bytes>) -> Request {
        Request {
            origin,
            partition,
            words,
            order: self.requests.fetch_add(1, Ordering::Relaxed),
            third: false,
            hot: false,
        }
    }

    /// Executes a command if this member is its primary and may answer.
    fn execute_here(
        &self,
        origin: &Origin,
        ask: Ask<'_>,
        deadline: Millis,
        moment: Moment,
        straight: Option<Straight<'_>>,
        effects: &mut Effects,
    ) -> Execution {
        let now = moment.clock.now;
        let mut replica = self.replicas[ask.partition.index()].lock();
        if !self.answers(&mut replica, now) {
            return Execution::Waits(match replica.stands(now) {
                Standing::Beginning(at) if at <= now + HOLD => deadline.max(at),
                _ => deadline,
            });
        }
        let mirrors = matches!(origin, Origin::Peer { mirrors: true, .. });
        let mirror = if mirrors { self.may_be_mirrored(&replica, ask, origin, now) } else { 0 };
        let reply = self.run(&mut replica, origin, ask, moment, straight, effects);
        reply.map_or(Execution::Pending, |reply| Execution::Answered(reply, mirror))
    }

    /// Executes a request here or passes it on, if either is possible now; else gives it back.
    pub(super) fn serve(&self, waiting: Waiting, moment: Moment, effects: &mut Effects) -> Result<(), Waiting> {
        let Waiting { request: Request { origin, partition, words, .. }, deadline, epoch } = &waiting;
        let routing = self.routing.load();
        let Some(table) = routing.table.as_ref().filter(|_| routing.epoch >= *epoch) else { return Err(waiting) };
        let Some(primary) = table.assignment(*partition).primary() else { return Err(waiting) };
        if Some(primary) != routing.me {
            let Some(member) = table.member(primary) else { return Err(waiting) };
            let since = table.assignment(*partition).epoch;
            let owner = Owner { primary: member.name.clone(), since, epoch: routing.epoch };
            return self.pass_on(waiting, owner, moment.clock.now, effects);
        }
        // Those before it went to a former primary and are not answered yet (rule F2).
        if self.waiting.is_away(*partition) && matches!(origin, Origin::Client(_)) {
            return Err(waiting);
        }
        let mut written = BytesMut::new();
        match self.execute_kept((origin, *partition, words), *deadline, moment, &mut written, effects) {
            Execution::Answered(Reply::Written, mirror) => {
                self.reply_written(waiting.request.origin, written.freeze(), mirror, effects);
            }
            Execution::Answered(reply, mirror) => self.reply_for(waiting.request.origin, reply, mirror, effects),
            Execution::Pending => {}
            Execution::Waits(deadline) => return Err(Waiting { deadline, ..waiting }),
        }
        Ok(())
    }

    /// As [`Node::execute_here`], for words that may come from another member: then a value may be `written` as it goes back.
    fn execute_kept(
        &self,
        (origin, partition, words): (&Origin, Partition, &[Bytes]),
        deadline: Millis,
        moment: Moment,
        written: &mut BytesMut,
        effects: &mut Effects,
    ) -> Execution {
        let words = &words_of(words);
        match table::command(words) {
            Ok(command) => {
                let spot = command.key_of_default_map(words).map(|key| self.spot(key));
                let ask = Ask { command, partition, words, spot, settled: false };
                let goes_back = command.access == Access::Read && matches!(origin, Origin::Peer { .. });
                let straight = goes_back.then(|| {
                    written.reserve(SMALL_REPLY);
                    Straight { sink: written, protocol: Protocol::Resp3 }
                });
                self.execute_here(origin, ask, deadline, moment, straight, effects)
            }
            Err(error) => Execution::Answered(error, 0),
        }
    }

    fn run(
        &self,
        replica: &mut Replica,
        origin: &Origin,
        ask: Ask<'_>,
        moment: Moment,
        straight: Option<Straight<'_>>,
        effects: &mut Effects,
    ) -> Option<Reply> {
        let (Moment { clock, random }, Ask { command, words, spot, .. }) = (moment, ask);
        let refusal = match command.access {
            Access::Write => replica.refuses_write(clock.now).or_else(|| self.too_large(words)),
            Access::Read => replica.refuses_read(),
        };
        if refusal.is_some() {
            return refusal;
        }
        // A reply that may have to wait is kept.
        let straight = straight.filter(|_| command.access == Access::Read && replica.answers_reads_at_once());
        let context = Context { clock, random, default_map: &self.default_map, spot };
        let mut done = Done::default();
        let reply = commands::execute(command, words, &mut replica.store, &context, straight, &mut done);
        replica.served.count(&done);
        if done.changes.is_empty() {
            // A write that finds nothing to change still promises what it found: a removal that is still on its way to
            // the copies must not come undone after this one was acknowledged too.
            let reply = match command.access {
                Access::Write => replica.answer_write(origin, reply, replica.last().sequence, clock.now),
                Access::Read => replica.answer_read(origin, reply, clock.now),
            };
            if reply.is_none() {
                self.wake_followers(replica, effects);
            }
            return reply;
        }
        let sequence = self.commit_in_budget(replica, done.changes, random);
        self.end_mirrors(ask, clock.now, effects);
        self.wake_followers(replica, effects);
        replica.answer_write(origin, reply, sequence, clock.now)
    }

    fn too_large(&self, words: &Words<'_>) -> Option<Reply> {
        let bytes: usize = words.iter().map(|word| word.len()).sum();
        (bytes as u64 > self.budget())
            .then(|| Reply::Error("OOM command not allowed when used memory > 'maxmemory'.".to_owned()))
    }

    fn wake_followers(&self, replica: &Replica, effects: &mut Effects) {
        for name in replica.followers() {
            self.mark(name, replica.partition(), effects);
        }
    }

    /// Frees at least `bytes` in this partition, or all of it (rule W4).
    pub(super) fn make_room(&self, replica: &mut Replica, bytes: u64, random: u64, effects: &mut Effects) {
        if self.counting(replica, |replica| self.evict(replica, bytes, random)) > 0 {
            self.wake_followers(replica, effects);
        }
    }

    /// Commits changes of a command. What they add is booked only if it fits beside what other threads have booked, after
    /// entries of the partition have made room, and a little more if entries are far over the budget: there
    /// [`Node::evict_excess`] does the rest, in all partitions. Where nothing is left to evict the budget is passed.
    fn commit_in_budget(&self, replica: &mut Replica, changes: Changes<'_>, mut random: u64) -> u64 {
        let before = replica.store.bytes();
        let sequence = replica.commit(changes);
        let delta = |replica: &Replica| replica.store.bytes() as i64 - before as i64;
        let most = delta(replica).max(0) as u64 + WRITE_FREES;
        self.account.book_or_free(delta(replica), |over| {
            random = random.wrapping_add(1);
            (self.evict(replica, over.min(most), random) > 0).then(|| delta(replica))
        });
        self.keep_discarded(replica);
        sequence
    }

    /// Removes entries of a primary so that `bytes` become free, or all; how many. The caller books what they had.
    fn evict(&self, replica: &mut Replica, bytes: u64, random: u64) -> usize {
        let evicted = replica.evict(bytes, self.config.eviction, random);
        self.counters.evictions.fetch_add(evicted as u64, Ordering::Relaxed);
        evicted
    }

    /// Brings entries back into their budget when it was cut: a little from each partition and in each tick (rule W4).
    pub(super) fn evict_excess(&self, clock: Clock, random: u64, effects: &mut Effects) {
        let (first, mut evicted) = ((random % self.replicas.len() as u64) as usize, 0);
        let share = self.account.excess() / self.replicas.len() as u64;
        let share = share.clamp(TICK_FREES.0, TICK_FREES.1);
        for number in first..first + self.replicas.len() {
            let over = self.account.excess();
            if over == 0 || evicted >= TICK_EVICTS {
                return;
            }
            let mut replica = self.replicas[number % self.replicas.len()].lock();
            if replica.is_primary() && replica.standing(clock.now) == Standing::Serving {
                let random = random.wrapping_add(number as u64);
                let removed = self.counting(&mut replica, |replica| self.evict(replica, over.min(share), random));
                if removed > 0 {
                    self.wake_followers(&replica, effects);
                }
                evicted += removed;
            }
        }
    }

    fn remove(&self, replica: &mut Replica, keys: &[(Bytes, Bytes)], cause: Cause, effects: &mut Effects) {
        if keys.is_empty() {
            return;
        }
        self.counting(replica, |replica| replica.commit(removals(keys, cause)));
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
            self.remove(&mut replica, &expired, Cause::Expired, effects);
        }
    }

    /// The answer to a command that has waited for too long: this node is no member yet, is below the member quorum (rule
    /// Q2), or nobody can answer for the partition.
    pub(super) fn not_in_time(&self, partition: Partition, clock: Clock) -> Reply {
        let routing = self.routing.load();
        let Some(table) = &routing.table else {
            return Reply::Error("LOADING the node is not a member of a cluster yet; /readyz says why".to_owned());
        };
        if self.has_lease(clock.now) {
            return not_begun(partition);
        }
        Reply::Error(format!(
            "CLUSTERQUORUM fewer than {} members reach each other; see the status page or admin status",
            table.quorum
        ))
    }
}

fn removals(keys: &[(Bytes, Bytes)], cause: Cause) -> impl Iterator<Item = Change<'_>> {
    keys.iter().map(move |(map, key)| Change::Remove { map, key: key[..].into(), cause })
}

pub(super) fn overloaded() -> Reply {
    Reply::Error("OVERLOADED not executed: too many requests wait; try again later".to_owned())
}

impl std::ops::Add<Duration> for Clock {
    type Output = Millis;

    fn add(self, duration: Duration) -> Millis {
        self.now + duration
    }
}
