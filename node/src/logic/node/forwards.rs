//! Commands that are passed on to their primary, and what becomes of them (rules F1, F2, F3).
//!
//! All open forwards of a partition go the same way. Whoever comes later takes that way too, or waits until they are
//! answered: so none overtakes another when the primary moves, or when its stream comes back (rule F2).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Clock, Effects, Forward, Forwarded, MAX_HOPS, MemberName, Message, Millis, Node, Origin, Partition, Reply,
    mirrors::Sent,
    outbox::Outbox,
    requests::{Moment, Request, overloaded},
    waiting::Waiting,
};
use crate::logic::{
    cluster::{
        replica::{HOLD, not_begun, outcome_unknown},
        table::PartitionEpoch,
    },
    commands::{self, Access},
};

/// Most forwarded commands that wait for an answer.
const MAX_FORWARDS: usize = 65_536;
/// How long a forwarded command may stay without an answer.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(6);

pub(super) struct Forwards {
    first: u64,
    next: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    request: Request,
    /// Whom it was sent to: the primary, or a third member (rule F3).
    via: MemberName,
    deadline: Millis,
    /// How long it may wait here if it comes back from a third member.
    hold: Millis,
    /// It is a read that may tell of a mirror.
    read: Option<Sent>,
}

/// Whose a partition is, as far as this member knows.
pub(super) struct Owner {
    pub(super) primary: MemberName,
    /// Since when.
    pub(super) since: PartitionEpoch,
    /// Counter of the table that says so.
    pub(super) epoch: u64,
}

impl Forwards {
    /// Number of the latest one, among all that were sent.
    pub(super) fn last_number(&self) -> u64 {
        self.next.wrapping_sub(self.first)
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Numbers of different starts must differ: an answer to a former start may still be under way.
    pub(super) fn new(generation: u64) -> Self {
        Self { first: generation, next: generation, open: BTreeMap::new() }
    }
}

impl Node {
    /// Gives the request back if it cannot go to its primary now, or an answer could not come back.
    pub(super) fn pass_on(
        &self,
        mut waiting: Waiting,
        Owner { primary, since, epoch }: Owner,
        now: Millis,
        effects: &mut Effects,
    ) -> Result<(), Waiting> {
        let hops = match &waiting.request.origin {
            Origin::Client(_) => 1,
            Origin::Peer { hops, .. } => hops + 1,
        };
        if hops > MAX_HOPS {
            self.not_executed(waiting.request.origin, epoch, effects);
            return Ok(());
        }
        let mut forwards = self.forwards.lock();
        if forwards.open.len() >= MAX_FORWARDS {
            drop(forwards);
            self.reply(waiting.request.origin, overloaded(), effects);
            return Ok(());
        }
        let Some((via, outbox)) = self.way(&waiting.request, &primary, hops) else {
            drop(forwards);
            // Who asked may reach the primary itself, or learns that this member does not either.
            if hops == MAX_HOPS && !self.outbox(&primary).answers() {
                self.not_executed(waiting.request.origin, epoch, effects);
                return Ok(());
            }
            return Err(waiting);
        };
        waiting.request.third |= via != primary;
        let id = forwards.next.wrapping_add(1);
        let number = forwards.last_number() + 1;
        let read = self.mirrors.passes(&waiting.request, number, since, now);
        let Request { partition, words, hot, .. } = &waiting.request;
        let mirrors = *hot && via == primary;
        let forward = Forward { id, epoch, hops, partition: *partition, words: words.clone(), mirrors };
        // Under the lock, so that commands leave in the order of their numbers.
        if !outbox.push(Message::Forward(forward)) {
            return Err(waiting);
        }
        forwards.next = id;
        effects.will_wake(&via);
        self.waiting.went(*partition, &via);
        let Waiting { request, deadline: hold, .. } = waiting;
        forwards.open.insert(id, Open { request, via, deadline: now + FORWARD_TIMEOUT, hold, read });
        Ok(())
    }

