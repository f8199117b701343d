//! One server process, bound to one core.

use super::pin;
use crate::testbed::wait;
use anyhow::{Context, Result, bail};
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::TcpStream;

/// How long a server may take to accept.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours.
    Mizuya,
    /// Debian's.
    Redis,
    /// Debian's, where there is one.
    Valkey,
    /// Debian's.
    Memcached,
}

impl Kind {
    /// In the order of the table.
    pub(super) const ALL: [Self; 4] = [Self::Mizuya, Self::Redis, Self::Valkey, Self::Memcached];

    /// Speaks the Redis protocol.
    pub(super) fn is_resp(self) -> bool {
        self != Self::Memcached
    }

    /// Whether the machine has it.
    pub(super) fn is_there(self) -> bool {
        let found = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        };
        match self {
            Self::Mizuya => true,
            Self::Redis => found("redis-server"),
            Self::Valkey => found("valkey-server"),
            Self::Memcached => found("memcached"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mizuya => "mizuya",
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Memcached => "memcached",
        })
    }
}

/// A server that runs; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts one whose entries may take `limit` bytes.
    pub(super) async fn start(kind: Kind, node: &Path, limit: u64, core: usize) -> Result<Self> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = match kind {
            Kind::Mizuya => mizuya(node, address, limit)?,
            Kind::Redis => redis("redis-server", port, limit),
            Kind::Valkey => redis("valkey-server", port, limit),
            Kind::Memcached => memcached(port, limit),
        };
        // What starts on one core takes its number of threads from that.
        let ours = sched_getaffinity(Pid::from_raw(0))?;
        pin(Pid::from_raw(0), core)?;
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        sched_setaffinity(Pid::from_raw(0), &ours)?;
        let server = Self { process: process.with_context(|| format!("can't start {kind}"))?, address };
        server.accepts(kind).await?;
        Ok(server)
    }

    async fn accepts(&self, kind: Kind) -> Result<()> {
        let look = async || Ok(self.answers(kind).await.then_some(()));
        wait::by_asking(&format!("{kind} to answer at {}", self.address), START_LIMIT, look).await
    }

    async fn answers(&self, kind: Kind) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ask, expected): (&[u8], &[u8]) =
            if kind.is_resp() { (b"SET ready 1\r\n", b"+OK") } else { (b"version\r\n", b"VER") };
        let Ok(mut stream) = TcpStream::connect(self.address).await else { return false };
        let mut answer = [0; 3];
        stream.write_all(ask).await.is_ok() && stream.read_exact(&mut answer).await.is_ok() && answer == expected
    }

    /// Time that all of its threads were on a core.
    pub(super) fn cpu(&self) -> Result<Duration> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))?.flatten() {
            let figures = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            sum += figures.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Resident bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

/// A port whose neighbour is free too: ours takes the one two above for its peers.
fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        if port < u16::MAX - 4 && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 2)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port")
}

/// The whole node: a cluster of one with its table, one copy.
fn mizuya(node: &Path, address: SocketAddr, limit: u64) -> Result<Command> {
    let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
    let mut command = Command::new(node);
    command.args(["--mode", "ha", "--insecure", "--replica-count", "1", "--name", "127.0.0.1", "--log", "error"]);
    command.args(["--bind-addr", &address.to_string(), "--http-addr", &http.to_string()]);
    command.args(["--bootstrap-timeout", "100ms", "--max-memory", &limit.to_string()]);
    Ok(command)
}

fn redis(program: &str, port: u16, limit: u64) -> Command {
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--maxmemory", &limit.to_string(), "--maxmemory-policy", "allkeys-lru"]);
    command
}

fn memcached(port: u16, limit: u64) -> Command {
    let mut command = Command::new("memcached");
    command.args(["-p", &port.to_string(), "-l", "127.0.0.1", "-t", "1", "-u", "nobody"]);
    command.args(["-m", &(limit >> 20).to_string(), "-I", "4m"]);
    command
}
