//! Attacks a cache on the local Kubernetes and checks what it holds: `chaos --minutes 10`.

use anyhow::Result;
use clap::Parser;
use mizuya_e2e::chaos;
use std::time::Duration;

/// Kills, pauses, cuts off, loses, rolls and scales the nodes of a cache under a checked load, and prints what was tried,
/// what was lost, and for how long nothing could be written.
#[derive(Debug, Parser)]
struct Arguments {
    /// For how long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Start of the choices [default: any].
    #[arg(long)]
    seed: Option<u64>,
    /// Only faults whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(chaos::any_seed);
    chaos::run(Duration::from_mins(arguments.minutes), seed, arguments.only.as_deref().unwrap_or_default()).await
}
