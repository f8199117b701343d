//! A node's kubelet.

use super::binaries::CORE;
use super::certificates::{Authority, User};
use super::daemon::Daemon;
use super::state::State;
use super::topology::{CLUSTER_DOMAIN, DNS_SERVICE, Node};
use super::{cgroup, containerd, kubeconfig};
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The daemon's name.
pub fn name(node: Node) -> String {
    format!("{}-kubelet", node.name())
}

/// Makes the kubelet's identity and settings.
pub fn prepare(state: &State, node: Node, authority: &Authority<'_>) -> Result<()> {
    let user = format!("system:node:{}", node.name());
    let identity = authority.client(&name(node), User { name: &user, group: Some("system:nodes") })?;
    kubeconfig::write(state, &kubeconfig_file(node), &authority.files.certificate, &identity)?;
    let settings = settings(state, node, &authority.files.certificate)?;
    state.write_json(&settings_file(node), &settings).map(drop)
}

/// Starts the kubelet that [`prepare`] made ready.
pub fn start(state: &State, node: Node) -> Result<()> {
    cgroup::prepare(node)?;
    let mut kubelet = Command::new(CORE.programs()?.join("kubelet"));
    kubelet
        .arg("--config")
        .arg(state.path(&settings_file(node)))
        .arg("--kubeconfig")
        .arg(state.path(&kubeconfig_file(node)))
        .arg("--root-dir")
        .arg(state.node_folder(node, "kubelet")?)
        .arg("--cert-dir")
        .arg(state.node_folder(node, "kubelet/pki")?)
        .args([
            format!("--hostname-override={}", node.name()),
            format!("--node-ip={}", node.address()),
            format!("--node-labels=topology.kubernetes.io/zone={}", node.zone),
        ]);
    Daemon::new(state, name(node)).start(&kubelet)
}

fn kubeconfig_file(node: Node) -> String {
    format!("kubeconfigs/{}", name(node))
}

fn settings_file(node: Node) -> String {
    format!("{}/kubelet.json", node.name())
}

fn settings(state: &State, node: Node, authority: &Path) -> Result<Value> {
    // Pods get this file's content beside the cluster's own: nothing of the machine's shall reach them.
    let resolver = state.write("resolv.conf", "")?;
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Every kubelet has its usual ports, because each listens on its node's own address.
        "address": node.address(),
        "healthzBindAddress": node.address(),
        "authentication": { "anonymous": { "enabled": false }, "x509": { "clientCAFile": authority } },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": resolver,
        "containerRuntimeEndpoint": format!("unix://{}", containerd::socket(state, node).display()),
        "podLogsDir": state.node_folder(node, "pod-logs")?,
        "volumePluginDir": state.node_folder(node, "volume-plugins")?,
        "cgroupDriver": "cgroupfs",
        // Else kubelets would take each other's pods for orphans.
        "cgroupRoot": cgroup::of_node(node),
        // The nodes share one machine: none may claim or guard all of it.
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "evictionHard": {},
        "oomScoreAdj": 0,
        // What was loaded can't be pulled again, so it is never collected.
        "imageGCHighThresholdPercent": 100,
        "maxPods": 110,
        // Tests start many pods at once.
        "serializeImagePulls": false,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
    }))
}
