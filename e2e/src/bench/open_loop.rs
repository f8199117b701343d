//! How long answers take at a fixed rate, which goes on whatever they take: each request counts from when it was due, also
//! while it waits for a connection that is idle. One thread sends and receives all of them and never sleeps.

use super::clients::Clients;
use super::report::{Cell, Goal, Row, WAIT, short};
use super::server::{Kind, Server};
use super::work::{Request, Work};
use super::{Options, pin};
use anyhow::{Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Requests a second.
pub(super) const RATES: [u64; 2] = [2_000, 20_000];
/// Of ten requests one writes.
const WRITES: (u32, u32) = (1, 10);
/// A measurement lasts so many times as long as others: there must be enough writes for a 99th percentile.
const LONGER: u32 = 4;
/// Share of a measurement before what counts.
const WARM_UP: u32 = 8;
/// How long after the last request answers may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What is said of a rate's rows.
pub(super) fn name(rate: u64) -> String {
    format!("open loop, {rate} op/s")
}

/// In microseconds.
#[derive(Default)]
struct Waits {
    /// From when a read was due to its answer.
    reads: Vec<f64>,
    /// The same for writes.
    writes: Vec<f64>,
    /// From when a request was due until it was sent.
    sending: Vec<f64>,
}

struct Connection {
    stream: TcpStream,
    /// Bytes of the answer that have not come.
    missing: usize,
    due: Instant,
    writes: bool,
}

/// Measures a cluster of ours, these `pods` or else processes on the servers' core, beside one server of each other kind.
pub(super) async fn measure(
    options: &Options,
    kinds: &[Kind],
    rate: u64,
    (core, clients): (usize, usize),
    pods: Option<&[SocketAddr]>,
) -> Result<Vec<Row>> {
    pin(Pid::from_raw(0), &[clients])?;
    let (work, mut servers) = (Work::open_loop(), Vec::new());
    for kind in kinds.iter().filter(|kind| matches!(kind, Kind::Mizuya | Kind::Redis | Kind::Valkey)) {
        let figures: [Vec<f64>; 4] = std::array::from_fn(|_| Vec::new());
        servers.push((*kind, figures));
    }
    for round in 0..options.rounds {
        for (kind, figures) in &mut servers {
            // Processes are alone: one that only waits disturbs the other's 99th percentile. Pods stay.
            let server = match pods {
                Some(_) if *kind == Kind::Mizuya => None,
                Some(_) => Some(Server::start(*kind, &options.node, &work, &[core, clients]).await?),
                None => Some(Server::start(*kind, &options.node, &work, &[core]).await?),
            };
            let addresses = server.as_ref().map_or(pods.unwrap_or_default(), |server| &server.addresses);
            Clients::connect(addresses, *kind, &work).await?.fill().await?;
            let mut callers = Callers::connect(addresses, &work)?;
            let Waits { mut reads, mut writes, mut sending } =
                callers.call(rate, options.lasting * LONGER, round as u64)?;
            eprintln!("  {kind}: of 100 requests 99 were sent within {} µs", short(percentile(&mut sending, 99)));
            for (at, figure) in figures.iter_mut().enumerate() {
                let waits = if at < 2 { &mut reads } else { &mut writes };
                figure.push(percentile(waits, [50, 99][at % 2]));
            }
        }
    }
    // A hop more than one server has, and for a write two.
    let rows = [("GET P50", None), ("GET P99", Some(3.0)), ("SET P50", None), ("SET P99", Some(4.0))];
    let row = |(at, (what, times)): (usize, (&str, Option<f64>))| Row {
        name: format!("{}, {what}", name(rate)),
        unit: WAIT,
        goal: times.map(|times| Goal::Ratio(1.0 / times)),
        curve: None,
        cells: servers.iter().map(|(kind, figures)| Cell::new(*kind, figures[at].clone())).collect(),
    };
    Ok(rows.into_iter().enumerate().map(row).collect())
}

fn percentile(waits: &mut [f64], percent: usize) -> f64 {
    waits.sort_by(f64::total_cmp);
    waits.get(waits.len() * percent / 100).copied().unwrap_or(f64::NAN)
}

/// Connections to one server, spread over its nodes.
struct Callers {
    work: Work,
    poll: Poll,
    connections: Vec<Connection>,
}

impl Callers {
    fn connect(addresses: &[SocketAddr], work: &Work) -> Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::new();
        for (at, address) in addresses.iter().cycle().take(work.connections).enumerate() {
            let stream = std::net::TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(at), Interest::READABLE)?;
            connections.push(Connection { stream, missing: 0, due: Instant::now(), writes: false });
        }
        Ok(Self { work: work.clone(), poll, connections })
    }

    fn call(&mut self, rate: u64, lasting: Duration, seed: u64) -> Result<Waits> {
        let (mut events, mut random) = (Events::with_capacity(256), SmallRng::seed_from_u64(seed));
        let (mut idle, mut waits) = ((0..self.connections.len()).collect::<Vec<_>>(), Waits::default());
        let (began, every) = (Instant::now(), Duration::from_secs(1) / rate as u32);
        let total = (lasting.as_nanos() / every.as_nanos()) as u32;
        let (counts, mut next) = (began + lasting / WARM_UP, 0);
        while next < total || idle.len() < self.connections.len() {
            let now = Instant::now();
            ensure!(now < began + lasting + LIMIT, "answers are missing {} s after the last request", LIMIT.as_secs());
            while next < total && now >= began + every * next && !idle.is_empty() {
                // Any idle one, so that every node gets its part.
                let at = idle.swap_remove(random.random_range(0..idle.len()));
                let writes = random.random_ratio(WRITES.0, WRITES.1);
                let due = began + every * next;
                self.send(at, due, writes, &mut random)?;
                if due >= counts {
                    waits.sending.push((now - due).as_nanos() as f64 / 1_000.0);
                }
                next += 1;
            }
            self.poll.poll(&mut events, Some(Duration::ZERO))?;
            for event in &events {
                let connection = &mut self.connections[event.token().0];
                // What came in two parts may be told twice.
                if connection.missing > 0 && connection.is_answered()? {
                    idle.push(event.token().0);
                    let waits = if connection.writes { &mut waits.writes } else { &mut waits.reads };
                    if connection.due >= counts {
                        waits.push(connection.due.elapsed().as_nanos() as f64 / 1_000.0);
                    }
                }
            }
        }
        Ok(waits)
    }

    fn send(&mut self, at: usize, due: Instant, writes: bool, random: &mut SmallRng) -> Result<()> {
        let connection = &mut self.connections[at];
        let (mut bytes, request) = (Vec::new(), if writes { Request::Set } else { Request::Get });
        let mut any = || self.work.keys.at(random.random_range(0..self.work.keys.count()));
        connection.missing = self.work.write(Kind::Redis, request, &mut any, &mut bytes);
        (connection.due, connection.writes) = (due, writes);
        // An idle connection has room for a request.
        Ok(connection.stream.write_all(&bytes)?)
    }
}

impl Connection {
    /// Reads what has come, and tells whether it is the whole answer.
    fn is_answered(&mut self) -> Result<bool> {
        let mut buffer = [0; 512];
        while self.missing > 0 {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(count) => {
                    let fits = count <= self.missing && !buffer.starts_with(b"-");
                    ensure!(fits, "an unexpected answer: {}", String::from_utf8_lossy(&buffer[..count]));
                    self.missing -= count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
