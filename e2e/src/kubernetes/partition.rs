//! A network that is split: packets between two pods vanish, both ways, open connections included.

use super::firewall::PARTITION_CHAIN;
use super::tool;
use anyhow::Result;
use std::net::Ipv4Addr;
use std::process::Command;

/// Keeps two pod addresses apart.
pub fn split(one: Ipv4Addr, other: Ipv4Addr) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        rule(&["-A", PARTITION_CHAIN, "-s", &from.to_string(), "-d", &to.to_string(), "-j", "DROP"])?;
    }
    Ok(())
}

/// Brings all together again.
pub fn heal() -> Result<()> {
    rule(&["-F", PARTITION_CHAIN])
}

fn rule(arguments: &[&str]) -> Result<()> {
    tool::run(Command::new("iptables").args(["--wait", "--table", "mangle"]).args(arguments))
}
