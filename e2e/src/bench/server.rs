//! One server, bound to its cores: a process, or several where it is a cluster.

use super::pin;
use super::work::{self, Keys, Work};
use crate::load::connection::{Connection, Reply};
use crate::testbed::wait;
use anyhow::{Context, Result, bail, ensure};
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use redis_protocol::redis_keyslot;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// How long a server may take to accept.
const START_LIMIT: Duration = Duration::from_secs(20);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Ours.
    Mizuya,
    /// What the kernel alone takes.
    Floor,
    /// Ours, with one thread where it may use two cores.
    OneThread,
    /// Debian's.
    Redis,
    /// Debian's, where there is one.
    Valkey,
    /// Debian's.
    Memcached,
}

impl Kind {
    /// In the order of the table.
    pub(super) const ALL: [Self; 6] =
        [Self::Mizuya, Self::Redis, Self::Valkey, Self::Memcached, Self::Floor, Self::OneThread];

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
            Self::Mizuya | Self::Floor | Self::OneThread => true,
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
            Self::Floor => "floor",
            Self::OneThread => "mizuya, 1 thread",
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Memcached => "memcached",
        })
    }
}

/// A server that runs; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    /// One for each node.
    processes: Vec<Child>,
    /// Where they listen.
    pub(super) addresses: Vec<SocketAddr>,
    /// What nodes of a cluster know each other by.
    _secrets: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Server {
    /// Starts one that suits this kind of work, on these cores.
    pub(super) async fn start(kind: Kind, node: &Path, work: &Work, cores: &[usize]) -> Result<Self> {
        let (port, http) = (free_port()?, free_port()?);
        let nodes = if kind == Kind::Mizuya { work.nodes } else { 1 };
        let addresses: Vec<SocketAddr> =
            (1..=nodes as u8).map(|node| SocketAddr::from((Ipv4Addr::new(127, 0, 0, node), port))).collect();
        let secrets = if nodes > 1 { Some(secrets(node, &addresses)?) } else { None };
        let commands: Vec<Command> = match kind {
            Kind::Mizuya | Kind::OneThread => {
                let command = |address: &SocketAddr| mizuya(node, *address, http, work.limit);
                match &secrets {
                    None => addresses.iter().map(|address| alone(command(address))).collect(),
                    Some(secrets) => {
                        let member = |address| member(command(address), &addresses, secrets.path(), work.copies);
                        addresses.iter().map(member).collect()
                    }
                }
            }
            Kind::Redis => vec![redis("redis-server", port, work.limit)],
            Kind::Valkey => vec![redis("valkey-server", port, work.limit)],
            Kind::Memcached => vec![memcached(port, work.limit)],
            Kind::Floor => vec![floor(addresses[0], work.batch_bytes(kind))?],
        };
        // What starts takes its number of threads from the cores that it may use.
        let ours = sched_getaffinity(Pid::from_raw(0))?;
        pin(Pid::from_raw(0), cores)?;
        let mut server = Self { processes: Vec::new(), addresses, _secrets: secrets };
        for mut command in commands {
            if kind == Kind::OneThread {
                command.args(["--threads", "1"]);
            }
            let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            server.processes.push(process.with_context(|| format!("can't start {kind}"))?);
        }
        sched_setaffinity(Pid::from_raw(0), &ours)?;
        for address in &server.addresses {
            let look = async || Ok(answers(kind, *address).await.then_some(()));
            wait::by_asking(&format!("{kind} to answer at {address}"), START_LIMIT, look).await?;
        }
        Ok(server)
    }

    /// Time that all of its threads were on a core.
    pub(super) fn cpu(&self) -> Result<Duration> {
        (0..self.processes.len()).map(|node| self.cpu_of(node)).sum()
    }

    /// Time that the threads of one node were on a core.
    pub(super) fn cpu_of(&self, node: usize) -> Result<Duration> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.processes[node].id()))?.flatten() {
            let figures = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            sum += figures.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Of these keys those whose primary is this node, as `CLUSTER SLOTS` says.
    pub(super) async fn keys_of(&self, node: usize, keys: &Keys) -> Result<Keys> {
        let name = self.addresses[node].ip().to_string();
        let Reply::Array(rows) = Connection::open(self.addresses[node]).await?.ask(&["CLUSTER", "SLOTS"]).await? else {
            bail!("CLUSTER SLOTS gave no array");
        };
        let own: Vec<RangeInclusive<i64>> = rows.iter().filter_map(|row| slots_of(row, &name)).collect();
        let is_own = |number: &u64| {
            let slot = redis_keyslot(&work::key(*number)).into();
            own.iter().any(|slots| slots.contains(&slot))
        };
        let chosen: Vec<u64> = (0..keys.count()).map(|place| keys.at(place)).filter(is_own).collect();
        ensure!(!chosen.is_empty(), "{name} is the primary of no key");
        Ok(Keys::Chosen(chosen.into()))
    }

    /// Resident bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        let mut sum = 0;
        for process in &self.processes {
            let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
            sum += line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024;
        }
        Ok(sum)
    }
}

