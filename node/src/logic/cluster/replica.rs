//! One member's part in one partition: its entries, its place in the partition's stream, and, on the primary, the
//! copies that follow it (rules W1 to W6, Q1).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;

use super::{
    member::{MemberId, MemberName},
    message::{Append, Chunk, Claim, Confirm, Message, Record},
    table::{Assignment, Copy, PartitionEpoch, Version},
};
use crate::logic::{
    clock::{Clock, Millis},
    keyspace::Partition,
    node::Origin,
    resp::Reply,
    store::{Op, Store},
};

/// Most bytes of changes that a primary keeps for copies that have not confirmed them; beyond, writes are refused.
pub const MAX_LOG_BYTES: usize = 8 << 20;
/// Most requests of one partition that wait for its primary to begin.
pub const MAX_HELD: usize = 4096;
/// How long a request waits for a primary to begin (rule T2).
pub const HOLD: Duration = Duration::from_secs(1);
/// How long a write waits for its copies before its outcome is given up as unknown.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a primary waits for an answer before it sends again.
pub const RESEND: Duration = Duration::from_millis(200);
/// How long a primary that is to hand over waits for its last writes to be confirmed (rule T2).
pub const FREEZE: Duration = Duration::from_millis(500);
/// Bytes of existing entries in one chunk.
pub const CHUNK_BYTES: usize = 128 << 10;

/// A reply that became due, and for whom.
pub type Due = (Origin, Reply);

/// A request that waits for the primary to begin.
#[derive(Debug)]
pub struct Held {
    /// Who asked.
    pub origin: Origin,
    /// What.
    pub words: Vec<Bytes>,
    /// Until when it is worth waiting.
    pub deadline: Millis,
}

/// One member's part in one partition.
pub struct Replica {
    partition: Partition,
    seed: u64,
    /// Entries.
    pub store: Store,
    last: Version,
    log: VecDeque<Record>,
    log_bytes: usize,
    /// Version of the change before the first one in `log`.
    base: Version,
    /// Lower epochs are refused.
    floor: PartitionEpoch,
    role: Role,
    /// Figures for the status: entries and bytes sent to build copies.
    pub moved: (u64, u64),
}

enum Role {
    None,
    Copy(Following),
    Primary(Box<Primary>),
}

#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
struct Following {
    epoch: PartitionEpoch,
    primary: MemberName,
    /// The table says that this copy is in sync.
    in_sync: bool,
    /// The table has added or demoted this copy since it was last whole: it may be built anew.
    anew: bool,
    since: u64,
    /// From where existing entries are still missing; none: it has all.
    needs_from: Option<u64>,
    confirm_due: bool,
    gap: bool,
    probe: u64,
}

/// When a primary begins to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At once.
    Now,
    /// When it has this version, which its predecessor reported, or at this time: what the predecessor has beyond it
    /// by then was never acknowledged (rule T2).
    At(Version, Millis),
    /// When the lease of a predecessor that cannot be asked is over (rule W7).
    After(Millis),
}

struct Primary {
    epoch: PartitionEpoch,
    begin: Begin,
    write_quorum: usize,
    read_quorum: usize,
    copies: BTreeMap<MemberId, CopyState>,
    writes: VecDeque<PendingWrite>,
    reads: VecDeque<PendingRead>,
    held: VecDeque<Held>,
    acknowledged: u64,
    probe: u64,
    /// Set while a table that takes the role away is being brought into force.
    frozen: Option<Millis>,
}

struct PendingWrite {
    sequence: u64,
    origin: Option<Origin>,
    reply: Reply,
    deadline: Millis,
}

struct PendingRead {
    probe: u64,
    origin: Origin,
    reply: Reply,
    deadline: Millis,
}

struct CopyState {
    name: MemberName,
    since: u64,
    in_sync: bool,
    /// The primary has asked for the in-sync mark and waits for this copy from then on.
    claimed: bool,
    /// The primary has asked that the copy be demoted.
    lost: bool,
    confirmed: Option<u64>,
    sent: u64,
    build: Option<Build>,
    probe_sent: u64,
    probe_confirmed: u64,
    asked: Option<Millis>,
    heard: Millis,
}

struct Build {
    next: u64,
    outstanding: bool,
}

