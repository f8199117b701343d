//! The demo, and the steps of it that tests need too.

use anyhow::Result;
use clap::{Parser, Subcommand};
use mizuya_e2e::demo;
use mizuya_e2e::testbed::{Testbed, operator};
use std::process::ExitCode;

/// Shows Mizuya on the Kubernetes that `CLUSTER` names.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Install the operator, make a cache, and show what it does.
    Show,
    /// Remove what `show` made.
    Remove,
    /// Only install the operator of this tree.
    Install,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Show => demo::show().await,
        Command::Remove => demo::remove().await,
        Command::Install => install().await,
    };
    let Err(error) = done else { return ExitCode::SUCCESS };
    for cause in error.chain() {
        eprintln!("{cause}");
    }
    ExitCode::FAILURE
}

async fn install() -> Result<()> {
    operator::install(&Testbed::connect().await?).await
}
