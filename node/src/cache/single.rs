//! Mode `single`: entries of this process only, admitted by `TinyLFU` (moka).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, future::ready};
use mizuya_wire::settings::Single as SingleSettings;
use moka::{Expiry, notification::RemovalCause, sync::Cache as Moka};

use super::{Cache, CacheError, Outcome, Stats};

/// A value and how long it lives.
#[derive(Clone, Debug)]
struct Entry {
    value: Bytes,
    ttl: Option<Duration>,
}

/// A new value has a new end, also when it replaces one.
struct PerEntry;

impl Expiry<Box<str>, Entry> for PerEntry {
    fn expire_after_create(&self, _: &Box<str>, entry: &Entry, _: Instant) -> Option<Duration> {
        entry.ttl
    }

    fn expire_after_update(&self, _: &Box<str>, entry: &Entry, _: Instant, _: Option<Duration>) -> Option<Duration> {
        entry.ttl
    }
}

/// A cache in this process. The cost of an entry is the length of its value; `num_counters` and `buffer_items` are
/// accepted, and chosen by moka itself.
#[derive(Debug)]
pub(super) struct Single {
    entries: Moka<Box<str>, Entry>,
    max_cost: u64,
    closed: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: Arc<AtomicU64>,
}

impl Single {
    pub(super) fn new(settings: &SingleSettings) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let evicted = evictions.clone();
        let entries = Moka::builder()
            .max_capacity(settings.max_cost)
            .weigher(|_, entry: &Entry| u32::try_from(entry.value.len()).unwrap_or(u32::MAX))
            .expire_after(PerEntry)
            .eviction_listener(move |_, _, cause| {
                evicted.fetch_add(u64::from(cause == RemovalCause::Size), Ordering::Relaxed);
            })
            .build();
        Self {
            entries,
            max_cost: settings.max_cost,
            closed: AtomicBool::new(false),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions,
        }
    }

    fn open(&self) -> Result<(), CacheError> {
        if self.closed.load(Ordering::Relaxed) { Err(CacheError::Closed) } else { Ok(()) }
    }

    fn read(&self, key: &str) -> Option<Bytes> {
        let found = self.entries.get(key).map(|entry| entry.value);
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// An entry whose cost is above `max_cost` is never stored; one of the same key goes, as it is no longer true.
    fn write(&self, key: &str, value: Bytes, ttl: Duration) {
        if value.len() as u64 > self.max_cost {
            self.entries.invalidate(key);
        } else {
            self.entries.insert(key.into(), Entry { value, ttl: (!ttl.is_zero()).then_some(ttl) });
        }
    }
}

impl Cache for Single {
    fn get<'a>(&'a self, key: &'a str) -> Outcome<'a, Bytes> {
        ready(self.open().and_then(|()| self.read(key).ok_or(CacheError::NotFound))).boxed()
    }

    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> Outcome<'a, ()> {
        self.set_with_ttl(key, value, Duration::ZERO)
    }

    fn set_with_ttl<'a>(&'a self, key: &'a str, value: Bytes, ttl: Duration) -> Outcome<'a, ()> {
        ready(self.open().map(|()| self.write(key, value, ttl))).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> Outcome<'a, ()> {
        ready(self.open().map(|()| self.entries.invalidate(key))).boxed()
    }

    fn exists<'a>(&'a self, key: &'a str) -> Outcome<'a, bool> {
        ready(self.open().map(|()| self.entries.contains_key(key))).boxed()
    }

    fn get_multi<'a>(&'a self, keys: &'a [String]) -> Outcome<'a, Vec<(String, Bytes)>> {
        let found = |()| keys.iter().filter_map(|key| Some((key.clone(), self.read(key)?))).collect();
        ready(self.open().map(found)).boxed()
    }

    fn set_multi_with_ttl(&self, items: Vec<(String, Bytes)>, ttl: Duration) -> Outcome<'_, ()> {
        ready(self.open().map(|()| items.into_iter().for_each(|(key, value)| self.write(&key, value, ttl)))).boxed()
    }

    fn stats(&self) -> Stats {
        Stats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            key_count: self.entries.entry_count(),
            bytes_used: self.entries.weighted_size(),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    fn ping(&self) -> Outcome<'_, ()> {
        ready(self.open()).boxed()
    }

    fn wait(&self) {
        self.entries.run_pending_tasks();
    }

    fn close(&self) -> Outcome<'_, ()> {
        self.closed.store(true, Ordering::Relaxed);
        self.entries.invalidate_all();
        ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(max_cost: u64) -> Single {
        Single::new(&SingleSettings { max_cost, ..SingleSettings::default() })
    }

    fn bytes(length: usize) -> Bytes {
        Bytes::from(vec![7; length])
    }

    #[tokio::test]
    async fn a_value_is_there_until_it_is_deleted_or_its_time_is_over() {
        let cache = cache(1000);
        cache.set("a", bytes(3)).await.unwrap();
        cache.set_with_ttl("b", bytes(4), Duration::from_millis(30)).await.unwrap();
        cache.wait();
        assert_eq!(cache.get("a").await, Ok(bytes(3)));
        assert_eq!(cache.exists("b").await, Ok(true));
        assert_eq!(cache.stats(), Stats { hits: 1, key_count: 2, bytes_used: 7, ..Stats::default() });
        std::thread::sleep(Duration::from_millis(40));
        assert_eq!(cache.get("b").await, Err(CacheError::NotFound));
        cache.delete("a").await.unwrap();
        assert_eq!(cache.get("a").await, Err(CacheError::NotFound));
        assert_eq!(cache.stats().hit_ratio(), Some(1.0 / 3.0));
    }

    #[tokio::test]
    async fn what_costs_more_than_the_limit_is_never_stored_and_what_it_replaces_is_gone() {
        let cache = cache(100);
        cache.set("a", bytes(10)).await.unwrap();
        cache.set("a", bytes(101)).await.unwrap();
        cache.wait();
        assert_eq!(cache.get("a").await, Err(CacheError::NotFound));
    }

    #[tokio::test]
    async fn the_bytes_stay_under_the_limit_and_evictions_are_counted() {
        let cache = cache(1000);
        let keys: Vec<String> = (0..100).map(|key| format!("key-{key}")).collect();
        for key in &keys {
            cache.set(key, bytes(50)).await.unwrap();
        }
        cache.wait();
        let stats = cache.stats();
        assert!(stats.bytes_used <= 1000 && stats.key_count <= 20, "{stats:?}");
        assert_eq!(stats.evictions, 100 - stats.key_count);
        let found = cache.get_multi(&keys).await.unwrap();
        assert_eq!(found.len() as u64, stats.key_count);
    }

    #[tokio::test]
    async fn after_close_every_call_says_so() {
        let cache = cache(100);
        cache.set_multi_with_ttl(vec![("a".to_owned(), bytes(1))], Duration::ZERO).await.unwrap();
        cache.close().await.unwrap();
        assert_eq!(cache.get("a").await, Err(CacheError::Closed));
        assert_eq!(cache.ping().await, Err(CacheError::Closed));
    }
}
