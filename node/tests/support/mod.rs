//! Whole nodes inside the test process, each on a loopback address of its own, with real sockets.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod client;
pub mod process;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::channel::mpsc;
use mizuya_node::{
    io::{
        runtime::{Running, Runtime},
        security,
        start::{Listeners, Start},
    },
    logic::{keyspace::partition_of, node::Ticket, resp::Reply},
};
use mizuya_wire::{
    admin::{StatusReply, admin_client::AdminClient},
    settings::{Environment, Settings},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub const LIMIT: Duration = Duration::from_secs(20);

/// A folder with the secrets of one cluster, and loopback addresses that no other test uses.
pub struct Place {
    pub secrets: tempfile::TempDir,
    net: u8,
}

static NETS: AtomicU8 = AtomicU8::new(1);

impl Place {
    pub fn new() -> Self {
        let place = Self { secrets: tempfile::tempdir().unwrap(), net: NETS.fetch_add(1, Ordering::Relaxed) };
        let names: Vec<String> = (1..=9).map(|member| place.name(member)).collect();
        security::init(place.secrets.path(), &names).unwrap();
        place
    }

    /// The name of a member is its address, so that no name service is needed.
    pub fn name(&self, member: u8) -> String {
        let process = (std::process::id() % 200 + 20) as u8;
        IpAddr::from(Ipv4Addr::new(127, process, self.net, member)).to_string()
    }

    pub fn address(&self, member: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.name(member).parse().unwrap(), port)
    }

    /// Settings of one of `members`.
    pub fn settings(&self, member: u8, members: u8) -> Settings {
        let mut settings = Settings {
            name: Some(self.name(member)),
            bind_addr: self.address(member, 3320),
            http_addr: self.address(member, 8080),
            peers: (1..=members).map(|peer| format!("{}:3322", self.name(peer))).collect(),
            environment: Environment::Local,
            replica_count: u32::from(members.min(2)),
            partitions: 32,
            max_memory: Some(64 << 20),
            ..Settings::default()
        };
        settings.security.dir = Some(self.secrets.path().to_string_lossy().into_owned());
        settings
    }

    pub async fn start(&self, settings: Settings) -> Member {
        Member::start(settings, true).await
    }

    pub async fn cluster(&self, members: u8) -> Vec<Member> {
        self.cluster_with(members, |settings| settings).await
    }

    /// With settings changed in every member.
    pub async fn cluster_with(&self, members: u8, change: impl Fn(Settings) -> Settings) -> Vec<Member> {
        let mut all = Vec::new();
        for member in 1..=members {
            all.push(self.start(change(self.settings(member, members))).await);
        }
        for member in &all {
            member.until("ready", |status| status.ready && status.members.len() == usize::from(members)).await;
        }
        all
    }

    pub async fn admin(&self, member: u8) -> AdminClient<Channel> {
        self.try_admin(member).await.unwrap()
    }

    pub async fn try_admin(&self, member: u8) -> Result<AdminClient<Channel>, tonic::transport::Error> {
        Ok(AdminClient::new(channel(self.address(member, 3322), Some(&self.tls(true))).await?))
    }

    pub fn tls(&self, with_certificate: bool) -> ClientTlsConfig {
        let read = |file: &str| std::fs::read(self.secrets.path().join(file)).unwrap();
        let config =
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.crt"))).domain_name("localhost");
        if with_certificate { config.identity(Identity::from_pem(read("tls.crt"), read("tls.key"))) } else { config }
    }
}

pub async fn channel(address: SocketAddr, tls: Option<&ClientTlsConfig>) -> Result<Channel, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?.connect_timeout(Duration::from_secs(3));
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls.clone())?;
    }
    endpoint.connect().await
}

/// A started node and one connection of a client to it.
pub struct Member {
    pub running: Option<Running>,
    replies: tokio::sync::Mutex<mpsc::UnboundedReceiver<(Ticket, Reply)>>,
    connection: u64,
    requests: AtomicU64,
}

impl Member {
    /// With `udp` false no datagram reaches it.
    pub async fn start(settings: Settings, udp: bool) -> Self {
        let mut listeners = Listeners::bind(&settings).await.unwrap();
        if !udp && let Some((_, socket)) = &mut listeners.peer {
            *socket = UdpSocket::bind((settings.bind_addr.ip(), 0)).await.unwrap();
        }
        let running =
            Runtime::start(Start { settings, zone: String::new(), owns_process: false, threads: Some(2) }, listeners)
                .unwrap();
        let (sender, replies) = mpsc::unbounded();
        let connection = running.runtime().open_connection(sender);
        Self { running: Some(running), replies: replies.into(), connection, requests: AtomicU64::new(0) }
    }

    pub fn runtime(&self) -> &Arc<Runtime> {
        self.running.as_ref().unwrap().runtime()
    }

    pub async fn call(&self, words: &[&str]) -> Reply {
        let words: Vec<Bytes> = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let runtime = self.runtime();
        let mut replies = self.replies.lock().await;
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket { connection: self.connection, request, part: 0 };
        if let Some(reply) = runtime.submit(ticket, partition_of(&words[1], runtime.partitions()), &words) {
            return reply;
        }
        loop {
            let (answered, reply) = timeout(LIMIT, replies.recv()).await.expect("a reply in time").unwrap();
            if answered == ticket {
                return reply;
            }
        }
    }

    pub async fn set(&self, key: &str, value: &str) {
        assert_eq!(self.call(&["SET", key, value]).await, Reply::Simple("OK"), "SET {key}");
    }

    pub async fn get(&self, key: &str) -> Option<String> {
        match self.call(&["GET", key]).await {
            Reply::Bulk(value) => Some(String::from_utf8_lossy(&value).into_owned()),
            Reply::Nil => None,
            other => panic!("GET {key}: {other:?}"),
        }
    }

    /// Waits until the status is as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&StatusReply) -> bool) -> StatusReply {
        self.until_within(LIMIT, what, wanted).await
    }

    pub async fn until_within(
        &self,
        limit: Duration,
        what: &str,
        wanted: impl Fn(&StatusReply) -> bool,
    ) -> StatusReply {
        let start = Instant::now();
        loop {
            let status = self.runtime().status();
            if wanted(&status) {
                return status;
            }
            assert!(start.elapsed() < limit, "not {what} after {limit:?}: {status:#?}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn until_problem(&self, code: &str, subject: &str) -> String {
        let found = |status: &StatusReply| {
            status.problems.iter().find(|problem| problem.code == code && problem.subject.contains(subject)).cloned()
        };
        let status = self.until(&format!("problem {code} of {subject}"), |status| found(status).is_some()).await;
        found(&status).unwrap().message
    }

    /// As if the process were killed.
    pub fn kill(&mut self) {
        drop(self.running.take());
    }
}

/// One HTTP request; status and body.
pub async fn http(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

/// Starts a log when a test is run by hand with `MIZUYA_TEST_LOG`.
pub fn log() {
    if let Ok(filter) = std::env::var("MIZUYA_TEST_LOG") {
        mizuya_node::io::log::start(&filter, mizuya_node::io::log::Format::Text);
    }
}
