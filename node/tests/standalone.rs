//! The files in manifests/standalone, started as they are by the real program. Only names become loopback addresses.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use support::{LIMIT, Place, http};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

/// One process.
struct Node {
    child: Child,
    log: PathBuf,
    member: u8,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    /// Starts the program with one of the files, in which names become addresses.
    fn start(place: &Place, layout: &str, member: u8) -> Self {
        let file = format!("{}/../manifests/standalone/{layout}/cc-relay-{member}.yaml", env!("CARGO_MANIFEST_DIR"));
        let mut text = fs::read_to_string(file).unwrap().replace("0.0.0.0", &place.name(member));
        for other in 1..=3 {
            text = text.replace(&format!("cc-relay-{other}"), &place.name(other));
        }
        let dir = place.secrets.path();
        let (file, log) = (dir.join(format!("node-{member}.yaml")), dir.join(format!("node-{member}.log")));
        fs::write(&file, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_mizuya-node"))
            .arg("--config")
            .arg(file)
            .arg("--security-dir")
            .arg(dir)
            .args(["--http-addr", &place.address(member, 8080).to_string(), "--max-memory", "64Mi"])
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log, member }
    }

    async fn ready(&self, place: &Place) {
        let start = Instant::now();
        let address = place.address(self.member, 8080);
        while TcpStream::connect(address).await.is_err() || http(address, "/readyz").await.0 != 200 {
            assert!(start.elapsed() < LIMIT, "node {} is not ready: {}", self.member, self.log());
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < LIMIT, "node {} does not end: {}", self.member, self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A client that speaks just enough RESP.
struct Client(BufReader<TcpStream>);

impl Client {
    async fn new(place: &Place, member: u8) -> Self {
        Self(BufReader::new(TcpStream::connect(place.address(member, 3320)).await.unwrap()))
    }

    /// The reply's first line, or for a value the value.
    async fn call(&mut self, words: &str) -> String {
        self.0.get_mut().write_all(format!("{words}\r\n").as_bytes()).await.unwrap();
        let first = self.line().await;
        if first.starts_with('$') && first != "$-1" { self.line().await } else { first }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(LIMIT, self.0.read_line(&mut line)).await.expect("an answer in time").unwrap();
        line.trim_end().to_owned()
    }
}

async fn start(place: &Place, layout: &str, members: u8) -> Vec<Node> {
    let nodes: Vec<Node> = (1..=members).map(|member| Node::start(place, layout, member)).collect();
    for node in &nodes {
        node.ready(place).await;
    }
    nodes
}

#[tokio::test]
async fn the_two_node_files_share_keys_and_warn_that_they_survive_no_failure() {
    let place = Place::new();
    let mut nodes = start(&place, "two-nodes", 2).await;
    let mut first = Client::new(&place, 1).await;
    let mut second = Client::new(&place, 2).await;
    assert_eq!(first.call("SET greeting hello").await, "+OK");
    assert_eq!(second.call("GET greeting").await, "hello");
    assert!(nodes[0].log().contains("survive no failure"), "{}", nodes[0].log());

    // As the warning says: one node alone refuses, by name.
    nodes[1].child.kill().unwrap();
    let start = Instant::now();
    loop {
        let answer = first.call("SET greeting again").await;
        if answer.starts_with("-CLUSTERQUORUM") {
            break;
        }
        assert!(start.elapsed() < LIMIT, "{answer}");
    }
}

#[tokio::test]
async fn the_three_node_files_survive_the_failure_of_one() {
    let place = Place::new();
    let mut nodes = start(&place, "three-nodes", 3).await;
    assert!(!nodes[0].log().contains("survive no failure"));
    let mut first = Client::new(&place, 1).await;
    for key in 0..100 {
        assert_eq!(first.call(&format!("SET key-{key} {key}")).await, "+OK");
    }
    nodes[2].child.kill().unwrap();
    let mut second = Client::new(&place, 2).await;
    for key in 0..100 {
        let start = Instant::now();
        while second.call(&format!("GET key-{key}")).await != key.to_string() {
            assert!(start.elapsed() < LIMIT, "key-{key} is lost");
        }
    }
}

#[tokio::test]
async fn sigterm_hands_over_closes_connections_between_commands_and_ends_well() {
    let place = Place::new();
    let mut nodes = start(&place, "three-nodes", 3).await;
    let mut third = Client::new(&place, 3).await;
    for key in 0..100 {
        assert_eq!(third.call(&format!("SET key-{key} {key}")).await, "+OK");
    }
    let began = Instant::now();
    nodes[2].signal("TERM");
    assert!(nodes[2].ended().await.success(), "{}", nodes[2].log());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(third.line().await, "", "the connection is closed, not reset in the middle of a reply");
    let mut first = Client::new(&place, 1).await;
    for key in 0..100 {
        assert_eq!(first.call(&format!("GET key-{key}")).await, key.to_string());
    }
}

#[test]
fn without_secrets_the_program_says_how_to_make_them() {
    let output = Command::new(env!("CARGO_BIN_EXE_mizuya-node")).env_remove("MIZUYA_CONFIG").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("mizuya-node init-secrets DIR"), "{said}");
}

#[test]
fn check_config_reads_every_file_that_is_shipped() {
    for file in ["two-nodes/cc-relay-1", "two-nodes/cc-relay-2", "three-nodes/cc-relay-1", "three-nodes/cc-relay-3"] {
        let file = format!("{}/../manifests/standalone/{file}.yaml", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new(env!("CARGO_BIN_EXE_mizuya-node")).arg("check-config").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("is valid"), "{file}: {said}");
        assert_eq!(said.contains("survive no failure"), file.contains("two-nodes"), "{said}");
    }
}
