//! Cluster DNS: `CoreDNS` as a pod behind the Service that every pod asks.

use super::progress::wait_for;
use super::state::State;
use super::topology::{CLUSTER_DOMAIN, DNS_SERVICE};
use super::{health, kubectl};
use anyhow::Result;
use serde_json::json;
use std::time::Duration;

/// The image of `CoreDNS`.
pub const IMAGE: &str = "localhost/mizuya/coredns:1";
const READY_LIMIT: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "kube-system";
const NAME: &str = "coredns";
/// One survives the loss of a node.
pub const REPLICAS: u32 = 2;

/// Applies `CoreDNS`.
pub fn apply(state: &State) -> Result<()> {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        account(), role(), binding(), settings(), deployment(), service(),
    ]});
    kubectl::apply(state, &list.to_string())
}

/// Waits until all `CoreDNS` pods are ready.
pub fn wait_until_ready(state: &State) -> Result<()> {
    wait_for("cluster DNS to be ready", READY_LIMIT, || {
        health::daemons_run(state)?;
        Ok((ready(state)? == REPLICAS).then_some(()))
    })
}

/// How many `CoreDNS` pods are ready.
pub fn ready(state: &State) -> Result<u32> {
    let path = ["-n", NAMESPACE, "get", "deployment", NAME, "-o", "jsonpath={.status.readyReplicas}"];
    Ok(kubectl::output(state, &path)?.trim().parse().unwrap_or(0))
}

fn account() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
    })
}

fn role() -> serde_json::Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": "system:coredns" },
        "rules": [
            { "apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"] },
            { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"] },
        ],
    })
}

fn binding() -> serde_json::Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": "system:coredns" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
        "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE }],
    })
}

fn settings() -> serde_json::Value {
    // As kubeadm sets it up, so that Service and pod names are as fresh or stale as users will see them; without what
    // needs a way out of the machine.
    let corefile = format!(
        ".:53 {{
    errors
    health {{
        lameduck 5s
    }}
    ready
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        pods insecure
        ttl 30
    }}
    cache 30 {{
        disable success {CLUSTER_DOMAIN}
        disable denial {CLUSTER_DOMAIN}
    }}
}}
"
    );
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "data": { "Corefile": corefile },
    })
}

fn deployment() -> serde_json::Value {
    let labels = json!({ "k8s-app": "kube-dns" });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": NAME, "namespace": NAMESPACE, "labels": labels },
        "spec": {
            "replicas": REPLICAS,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": {
                "serviceAccountName": NAME,
                "priorityClassName": "system-cluster-critical",
                "dnsPolicy": "Default",
                "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": { "matchLabels": labels },
                }]}},
                // Found again on another node soon after its own was lost.
                "tolerations": [
                    { "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 },
                    { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5 },
                ],
                "containers": [{
                    "name": NAME,
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "args": ["-conf", "/etc/coredns/Corefile"],
                    "ports": [
                        { "name": "dns", "containerPort": 53, "protocol": "UDP" },
                        { "name": "dns-tcp", "containerPort": 53, "protocol": "TCP" },
                    ],
                    "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
                    "livenessProbe": { "httpGet": { "path": "/health", "port": 8080 }, "periodSeconds": 10, "failureThreshold": 6 },
                    "resources": { "requests": { "cpu": "50m", "memory": "64Mi" } },
                    "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
                }],
                "volumes": [{ "name": "config", "configMap": { "name": NAME } }],
            }},
        },
    })
}

fn service() -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kube-dns", "namespace": NAMESPACE, "labels": { "k8s-app": "kube-dns" } },
        "spec": {
            "clusterIP": DNS_SERVICE,
            "selector": { "k8s-app": "kube-dns" },
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
            ],
        },
    })
}
