//! kube-proxy, once for the machine: all nodes share one network namespace, so three would write the same rules thrice.
//! It bears the first node's name, so a Service with `internalTrafficPolicy: Local` is served by that node's pods alone.

use super::binaries::CORE;
use super::certificates::Authority;
use super::control_plane;
use super::daemon::Daemon;
use super::state::State;
use super::topology::{CONTROL_PLANE, NODES, POD_RANGE};
use anyhow::Result;
use serde_json::json;
use std::process::Command;

/// The daemon's name.
pub const NAME: &str = "kube-proxy";

/// Starts kube-proxy.
pub fn start(state: &State, authority: &Authority<'_>) -> Result<()> {
    let kubeconfig = control_plane::user(state, authority, NAME, "system:kube-proxy")?;
    let settings = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "bindAddress": CONTROL_PLANE,
        "healthzBindAddress": format!("{CONTROL_PLANE}:10256"),
        "metricsBindAddress": format!("{CONTROL_PLANE}:10249"),
        "hostnameOverride": NODES[0].name(),
        "clusterCIDR": POD_RANGE,
        "clientConnection": { "kubeconfig": kubeconfig },
        // Node ports answer on node addresses only, which nobody outside this machine can reach.
        "nodePortAddresses": [POD_RANGE],
        "iptables": { "localhostNodePorts": false },
        // The machine's own limits stay as they are.
        "conntrack": { "maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
    });
    let settings = state.write_json("kube-proxy.json", &settings)?;
    let mut proxy = Command::new(CORE.programs()?.join(NAME));
    proxy.arg("--config").arg(settings);
    Daemon::new(state, NAME).start(&proxy)
}
