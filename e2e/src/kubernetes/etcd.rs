//! etcd, the API server's store.

use super::daemon::Daemon;
use super::state::State;
use anyhow::Result;
use std::process::Command;

/// The daemon's name.
pub const NAME: &str = "etcd";
/// Where the API server finds it: loopback only, because it asks nobody who they are, and not at etcd's usual port,
/// where another one may run.
pub const CLIENT_URL: &str = "http://127.0.0.1:23790";
const PEER_URL: &str = "http://127.0.0.1:23800";

/// Starts a new, empty etcd.
pub fn start(state: &State) -> Result<()> {
    let mut etcd = Command::new("etcd");
    etcd.arg("--data-dir").arg(state.folder("etcd")?).args([
        "--name=mizuya",
        &format!("--listen-client-urls={CLIENT_URL}"),
        &format!("--advertise-client-urls={CLIENT_URL}"),
        &format!("--listen-peer-urls={PEER_URL}"),
        &format!("--initial-advertise-peer-urls={PEER_URL}"),
        &format!("--initial-cluster=mizuya={PEER_URL}"),
        // The cluster doesn't outlive the machine, so its data need not either.
        "--unsafe-no-fsync",
        "--log-level=warn",
        "--logger=zap",
    ]);
    Daemon::new(state, NAME).start(&etcd)
}
