//! A node that is served on a port of its own, and a plain client of it.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};
use mizuya_node::{
    io::{
        client_port,
        runtime::{Running, Runtime},
        start::{Listeners, Start},
    },
    logic::resp::{Protocol, Reply, inline},
};
use mizuya_wire::settings::{Mode, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use super::support::LIMIT;

/// A served port.
pub struct Port {
    pub address: SocketAddr,
    runtime: Arc<Runtime>,
    serving: JoinHandle<()>,
    /// The node, when it is only for this port.
    _running: Option<Running>,
}

impl Port {
    /// A node alone.
    pub async fn single() -> Self {
        Self::start(Mode::Single).await
    }

    pub async fn start(mode: Mode) -> Self {
        Self::with(Settings { mode, max_memory: Some(64 << 20), ..Settings::default() }).await
    }

    pub async fn with(settings: Settings) -> Self {
        let listeners = Listeners { client: None, peer: None, http: None };
        let running =
            Runtime::start(Start { settings, zone: String::new(), owns_process: false, threads: Some(0) }, listeners)
                .unwrap();
        let began = Instant::now();
        while running.runtime().ready().is_err() {
            assert!(began.elapsed() < LIMIT, "a single node is ready at once");
            tokio::task::yield_now().await;
        }
        let port = Self::of(running.runtime().clone()).await;
        Self { _running: Some(running), ..port }
    }

    /// Serves a node that runs.
    pub async fn of(runtime: Arc<Runtime>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(client_port::serve(listener, runtime.clone()));
        Self { address, runtime, serving, _running: None }
    }

    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), buffer: BytesMut::new() }
    }

    /// Waits until nothing is served any more.
    pub async fn stopped(&self) {
        let began = Instant::now();
        while !self.serving.is_finished() {
            assert!(began.elapsed() < LIMIT);
            tokio::task::yield_now().await;
        }
    }
}

pub struct Client {
    pub stream: TcpStream,
    buffer: BytesMut,
}

impl Client {
    /// Sends a line as a frame, and gives the bytes of its reply.
    pub async fn ask(&mut self, line: &str) -> Vec<u8> {
        self.ask_words(&inline::split(line.as_bytes()).unwrap()).await
    }

    pub async fn ask_words(&mut self, words: &[Bytes]) -> Vec<u8> {
        self.stream.write_all(&frame(words)).await.unwrap();
        let mut length = None;
        while length.is_none() {
            length = whole(&self.buffer, 0);
            if length.is_none() {
                self.more().await;
            }
        }
        self.buffer.split_to(length.unwrap()).to_vec()
    }

    /// Asks until the reply, as text, is as wanted.
    pub async fn until(&mut self, line: &str, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let reply = String::from_utf8(self.ask(line).await).unwrap();
            if wanted(&reply) {
                return reply;
            }
            assert!(began.elapsed() < LIMIT, "{line}: {reply}");
            tokio::task::yield_now().await;
        }
    }

    /// The next bytes.
    pub async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.more().await;
        }
        self.buffer.split_to(count).to_vec()
    }

    /// Everything until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.buffer.split().to_vec();
        timeout(LIMIT, self.stream.read_to_end(&mut rest)).await.expect("the connection ends").unwrap();
        rest
    }

    async fn more(&mut self) {
        let read = timeout(LIMIT, self.stream.read_buf(&mut self.buffer)).await.expect("a reply in time").unwrap();
        assert!(read > 0, "the connection ended after {:?}", self.buffer.escape_ascii().to_string());
    }
}

pub fn frame(words: &[Bytes]) -> Vec<u8> {
    let mut out = BytesMut::new();
    Reply::Array(words.iter().cloned().map(Reply::Bulk).collect()).encode(Protocol::Resp2, &mut out);
    out.to_vec()
}

pub fn resp2(reply: &Reply) -> String {
    let mut out = BytesMut::new();
    reply.encode(Protocol::Resp2, &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

/// Where the reply that starts at `start` ends, if it is whole.
fn whole(bytes: &[u8], start: usize) -> Option<usize> {
    let end = start + bytes.get(start..)?.windows(2).position(|pair| pair == b"\r\n")?;
    let count = || std::str::from_utf8(&bytes[start + 1..end]).unwrap().parse::<i64>().unwrap();
    let items = |count: i64| (0..count).try_fold(end + 2, |at, _| whole(bytes, at));
    match bytes[start] {
        b'$' | b'=' if count() >= 0 => Some(end + 4 + count() as usize).filter(|end| *end <= bytes.len()),
        b'*' | b'~' => items(count()),
        b'%' => items(2 * count()),
        _ => Some(end + 2),
    }
}
