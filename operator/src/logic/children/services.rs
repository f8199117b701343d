//! Two Services: a headless one that gives members stable names, and one for clients.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Child, Wanted};

fn port(name: &str, number: i32, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::Int(number)),
        protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}

/// The headless Service. It publishes members that are not ready: they must find each other to become so (rule O10).
pub fn peers(wanted: &Wanted<'_>) -> Service {
    let ports = wanted.cluster.spec.ports;
    Service {
        metadata: wanted.id.metadata(Child::PeersService),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(wanted.id.labels()),
            ports: Some(vec![
                port("redis", ports.client, "TCP"),
                port("peer", ports.gossip_port(), "TCP"),
                port("gossip", ports.gossip_port(), "UDP"),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// The Service for clients.
pub fn client(wanted: &Wanted<'_>) -> Service {
    Service {
        metadata: wanted.id.metadata(Child::ClientService),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(wanted.id.labels()),
            ports: Some(vec![port("redis", wanted.cluster.spec.ports.client, "TCP")]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
