//! Names and addresses of the cluster's parts. They are fixed: one such cluster fits on a machine.

/// One node: its addresses are `10.244.<index>.0/24`, and the first of them is the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// From one; zero is the control plane's network.
    index: u8,
    /// Value of the node's `topology.kubernetes.io/zone` label.
    pub zone: &'static str,
}

/// The cluster's nodes.
pub const NODES: [Node; 3] = [Node { index: 1, zone: "a" }, Node { index: 2, zone: "b" }, Node { index: 3, zone: "c" }];

/// Holds every pod and node address, and the control plane's.
pub const POD_RANGE: &str = "10.244.0.0/16";
/// Holds every Service's cluster address.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The cluster address of Service `default/kubernetes`: the first of the range, by Kubernetes' own rule.
pub const KUBERNETES_SERVICE: &str = "10.96.0.1";
/// The cluster address of Service `kube-system/kube-dns`.
pub const DNS_SERVICE: &str = "10.96.0.10";
/// Domain of all Service names.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// An address of this machine that only this machine and its pods can reach. The API server and its companions listen
/// there, so that their usual ports are free whatever else the machine runs.
pub const CONTROL_PLANE: &str = "10.244.0.1";
/// A bridge without ports, which only carries [`CONTROL_PLANE`].
pub const CONTROL_PLANE_BRIDGE: &str = "mizuya-cp";
/// Start of the name of every link we make.
pub const LINK_PREFIX: &str = "mizuya-";

impl Node {
    /// The node whose Kubernetes name is `name`.
    pub fn named(name: &str) -> Option<Self> {
        NODES.into_iter().find(|node| node.name() == name)
    }

    /// The node's Kubernetes name.
    pub fn name(self) -> String {
        format!("node-{}", self.index)
    }

    /// The bridge of the node's pods.
    pub fn bridge(self) -> String {
        format!("{LINK_PREFIX}n{}", self.index)
    }

    /// The node's own address, which is its bridge's, and its pods' gateway.
    pub fn address(self) -> String {
        format!("10.244.{}.1", self.index)
    }

    /// The addresses of the node's pods.
    pub fn pod_range(self) -> String {
        format!("10.244.{}.0/24", self.index)
    }
}
