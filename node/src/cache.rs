//! The cache as those who embed it see it: one trait over three modes (requirements A1 to A7, A10).
//!
//! `single` keeps entries in this process, admits by `TinyLFU` and may reject a new one; `ha` makes this process a
//! member of a cluster; `disabled` keeps nothing.

mod clustered;
mod disabled;
mod single;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use mizuya_wire::settings::{Mode, Settings};

use crate::io::start::StartError;

/// What a call on a cache returns.
pub type Outcome<'a, T> = BoxFuture<'a, Result<T, CacheError>>;

/// Why a call had no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The key is not there: a miss.
    #[error("not found")]
    NotFound,
    /// The cache was closed.
    #[error("the cache is closed")]
    Closed,
    /// Too few members or copies for the quorum; nothing was changed.
    #[error("{0}")]
    Quorum(String),
    /// The node is not a member of a cluster yet, or cannot reach who has the key; nothing was changed.
    #[error("{0}")]
    Unavailable(String),
    /// No room; nothing was changed.
    #[error("{0}")]
    Full(String),
    /// The change may or may not have been made.
    #[error("{0}")]
    Unknown(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Figures since the cache was opened; of the whole cluster in mode `ha`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Gets that found a value.
    pub hits: u64,
    /// Gets that found none.
    pub misses: u64,
    /// Keys now.
    pub key_count: u64,
    /// Bytes now.
    pub bytes_used: u64,
    /// Entries removed for room. Above zero: give the cache more room.
    pub evictions: u64,
}

impl Stats {
    /// Share of gets that found a value; none before the first.
    pub fn hit_ratio(&self) -> Option<f64> {
        let reads = self.hits + self.misses;
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }
}

/// A cache in one of the three modes.
pub trait Cache: fmt::Debug + Send + Sync {
    /// The value of a key, or [`CacheError::NotFound`].
    fn get<'a>(&'a self, key: &'a str) -> Outcome<'a, Bytes>;

    /// Stores a value without an end.
    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> Outcome<'a, ()>;

    /// Stores a value for a time; zero is without an end.
    fn set_with_ttl<'a>(&'a self, key: &'a str, value: Bytes, ttl: Duration) -> Outcome<'a, ()>;

    /// Removes a key; no error when it is not there.
    fn delete<'a>(&'a self, key: &'a str) -> Outcome<'a, ()>;

    /// Whether a key is there.
    fn exists<'a>(&'a self, key: &'a str) -> Outcome<'a, bool>;

    /// The keys that are there, with their values.
    fn get_multi<'a>(&'a self, keys: &'a [String]) -> Outcome<'a, Vec<(String, Bytes)>>;

    /// Stores several values for a time. Not atomic: on an error some may be stored.
    fn set_multi_with_ttl(&self, items: Vec<(String, Bytes)>, ttl: Duration) -> Outcome<'_, ()>;

    /// Figures.
    fn stats(&self) -> Stats;

    /// Whether the cache can answer, or why not.
    fn ping(&self) -> Outcome<'_, ()>;

    /// Makes earlier writes visible to later reads; only mode `single` buffers writes.
    fn wait(&self) {}

    /// Ends the cache. A member of a cluster hands over what it owns first. Later calls fail with
    /// [`CacheError::Closed`].
    fn close(&self) -> Outcome<'_, ()>;
}

/// Opens a cache in the mode of the settings. Mode `ha` needs a Tokio runtime, and opens the client and peer ports.
pub async fn open(settings: Settings) -> Result<Arc<dyn Cache>, StartError> {
    Ok(match settings.mode {
        Mode::Single => Arc::new(single::Single::new(&settings.single)),
        Mode::Disabled => Arc::new(disabled::Disabled::default()),
        Mode::Ha => Arc::new(clustered::Clustered::start(settings).await?),
    })
}
