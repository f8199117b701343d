//! Who may reach which port: clients from anywhere, peers and gossip only from the cluster's own pods, and the admin
//! calls on the peer port also from the operator.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{Child, Wanted};

fn port(number: i32, protocol: &str) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(IntOrString::Int(number)), protocol: Some(protocol.to_owned()), end_port: None }
}

fn labels(pairs: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(pairs), match_expressions: None }
}

/// The `NetworkPolicy`.
pub fn render(wanted: &Wanted<'_>) -> NetworkPolicy {
    let ports = wanted.cluster.spec.ports;
    let own_pods = NetworkPolicyPeer { pod_selector: Some(labels(wanted.id.labels())), ..NetworkPolicyPeer::default() };
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(labels(BTreeMap::from([(
            "kubernetes.io/metadata.name".to_owned(),
            wanted.operator.namespace.clone(),
        )]))),
        ..NetworkPolicyPeer::default()
    };
    let open =
        NetworkPolicyIngressRule { from: None, ports: Some(vec![port(ports.client, "TCP"), port(ports.http, "TCP")]) };
    let peers = NetworkPolicyIngressRule {
        from: Some(vec![own_pods, operator]),
        ports: Some(vec![port(ports.gossip_port(), "TCP"), port(ports.gossip_port(), "UDP")]),
    };
    NetworkPolicy {
        metadata: wanted.id.metadata(Child::NetworkPolicy),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(labels(wanted.id.labels())),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![open, peers]),
            egress: None,
        }),
    }
}
