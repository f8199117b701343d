//! The checked load by hand: `checked-load 10.96.0.12:3320 --verify 10.244.1.5:3320`.

use anyhow::Result;
use clap::Parser;
use mizuya_e2e::load::{Load, Options, Retries, connection};
use std::process::ExitCode;

/// Writes, deletes, expires and reads, remembers what was acknowledged, and checks at the end that the cache still
/// holds exactly that.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the cache listens.
    address: String,
    /// Number of changes to wait for.
    #[arg(long, default_value_t = 60_000)]
    writes: u64,
    /// Changes a second.
    #[arg(long, default_value_t = 2_400)]
    rate: u64,
    /// Number of keys.
    #[arg(long, default_value_t = 20_000)]
    keys: u32,
    /// Reconnect and try a failed command once more before it counts as an error.
    #[arg(long)]
    retry: bool,
    /// Addresses that every key is read through at the end. Absent: the address itself.
    #[arg(long, value_delimiter = ',')]
    verify: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let address = connection::resolve(&arguments.address).await?;
    let retries = if arguments.retry { Retries::Once } else { Retries::Off };
    let options = Options {
        writes_per_second: arguments.rate,
        keys: arguments.keys,
        prefix: format!("checked-load:{}:", std::process::id()),
        ..Options::new(address, retries)
    };
    let mut verify = Vec::new();
    for address in &arguments.verify {
        verify.push(connection::resolve(address).await?);
    }
    if verify.is_empty() {
        verify.push(address);
    }
    let mut load = Load::start(options).await?;
    load.go_on_for(arguments.writes).await?;
    let report = load.finish(&verify).await?;
    println!("{report}");
    for example in &report.examples {
        println!("  {example}");
    }
    Ok(if report.is_sound() && report.errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
