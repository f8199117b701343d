//! The cache inside another program: two members in one process, through the trait alone.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mizuya_node::cache::{Cache, CacheError, open};
use support::{LIMIT, Place};

async fn answers(cache: &Arc<dyn Cache>) {
    let ping = async {
        while cache.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, ping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_share_a_cache_and_one_that_closes_loses_nothing() {
    support::log();
    let place = Place::new();
    let first = open(place.settings(1, 2)).await.unwrap();
    let second = open(place.settings(2, 2)).await.unwrap();
    answers(&first).await;
    answers(&second).await;

    first.set("a", Bytes::from_static(b"1")).await.unwrap();
    assert_eq!(second.get("a").await, Ok(Bytes::from_static(b"1")));
    assert_eq!(second.get("b").await, Err(CacheError::NotFound));
    second.set_with_ttl("b", Bytes::from_static(b"2"), Duration::from_millis(150)).await.unwrap();
    assert_eq!(first.exists("b").await, Ok(true));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(first.exists("b").await, Ok(false));
    first.delete("a").await.unwrap();
    assert_eq!(second.get("a").await, Err(CacheError::NotFound));

    let items: Vec<(String, Bytes)> = (0..50).map(|n| (format!("key-{n}"), Bytes::from(format!("{n}")))).collect();
    let keys: Vec<String> = items.iter().map(|(key, _)| key.clone()).chain(["absent".to_owned()]).collect();
    first.set_multi_with_ttl(items.clone(), Duration::ZERO).await.unwrap();
    assert_eq!(second.get_multi(&keys).await.unwrap(), items);

    first.close().await.unwrap();
    assert_eq!(first.get("key-1").await, Err(CacheError::Closed));
    assert_eq!(second.get_multi(&keys).await.unwrap(), items);
    assert!(second.stats().hits > 0);
}
