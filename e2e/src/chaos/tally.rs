//! What the faults came to.

use super::fault::Fault;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Each kind of fault: how often, how long the cache took to be whole again, and what clients felt.
#[derive(Debug, Default)]
pub struct Tally {
    rows: BTreeMap<Fault, Row>,
}

#[derive(Debug, Default)]
struct Row {
    times: u32,
    longest: Duration,
    errors: u64,
}

impl Tally {
    /// Faults up to now.
    pub fn turn(&self) -> usize {
        self.rows.values().map(|row| row.times as usize).sum()
    }

    /// Adds one.
    pub fn add(&mut self, fault: Fault, whole_after: Duration, errors: u64) {
        let row = self.rows.entry(fault).or_default();
        row.times += 1;
        row.longest = row.longest.max(whole_after);
        row.errors += errors;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "{:<34} {:>5} {:>16} {:>20}", "fault", "times", "longest, whole", "errors after retry")?;
        for (fault, row) in &self.rows {
            let longest = format!("{:.1} s", row.longest.as_secs_f64());
            writeln!(to, "{:<34} {:>5} {longest:>16} {:>20}", fault.name(), row.times, row.errors)?;
        }
        write!(to, "{} faults", self.turn())
    }
}
