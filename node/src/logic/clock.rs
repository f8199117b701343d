//! Time as logic sees it: always an argument.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Milliseconds on this machine's monotonic clock, which goes on while the machine sleeps (`CLOCK_BOOTTIME`). Never
/// sent to another member: there only durations mean something (rule W9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds from `earlier` to here; 0 when it is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Millis {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_millis() as u64))
    }
}

impl Sub<Duration> for Millis {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_millis() as u64))
    }
}

/// One reading of both clocks. Wall time only serves commands that name an absolute time (rule W9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Monotonic time.
    pub now: Millis,
    /// Unix time in milliseconds.
    pub wall: u64,
}
