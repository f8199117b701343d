//! The two Secrets. They are made once, if absent, and never rendered again (rule O20).

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use serde::Serialize;

use super::{Child, Identity};

/// File of the CA's certificate.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// File of the CA's key; only in the operator's Secret.
pub const CA_KEY: &str = "ca.key";
/// File of a certificate.
pub const CERTIFICATE: &str = "tls.crt";
/// File of its key.
pub const KEY: &str = "tls.key";
/// File of the gossip key: 32 bytes in base64.
pub const GOSSIP_KEY: &str = "gossip.key";

/// Names that a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// Common name: `node` or `operator`.
    pub common_name: String,
    /// DNS names.
    pub dns_names: Vec<String>,
}

/// Subject of the nodes' certificate: one for all members of a cluster.
pub fn node_subject(id: &Identity) -> Subject {
    let domain = id.peers_domain();
    Subject { common_name: "node".to_owned(), dns_names: vec![format!("*.{domain}"), domain, "localhost".to_owned()] }
}

/// Subject of the operator's client certificate.
pub fn operator_subject() -> Subject {
    Subject { common_name: "operator".to_owned(), dns_names: Vec::new() }
}

/// A Secret with these files.
pub fn render(id: &Identity, child: Child, files: BTreeMap<String, Vec<u8>>) -> Secret {
    Secret {
        metadata: id.metadata(child),
        type_: Some("Opaque".to_owned()),
        data: Some(files.into_iter().map(|(name, bytes)| (name, ByteString(bytes))).collect()),
        ..Secret::default()
    }
}