impl CopyState {
    fn counts(&self) -> bool {
        self.in_sync || self.claimed
    }

    fn has(&self, sequence: u64) -> bool {
        self.confirmed.is_some_and(|confirmed| confirmed >= sequence)
    }
}

/// What a table in force says of this member and this partition.
pub struct Orders<'a> {
    /// This member.
    pub me: MemberId,
    /// Counter of the table.
    pub counter: u64,
    /// The assignment.
    pub assignment: &'a Assignment,
    /// Names of the members in it.
    pub names: &'a dyn Fn(MemberId) -> Option<MemberName>,
    /// When a new primary begins.
    pub begin: Begin,
    /// Copies that hold a write before it is acknowledged.
    pub write_quorum: u32,
    /// Copies that confirm a read.
    pub read_quorum: u32,
}

/// Whether a command can be executed here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Serving,
    /// Soon: hold the request.
    Beginning,
    /// This member is not the primary, or hands over.
    Elsewhere,
}

impl Replica {
    /// A partition that this member does not hold.
    pub fn new(partition: Partition, seed: u64) -> Self {
        Self {
            partition,
            seed,
            store: Store::new(seed),
            last: Version::default(),
            log: VecDeque::new(),
            log_bytes: 0,
            base: Version::default(),
            floor: PartitionEpoch::default(),
            role: Role::None,
            moved: (0, 0),
        }
    }

    /// Which partition.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Last change that this member has.
    pub fn last(&self) -> Version {
        self.last
    }

    fn start_from(&mut self, version: Version) {
        self.store = Store::new(self.seed);
        self.restart_log(version);
    }

    fn restart_log(&mut self, version: Version) {
        self.last = version;
        self.base = version;
        self.log.clear();
        self.log_bytes = 0;
    }

    // ---- the table

    /// A table that takes the primary role away from a member that does not run was taken: its changes are refused
    /// from now on.
    pub fn refuse_below(&mut self, epoch: PartitionEpoch) {
        self.floor = self.floor.max(epoch);
    }

    /// Carries out what a table in force says. Requests that were held for a role that ended come back, to be sent
    /// where they belong; replies that can never come are given up.
    pub fn obey(&mut self, orders: &Orders<'_>, now: Millis, due: &mut Vec<Due>) -> Vec<Held> {
        let assignment = orders.assignment;
        let mine = assignment.copies.iter().find(|copy| copy.member == orders.me).copied();
        // A table that is newer than what set the floor knows better: this member may have been primary on the side that
        // lost (rule Q3).
        let outdated = orders.counter >= self.floor.0;
        self.floor = if outdated { assignment.epoch } else { self.floor.max(assignment.epoch) };
        let Some(mine) = mine else { return self.resign(due) };
        // A primary that came with the partition's epoch began with nothing, and so did every copy in sync with it.
        let fresh = assignment.copies.iter().take(1).chain([&mine]).all(|c| c.in_sync && c.since == assignment.epoch.0);
        if fresh && !self.knows(assignment.epoch) {
            self.start_from(Version { epoch: assignment.epoch, sequence: 0 });
        }
        let leads = assignment.primary() == Some(orders.me);
        // Also when it is primary again, in another epoch: what waits for the copies of the former one is never answered.
        let goes_on = leads && self.knows(assignment.epoch);
        let held =
            if matches!(self.role, Role::Primary(_)) && !goes_on { self.step_down(due) } else { Vec::new() };
        if leads {
            self.lead(orders, now);
        } else {
            self.follow(assignment, mine, orders);
        }
        held
    }

    fn knows(&self, epoch: PartitionEpoch) -> bool {
        match &self.role {
            Role::None => false,
            Role::Copy(following) => following.epoch == epoch,
            Role::Primary(primary) => primary.epoch == epoch,
        }
    }

    fn resign(&mut self, due: &mut Vec<Due>) -> Vec<Held> {
        let held = self.step_down(due);
        if !matches!(self.role, Role::None) || !self.store.is_empty() {
            self.start_from(Version::default());
        }
        self.role = Role::None;
        held
    }

