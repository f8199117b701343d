//! What the operator and the nodes say to each other, and nothing else: the protobuf of the admin service and of the
//! peer stream, the types of the settings file, and the quorum rules.

pub mod quorum;
pub mod settings;

/// The admin service: status, table, cordon, drain, live settings.
#[allow(missing_docs, clippy::pedantic)]
pub mod admin {
    tonic::include_proto!("mizuya.admin.v1");
}

/// The peer stream: the frames that nodes exchange.
#[allow(missing_docs, clippy::pedantic)]
pub mod peer {
    tonic::include_proto!("mizuya.peer.v1");
}
