//! What open connections take of the heap. Alone in its process, because every block counts.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

#[path = "client_port/client.rs"]
mod client;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use client::{Port, frame};
use peak_alloc::PeakAlloc;
use support::{LIMIT, Place};
use tokio::{
    task::{spawn_blocking, yield_now},
    time::sleep,
};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const CONNECTIONS: usize = 100;
/// A connection's share, its entries in tables included.
const MOST: usize = 2 << 10;

const TICKS: Duration = Duration::from_millis(200);

/// Connects so often, sends each time all requests one after the other, and takes replies of so many bytes.
async fn connect(address: SocketAddr, requests: Vec<(Vec<u8>, usize)>) -> Vec<TcpStream> {
    let connected = move |_| {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        for (request, reply) in &requests {
            // Both at a time: replies may be larger than what sockets hold.
            thread::scope(|scope| {
                let mut writer = &stream;
                scope.spawn(move || writer.write_all(request).unwrap());
                (&stream).read_exact(&mut vec![0; *reply]).unwrap();
            });
        }
        stream
    };
    spawn_blocking(move || (0..CONNECTIONS).map(connected).collect()).await.unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "not: {what}");
        yield_now().await;
    }
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    frame(&words.iter().map(|word| word.to_vec().into()).collect::<Vec<_>>())
}

/// Connections that have asked for this, and have their replies, take little. There are `earlier` ones that stay; each
/// takes less than `most`.
async fn check(port: &Port, (earlier, most): (u64, usize), what: &str, requests: Vec<(Vec<u8>, usize)>) {
    // What they share grows once.
    drop(connect(port.address, requests.clone()).await);
    until("the earlier ones are closed", || port.runtime().connection_count() == earlier).await;
    // Their tasks end a little later, and what the node has discarded is freed in its next ticks.
    sleep(TICKS).await;
    let before = HEAP.current_usage();
    let streams = connect(port.address, requests.clone()).await;
    let each = || HEAP.current_usage().saturating_sub(before) / CONNECTIONS;
    let all = earlier + CONNECTIONS as u64;
    until("they take little", || port.runtime().connection_count() == all && each() < most).await;
    println!("a connection that has asked for {what} takes {} bytes", each());
    drop(streams);
}

#[tokio::test]
async fn a_silent_connection_takes_less_than_2_kib() {
    let bulk = |length: usize| format!("${length}\r\n\r\n").len() + length;
    let get = command(&[b"GET", b"key"]);
    let much = vec![
        (command(&[b"PING"]), "+PONG\r\n".len()),
        (command(&[b"SET", b"key", &[b'v'; 100]]), "+OK\r\n".len()),
        (get.clone(), bulk(100)),
        (get.repeat(500), bulk(100) * 500),
        (command(&[b"SET", b"long", &[b'v'; 200_000]]), "+OK\r\n".len()),
        (command(&[b"GET", b"long"]).repeat(9), bulk(200_000) * 9),
    ];
    let port = Port::single().await;
    check(&port, (0, MOST), "nothing", Vec::new()).await;
    check(&port, (0, MOST), "little", much[..3].to_vec()).await;
    let torn = [&much[3..], &[(b"\r\n*3\r\n$3\r\nSET\r\n$9\r\nke".to_vec(), 0)]].concat();
    check(&port, (0, 2 * MOST), "much and begins to ask for more", torn).await;
    check(&port, (0, MOST), "much", much).await;
    drop(port);

    let place = Place::new();
    let members = place.cluster(2).await;
    let port = Port::of(members[0].runtime().clone()).await;
    let keys: Vec<u8> = (0..900).flat_map(|key| command(&[b"GET", format!("none:{key}").as_bytes()])).collect();
    // The node was started with one that needs no socket.
    check(&port, (1, MOST), "what another member has", vec![(keys, "$-1\r\n".len() * 900)]).await;
}
