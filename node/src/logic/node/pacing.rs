//! How fast copies are built: existing entries go to a peer only as far as they hinder nobody.
//!
//! One pace a stream, with two limits. The bytes that are under way without an answer are bounded, so that what is said
//! after them arrives soon. And there is a rate, which yields to everything else as in LEDBAT (RFC 6817): it is halved in
//! each tick in which something was hindered (chunks took longer than the stream's quickest ones do, live messages filled
//! a frame, the sender or the tick itself came late to a core), and grows by a step in each tick in which nothing was. It
//! may grow further where copies are urgent (`Table::is_urgent`) than where a partition only moves (`Config::move_rate`):
//! then nothing is at risk and nobody waits.

use std::{collections::BTreeMap, time::Duration};

use super::{Millis, Partition};
use crate::logic::cluster::replica::CHUNK_TIMEOUT;

/// Bytes a second where partitions only move, at least. A stream begins with it.
const SLOWEST: i64 = 1 << 20;
/// And at least and at most where that is urgent.
const URGENT: (i64, i64) = (4 << 20, 32 << 20);
/// So many milliseconds after an urgent chunk a stream is urgent.
const STAYS_URGENT: u64 = 1000;
/// What a tick without hindrance adds to the rate.
const STEP: i64 = 64 << 10;
/// Between two looks at whether chunks may go. So short, because commands wait while a core builds or applies what goes at once.
pub const ASK_EVERY: Duration = Duration::from_millis(5);
/// Milliseconds of the rate that may be sent at once: what comes in between two looks, and how late a timer may be.
const BURST: i64 = ASK_EVERY.as_millis() as i64 + 1;
/// Bytes under way without an answer on a stream without delay; one with delay gets what its rate sends in that time.
const WINDOW: usize = 128 << 10;
/// And at most.
const WIDEST: usize = 4 << 20;
/// Milliseconds that a chunk may take beyond half as long again as the quickest.
const SLACK: u64 = 4;
/// A tick that comes so long after the one before was late.
const LATE: u64 = 60;
/// A chunk may go after this time whatever else there is, so that a move ends also under full load.
const STARVED: u64 = 200;
/// For how long the quickest chunk is remembered, at least.
const MEMORY: Duration = Duration::from_secs(30);

/// How fast existing entries go to one peer.
pub(super) struct Pace {
    rate: i64,
    /// Bytes that may be sent now, as of `filled`; below 0 after a large chunk.
    left: i64,
    filled: Millis,
    ticked: Millis,
    sent: Millis,
    arrived: Option<Millis>,
    urgent_until: Millis,
    hindered: bool,
    /// Milliseconds of the quickest chunk of this period and the one before, and when this one began.
    quickest: (Option<u64>, Option<u64>, Millis),
    /// Chunks without an answer: bytes, and when they were sent.
    under_way: BTreeMap<Partition, (usize, Millis)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rate: SLOWEST,
            left: 0,
            filled: Millis::default(),
            ticked: Millis::default(),
            sent: Millis::default(),
            arrived: None,
            urgent_until: Millis::default(),
            hindered: false,
            quickest: (None, None, Millis::default()),
            under_way: BTreeMap::new(),
        }
    }
}

impl Pace {
    /// Whether a chunk of this partition may go now; `full` when live messages leave no room for it.
    pub(super) fn allows(&mut self, partition: Partition, full: bool, now: Millis) -> bool {
        self.fill(now);
        self.left > 0
            && !self.under_way.contains_key(&partition)
            && self.bytes() < self.window()
            && (!full || now.since(self.sent) >= STARVED)
    }

    /// A chunk was sent.
    pub(super) fn sent(&mut self, partition: Partition, bytes: usize, urgent: bool, now: Millis) {
        if urgent {
            self.urgent_until = Millis(now.0 + STAYS_URGENT);
        }
        self.left -= bytes as i64;
        self.sent = now;
        self.under_way.insert(partition, (bytes, now));
    }

    /// A chunk was answered.
    pub(super) fn answered(&mut self, partition: Partition, now: Millis) {
        let Some((_, sent)) = self.under_way.remove(&partition) else { return };
        self.arrived = Some(now);
        let took = now.since(sent);
        self.hindered |= self.quickest().is_some_and(|quickest| took > quickest + quickest / 2 + SLACK);
        let (this, _, _) = &mut self.quickest;
        *this = Some(this.map_or(took, |this| this.min(took)));
    }

