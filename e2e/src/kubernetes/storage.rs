//! Volumes on demand: the controllers make a folder on this machine for each claim.
//!
//! Such a volume can be used from every node. Only root and the user of our images can write to it.

use super::kubectl;
use super::state::State;
use anyhow::Result;
use serde_json::json;

/// Where Kubernetes' own provisioner of such volumes makes them; it can't be told another place.
pub const VOLUMES: &str = "/tmp/hostpath_pv";

/// Applies the default storage class.
pub fn apply(state: &State) -> Result<()> {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" },
        },
        "provisioner": "kubernetes.io/host-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    });
    kubectl::apply(state, &class.to_string())
}
