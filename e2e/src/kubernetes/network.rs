//! The links between pods, nodes and the machine: one bridge a node.

use super::topology::{CONTROL_PLANE, CONTROL_PLANE_BRIDGE, LINK_PREFIX, NODES};
use super::{before, firewall, tool};
use anyhow::Result;
use std::fs;
use std::process::Command;

const LINKS: &str = "/sys/class/net";

/// Makes the bridges and lets the machine route between them.
pub fn prepare() -> Result<()> {
    // Two pods of one node speak through their bridge. Without this, the answer to a packet that was sent to a Service's
    // address would not be translated back there. Where bridges can't do it yet, the module teaches them.
    if !std::path::Path::new("/proc/sys/net/bridge").exists() {
        tool::run(Command::new("modprobe").arg("br_netfilter"))?;
    }
    before::set("net/bridge/bridge-nf-call-iptables", "1")?;
    before::set("net/ipv4/ip_forward", "1")?;
    add_bridge(CONTROL_PLANE_BRIDGE, CONTROL_PLANE)?;
    for node in NODES {
        add_bridge(&node.bridge(), &node.address())?;
    }
    firewall::prepare()
}

/// Our links that are there.
pub fn links() -> Vec<String> {
    let names = fs::read_dir(LINKS).into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(LINK_PREFIX))
        .collect()
}

/// Removes our links and what hangs on them.
pub fn remove() -> Result<()> {
    for bridge in links() {
        let ports = fs::read_dir(format!("{LINKS}/{bridge}/brif")).into_iter().flatten().flatten();
        for port in ports {
            // A pod's end may vanish with its namespace at this very moment.
            let _ = tool::run(Command::new("ip").args(["link", "delete"]).arg(port.file_name()));
        }
        tool::run(Command::new("ip").args(["link", "delete", &bridge]))?;
    }
    Ok(())
}

fn add_bridge(name: &str, address: &str) -> Result<()> {
    // Left alone, a bridge takes its ports' lowest hardware address, and changes it while pods come and go.
    let hardware = hardware_address(address);
    tool::run(Command::new("ip").args(["link", "add", name, "address", &hardware, "type", "bridge"]))?;
    tool::run(Command::new("ip").args(["address", "add", &format!("{address}/24"), "dev", name]))?;
    tool::run(Command::new("ip").args(["link", "set", name, "up"]))
}

/// A locally administered hardware address that ends in the given one.
fn hardware_address(address: &str) -> String {
    let octets = address.split('.').filter_map(|octet| octet.parse::<u8>().ok());
    octets.fold("0a:58".to_owned(), |text, octet| format!("{text}:{octet:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_ends_in_the_address() {
        assert_eq!(hardware_address("10.244.3.1"), "0a:58:0a:f4:03:01");
    }
}
