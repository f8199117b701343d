//! The program that pods run.

use std::process::ExitCode;

use clap::Parser;
use mizuya_node::io::{arguments::Arguments, program};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match program::run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mizuya-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}