    /// Live messages filled a frame, or the sender came late to a core: so do the commands of clients.
    pub(super) fn hinder(&mut self) {
        self.hindered = true;
    }

    /// Since when no chunk was answered, if ever one was.
    pub(super) fn last_answer(&self) -> Option<Millis> {
        self.arrived
    }

    /// Time passes. What only moves goes with `move_rate` bytes a second at most.
    pub(super) fn tick(&mut self, move_rate: u64, now: Millis) {
        self.fill(now);
        let passed = now.since(self.ticked);
        self.ticked = now;
        self.under_way.retain(|_, (_, sent)| now < *sent + CHUNK_TIMEOUT);
        if self.under_way.is_empty() && now >= self.sent + CHUNK_TIMEOUT {
            self.rate = SLOWEST;
        }
        let wanted = if self.hindered || passed >= LATE { self.rate / 2 } else { self.rate + STEP };
        let planned = (SLOWEST, (move_rate as i64).clamp(SLOWEST, URGENT.1));
        let (least, most) = if now < self.urgent_until { URGENT } else { planned };
        self.rate = wanted.clamp(least, most);
        self.hindered = false;
        let (this, before, began) = &mut self.quickest;
        if now >= *began + MEMORY {
            (*before, *this, *began) = (*this, None, now);
        }
    }

    /// What the rate gave since it was last asked.
    fn fill(&mut self, now: Millis) {
        let passed = now.since(self.filled) as i64;
        self.filled = now;
        self.left = (self.left + self.rate * passed / 1000).min(self.rate * BURST / 1000);
    }

    fn bytes(&self) -> usize {
        self.under_way.values().map(|(bytes, _)| bytes).sum()
    }

    fn window(&self) -> usize {
        let delay = self.quickest().unwrap_or_default() as usize;
        (WINDOW + self.rate as usize / 1000 * delay).min(WIDEST)
    }

