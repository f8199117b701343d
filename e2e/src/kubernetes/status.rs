//! The cluster at a glance.

use super::daemon::Daemon;
use super::state::State;
use super::topology::NODES;
use super::{dns, health};
use anyhow::Result;

/// Prints a table of the cluster's parts and returns whether all is well.
pub fn print(state: &State) -> Result<bool> {
    if !state.exists() {
        println!("no cluster (`up` makes one)");
        return Ok(false);
    }
    println!("{:<24} {:>8}  STATE", "PROCESS", "PID");
    for name in health::daemons() {
        let (pid, condition) = match Daemon::new(state, &name).pid() {
            Some(pid) => (pid.to_string(), "running"),
            None => ("-".to_owned(), "ended"),
        };
        println!("{name:<24} {pid:>8}  {condition}");
    }
    let not_ready = health::not_ready_nodes(state);
    println!("\n{:<10} {:<6} {:<12} {:<15} STATE", "NODE", "ZONE", "ADDRESS", "PODS");
    for node in NODES {
        let condition = match &not_ready {
            Err(_) => "unknown",
            Ok(names) if names.contains(&node.name()) => "not ready",
            Ok(_) => "ready",
        };
        println!("{:<10} {:<6} {:<12} {:<15} {condition}", node.name(), node.zone, node.address(), node.pod_range());
    }
    match dns::ready(state) {
        Ok(ready) => println!("\ncluster DNS: {ready} of {} pods ready", dns::REPLICAS),
        Err(_) => println!("\ncluster DNS: unknown"),
    }
    println!("kubeconfig:  {}", state.kubeconfig().display());
    println!("writes:      {}", state.audit_log().display());
    println!("logs:        {}", state.path("logs").display());
    Ok(match health::check(state) {
        Ok(()) => true,
        Err(reason) => {
            println!("not sound: {reason:#}");
            false
        }
    })
}
