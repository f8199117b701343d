//! Mode `disabled`: every get is a miss, every set is forgotten.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::ready};

use super::{Cache, CacheError, Outcome, Stats};

/// A cache that keeps nothing.
#[derive(Debug, Default)]
pub(super) struct Disabled {
    closed: AtomicBool,
    misses: AtomicU64,
}

impl Disabled {
    fn answer<T: Send + 'static>(&self, value: Result<T, CacheError>) -> Outcome<'_, T> {
        let closed = self.closed.load(Ordering::Relaxed);
        ready(if closed { Err(CacheError::Closed) } else { value }).boxed()
    }
}

impl Cache for Disabled {
    fn get<'a>(&'a self, _: &'a str) -> Outcome<'a, Bytes> {
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.answer(Err(CacheError::NotFound))
    }

    fn set<'a>(&'a self, _: &'a str, _: Bytes) -> Outcome<'a, ()> {
        self.answer(Ok(()))
    }

    fn set_with_ttl<'a>(&'a self, _: &'a str, _: Bytes, _: Duration) -> Outcome<'a, ()> {
        self.answer(Ok(()))
    }

    fn delete<'a>(&'a self, _: &'a str) -> Outcome<'a, ()> {
        self.answer(Ok(()))
    }

    fn exists<'a>(&'a self, _: &'a str) -> Outcome<'a, bool> {
        self.answer(Ok(false))
    }

    fn get_multi<'a>(&'a self, keys: &'a [String]) -> Outcome<'a, Vec<(String, Bytes)>> {
        self.misses.fetch_add(keys.len() as u64, Ordering::Relaxed);
        self.answer(Ok(Vec::new()))
    }

    fn set_multi_with_ttl(&self, _: Vec<(String, Bytes)>, _: Duration) -> Outcome<'_, ()> {
        self.answer(Ok(()))
    }

    fn stats(&self) -> Stats {
        Stats { misses: self.misses.load(Ordering::Relaxed), ..Stats::default() }
    }

    fn ping(&self) -> Outcome<'_, ()> {
        self.answer(Ok(()))
    }

    fn close(&self) -> Outcome<'_, ()> {
        self.closed.store(true, Ordering::Relaxed);
        ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_and_every_get_is_a_miss() {
        let cache = Disabled::default();
        cache.set("a", Bytes::from_static(b"1")).await.unwrap();
        assert_eq!(cache.get("a").await, Err(CacheError::NotFound));
        assert_eq!(cache.exists("a").await, Ok(false));
        assert_eq!(cache.stats(), Stats { misses: 1, ..Stats::default() });
        cache.close().await.unwrap();
        assert_eq!(cache.set("a", Bytes::new()).await, Err(CacheError::Closed));
    }
}
