//! Requests that can be neither executed nor passed on yet: in turn, for a bounded time (rules F2, T2).
//!
//! Whoever has a request for a partition for which others wait, waits behind them. So requests of one connection for
//! one partition are never executed in another order than they came in. What another member has passed on stands in no
//! order with requests of this member's own clients, and goes before them: it may be the very request that they wait
//! for, on its way back from a former primary.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

use super::{
    Clock, Effects, MemberName, Millis, Node, Origin, Partition,
    requests::{Moment, Request, overloaded},
};

/// Most requests that wait, over all partitions.
const MAX_WAITING: usize = 65_536;

/// A request and how long it may wait.
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) deadline: Millis,
    /// Not before a table with this counter is in force.
    pub(super) epoch: u64,
}

/// One queue a partition.
pub(super) struct Queues {
    queues: Box<[Queue]>,
    total: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    requests: Mutex<Turns>,
    /// How many, to be read without the lock.
    length: AtomicUsize,
    /// Forwards without an answer: where they went. How many, to be read without the lock.
    way: Mutex<Option<MemberName>>,
    away: AtomicUsize,
}

/// What waits for one partition: what others have passed on goes first.
#[derive(Default)]
struct Turns {
    passed_on: VecDeque<Waiting>,
    own: VecDeque<Waiting>,
}

impl Turns {
    fn len(&self) -> usize {
        self.passed_on.len() + self.own.len()
    }

    fn in_turn(&mut self) -> [&mut VecDeque<Waiting>; 2] {
        [&mut self.passed_on, &mut self.own]
    }

    /// Whether nothing goes before this one.
    fn is_first(&self, waiting: &Waiting) -> bool {
        self.passed_on.is_empty() && (self.own.is_empty() || is_passed_on(waiting))
    }

    /// Behind those of its kind that came before it, and before those that came later: it may have been sent to another
    /// member meanwhile and come back.
    fn put(&mut self, waiting: Waiting) {
        let turn = if is_passed_on(&waiting) { &mut self.passed_on } else { &mut self.own };
        let place = turn.partition_point(|other| other.request.order <= waiting.request.order);
        turn.insert(place, waiting);
    }
}

impl Queues {
    pub(super) fn new(partitions: u16) -> Self {
        Self { queues: (0..partitions).map(|_| Queue::default()).collect(), total: AtomicUsize::new(0) }
    }

    /// How many wait, over all partitions.
    pub(super) fn count(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whether nothing waits for a partition.
    pub(super) fn is_empty(&self, partition: Partition) -> bool {
        self.queues[partition.index()].length.load(Ordering::Acquire) == 0
    }

    /// Whether forwards of this partition are without an answer.
    pub(super) fn is_away(&self, partition: Partition) -> bool {
        self.queues[partition.index()].away.load(Ordering::Acquire) > 0
    }

    /// Where the forwards went that are without an answer; none if there are none.
    pub(super) fn way(&self, partition: Partition) -> Option<MemberName> {
        self.queues[partition.index()].way.lock().clone()
    }

    /// A request was passed on. To be called while forwards are locked.
    pub(super) fn went(&self, partition: Partition, via: &MemberName) {
        let queue = &self.queues[partition.index()];
        let mut way = queue.way.lock();
        if queue.away.fetch_add(1, Ordering::AcqRel) == 0 {
            *way = Some(via.clone());
        }
    }

    /// A forward was answered or given up. Whether it was the last one.
    pub(super) fn came_back(&self, partition: Partition) -> bool {
        let queue = &self.queues[partition.index()];
        let mut way = queue.way.lock();
        let last = queue.away.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            *way = None;
        }
        last
    }

    /// Changes a queue under its lock, and counts what is in it afterwards.
    fn change<T>(&self, partition: Partition, change: impl FnOnce(&mut Turns) -> T) -> T {
        let queue = &self.queues[partition.index()];
        let mut requests = queue.requests.lock();
        let before = requests.len();
        let result = change(&mut requests);
        self.total.fetch_add(requests.len(), Ordering::Relaxed);
        self.total.fetch_sub(before, Ordering::Relaxed);
        queue.length.store(requests.len(), Ordering::Release);
        result
    }

