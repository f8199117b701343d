//! The log: for people on a terminal, as JSON elsewhere.

use std::{
    io::IsTerminal,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tracing_subscriber::EnvFilter;

use crate::logic::clock::Millis;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people on a terminal, as JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Starts the log with a filter such as `info` or `mizuya_node=debug`. An unreadable filter is `info`, and said.
pub fn start(filter: &str, format: Format) {
    let (parsed, wrong) = match EnvFilter::try_new(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let terminal = std::io::stderr().is_terminal();
    let people = match format {
        Format::Auto => terminal,
        Format::Text => true,
        Format::Json => false,
    };
    let log = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(terminal);
    // A log that was started before, by whoever embeds the node, stays.
    let _ = if people { log.try_init() } else { log.json().flatten_event(true).try_init() };
    if let Some(error) = wrong {
        tracing::warn!(%error, filter, "the setting 'log' is no filter; info is used");
    }
}

/// Says something at most once in a while.
#[derive(Default)]
pub struct Quiet(AtomicU64);

impl Quiet {
    /// Whether it is time to say it again.
    pub fn may_speak(&self, now: Millis, every: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || Millis(last) + every <= now;
        due && self.0.compare_exchange(last, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_is_said_once_in_a_while() {
        let quiet = Quiet::default();
        let said: Vec<u64> = (0..100).filter(|now| quiet.may_speak(Millis(*now), Duration::from_millis(40))).collect();
        assert_eq!(said, [0, 41, 81]);
    }
}
