//! A network that fails: packets vanish, both ways and without a word, those of open connections included.

use super::firewall::{LOST_CHAIN, PARTITION_CHAIN, change};
use super::topology::Node;
use anyhow::Result;
use std::net::Ipv4Addr;

/// Keeps two pod addresses apart.
pub fn split(one: Ipv4Addr, other: Ipv4Addr) -> Result<()> {
    for (from, to) in [(one, other), (other, one)] {
        change(&["-A", PARTITION_CHAIN, "-s", &from.to_string(), "-d", &to.to_string(), "-j", "DROP"])?;
    }
    Ok(())
}

/// Brings all pods together again.
pub fn heal() -> Result<()> {
    change(&["-F", PARTITION_CHAIN])
}

/// Cuts a lost node's pods off. Their addresses would otherwise still refuse connections, as those of a dead machine
/// don't.
pub fn silence(node: Node) -> Result<()> {
    let range = node.pod_range();
    change(&["-A", LOST_CHAIN, "-s", &range, "-j", "DROP"])?;
    change(&["-A", LOST_CHAIN, "-d", &range, "-j", "DROP"])
}

/// Undoes [`silence`], however often it was done.
pub fn unsilence(node: Node) {
    let range = node.pod_range();
    for side in ["-s", "-d"] {
        while change(&["-D", LOST_CHAIN, side, &range, "-j", "DROP"]).is_ok() {}
    }
}
