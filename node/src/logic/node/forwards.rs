//! Commands that are passed on to their primary, and what becomes of them (rule F1).

use std::{collections::BTreeMap, time::Duration};

use super::{
    Clock, Effects, Forward, Forwarded, MAX_HOPS, MemberName, Message, Millis, Node, Origin, Reply,
    requests::{Moment, Request, UNREACHABLE_HOLD, overloaded},
    waiting::Waiting,
};
use crate::logic::{
    cluster::replica::{HOLD, not_begun, outcome_unknown},
    commands::{self, Access},
};

/// Most forwarded commands that wait for an answer.
const MAX_FORWARDS: usize = 65_536;
/// How long a forwarded command may stay without an answer.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(6);

pub(super) struct Forwards {
    next: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    request: Request,
    target: MemberName,
    deadline: Millis,
}

impl Forwards {
    pub(super) fn count(&self) -> usize {
        self.open.len()
    }

    /// Numbers of different starts must differ: an answer to a former start may still be under way.
    pub(super) fn new(generation: u64) -> Self {
        Self { next: generation, open: BTreeMap::new() }
    }
}

impl Node {
    /// Gives the request back if there is no stream to its primary, or none back: an answer would be lost.
    pub(super) fn pass_on(
        &self,
        waiting: Waiting,
        (target, epoch): (MemberName, u64),
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
        let id = forwards.next.wrapping_add(1);
        let Request { partition, words, .. } = &waiting.request;
        let forward = Forward { id, epoch, hops, partition: *partition, words: words.clone() };
        // Under the lock, so that commands leave in the order of their numbers.
        if !self.outbox(&target).push_forward(forward) {
            return Err(waiting);
        }
        forwards.next = id;
        effects.wake.insert(target.clone());
        forwards.open.insert(id, Open { request: waiting.request, target, deadline: now + FORWARD_TIMEOUT });
        Ok(())
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
        }
        let waiting = Waiting { request, deadline: clock + HOLD, epoch };
        self.serve_in_turn(waiting, Moment { clock, random }, effects);
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
            Forwarded::NotExecuted(epoch) => {
                self.wait(Waiting { request: open.request, deadline: clock + UNREACHABLE_HOLD, epoch }, effects);
            }
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
                Access::Read => self.wait(Waiting { request, deadline: clock + UNREACHABLE_HOLD, epoch: 0 }, effects),
                Access::Write => self.reply(request.origin, outcome_unknown(request.partition), effects),
            }
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
            let reply = match commands::access(&request.words) {
                Access::Read => not_begun(request.partition),
                Access::Write => outcome_unknown(request.partition),
            };
            self.reply(request.origin, reply, effects);
        }
    }
}
