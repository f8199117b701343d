//! A node as a whole, and the ways to lose it.

use super::daemon::{Daemon, kill_all, marked_with_argument};
use super::state::State;
use super::topology::{NODES, Node};
use super::{cgroup, containerd, kubelet, partition};
use anyhow::{Context, Result, bail};
use std::time::Duration;

const STOP_GRACE: Duration = Duration::from_secs(10);

/// The node that a user named.
pub fn named(name: &str) -> Result<Node> {
    let known = NODES.map(Node::name).join(", ");
    Node::named(name).with_context(|| format!("there is no node {name:?}; there are {known}"))
}

/// Ends the node's kubelet. Its pods go on, but nobody tells the cluster, restarts or probes them.
pub fn stop_kubelet(state: &State, node: Node) -> Result<()> {
    Daemon::new(state, kubelet::name(node)).stop(STOP_GRACE)
}

/// Starts the node's kubelet again.
pub fn start_kubelet(state: &State, node: Node) -> Result<()> {
    if !state.exists() {
        bail!("there is no cluster; `up` makes one");
    }
    kubelet::start(state, node)
}

/// Ends the node as a power failure does: nothing on it gets a signal that it could handle, and its addresses are silent.
pub fn kill(state: &State, node: Node) -> Result<()> {
    partition::silence(node)?;
    Daemon::new(state, kubelet::name(node)).kill()?;
    Daemon::new(state, containerd::name(node)).kill()?;
    // A shim is found by the argument that says whose it is.
    let socket = containerd::socket(state, node);
    kill_all(&marked_with_argument(state, &socket.display().to_string()))?;
    cgroup::kill_node(node)
}

/// Starts a killed node again. Its pods are gone; it makes new ones of those that are still to run there.
pub fn start(state: &State, node: Node) -> Result<()> {
    if !state.exists() {
        bail!("there is no cluster; `up` makes one");
    }
    partition::unsilence(node);
    containerd::start(state, node)?;
    containerd::wait_until_ready(state, node)?;
    kubelet::start(state, node)
}