    /// Whom a request is sent to: the primary, or once a third member if the primary cannot be reached (rule F3). None:
    /// nobody now.
    fn way(&self, request: &Request, primary: &MemberName, hops: u8) -> Option<(MemberName, Arc<Outbox>)> {
        let answers = |name: &MemberName| Some(self.outbox(name)).filter(|outbox| outbox.answers());
        let reachable = answers(primary);
        if let Some(via) = self.waiting.way(request.partition) {
            if via == *primary {
                return reachable.map(|outbox| (via, outbox));
            }
            let same = reachable.is_none() && hops < MAX_HOPS && !request.third;
            return answers(&via).filter(|_| same).map(|outbox| (via, outbox));
        }
        if let Some(outbox) = reachable {
            return Some((primary.clone(), outbox));
        }
        if hops >= MAX_HOPS || request.third {
            return None;
        }
        let routing = self.routing.load();
        let others = routing.table.as_ref()?.live().filter(|member| member.state.is_voter()).map(|member| &member.name);
        let others: Vec<&MemberName> =
            others.filter(|name| *name != self.name() && *name != primary && answers(name).is_some()).collect();
        let via = others.get(request.partition.index() % others.len().max(1))?;
        answers(via).map(|outbox| ((*via).clone(), outbox))
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
        let Forward { id, epoch, hops, partition, words, mirrors } = forward;
        let origin = Origin::Peer { name: from.clone(), id, hops, mirrors };
        let routing = self.routing.load();
        if partition.index() >= self.replicas.len() || words.is_empty() {
            return self.not_executed(origin, routing.epoch, effects);
        }
        let request = self.request(origin, partition, words);
        if routing.epoch < epoch {
            self.send(from, Message::TableWanted, effects);
        }
        let waiting = Waiting { request, deadline: clock + HOLD, epoch };
        self.serve_in_turn(waiting, Moment { clock, random }, effects);
    }

    pub(super) fn forward_answered(&self, id: u64, outcome: Forwarded, moment: Moment, effects: &mut Effects) {
        let Some(open) = self.forwards.lock().open.remove(&id) else { return };
        let partition = open.request.partition;
        match outcome {
            Forwarded::Reply { bytes, mirror } => {
                let reply = Reply::from_resp3(&bytes).unwrap_or_else(|error| {
                    Reply::Error(format!("OUTCOMEUNKNOWN {} sent a reply that cannot be read: {error}", open.via))
                });
                if let Some(sent) = &open.read {
                    self.read_answered(&open.request, sent, &reply, mirror);
                }
                self.reply(open.request.origin, reply, effects);
            }
            Forwarded::NotExecuted(epoch) => {
                let deadline = if open.request.third { open.hold } else { moment.clock + HOLD };
                self.wait(Waiting { request: open.request, deadline, epoch }, effects);
            }
        }
        // Last, so that nobody overtakes what waits again.
        if self.waiting.came_back(partition) && !self.waiting.is_empty(partition) {
            self.serve_waiting(partition, moment, effects);
        }
    }

    /// The stream to a peer broke: what was not executed for certain, and reads, go again.
    pub(super) fn forwards_broke(&self, peer: &MemberName, clock: Clock, effects: &mut Effects) {
        let mut broken = Vec::new();
        self.forwards.lock().open.retain(|_, open| {
            let keep = open.via != *peer;
            if !keep {
                broken.push(Request {
                    origin: open.request.origin.clone(),
                    words: std::mem::take(&mut open.request.words),
                    ..open.request
                });
            }
            keep
        });
        let partitions: Vec<Partition> = broken.iter().map(|request| request.partition).collect();
        for request in broken {
            match commands::access(&request.words) {
                Access::Read => self.wait(Waiting { request, deadline: clock + HOLD, epoch: 0 }, effects),
                Access::Write => self.reply(request.origin, outcome_unknown(request.partition), effects),
            }
        }
        for partition in partitions {
            self.waiting.came_back(partition);
        }
    }

    /// Time passes: gives up what stays without an answer.
    pub(super) fn tick_forwards(&self, clock: Clock, effects: &mut Effects) {
        let mut late = Vec::new();
        let mut forwards = self.forwards.lock();
        while let Some(open) = forwards.open.first_entry().filter(|open| clock.now >= open.get().deadline) {
            late.push(open.remove());
        }
        drop(forwards);
        for Open { request, .. } in late {
            self.waiting.came_back(request.partition);
            let reply = match commands::access(&request.words) {
                Access::Read => not_begun(request.partition),
                Access::Write => outcome_unknown(request.partition),
            };
            self.reply(request.origin, reply, effects);
        }
    }
}
