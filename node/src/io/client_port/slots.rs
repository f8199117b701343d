//! Replies of one connection in the order of its requests, whenever they come.

use std::collections::VecDeque;

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::output::Output;
use crate::logic::{
    commands::{Merge, scan::Walk, table::Command},
    keyspace::Partition,
    node::Ticket,
    resp::{Protocol, Reply},
};

/// Room for so many requests, and for parts of as many partitions, is kept when all is answered.
const KEEP: usize = 4;

/// A request that is not answered yet, or waits for earlier ones to be.
struct Slot {
    protocol: Protocol,
    state: State,
}

enum State {
    /// Answered.
    Ready(Reply),
    /// Some partitions have not answered.
    Parts(Parts),
    /// A walk over partitions, of which this one has not answered.
    Walk { command: &'static Command, walk: Walk, partition: Partition, step: u32 },
}

/// Parts of a request, one a partition.
pub(super) struct Parts {
    pub(super) partitions: SmallVec<[Partition; 1]>,
    /// In the same order.
    pub(super) replies: SmallVec<[Option<Reply>; 1]>,
    /// None: there is only one part, and its reply is the request's.
    pub(super) merge: Option<Merge>,
}

impl Parts {
    fn merged(self) -> Reply {
        let mut replies = self.replies.into_iter().flatten();
        match self.merge {
            Some(merge) => merge.merge(replies.collect()),
            None => replies.next().unwrap_or(Reply::Nil),
        }
    }
}

/// What a reply led to.
pub(super) enum Filled {
    /// Nothing more to do.
    Done,
    /// The walk of this request goes on.
    Step(u64),
}

/// The requests of a connection from the first unanswered one on.
#[derive(Default)]
pub(super) struct Slots {
    /// Number of the first.
    first: u64,
    queue: VecDeque<Slot>,
    /// Parts that are not answered.
    open: usize,
    /// About how many bytes the answers take that wait for earlier ones.
    waiting: usize,
    /// Unanswered parts of a partition, and the epoch under which the last one was sent.
    busy: HashMap<Partition, (u32, u64)>,
}

impl Slots {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Requests, or parts of them where they have more, that are not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.queue.len().max(self.open)
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting
    }

    /// Number of the next request.
    pub(super) fn next(&self) -> u64 {
        self.first + self.queue.len() as u64
    }

    /// Whether a request for this partition may be sent: not while an earlier one is unanswered that was sent under
    /// another table, because it may still be on its way to another owner (rule F2).
    pub(super) fn may_send(&self, partition: Partition, epoch: u64) -> bool {
        self.busy.get(&partition).is_none_or(|(_, sent)| *sent == epoch)
    }

    /// Whether an earlier request for any one partition is unanswered.
    pub(super) fn is_any_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Whether an earlier request for this partition is unanswered.
    pub(super) fn is_busy(&self, partition: Partition) -> bool {
        self.busy.contains_key(&partition)
    }

    /// Answers the next request at once.
    pub(super) fn ready(&mut self, reply: Reply, protocol: Protocol, out: &mut Output) {
        if self.queue.is_empty() {
            // Most often: it saves a call.
            if !matches!(reply, Reply::Written) {
                reply.encode(protocol, out);
            }
            self.first += 1;
        } else {
            self.waiting += reply.size_hint();
            self.queue.push_back(Slot { protocol, state: State::Ready(reply) });
        }
    }

    /// The next request has parts that are answered later; those that are have their replies already.
    pub(super) fn pending(&mut self, parts: Parts, protocol: Protocol, epoch: u64) {
        for (partition, reply) in parts.partitions.iter().zip(&parts.replies) {
            if reply.is_none() {
                mark(&mut self.busy, *partition, epoch);
                self.open += 1;
            }
        }
        self.queue.push_back(Slot { protocol, state: State::Parts(parts) });
    }

    /// The next request is a walk; [`Slots::walk`] takes its steps.
    pub(super) fn walking(&mut self, command: &'static Command, walk: Walk, protocol: Protocol) {
        self.queue.push_back(Slot { protocol, state: State::Walk { command, walk, partition: Partition(0), step: 0 } });
        self.open += 1;
    }

    /// The walk of a request, its command and the number of its present step.
    pub(super) fn walk(&mut self, request: u64) -> Option<(&'static Command, &mut Walk, u32)> {
        match &mut self.slot(request)?.state {
            State::Walk { command, walk, step, .. } => Some((command, walk, *step)),
            _ => None,
        }
    }

    /// A walk's present step was sent and is not answered.
    pub(super) fn step_sent(&mut self, request: u64, to: Partition, epoch: u64) {
        if let Some(State::Walk { partition, .. }) = self.slot(request).map(|slot| &mut slot.state) {
            *partition = to;
            mark(&mut self.busy, to, epoch);
        }
    }

    /// A walk is over.
    pub(super) fn walked(&mut self, request: u64, reply: Reply, out: &mut Output) {
        self.open -= 1;
        self.answer(request, reply);
        self.flush(out);
    }

    /// A part is answered.
    pub(super) fn fill(&mut self, ticket: Ticket, reply: Reply, out: &mut Output) -> Filled {
        let Some(index) = self.index(ticket.request) else { return Filled::Done };
        match &mut self.queue[index].state {
            State::Ready(_) => return Filled::Done,
            State::Parts(parts) => {
                let part = ticket.part as usize;
                let Some(place) = parts.replies.get_mut(part).filter(|place| place.is_none()) else {
                    return Filled::Done;
                };
                *place = Some(reply);
                unmark(&mut self.busy, parts.partitions[part]);
                self.open -= 1;
                if parts.replies.iter().any(Option::is_none) {
                    return Filled::Done;
                }
            }
            State::Walk { walk, partition, step, .. } => {
                if *step != ticket.part {
                    return Filled::Done;
                }
                *step += 1;
                unmark(&mut self.busy, *partition);
                let Some(reply) = walk.take(reply) else { return Filled::Step(ticket.request) };
                self.walked(ticket.request, reply, out);
                return Filled::Done;
            }
        }
        let state = std::mem::replace(&mut self.queue[index].state, State::Ready(Reply::Nil));
        if let State::Parts(parts) = state {
            self.answer(ticket.request, parts.merged());
            self.flush(out);
        }
        Filled::Done
    }

