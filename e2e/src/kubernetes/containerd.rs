//! A node's containerd: its own root, state and socket, and its own bridge.

use super::daemon::Daemon;
use super::packages::CNI_PLUGINS;
use super::progress::wait_for;
use super::state::State;
use super::tool;
use super::topology::Node;
use anyhow::Result;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const READY_LIMIT: Duration = Duration::from_secs(30);
/// The image that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "localhost/mizuya/pause:1";

/// The daemon's name.
pub fn name(node: Node) -> String {
    format!("{}-containerd", node.name())
}

/// Where kubelet and ctr find the node's containerd.
pub fn socket(state: &State, node: Node) -> PathBuf {
    state.path(&format!("{}/containerd.sock", node.name()))
}

/// Starts the node's containerd with what it kept, if anything.
pub fn start(state: &State, node: Node) -> Result<()> {
    write_network(state, node)?;
    let config = state.write(&format!("{}/containerd.toml", node.name()), &config(state, node)?)?;
    let mut containerd = Command::new("containerd");
    containerd.arg("--config").arg(config);
    Daemon::new(state, name(node)).start(&containerd)
}

/// Waits until the node's containerd answers.
pub fn wait_until_ready(state: &State, node: Node) -> Result<()> {
    let daemon = Daemon::new(state, name(node));
    wait_for(&format!("{} to answer", name(node)), READY_LIMIT, || {
        daemon.check()?;
        Ok(tool::output(ctr(state, node).arg("version")).ok())
    })
    .map(drop)
}

/// Imports an OCI archive, so that pods find its image.
pub fn import(state: &State, node: Node, archive: &Path) -> Result<()> {
    tool::run(ctr(state, node).args(["images", "import"]).arg(archive))
}

fn ctr(state: &State, node: Node) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(socket(state, node)).arg("--namespace=k8s.io");
    ctr
}

fn config(state: &State, node: Node) -> Result<String> {
    let root = state.node_folder(node, "images")?;
    let running = state.node_folder(node, "running")?;
    let runc = state.node_folder(node, "runc")?;
    let network = state.node_folder(node, "network")?;
    Ok(format!(
        r#"version = 2
root = '{root}'
state = '{running}'
# What a node doesn't use; the last one would make /opt/containerd.
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
  "io.containerd.internal.v1.opt",
]

[grpc]
address = '{socket}'

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Machines that are containers themselves may not lower a process's score.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = '{runc}'

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = '{network}'
"#,
        root = root.display(),
        running = running.display(),
        runc = runc.display(),
        network = network.display(),
        socket = socket(state, node).display(),
    ))
}

/// No address translation: pods see each other's real addresses, and have no way out of this machine.
fn write_network(state: &State, node: Node) -> Result<()> {
    let leases = state.node_folder(node, "addresses")?;
    let network = json!({
        "cniVersion": "1.0.0",
        "name": format!("mizuya-{}", node.name()),
        "plugins": [
            {
                "type": "bridge",
                "bridge": node.bridge(),
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": leases,
                    "ranges": [[{ "subnet": node.pod_range() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    state.write_json(&format!("{}/network/mizuya.conflist", node.name()), &network).map(drop)
}

/// The sockets of the node's shims, as each noted it in its bundle.
pub fn shim_sockets(state: &State, node: Node) -> Vec<PathBuf> {
    let bundles = state.path(&format!("{}/running/io.containerd.runtime.v2.task/k8s.io", node.name()));
    let bundles = std::fs::read_dir(bundles).into_iter().flatten().flatten();
    let addresses = bundles.filter_map(|bundle| std::fs::read_to_string(bundle.path().join("address")).ok());
    addresses.filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from)).collect()
}
