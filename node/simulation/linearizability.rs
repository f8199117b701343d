//! Whether one key's operations have an order that explains every answer: the search of Wing and Gong ("Testing and
//! verifying concurrent objects", 1993) with Lowe's memory of what was tried before ("Testing for linearizability", 2017).

use std::collections::HashSet;

/// What a client asks of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Get,
    Set(i64),
    Delete,
    Increment,
    /// Sets the value if there is none: the compare-and-set of those who take locks.
    SetIfAbsent(i64),
    /// Sets the value and answers the one before it.
    Exchange(i64),
}

/// A number, or nothing.
pub(crate) type Value = Option<i64>;

impl Command {
    /// What the key holds afterwards, and the answer.
    fn executed(self, before: Value) -> (Value, Value) {
        match self {
            Self::Get => (before, before),
            Self::Set(value) => (Some(value), None),
            Self::Delete => (None, Some(i64::from(before.is_some()))),
            Self::Increment => (Some(before.unwrap_or(0) + 1), Some(before.unwrap_or(0) + 1)),
            Self::SetIfAbsent(value) => (before.or(Some(value)), Some(i64::from(before.is_none()))),
            Self::Exchange(value) => (Some(value), before),
        }
    }
}

/// A command, when it was asked, and when it was answered what. One without an answer may be executed at any time after
/// it was asked, or never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) command: Command,
    pub(crate) asked: u64,
    pub(crate) answered: Option<(u64, Value)>,
}

impl Operation {
    fn end(&self) -> u64 {
        self.answered.map_or(u64::MAX, |(at, _)| at)
    }
}

/// What the search says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// No order explains the answers.
    Refuted,
    /// Too many orders to try them all.
    Undecided,
}

/// Most states that are tried.
const MOST_STATES: usize = 400_000;

/// A set of operations: those that are done.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Done(Vec<u64>);

impl Done {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & 1 << (at % 64) != 0
    }

    fn with(&self, at: usize) -> Self {
        let mut more = self.clone();
        more.0[at / 64] |= 1 << (at % 64);
        more
    }
}

