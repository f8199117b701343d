//! How a checked load went.

use super::ledger::Millis;
use std::fmt;

/// The figures of one load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Changes that were acknowledged, deletes among them.
    pub writes: u64,
    /// Reads that were answered while the load ran.
    pub reads: u64,
    /// From the first change to the last.
    pub took: Millis,
    /// Keys looked at in the end, and the number of addresses that were asked for each.
    pub verified: usize,
    /// See `verified`.
    pub asked: usize,
    /// Keys whose acknowledged value was missing, at any time.
    pub lost: usize,
    /// Keys that held a value never written to them.
    pub wrong: usize,
    /// Keys that held a value older than the newest acknowledged one.
    pub stale: usize,
    /// Keys that held a value after their delete was acknowledged, or after they had expired.
    pub came_back: usize,
    /// Commands that failed; with retries, only those whose retry failed too.
    pub errors: u64,
    /// Commands that failed once and succeeded when they were retried.
    pub retried: u64,
    /// Longest time without a successful write in each group of keys.
    pub gaps: Vec<Millis>,
    /// The first faults and errors, in words.
    pub examples: Vec<String>,
}

impl Report {
    /// Acknowledged changes a second.
    pub fn rate(&self) -> u64 {
        self.writes * 1_000 / self.took.0.max(1)
    }

    /// Whether nothing was lost, wrong, stale or back.
    pub fn is_sound(&self) -> bool {
        self.lost + self.wrong + self.stale + self.came_back == 0
    }

    /// The longest time without a successful write to any group.
    pub fn longest_gap(&self) -> Millis {
        self.gaps.iter().copied().max().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "{} writes in {:.1} s ({}/s), {} reads, {} keys verified through {}: lost {}, wrong {}, stale {}, \
             came back {}, errors {}, retried {}; longest time without a write {}",
            self.writes,
            self.took.0 as f64 / 1_000.0,
            self.rate(),
            self.reads,
            self.verified,
            if self.asked == 1 { "1 address".to_owned() } else { format!("{} addresses", self.asked) },
            self.lost,
            self.wrong,
            self.stale,
            self.came_back,
            self.errors,
            self.retried,
            self.longest_gap(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_line_with_every_figure() {
        let report = Report {
            writes: 12_000,
            reads: 900,
            took: Millis(5_000),
            verified: 100,
            asked: 3,
            lost: 1,
            gaps: vec![Millis(3), Millis(41)],
            ..Report::default()
        };
        assert_eq!(
            report.to_string(),
            "12000 writes in 5.0 s (2400/s), 900 reads, 100 keys verified through 3 addresses: lost 1, wrong 0, \
             stale 0, came back 0, errors 0, retried 0; longest time without a write 41 ms"
        );
        assert!(!report.is_sound());
    }
}