    fn answer(&mut self, request: u64, reply: Reply) {
        self.waiting += reply.size_hint();
        if let Some(slot) = self.slot(request) {
            slot.state = State::Ready(reply);
        }
    }

    /// Writes the replies that no earlier request holds back.
    fn flush(&mut self, out: &mut Output) {
        while let Some(Slot { protocol, state: State::Ready(reply) }) = self.queue.front() {
            reply.encode(*protocol, out);
            self.waiting -= reply.size_hint();
            self.queue.pop_front();
            self.first += 1;
        }
        if self.queue.is_empty() && self.queue.capacity().max(self.busy.capacity()) > KEEP {
            (self.queue, self.busy) = Default::default();
        }
    }

    fn index(&self, request: u64) -> Option<usize> {
        let index = usize::try_from(request.checked_sub(self.first)?).ok()?;
        (index < self.queue.len()).then_some(index)
    }

    fn slot(&mut self, request: u64) -> Option<&mut Slot> {
        let index = self.index(request)?;
        self.queue.get_mut(index)
    }
}

fn mark(busy: &mut HashMap<Partition, (u32, u64)>, partition: Partition, epoch: u64) {
    let entry = busy.entry(partition).or_default();
    *entry = (entry.0 + 1, epoch);
}

fn unmark(busy: &mut HashMap<Partition, (u32, u64)>, partition: Partition) {
    let Some(entry) = busy.get_mut(&partition) else { return };
    entry.0 -= 1;
    if entry.0 == 0 {
        busy.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;
    use smallvec::smallvec;

    use super::*;

    fn ticket(request: u64, part: u32) -> Ticket {
        Ticket { connection: 1, request, part }
    }

    fn one(partition: u16) -> Parts {
        Parts { partitions: smallvec![Partition(partition)], replies: smallvec![None], merge: None }
    }

    fn written(out: &mut Output) -> String {
        let bytes = out.copy_to_bytes(out.remaining());
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn replies_keep_the_order_of_requests() {
        let (mut slots, mut out) = (Slots::default(), Output::default());
        slots.ready(Reply::Integer(0), Protocol::Resp2, &mut out);
        assert_eq!(written(&mut out), ":0\r\n");
        slots.pending(one(1), Protocol::Resp2, 9);
        slots.ready(Reply::Integer(2), Protocol::Resp2, &mut out);
        slots.pending(one(2), Protocol::Resp3, 9);
        slots.ready(Reply::Integer(4), Protocol::Resp2, &mut out);
        assert_eq!((slots.in_flight(), slots.next()), (4, 5));
        slots.fill(ticket(3, 0), Reply::Nil, &mut out);
        assert_eq!(written(&mut out), "");
        assert!(slots.waiting_bytes() > 0);
        slots.fill(ticket(1, 0), Reply::Integer(1), &mut out);
        assert_eq!(written(&mut out), ":1\r\n:2\r\n_\r\n:4\r\n");
        assert!(slots.is_empty() && slots.in_flight() == 0 && slots.waiting_bytes() == 0 && slots.busy.is_empty());
    }

    #[test]
    fn parts_are_merged_when_the_last_one_is_there_and_repeats_are_ignored() {
        let (mut slots, mut out) = (Slots::default(), Output::default());
        let partitions = smallvec![Partition(3), Partition(4), Partition(5)];
        let replies = smallvec![None, Some(Reply::Integer(10)), None];
        slots.pending(Parts { partitions, replies, merge: Some(Merge::Sum) }, Protocol::Resp2, 1);
        assert_eq!(slots.in_flight(), 2);
        slots.fill(ticket(0, 2), Reply::Integer(1), &mut out);
        slots.fill(ticket(0, 2), Reply::Integer(1000), &mut out);
        slots.fill(ticket(0, 1), Reply::Integer(1000), &mut out);
        slots.fill(ticket(0, 9), Reply::Integer(1000), &mut out);
        slots.fill(ticket(7, 0), Reply::Integer(1000), &mut out);
        assert_eq!(written(&mut out), "");
        slots.fill(ticket(0, 0), Reply::Integer(1), &mut out);
        assert_eq!(written(&mut out), ":12\r\n");
        slots.fill(ticket(0, 0), Reply::Integer(1000), &mut out);
        assert!(slots.is_empty() && written(&mut out).is_empty());
    }

    #[test]
    fn a_partition_with_an_unanswered_request_of_another_epoch_is_held_back() {
        let (mut slots, mut out) = (Slots::default(), Output::default());
        slots.pending(one(1), Protocol::Resp2, 5);
        slots.pending(one(1), Protocol::Resp2, 5);
        assert!(slots.may_send(Partition(1), 5));
        assert!(!slots.may_send(Partition(1), 6));
        assert!(slots.may_send(Partition(2), 6));
        slots.fill(ticket(0, 0), Reply::OK, &mut out);
        assert!(!slots.may_send(Partition(1), 6));
        slots.fill(ticket(1, 0), Reply::OK, &mut out);
        assert!(slots.may_send(Partition(1), 6));
    }
}