/// Whether a key that held nothing at first may have answered like this.
pub(crate) fn check(operations: &[Operation]) -> Verdict {
    let mut operations = operations.to_vec();
    // A read that told nobody anything says nothing.
    operations.retain(|operation| operation.answered.is_some() || operation.command != Command::Get);
    // Answered ones first, in the order of their ends: what nobody was told is tried last.
    operations.sort_by_key(|operation| (operation.end(), operation.asked));
    let start = (Done(vec![0; operations.len().div_ceil(64)]), None);
    let mut known = HashSet::from([start.clone()]);
    let mut open = vec![start];
    while let Some((done, value)) = open.pop() {
        let left = || (0..operations.len()).filter(|at| !done.has(*at));
        // The operations are sorted by their ends: the first one left ends first, and what is asked later is later.
        let Some(end) = left().next().map(|at| operations[at].end()).filter(|end| *end < u64::MAX) else {
            return Verdict::Linearizable;
        };
        let candidates: Vec<usize> = left().filter(|at| operations[*at].asked <= end).collect();
        // The last one pushed is the next one tried.
        for at in candidates.into_iter().rev() {
            let (after, answer) = operations[at].command.executed(value);
            if operations[at].answered.is_some_and(|(_, told)| told != answer) {
                continue;
            }
            let next = (done.with(at), after);
            if known.insert(next.clone()) {
                open.push(next);
            }
        }
        if known.len() > MOST_STATES {
            return Verdict::Undecided;
        }
    }
    Verdict::Refuted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(command: Command, asked: u64, answered: u64, value: Value) -> Operation {
        Operation { command, asked, answered: Some((answered, value)) }
    }

    fn untold(command: Command, asked: u64) -> Operation {
        Operation { command, asked, answered: None }
    }

    #[test]
    fn what_one_client_does_is_linearizable() {
        let story = [
            told(Command::Get, 0, 1, None),
            told(Command::Set(5), 2, 3, None),
            told(Command::Increment, 4, 5, Some(6)),
            told(Command::SetIfAbsent(9), 6, 7, Some(0)),
            told(Command::Exchange(7), 8, 9, Some(6)),
            told(Command::Delete, 10, 11, Some(1)),
            told(Command::Delete, 12, 13, Some(0)),
            told(Command::SetIfAbsent(9), 14, 15, Some(1)),
            told(Command::Get, 16, 17, Some(9)),
        ];
        assert_eq!(check(&story), Verdict::Linearizable);
        for wrong in 0..story.len() {
            let mut story = story;
            let (at, value) = story[wrong].answered.unwrap();
            story[wrong].answered = Some((at, value.map_or(Some(77), |value| Some(value + 1))));
            assert_eq!(check(&story), Verdict::Refuted, "with {:?}", story[wrong]);
        }
    }

    #[test]
    fn operations_at_the_same_time_may_have_either_order_but_one_only() {
        let writes = [told(Command::Set(1), 0, 10, None), told(Command::Set(2), 0, 10, None)];
        let reads = |first, second| {
            let reads = [told(Command::Get, 11, 12, Some(first)), told(Command::Get, 13, 14, Some(second))];
            check(&[writes.as_slice(), &reads].concat())
        };
        assert_eq!(reads(1, 1), Verdict::Linearizable);
        assert_eq!(reads(2, 2), Verdict::Linearizable);
        assert_eq!(reads(1, 2), Verdict::Refuted);
    }

    #[test]
    fn an_old_value_is_refused() {
        let story =
            [told(Command::Set(1), 0, 1, None), told(Command::Set(2), 2, 3, None), told(Command::Get, 4, 5, Some(1))];
        assert_eq!(check(&story), Verdict::Refuted);
    }

    #[test]
    fn a_lost_write_is_refused() {
        let story = [told(Command::Set(1), 0, 1, None), told(Command::Get, 2, 3, None)];
        assert_eq!(check(&story), Verdict::Refuted);
    }

    #[test]
    fn what_was_read_once_does_not_go_again() {
        let write = untold(Command::Set(1), 0);
        let read = |at, value| told(Command::Get, at, at + 1, value);
        assert_eq!(check(&[write, read(1, None), read(3, Some(1)), read(5, Some(1))]), Verdict::Linearizable);
        assert_eq!(check(&[write, read(1, Some(1)), read(3, None)]), Verdict::Refuted);
    }

    #[test]
    fn what_nobody_was_told_happens_late_or_never_but_once() {
        let story = [untold(Command::Increment, 0), told(Command::Increment, 1, 2, Some(1))];
        let after = |value| check(&[story.as_slice(), &[told(Command::Get, 9, 10, Some(value))]].concat());
        assert_eq!(after(1), Verdict::Linearizable);
        assert_eq!(after(2), Verdict::Linearizable);
        assert_eq!(after(3), Verdict::Refuted);
        assert_eq!(check(&[told(Command::Get, 0, 1, Some(1)), untold(Command::Set(1), 2)]), Verdict::Refuted);
    }

    #[test]
    fn two_never_take_one_lock() {
        let story = [told(Command::SetIfAbsent(1), 0, 9, Some(1)), told(Command::SetIfAbsent(2), 0, 9, Some(1))];
        assert_eq!(check(&story), Verdict::Refuted);
    }

    #[test]
    fn long_histories_with_many_unknown_ends_are_decided() {
        let mut story = Vec::new();
        let mut value = None;
        for at in 0..400 {
            if at % 10 == 0 {
                story.push(untold(Command::Set(10_000 + at), at as u64 * 10));
            }
            value = Some(at);
            story.push(told(Command::Set(at), at as u64 * 10, at as u64 * 10 + 5, None));
            story.push(told(Command::Get, at as u64 * 10 + 6, at as u64 * 10 + 9, value));
        }
        assert_eq!(check(&story), Verdict::Linearizable);
        story.push(told(Command::Get, 5000, 5001, value.map(|value| value - 1)));
        assert_ne!(check(&story), Verdict::Linearizable);
    }
}