    fn step_down(&mut self, due: &mut Vec<Due>) -> Vec<Held> {
        let Role::Primary(primary) = std::mem::replace(&mut self.role, Role::None) else { return Vec::new() };
        let unknown = |origin: Origin| (origin, outcome_unknown(self.partition));
        due.extend(primary.writes.into_iter().filter_map(|write| write.origin).map(unknown));
        due.extend(primary.reads.into_iter().map(|read| unknown(read.origin)));
        primary.held.into_iter().collect()
    }

    fn follow(&mut self, assignment: &Assignment, mine: Copy, orders: &Orders<'_>) {
        let Some(primary) = assignment.primary().and_then(|id| (orders.names)(id)) else { return };
        let epoch = assignment.epoch;
        if let Role::Copy(following) = &mut self.role
            && following.epoch == epoch
            && following.primary == primary
        {
            following.anew |= following.since != mine.since && !mine.in_sync;
            (following.in_sync, following.since) = (mine.in_sync, mine.since);
            return;
        }
        let needs_from = match &self.role {
            // What another primary has half built is built anew.
            Role::Copy(following) => following.needs_from.map(|_| 0),
            _ if mine.in_sync || self.last != Version::default() => None,
            _ => Some(0),
        };
        self.role = Role::Copy(Following {
            epoch,
            primary,
            in_sync: mine.in_sync,
            anew: !mine.in_sync,
            since: mine.since,
            needs_from,
            confirm_due: false,
            gap: false,
            probe: 0,
        });
    }

    fn lead(&mut self, orders: &Orders<'_>, now: Millis) {
        let assignment = orders.assignment;
        if !matches!(&self.role, Role::Primary(primary) if primary.epoch == assignment.epoch) {
            self.role = Role::Primary(Box::new(Primary {
                epoch: assignment.epoch,
                begin: if self.last.epoch == assignment.epoch { Begin::Now } else { orders.begin },
                write_quorum: 1,
                read_quorum: 1,
                copies: BTreeMap::new(),
                writes: VecDeque::new(),
                reads: VecDeque::new(),
                held: VecDeque::new(),
                // Whatever this copy has may have been acknowledged.
                acknowledged: self.last.sequence,
                probe: 0,
                frozen: None,
            }));
        }
        let Role::Primary(primary) = &mut self.role else { return };
        primary.frozen = None;
        primary.write_quorum = orders.write_quorum as usize;
        primary.read_quorum = orders.read_quorum as usize;
        primary.copies.retain(|id, state| assignment.copies.iter().any(|c| c.member == *id && c.since == state.since));
        for copy in assignment.copies.iter().skip(1) {
            let Some(name) = (orders.names)(copy.member) else { continue };
            let state = primary.copies.entry(copy.member).or_insert_with(|| CopyState::new(name, now));
            state.claimed &= !copy.in_sync;
            (state.since, state.in_sync) = (copy.since, copy.in_sync);
        }
        // Copies that went need nothing any more.
        self.trim();
    }

    /// A table that gives the primary role to another was proposed: nothing new is executed from now on. Returns the
    /// last version once every copy that counts has it, or the time for that is over.
    pub fn freeze(&mut self, now: Millis) -> Option<Version> {
        let last = self.last;
        let Role::Primary(primary) = &mut self.role else { return Some(last) };
        let since = *primary.frozen.get_or_insert(now);
        let over = now >= since + FREEZE;
        let calm = primary.holds(last.sequence) && primary.writes.is_empty() && primary.reads.is_empty();
        (calm || over).then_some(last)
    }

    // ---- commands

    /// Whether commands are executed here at `now`.
    pub fn standing(&mut self, now: Millis) -> Standing {
        let last = self.last;
        let Role::Primary(primary) = &mut self.role else { return Standing::Elsewhere };
        if primary.frozen.is_some() {
            return Standing::Elsewhere;
        }
        let begun = match primary.begin {
            Begin::Now => true,
            Begin::At(version, time) => last >= version || now >= time,
            Begin::After(time) => now >= time,
        };
        if !begun {
            return Standing::Beginning;
        }
        if primary.begin != Begin::Now {
            primary.begin = Begin::Now;
            primary.acknowledged = last.sequence;
        }
        Standing::Serving
    }

