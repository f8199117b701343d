//! Whether the cluster is sound.

use super::daemon::Daemon;
use super::progress::wait_for;
use super::state::{State, boot_id};
use super::topology::NODES;
use super::{binaries, containerd, control_plane, dns, etcd, kubectl, kubelet, service_proxy};
use anyhow::{Result, bail};
use std::time::Duration;

/// Time for a sound cluster to answer while the machine is busy.
const LIMIT: Duration = Duration::from_secs(15);
const MADE_OF: &str = "made-of";

/// The names of all background processes.
pub fn daemons() -> Vec<String> {
    let control_plane = [
        etcd::NAME,
        control_plane::API_SERVER,
        control_plane::CONTROLLERS,
        control_plane::SCHEDULER,
        service_proxy::NAME,
    ];
    let nodes = NODES.into_iter().flat_map(|node| [containerd::name(node), kubelet::name(node)]);
    control_plane.into_iter().map(str::to_owned).chain(nodes).collect()
}

/// Notes that the cluster was made to its end, and of what.
pub fn note_complete(state: &State) -> Result<()> {
    state.write(MADE_OF, &made_of()?).map(drop)
}

/// Fails with the reason when something of the cluster is missing or not well.
pub fn check(state: &State) -> Result<()> {
    let Ok(noted) = std::fs::read_to_string(state.path(MADE_OF)) else {
        bail!("it was never completed");
    };
    if noted != made_of()? {
        bail!("it was made before a reboot, or of other versions");
    }
    daemons_run(state)?;
    wait_for("nodes and DNS to be ready", LIMIT, || {
        let ready = not_ready_nodes(state).is_ok_and(|nodes| nodes.is_empty());
        Ok((ready && dns::ready(state).is_ok_and(|pods| pods > 0)).then_some(()))
    })
}

/// Fails with the end of its log when a daemon has ended.
pub fn daemons_run(state: &State) -> Result<()> {
    daemons().iter().try_for_each(|name| Daemon::new(state, name).check())
}

/// The nodes that are not ready, or not known yet.
pub fn not_ready_nodes(state: &State) -> Result<Vec<String>> {
    let columns = "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type==\"Ready\")].status} {end}";
    let ready = kubectl::output(state, &["get", "nodes", "-o", columns])?;
    let is_ready = |name: &String| ready.split(' ').any(|one| one.strip_suffix("=True") == Some(name));
    Ok(NODES.into_iter().map(super::topology::Node::name).filter(|name| !is_ready(name)).collect())
}

fn made_of() -> Result<String> {
    let mut parts = vec![boot_id()?];
    for module in [binaries::CORE, binaries::COREDNS, binaries::PAUSE] {
        parts.push(module.programs()?.display().to_string());
    }
    Ok(parts.join("\n"))
}