    fn quickest(&self) -> Option<u64> {
        let (this, before, _) = self.quickest;
        this.into_iter().chain(before).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNK: usize = 64 << 10;
    const TICK: u64 = 20;

    /// A stream that delivers a chunk after `delay` milliseconds, for a time. Bytes sent.
    fn stream(pace: &mut Pace, from: u64, time: u64, delay: u64) -> usize {
        send(pace, (from, time), delay, true)
    }

    fn send(pace: &mut Pace, (from, time): (u64, u64), delay: u64, urgent: bool) -> usize {
        let mut sent = 0;
        for now in from..from + time {
            let now = Millis(now);
            if now.0.is_multiple_of(TICK) {
                pace.tick(PLANNED as u64, now);
            }
            let due: Vec<Partition> =
                pace.under_way.iter().filter(|(_, (_, at))| now.since(*at) >= delay).map(|(p, _)| *p).collect();
            for partition in due {
                pace.answered(partition, now);
            }
            for partition in (0..16).map(Partition) {
                if pace.allows(partition, false, now) {
                    pace.sent(partition, CHUNK, urgent, now);
                    sent += CHUNK;
                }
            }
        }
        sent
    }

    /// From the slowest rate to the highest.
    const PLANNED: i64 = 2 << 20;
    const CLIMB: u64 = (URGENT.1 / STEP) as u64 * TICK;

    #[test]
    fn a_stream_without_hindrance_reaches_the_highest_rate_and_stays_there() {
        let mut pace = Pace::default();
        stream(&mut pace, 1000, CLIMB, 1);
        assert_eq!(pace.rate, URGENT.1);
        let sent = stream(&mut pace, 1000 + CLIMB, 1000, 1) as i64;
        assert!((URGENT.1 * 9 / 10..=URGENT.1 + CHUNK as i64).contains(&sent), "{sent}");
    }

    #[test]
    fn what_only_moves_goes_slowly_also_after_what_was_urgent() {
        let mut pace = Pace::default();
        stream(&mut pace, 1000, CLIMB, 1);
        send(&mut pace, (1000 + CLIMB, STAYS_URGENT + TICK), 1, false);
        let sent = send(&mut pace, (2000 + CLIMB + TICK, 1000), 1, false) as i64;
        assert!((PLANNED * 9 / 10..=PLANNED + CHUNK as i64).contains(&sent), "{sent}");
        send(&mut pace, (3000 + CLIMB + TICK, 1000), 2 + SLACK + 1, false);
        assert!(pace.rate < URGENT.0, "{}", pace.rate);
    }

    #[test]
    fn a_stream_with_delay_reaches_it_too() {
        let mut pace = Pace::default();
        stream(&mut pace, 1000, CLIMB, 20);
        let sent = stream(&mut pace, 1000 + CLIMB, 1000, 20) as i64;
        assert!(sent > URGENT.1 * 8 / 10, "{sent}");
    }

    #[test]
    fn chunks_that_become_slow_bring_the_rate_down_and_it_comes_back() {
        let mut pace = Pace::default();
        stream(&mut pace, 1000, CLIMB, 1);
        stream(&mut pace, 1000 + CLIMB, 1000, 2 + SLACK + 1);
        assert!(pace.rate <= 2 * URGENT.0, "{}", pace.rate);
        stream(&mut pace, 2000 + CLIMB, CLIMB, 1);
        assert_eq!(pace.rate, URGENT.1);
    }

    #[test]
    fn live_messages_that_fill_frames_and_late_ticks_bring_the_rate_down() {
        for late in [false, true] {
            let mut pace = Pace::default();
            stream(&mut pace, 1000, 1000, 1);
            let mut now = Millis(2000);
            for _ in 0..10 {
                now = now + Duration::from_millis(if late { LATE } else { TICK });
                if !late {
                    pace.hinder();
                }
                pace.tick(PLANNED as u64, now);
            }
            assert_eq!(pace.rate, URGENT.0);
        }
    }

    #[test]
    fn under_full_load_a_chunk_goes_now_and_then() {
        let mut pace = Pace::default();
        stream(&mut pace, 1000, 100, 1);
        pace.sent(Partition(1), CHUNK, true, Millis(1100));
        pace.answered(Partition(1), Millis(1101));
        pace.tick(PLANNED as u64, Millis(1180));
        assert!(pace.allows(Partition(1), false, Millis(1180)));
        assert!(!pace.allows(Partition(1), true, Millis(1180)));
        assert!(pace.allows(Partition(1), true, Millis(1100 + STARVED)));
    }

    #[test]
    fn a_chunk_that_is_never_answered_holds_nothing_up_for_ever() {
        let mut pace = Pace::default();
        pace.tick(PLANNED as u64, Millis(1000));
        pace.sent(Partition(1), CHUNK, true, Millis(1000));
        pace.tick(PLANNED as u64, Millis(1020));
        assert!(!pace.allows(Partition(1), false, Millis(1020)));
        pace.tick(PLANNED as u64, Millis(1000) + CHUNK_TIMEOUT);
        assert!(pace.allows(Partition(1), false, Millis(1000) + CHUNK_TIMEOUT));
    }

    proptest! {
        #[test]
        fn neither_the_window_nor_the_rate_is_passed(
            steps in prop::collection::vec((0..40_u64, 0..16_u16, 1..200_000_usize, any::<bool>(), 0..4_u8), 1..400),
            urgent in any::<bool>(),
        ) {
            let (mut pace, mut now, mut largest, mut total) = (Pace::default(), Millis(1000), 0, 0_i64);
            pace.tick(PLANNED as u64, now);
            for (passed, partition, bytes, hindered, event) in steps {
                now = now + Duration::from_millis(passed);
                match event {
                    0 => pace.answered(Partition(partition), now),
                    1 => {
                        if hindered {
                            pace.hinder();
                        }
                        pace.tick(PLANNED as u64, now);
                    }
                    _ => {
                        if pace.allows(Partition(partition), hindered, now) {
                            largest = largest.max(bytes);
                            total += bytes as i64;
                            pace.sent(Partition(partition), bytes, urgent, now);
                        }
                    }
                }
                prop_assert!(pace.bytes() < WIDEST + largest);
                let most = if urgent { URGENT.1 } else { PLANNED };
                prop_assert!((SLOWEST..=most).contains(&pace.rate));
                // The first tick stands for the whole time before it.
                let time = now.since(Millis(1000)) as i64 + BURST;
                prop_assert!(total <= most * time / 1000 + largest as i64, "{total} in {time} ms");
            }
        }
    }
}