    /// Keeps a request until this primary begins. Gives it back if too many wait.
    pub fn hold(&mut self, held: Held) -> Result<(), Held> {
        match &mut self.role {
            Role::Primary(primary) if primary.held.len() < MAX_HELD => {
                primary.held.push_back(held);
                Ok(())
            }
            _ => Err(held),
        }
    }

    /// Requests that need not wait any longer: all, once this primary has begun.
    pub fn release(&mut self, now: Millis) -> Vec<Held> {
        if self.standing(now) == Standing::Beginning {
            return Vec::new();
        }
        let Role::Primary(primary) = &mut self.role else { return Vec::new() };
        primary.held.drain(..).collect()
    }

    /// Requests that have waited for too long.
    pub fn overdue(&mut self, now: Millis, due: &mut Vec<Due>) {
        let partition = self.partition;
        let Role::Primary(primary) = &mut self.role else { return };
        while primary.held.front().is_some_and(|held| now >= held.deadline) {
            if let Some(held) = primary.held.pop_front() {
                due.push((held.origin, not_begun(partition)));
            }
        }
        while primary.writes.front().is_some_and(|write| now >= write.deadline) {
            if let Some(PendingWrite { origin: Some(origin), .. }) = primary.writes.pop_front() {
                due.push((origin, outcome_unknown(partition)));
            }
        }
        while primary.reads.front().is_some_and(|read| now >= read.deadline) {
            if let Some(read) = primary.reads.pop_front() {
                due.push((read.origin, read_quorum_missed(partition, primary.read_quorum)));
            }
        }
    }

    /// Why a write cannot be executed now, whatever it is: too few copies, or too much unconfirmed.
    pub fn refuses_write(&self) -> Option<Reply> {
        let Role::Primary(primary) = &self.role else { return None };
        let copies = 1 + primary.copies.len();
        if copies < primary.write_quorum {
            return Some(Reply::Error(format!(
                "WRITEQUORUM not executed: partition {} has {copies} of the {} copies that a write needs",
                self.partition.0, primary.write_quorum
            )));
        }
        (self.log_bytes > MAX_LOG_BYTES).then(|| {
            Reply::Error(format!(
                "OVERLOADED not executed: copies of partition {} are too far behind",
                self.partition.0
            ))
        })
    }

    /// Why a read cannot be answered now.
    pub fn refuses_read(&self) -> Option<Reply> {
        let Role::Primary(primary) = &self.role else { return None };
        let in_sync = 1 + primary.copies.values().filter(|copy| copy.in_sync).count();
        (in_sync < primary.read_quorum).then(|| read_quorum_missed(self.partition, primary.read_quorum))
    }

    /// Applies changes that the primary makes, and puts them into the stream. Returns the last sequence.
    pub fn commit(&mut self, ops: Vec<Op>) -> u64 {
        let Role::Primary(primary) = &self.role else { return self.last.sequence };
        let (epoch, followed) = (primary.epoch, !primary.copies.is_empty());
        for op in ops {
            self.last = Version { epoch, sequence: self.last.sequence + 1 };
            self.store.apply(&op, self.last);
            if followed {
                self.push(Record { version: self.last, op });
            } else {
                self.base = self.last;
            }
        }
        if !followed {
            self.log.clear();
            self.log_bytes = 0;
        }
        self.last.sequence
    }

    fn push(&mut self, record: Record) {
        self.log_bytes += record_bytes(&record);
        self.log.push_back(record);
    }

    /// The reply to a write whose last change is `sequence`: now, if enough copies have it, else later.
    pub fn answer_write(&mut self, origin: Origin, reply: Reply, sequence: u64, now: Millis) -> Option<Reply> {
        let Role::Primary(primary) = &mut self.role else { return Some(reply) };
        if primary.writes.is_empty() && primary.holds(sequence) {
            primary.acknowledged = primary.acknowledged.max(sequence);
            return Some(reply);
        }
        primary.writes.push_back(PendingWrite { sequence, origin: Some(origin), reply, deadline: now + WRITE_TIMEOUT });
        None
    }

