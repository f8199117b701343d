//! How connections of a node that leaves come to their end (rule L3).
//!
//! A client cannot be told to send no more: all that TCP has for that is its end. A client that looks for it before it
//! sends is never disappointed if it comes in one segment with the answer that the client waits for. So the answers to
//! one more burst of commands are kept back until the burst is over, and go out together with the end. What a client
//! sends after that is not executed.

use std::time::Duration;

use tokio::time::Instant;

/// How long a connection is given to send one more burst of commands, or the rest of one.
const LAST_BURST: Duration = Duration::from_millis(600);
/// A burst is over after this silence. Its commands may come in several segments.
const SILENCE: Duration = Duration::from_millis(2);
/// A burst is over after this time, for clients that send without waiting for answers.
const LONGEST_BURST: Duration = Duration::from_millis(20);

/// A connection on its way to its end.
pub(super) struct Leaving {
    deadline: Instant,
    /// First and last bytes of the burst.
    heard: Option<(Instant, Instant)>,
}

impl Leaving {
    /// `busy`: there are commands that are not answered.
    pub(super) fn new(now: Instant, busy: bool) -> Self {
        Self { deadline: now + LAST_BURST, heard: busy.then_some((now, now)) }
    }

    /// Bytes came.
    pub(super) fn hears(&mut self, now: Instant) {
        let first = self.heard.map_or(now, |(first, _)| first);
        self.heard = Some((first, now));
    }

    /// From then on no more is read, and answers are no longer kept back.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The deadline has passed.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// When to end, once everything is answered; `torn`: a part of a command was read.
    pub(super) fn end(&self, torn: bool) -> Instant {
        let burst = self.heard.filter(|_| !torn);
        let end = burst.map(|(first, last)| (last + SILENCE).min(first + LONGEST_BURST));
        end.map_or(self.deadline, |end| end.min(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_comes_after_a_burst_or_when_none_comes() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut idle = Leaving::new(start, false);
        assert_eq!(idle.end(false), start + LAST_BURST);
        idle.hears(after(100));
        assert_eq!(idle.end(false), after(100) + SILENCE);
        idle.hears(after(101));
        assert_eq!(idle.end(false), after(101) + SILENCE);
        // The rest of a command is waited for.
        assert_eq!(idle.end(true), start + LAST_BURST);
        for millis in 102..200 {
            idle.hears(after(millis));
        }
        assert_eq!(idle.end(false), after(100) + LONGEST_BURST);
        assert!(!idle.is_late(after(599)) && idle.is_late(after(600)));
        idle.hears(after(599));
        let mut last = Leaving::new(start, false);
        last.hears(after(599));
        assert_eq!(last.end(false), start + LAST_BURST);
    }

    #[test]
    fn commands_that_are_under_way_are_a_burst() {
        let start = Instant::now();
        assert_eq!(Leaving::new(start, true).end(false), start + SILENCE);
    }
}