    fn is_full(&self) -> bool {
        self.total.load(Ordering::Relaxed) >= MAX_WAITING
    }
}

impl Node {
    /// Serves a request, after those that wait for its partition.
    pub(super) fn serve_in_turn(&self, waiting: Waiting, moment: Moment, effects: &mut Effects) {
        let partition = waiting.request.partition;
        if self.waiting.is_empty(partition) {
            if let Err(waiting) = self.serve(waiting, moment, effects) {
                self.wait(waiting, effects);
            }
            return;
        }
        let full = self.waiting.is_full();
        let refused = self.waiting.change(partition, |queue| {
            // Those before it may have been served meanwhile.
            let waiting = if queue.is_first(&waiting) { self.serve(waiting, moment, effects).err()? } else { waiting };
            if full {
                return Some(waiting);
            }
            queue.put(waiting);
            None
        });
        if let Some(waiting) = refused {
            self.reply(waiting.request.origin, overloaded(), effects);
        }
    }

    /// Lets a request wait, behind those that wait already.
    pub(super) fn wait(&self, waiting: Waiting, effects: &mut Effects) {
        if self.waiting.is_full() {
            return self.reply(waiting.request.origin, overloaded(), effects);
        }
        self.waiting.change(waiting.request.partition, |queue| queue.put(waiting));
    }

    /// Time passes: serves what can be served now, and gives up what has waited for too long.
    pub(super) fn tick_waiting(&self, clock: Clock, random: u64, effects: &mut Effects) {
        for number in 0..self.waiting.queues.len() {
            let partition = Partition(number as u16);
            if !self.waiting.is_empty(partition) {
                self.serve_waiting(partition, Moment { clock, random }, effects);
            }
        }
    }

    /// Serves what waits for a partition and can be served now, and gives up what has waited for too long.
    pub(super) fn serve_waiting(&self, partition: Partition, moment: Moment, effects: &mut Effects) {
        let clock = moment.clock;
        let mut overdue = Vec::new();
        self.waiting.change(partition, |queue| {
            // First what can be served, also late: where this process itself stood still, nobody else is to blame.
            for turn in queue.in_turn() {
                while let Some(first) = turn.pop_front() {
                    if let Err(first) = self.serve(first, moment, effects) {
                        turn.push_front(first);
                        break;
                    }
                }
            }
            for turn in queue.in_turn() {
                let (late, rest): (VecDeque<_>, VecDeque<_>) =
                    std::mem::take(turn).into_iter().partition(|waiting| clock.now >= waiting.deadline);
                *turn = rest;
                overdue.extend(late);
            }
        });
        for waiting in overdue {
            let reply = self.not_in_time(partition, clock);
            self.reply(waiting.request.origin, reply, effects);
        }
    }
}

fn is_passed_on(waiting: &Waiting) -> bool {
    matches!(waiting.request.origin, Origin::Peer { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(order: u64, passed_on: bool) -> Waiting {
        let peer = Origin::Peer { name: MemberName::from("b"), id: order, hops: 1, mirrors: false };
        let client = Origin::Client(super::super::Ticket { connection: 1, request: order, part: 0 });
        let origin = if passed_on { peer } else { client };
        let request = Request { origin, partition: Partition(0), words: Vec::new(), order, third: false, hot: false };
        Waiting { request, deadline: Millis(0), epoch: 0 }
    }

    #[test]
    fn what_comes_back_goes_before_those_of_its_kind_that_came_later() {
        let mut turns = Turns::default();
        let came = [(10, true), (12, true), (5, false), (7, false)];
        let come_back = [(8, true), (6, false), (11, true), (4, false), (13, true), (9, false)];
        for (order, passed_on) in came.into_iter().chain(come_back) {
            turns.put(waiting(order, passed_on));
        }
        let orders = turns.in_turn().map(|turn| turn.iter().map(|waiting| waiting.request.order).collect::<Vec<_>>());
        assert_eq!(orders, [vec![8, 10, 11, 12, 13], vec![4, 5, 6, 7, 9]]);
    }
}
