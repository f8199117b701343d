//! Our node beside Redis, Valkey and memcached, in one interleaved run: server CPU for each operation, how long answers
//! take at a fixed rate, and memory.
//!
//! Unless ours are pods, each server is alone on one core and the clients on another, so that what is compared is the
//! server's own time (`schedstat`), which other work on the machine disturbs less than it disturbs throughput. Servers
//! take turns within each round, so that slow changes of the machine meet all of them.

mod clients;
mod floor;
mod open_loop;
mod pair;
mod plot;
mod pods;
mod report;
mod server;
mod work;

use self::clients::Clients;
pub use self::floor::Floor;
use self::report::{BYTES, CPU, Cell, Row};
use self::server::{Kind, Server};
use self::work::Work;
use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// What to measure, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Our program.
    pub node: PathBuf,
    /// Rounds: each measures every server once for each kind of work.
    pub rounds: usize,
    /// How long one measurement lasts.
    pub lasting: Duration,
    /// Only kinds of work whose name contains this.
    pub only: Option<String>,
    /// Entries for the measurement of memory; 0: it is left out.
    pub entries: u64,
    /// Print one JSON object instead of a table.
    pub json: bool,
    /// Where to write a picture of the CPU of each server.
    pub plot: Option<PathBuf>,
    /// Only how long answers take at a fixed rate, and ours are pods of the cluster that `$CLUSTER` names.
    pub pods: bool,
}

/// Entries of the measurements of memory that show how it grows.
const GROWTH: [u64; 4] = [10_000, 100_000, 1_000_000, 10_000_000];

/// Measures and prints.
pub async fn run(options: &Options) -> Result<()> {
    let (servers_core, clients_core) = two_cores()?;
    pin(Pid::from_raw(0), &[clients_core])?;
    let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.is_there()).collect();
    ensure!(kinds.len() > 1, "nothing to compare with: `apt-get install redis-server memcached` has it");
    let cores = (servers_core, clients_core);
    let rows =
        if options.pods { pods::measure(options, &kinds, cores).await? } else { all(options, &kinds, cores).await? };
    if options.json {
        println!("{}", report::json(&rows)?);
    } else {
        println!("{}", report::table(&rows, &kinds));
    }
    if let Some(path) = &options.plot {
        let write = || {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, plot::svg(&rows))
        };
        write().with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// Everything that needs no cluster.
async fn all(options: &Options, kinds: &[Kind], cores: (usize, usize)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for work in Work::all().into_iter().filter(|work| options.wants(&work.name)) {
        rows.push(measure(options, kinds, &work, cores).await?);
    }
    if options.wants(pair::ROWS[0]) {
        rows.push(pair::replication(options, cores).await?);
    }
    if options.wants(pair::ROWS[1]) {
        rows.push(pair::forwarding(options, cores).await?);
    }
    for rate in open_loop::RATES.into_iter().filter(|rate| options.wants(&open_loop::name(*rate))) {
        rows.extend(open_loop::measure(options, kinds, rate, cores, None).await?);
    }
    if options.entries > 0 && options.wants("memory") {
        rows.push(memory(options.entries, options, kinds, cores.0).await?);
        for entries in GROWTH {
            rows.push(memory(entries, options, &[Kind::Mizuya], cores.0).await?);
        }
    }
    Ok(rows)
}

impl Options {
    /// Says it, too.
    fn wants(&self, name: &str) -> bool {
        let wants = self.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
        if wants {
            eprintln!("{name}");
        }
        wants
    }
}

async fn measure(options: &Options, kinds: &[Kind], work: &Work, (core, clients): (usize, usize)) -> Result<Row> {
    let both = [core, clients];
    let (cores, clients) = if work.two_cores { (&both[..], &both[..]) } else { (&both[..1], &both[1..]) };
    pin(Pid::from_raw(0), clients)?;
    let mut servers = Vec::new();
    for kind in kinds.iter().filter(|kind| work.suits(**kind)) {
        let server = Server::start(*kind, &options.node, work, cores).await?;
        let clients = Clients::connect(&server.addresses, *kind, work).await?;
        if *kind != Kind::Floor {
            clients.fill().await.with_context(|| format!("can't fill {kind}"))?;
        }
        servers.push((*kind, server, clients, Vec::new()));
    }
    for _ in 0..options.rounds {
        for (_, server, clients, costs) in &mut servers {
            costs.push(cost(options, clients, || server.cpu()).await?);
        }
    }
    let cells = servers.into_iter().map(|(kind, _, _, costs)| Cell::new(kind, costs)).collect();
    Ok(Row { name: work.name.clone(), unit: CPU, goal: work.goal, curve: work.curve(), cells })
}

/// Microseconds of CPU for each operation, while clients work for a time.
async fn cost(options: &Options, clients: &Clients, cpu: impl Fn() -> Result<Duration>) -> Result<f64> {
    let before = cpu()?;
    let done = clients.work_for(options.lasting).await?;
    Ok(cpu()?.saturating_sub(before).as_nanos() as f64 / done as f64 / 1_000.0)
}

/// Bytes of resident memory for each entry, beside its key and value.
async fn memory(entries: u64, options: &Options, kinds: &[Kind], core: usize) -> Result<Row> {
    let work = Work::memory(entries);
    let mut cells = Vec::new();
    for kind in kinds.iter().filter(|kind| work.suits(**kind)) {
        let server = Server::start(*kind, &options.node, &work, &[core]).await?;
        let clients = Clients::connect(&server.addresses, *kind, &work).await?;
        let before = server.memory()?;
        clients.fill().await?;
        let payload = entries * work::ENTRY_BYTES;
        let beside = (server.memory()? - before).saturating_sub(payload) as f64 / entries as f64;
        cells.push(Cell::new(*kind, vec![beside]));
    }
    let curve = Some(("memory by entries".to_owned(), entries as f64));
    Ok(Row { name: format!("memory, {entries} entries"), unit: BYTES, goal: None, curve, cells })
}

/// One core for the server and one for the clients.
fn two_cores() -> Result<(usize, usize)> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
    let first = cores.next().context("no core is allowed")?;
    Ok((first, cores.next().context("this needs two cores: one for the server, one for the clients")?))
}

/// Binds a process to these cores.
fn pin(process: Pid, cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    cores.iter().try_for_each(|core| set.set(*core))?;
    sched_setaffinity(process, &set).with_context(|| format!("can't use the cores {cores:?}"))
}