    /// The reply to a read: now with a read quorum of 1, else when enough copies have confirmed (rule Q1).
    pub fn answer_read(&mut self, origin: Origin, reply: Reply, now: Millis) -> Option<Reply> {
        let Role::Primary(primary) = &mut self.role else { return Some(reply) };
        if primary.read_quorum <= 1 {
            return Some(reply);
        }
        primary.probe += 1;
        primary.reads.push_back(PendingRead { probe: primary.probe, origin, reply, deadline: now + WRITE_TIMEOUT });
        None
    }

    /// Names of the copies that should hear of changes.
    pub fn followers(&self) -> Vec<MemberName> {
        match &self.role {
            Role::Primary(primary) => primary.copies.values().map(|copy| copy.name.clone()).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether this member is the primary, serving or about to.
    pub fn is_primary(&self) -> bool {
        matches!(self.role, Role::Primary(_))
    }

    /// Whether requests wait here for something.
    pub fn is_waiting(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if !primary.held.is_empty() || !primary.writes.is_empty() || !primary.reads.is_empty())
    }

    /// Requests that wait here, and changes that a primary keeps for its copies.
    pub fn backlog(&self) -> (usize, usize) {
        match &self.role {
            Role::Primary(primary) => {
                (primary.held.len() + primary.writes.len() + primary.reads.len(), self.log.len())
            }
            _ => (0, 0),
        }
    }

    // ---- the stream, primary's side

    /// What a copy should hear next, about `max_bytes` at most. `more` is set if something is left over.
    pub fn messages_for(&mut self, to: &MemberName, max_bytes: usize, clock: Clock) -> (Vec<Message>, bool) {
        match &mut self.role {
            Role::None => (Vec::new(), false),
            Role::Copy(_) => (self.confirm_for(to).into_iter().collect(), false),
            Role::Primary(_) => self.stream_for(to, max_bytes, clock.now),
        }
    }

    fn stream_for(&mut self, to: &MemberName, max_bytes: usize, now: Millis) -> (Vec<Message>, bool) {
        let (partition, last, base) = (self.partition, self.last, self.base);
        let Role::Primary(primary) = &mut self.role else { return (Vec::new(), false) };
        let (epoch, stable, probe) = (primary.epoch, primary.stable(last.sequence), primary.probe);
        let Some(copy) = primary.copies.values_mut().find(|copy| copy.name == *to) else { return (Vec::new(), false) };
        let append = |previous: Version, records: Vec<Record>| {
            Message::Append(Append { partition, epoch, previous, records, stable, probe })
        };
        if copy.confirmed.is_none() {
            // Where the copy stands is not known yet: ask.
            if copy.asked.is_some_and(|asked| now < asked + RESEND) {
                return (Vec::new(), false);
            }
            copy.asked = Some(now);
            return (vec![append(last, Vec::new())], false);
        }
        let mut messages = Vec::new();
        if copy.build.as_ref().is_some_and(|build| build.next == 0 && !build.outstanding) {
            // The first chunk takes the copy to where the stream is now.
            copy.sent = last.sequence;
        }
        if copy.sent < last.sequence || copy.probe_sent < probe {
            let skip = copy.sent.saturating_sub(base.sequence) as usize;
            let previous = if skip == 0 { base } else { self.log[skip - 1].version };
            let mut bytes = 0;
            let records: Vec<Record> = self
                .log
                .iter()
                .skip(skip)
                .take_while(|record| {
                    let fits = bytes == 0 || bytes < max_bytes;
                    bytes += record_bytes(record);
                    fits
                })
                .cloned()
                .collect();
            copy.sent += records.len() as u64;
            copy.probe_sent = probe;
            copy.asked = Some(now);
            messages.push(append(previous, records));
        }
        let streamed = copy.sent == last.sequence;
        if let Some(build) = copy.build.as_mut().filter(|build| streamed && !build.outstanding) {
            let (entries, next) = self.store.read_from(build.next, CHUNK_BYTES.min(max_bytes));
            build.outstanding = true;
            copy.asked = Some(now);
            self.moved.0 += entries.len() as u64;
            self.moved.1 += entries.iter().map(|record| record_bytes(record) as u64).sum::<u64>();
            messages.push(Message::Chunk(Chunk { partition, epoch, at: last, from: build.next, next, entries }));
        }
        (messages, !streamed)
    }

    /// A copy says where it stands. Replies that become due are added. Returns whether it has more to hear.
    pub fn confirmed(&mut self, from: MemberId, confirm: &Confirm, now: Millis, due: &mut Vec<Due>) -> bool {
        let known = self.in_lineage(confirm.version);
        let last = self.last;
        let Role::Primary(primary) = &mut self.role else { return false };
        if confirm.epoch != primary.epoch || confirm.refused {
            return false;
        }
        let Some(copy) = primary.copies.get_mut(&from) else { return false };
        copy.heard = now;
        copy.probe_confirmed = copy.probe_confirmed.max(confirm.probe);
        if known && !copy.counts() {
            copy.place(confirm);
        } else if known {
            copy.confirmed = Some(copy.confirmed.unwrap_or(0).max(confirm.version.sequence));
            if confirm.gap || copy.sent < confirm.version.sequence {
                copy.sent = confirm.version.sequence;
            }
        } else if copy.counts() {
            // Diverged: it must not count as in sync before it is built anew (rule W3).
            copy.lost = true;
        } else {
            copy.rebuild(last.sequence);
        }
        if let Some(copy) = primary.copies.get_mut(&from)
            && !copy.counts()
            && copy.build.is_none()
            && copy.has(primary.acknowledged)
            && copy.confirmed.is_some()
        {
            copy.claimed = true;
        }
        if let Some(copy) = primary.copies.get_mut(&from) {
            copy.asked = copy.awaits_answer().then_some(now);
        }
        self.settle(due);
        self.trim();
        matches!(&self.role, Role::Primary(primary) if primary.copies.get(&from).is_some_and(|copy| copy.wants_more(last.sequence, primary.probe)))
    }

    /// Whether `version` is a change of this partition's own history, still in the log or just before it.
    fn in_lineage(&self, version: Version) -> bool {
        if version == self.base {
            return true;
        }
        let Some(at) = version.sequence.checked_sub(self.base.sequence + 1) else { return false };
        self.log.get(at as usize).is_some_and(|record| record.version == version)
    }

    /// Acknowledges what enough copies have.
    pub fn settle(&mut self, due: &mut Vec<Due>) {
        let Role::Primary(primary) = &mut self.role else { return };
        while let Some(write) = primary.writes.front() {
            if !primary.holds(write.sequence) {
                break;
            }
            primary.acknowledged = primary.acknowledged.max(write.sequence);
            if let Some(PendingWrite { origin: Some(origin), reply, .. }) = primary.writes.pop_front() {
                due.push((origin, reply));
            }
        }
        while let Some(read) = primary.reads.front() {
            let confirmed =
                primary.copies.values().filter(|copy| copy.in_sync && copy.probe_confirmed >= read.probe).count();
            if confirmed + 1 < primary.read_quorum {
                break;
            }
            if let Some(read) = primary.reads.pop_front() {
                due.push((read.origin, read.reply));
            }
        }
    }

    fn trim(&mut self) {
        let Role::Primary(primary) = &self.role else { return };
        let everyone = primary.copies.values().map(|copy| copy.confirmed.unwrap_or(self.base.sequence)).min();
        let mut keep_after = everyone.unwrap_or(self.last.sequence);
        if self.log_bytes > MAX_LOG_BYTES {
            // Copies that are still being built are built anew rather than waited for.
            keep_after = keep_after.max(primary.stable(self.last.sequence));
        }
        self.forget_to(keep_after);
        let base = self.base.sequence;
        let Role::Primary(primary) = &mut self.role else { return };
        for copy in
            primary.copies.values_mut().filter(|copy| !copy.counts() && copy.confirmed.is_some_and(|c| c < base))
        {
            copy.rebuild(self.last.sequence);
        }
    }

    fn forget_to(&mut self, sequence: u64) {
        while self.log.front().is_some_and(|record| record.version.sequence <= sequence) {
            if let Some(record) = self.log.pop_front() {
                self.log_bytes -= record_bytes(&record);
                self.base = record.version;
            }
        }
    }

    /// Time passes: resends, and claims for the coordinator. `hears` is since when this member hears as many others as
    /// the quorum needs: who is cut off itself must not call its copies silent.
    pub fn tick(&mut self, now: Millis, replica_timeout: Duration, hears: Option<Millis>) -> Claims {
        let (partition, last) = (self.partition, self.last);
        let mut claims = Claims::default();
        let Role::Primary(primary) = &mut self.role else { return claims };
        for (member, copy) in &mut primary.copies {
            if copy.asked.is_some_and(|asked| now >= asked + RESEND) {
                copy.send_again();
            }
            let waits = copy.asked.is_some() || copy.wants_more(last.sequence, primary.probe);
            if !waits {
                copy.heard = now;
            }
            let silent = hears.is_some_and(|since| now >= copy.heard.max(since) + replica_timeout);
            if copy.counts() && silent {
                copy.lost = true;
            }
            let claim = Claim { partition, epoch: primary.epoch, member: *member, since: copy.since };
            if copy.lost {
                claims.lost.push(claim);
            } else if copy.claimed && !copy.in_sync {
                claims.in_sync.push(claim);
            }
            if waits {
                claims.wake.push(copy.name.clone());
            }
        }
        claims
    }

    /// The stream to a member broke: what it was sent may not have arrived.
    pub fn stream_broke(&mut self, name: &MemberName) {
        if let Role::Primary(primary) = &mut self.role {
            for copy in primary.copies.values_mut().filter(|copy| copy.name == *name) {
                copy.send_again();
                copy.asked = None;
            }
        }
    }

    // ---- the stream, copy's side

    fn confirm_for(&mut self, to: &MemberName) -> Option<Message> {
        let (partition, version) = (self.partition, self.last);
        let Role::Copy(following) = &mut self.role else { return None };
        if !following.confirm_due || following.primary != *to {
            return None;
        }
        following.confirm_due = false;
        Some(Message::Confirm(Confirm {
            partition,
            epoch: following.epoch,
            version,
            gap: std::mem::take(&mut following.gap),
            refused: false,
            needs_from: following.needs_from,
            probe: following.probe,
            pressure: false,
        }))
    }

    /// The epoch that a message's sender must have to be heard, if this member is a copy.
    fn accepts(&self, epoch: PartitionEpoch) -> bool {
        matches!(&self.role, Role::Copy(following) if following.epoch == epoch) && epoch >= self.floor
    }

    /// Live changes from the primary. Returns whether an answer is due.
    pub fn append(&mut self, append: Append) -> bool {
        if !self.accepts(append.epoch) {
            return false;
        }
        let starts = append.previous;
        let follows = starts == self.last || (starts.sequence < self.last.sequence && self.overlaps(&append));
        if follows {
            for record in append.records {
                if record.version.sequence == self.last.sequence + 1 {
                    self.store.apply(&record.op, record.version);
                    self.last = record.version;
                    self.push(record);
                }
            }
            self.forget_to(append.stable.min(self.last.sequence));
            if self.log_bytes > MAX_LOG_BYTES {
                self.forget_to(self.last.sequence);
            }
        }
        let Role::Copy(following) = &mut self.role else { return false };
        following.gap |= !follows;
        following.probe = following.probe.max(append.probe);
        following.confirm_due = true;
        true
    }

    /// Whether a batch that begins before this copy's last change contains that very change.
    fn overlaps(&self, append: &Append) -> bool {
        append.records.iter().any(|record| record.version == self.last)
    }

    /// Existing entries from the primary. Returns whether an answer is due.
    pub fn chunk(&mut self, chunk: &Chunk) -> bool {
        if !self.accepts(chunk.epoch) {
            return false;
        }
        let last = self.last;
        let Role::Copy(following) = &mut self.role else { return false };
        following.confirm_due = true;
        if chunk.from == 0 {
            // A late repetition must not empty a copy that is whole.
            if following.in_sync || !(following.anew || chunk.at > last) {
                return true;
            }
            following.gap = false;
            self.start_from(chunk.at);
        } else if following.needs_from != Some(chunk.from) || chunk.at != self.last {
            following.gap = true;
            return true;
        }
        for record in &chunk.entries {
            self.store.apply(&record.op, record.version);
        }
        if let Role::Copy(following) = &mut self.role {
            following.needs_from = chunk.next;
            following.anew &= chunk.next.is_some();
        }
        true
    }
}

/// What a primary wants the coordinator to know, and whom it must speak to.
#[derive(Debug, Default)]
pub struct Claims {
    /// Copies that are in sync now.
    pub in_sync: Vec<Claim>,
    /// Copies that must not count any more.
    pub lost: Vec<Claim>,
    /// Copies that have something to hear.
    pub wake: Vec<MemberName>,
}

impl Primary {
    /// Whether every copy that counts, and enough copies in sync, have a change (rule W2). A copy that is still being
    /// built would not be promoted: what it has does not survive the loss of the others.
    fn holds(&self, sequence: u64) -> bool {
        let holders = 1 + self.copies.values().filter(|copy| copy.in_sync && copy.has(sequence)).count();
        holders >= self.write_quorum && self.copies.values().filter(|copy| copy.counts()).all(|copy| copy.has(sequence))
    }

