//! Mirrors of hot remote keys (rule C4), over real sockets.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

#[path = "client_port/client.rs"]
mod client;

use std::time::{Duration, Instant};

use client::{Client, Port};
use mizuya_node::logic::keyspace::partition_of;
use mizuya_wire::settings::{LONGEST_MIRROR, Settings};
use support::{LIMIT, Member, Place, http};

/// A key whose primary is not this member.
fn remote_key(member: &Member) -> String {
    let routing = member.runtime().node().routing();
    let table = routing.table.as_ref().unwrap();
    let is_remote = |key: &String| {
        table.assignment(partition_of(key.as_bytes(), member.runtime().partitions())).primary() != routing.me
    };
    (0..1000).map(|number| format!("key-{number}")).find(is_remote).unwrap()
}

/// Reads a key until a mirror answers. Returns the last value.
async fn read_until_mirrored(member: &Member, client: &mut Client, key: &str) -> Vec<u8> {
    let (began, before) = (Instant::now(), member.runtime().node().mirror_hits());
    loop {
        let value = client.ask(&format!("GET {key}")).await;
        if member.runtime().node().mirror_hits() > before {
            return value;
        }
        assert!(began.elapsed() < LIMIT, "a hot key is mirrored");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_key_is_answered_by_the_node_that_is_asked() {
    let place = Place::new();
    let members = place.cluster_with(3, |settings| Settings { hot_key_mirror: LONGEST_MIRROR, ..settings });
    let members = members.await;
    let key = remote_key(&members[0]);
    let (port, other) = (Port::of(members[0].runtime().clone()).await, Port::of(members[1].runtime().clone()).await);
    let (mut client, mut second, mut other) = (port.client().await, port.client().await, other.client().await);
    for number in 0..20 {
        // A write through the same node is seen at once, by every client of it.
        assert_eq!(client.ask(&format!("SET {key} {number}")).await, b"+OK\r\n");
        let value = format!("${}\r\n{number}\r\n", number.to_string().len());
        assert_eq!(second.ask(&format!("GET {key}")).await, value.as_bytes());
        assert_eq!(read_until_mirrored(&members[0], &mut client, &key).await, value.as_bytes());
        // One through another node when a mirror's life is over.
        assert_eq!(other.ask(&format!("SET {key} elsewhere")).await, b"+OK\r\n");
        tokio::time::sleep(LONGEST_MIRROR).await;
        assert_eq!(client.ask(&format!("GET {key}")).await, b"$9\r\nelsewhere\r\n");
    }
    let (_, metrics) = http(place.address(1, 8080), "/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("mizuya_mirror_hits_total ")).unwrap();
    assert!(line.parse::<u64>().unwrap() >= 20, "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_does_not_outlive_its_value() {
    const LIFE: Duration = Duration::from_millis(60);
    let place = Place::new();
    let settings = |settings| Settings { hot_key_mirror: LONGEST_MIRROR, ..settings };
    let members = place.cluster_with(3, settings).await;
    let key = remote_key(&members[0]);
    let port = Port::of(members[0].runtime().clone()).await;
    let mut client = port.client().await;
    // It is hot before it has a time to live.
    assert_eq!(client.ask(&format!("SET {key} value")).await, b"+OK\r\n");
    read_until_mirrored(&members[0], &mut client, &key).await;
    let (before, mut late) = (members[0].runtime().node().mirror_hits(), 0);
    for _ in 0..10 {
        client.ask(&format!("SET {key} value PX {}", LIFE.as_millis())).await;
        let set = Instant::now();
        loop {
            let asked = set.elapsed();
            if client.ask(&format!("GET {key}")).await == b"$-1\r\n" {
                break;
            }
            // It lives to the end of its last millisecond.
            late += usize::from(asked > LIFE + Duration::from_millis(1));
        }
    }
    assert_eq!(late, 0, "reads of a value whose time was over");
    assert!(members[0].runtime().node().mirror_hits() > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_setting_every_read_goes_to_the_primary() {
    let place = Place::new();
    let members = place.cluster(3).await;
    let key = remote_key(&members[0]);
    let port = Port::of(members[0].runtime().clone()).await;
    let mut client = port.client().await;
    client.ask(&format!("SET {key} value")).await;
    for _ in 0..1000 {
        assert_eq!(client.ask(&format!("GET {key}")).await, b"$5\r\nvalue\r\n");
    }
    assert_eq!(members[0].runtime().node().mirror_hits(), 0);
}
