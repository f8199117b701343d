//! Entry of the operator.

use clap::Parser;
use mizuya_operator::io::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    cli::main(cli::Arguments::parse())
}