    /// Last change that every copy that counts has.
    fn stable(&self, last: u64) -> u64 {
        self.copies.values().filter(|copy| copy.counts()).map(|copy| copy.confirmed.unwrap_or(0)).min().unwrap_or(last)
    }
}

impl CopyState {
    fn new(name: MemberName, now: Millis) -> Self {
        Self {
            name,
            since: 0,
            in_sync: false,
            claimed: false,
            lost: false,
            confirmed: None,
            sent: 0,
            build: None,
            probe_sent: 0,
            probe_confirmed: 0,
            asked: None,
            heard: now,
        }
    }

    fn wants_more(&self, last: u64, probe: u64) -> bool {
        self.confirmed.is_none()
            || self.sent < last
            || self.probe_sent < probe
            || self.build.as_ref().is_some_and(|build| !build.outstanding)
    }

    fn awaits_answer(&self) -> bool {
        self.confirmed.is_none_or(|confirmed| confirmed < self.sent)
            || self.probe_confirmed < self.probe_sent
            || self.build.as_ref().is_some_and(|build| build.outstanding)
    }

    /// Where a copy that does not count yet goes on.
    fn place(&mut self, confirm: &Confirm) {
        let version = confirm.version.sequence;
        match (&mut self.build, confirm.needs_from) {
            (None, Some(_)) => {
                self.confirmed = Some(version);
                self.sent = version;
                self.build = Some(Build { next: 0, outstanding: false });
            }
            (Some(build), Some(from)) => {
                if build.next != from || confirm.gap {
                    *build = Build { next: from, outstanding: false };
                }
                self.confirmed = Some(version);
            }
            (_, None) => {
                self.build = None;
                self.confirmed = Some(version);
            }
        }
        if confirm.gap || self.sent < version {
            self.sent = version;
        }
    }