/// The slots of one row of `CLUSTER SLOTS`, if its first node has this name.
fn slots_of(row: &Reply, name: &str) -> Option<RangeInclusive<i64>> {
    let Reply::Array(row) = row else { return None };
    let [Reply::Integer(first), Reply::Integer(last), Reply::Array(primary), ..] = row.as_slice() else { return None };
    let Some(Reply::BulkString(found)) = primary.first() else { return None };
    (found.as_ref() == name.as_bytes()).then_some(*first..=*last)
}

async fn answers(kind: Kind, address: SocketAddr) -> bool {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (ask, expected): (&[u8], &[u8]) =
        if kind.is_resp() { (b"SET ready 1\r\n", b"+OK") } else { (b"version\r\n", b"VER") };
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    if kind == Kind::Floor {
        return true;
    }
    let mut answer = [0; 3];
    stream.write_all(ask).await.is_ok() && stream.read_exact(&mut answer).await.is_ok() && answer == expected
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

/// The whole node. Its name is its address.
fn mizuya(node: &Path, address: SocketAddr, http: u16, limit: u64) -> Command {
    let mut command = Command::new(node);
    command.args(["--mode", "ha", "--name", &address.ip().to_string(), "--log", "error"]);
    command.args(["--bind-addr", &address.to_string(), "--http-addr", &format!("{}:{http}", address.ip())]);
    command.args(["--max-memory", &limit.to_string()]);
    command
}

/// A cluster of one with its table, one copy.
fn alone(mut command: Command) -> Command {
    command.args(["--insecure", "--replica-count", "1", "--bootstrap-timeout", "100ms"]);
    command
}

/// One of several, as in production: streams and gossip encrypted.
fn member(mut command: Command, addresses: &[SocketAddr], secrets: &Path, copies: usize) -> Command {
    command.args(["--replica-count", &copies.to_string(), "--security-dir"]).arg(secrets);
    for address in addresses {
        command.args(["--peer", &format!("{}:{}", address.ip(), address.port() + 2)]);
    }
    command
}

fn secrets(node: &Path, addresses: &[SocketAddr]) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new(node);
    command.arg("init-secrets");
    for address in addresses {
        command.args(["--name", &address.ip().to_string()]);
    }
    let made = command.arg(folder.path()).stdout(Stdio::null()).status().context("can't make certificates")?;
    ensure!(made.success(), "can't make certificates: {made}");
    Ok(folder)
}

fn redis(program: &str, port: u16, limit: u64) -> Command {
    let mut command = Command::new(program);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.args(["--maxmemory", &limit.to_string(), "--maxmemory-policy", "allkeys-lru"]);
    command
}

fn floor(address: SocketAddr, (requests, answers): (usize, usize)) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("this program has a path")?);
    command.args(["floor", "--address", &address.to_string()]);
    command.args(["--requests", &requests.to_string(), "--answers", &answers.to_string()]);
    Ok(command)
}

fn memcached(port: u16, limit: u64) -> Command {
    let mut command = Command::new("memcached");
    command.args(["-p", &port.to_string(), "-l", "127.0.0.1", "-t", "1", "-u", "nobody"]);
    command.args(["-m", &(limit >> 20).to_string(), "-I", "4m"]);
    command
}
