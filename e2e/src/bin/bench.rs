//! Our node beside other servers: `bench --rounds 7`.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use mizuya_e2e::bench::{self, Floor, Options};
use std::path::PathBuf;
use std::time::Duration;

/// Measures the CPU that our node, Redis, Valkey and memcached need for each operation, how long answers take at a fixed
/// rate, and memory, interleaved, and prints them side by side. Servers that the machine lacks are left out.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each server is measured for each kind of work; the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long one measurement lasts, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    millis: u64,
    /// Only kinds of work whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Entries for the measurement of memory; 0 leaves it out.
    #[arg(long, default_value_t = 5_000_000)]
    entries: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Also draw the CPU of each server into this SVG file.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// Only how long answers take at a fixed rate, from three pods of the Kubernetes that $CLUSTER names.
    #[arg(long)]
    pods: bool,
    /// Our program [default: the one beside this].
    #[arg(long)]
    node: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One of the servers: it understands nothing, so it takes what the kernel takes.
    #[command(hide = true)]
    Floor(Floor),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Floor(floor)) = arguments.command {
        return floor.serve();
    }
    let beside = || {
        let own = std::env::current_exe().context("this program has a path")?;
        Ok::<_, anyhow::Error>(own.with_file_name("mizuya-node"))
    };
    let options = Options {
        node: arguments.node.map_or_else(beside, Ok)?,
        rounds: arguments.rounds.max(1),
        lasting: Duration::from_millis(arguments.millis),
        only: arguments.only,
        entries: arguments.entries,
        json: arguments.json,
        plot: arguments.plot,
        pods: arguments.pods,
    };
    bench::run(&options).await
}