    fn rebuild(&mut self, last: u64) {
        self.confirmed = Some(last);
        self.sent = last;
        self.build = Some(Build { next: 0, outstanding: false });
    }

    fn send_again(&mut self) {
        if let Some(confirmed) = self.confirmed {
            self.sent = self.sent.min(confirmed);
        }
        if let Some(build) = &mut self.build {
            build.outstanding = false;
        }
        self.probe_sent = self.probe_confirmed;
        self.asked = None;
    }
}

fn record_bytes(record: &Record) -> usize {
    const OVERHEAD: usize = 64;
    OVERHEAD
        + match &record.op {
            Op::Put { map, key, value, .. } => map.len() + key.len() + value.len(),
            Op::Remove { map, key, .. } => map.len() + key.len(),
            Op::Clear { map } => map.as_ref().map_or(0, Bytes::len),
        }
}

/// A prefix that no client library retries: the command may have been executed (rule F1).
pub fn outcome_unknown(partition: Partition) -> Reply {
    Reply::Error(format!(
        "OUTCOMEUNKNOWN the command may or may not have been executed: partition {} lost its primary or copies; read before you retry",
        partition.0
    ))
}

/// Nobody could take the command in time.
pub fn not_begun(partition: Partition) -> Reply {
    Reply::Error(format!(
        "UNAVAILABLE not executed: partition {} has no primary that can answer; try again",
        partition.0
    ))
}

fn read_quorum_missed(partition: Partition, quorum: usize) -> Reply {
    Reply::Error(format!("READQUORUM partition {} has fewer than {quorum} copies in sync; try again", partition.0))
}
