//! What a node is started with.

use std::{thread, time::Duration};

use mizuya_wire::{
    quorum::MemberQuorum,
    settings::{Mode, Settings},
};
use tokio::net::{TcpListener, UdpSocket};

use super::{
    memory,
    security::{Security, SecurityError},
};
use crate::logic::{
    cluster::{
        member::{Generation, MemberName},
        table::Live,
    },
    node::{Config, Identity, Mirroring},
};

/// Bytes a second that go to one peer for each core of this node, where a partition only moves: a small share of the core.
const MOVE_RATE_OF_A_CORE: u64 = 1 << 20;

/// What a node needs to start.
#[derive(Clone, Debug)]
pub struct Start {
    /// The settings.
    pub settings: Settings,
    /// Zone for placement; empty when unknown.
    pub zone: String,
    /// The process has no other purpose: entries make room when it has too much memory, whatever for, and how it takes
    /// memory may be changed.
    pub owns_process: bool,
    /// Threads that serve connections; 0: the runtime that starts the node does. None: as many as [`super::threads::fitting`]
    /// says.
    pub threads: Option<usize>,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates and keys.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// An address is taken or not this machine's.
    #[error("cannot listen on {address} ({what}): {source}; change bind_addr or http_addr, or stop who listens there")]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The volume cannot be used.
    #[error("data_dir {folder}: {source}; correct its name, its owner or its rights")]
    Volume {
        /// Which.
        folder: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start {count} threads: {source}; start fewer with --threads, or allow more")]
    Threads {
        /// How many there should be.
        count: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// The clock cannot be read.
    #[error("the clock CLOCK_BOOTTIME cannot be read: {0}")]
    Clock(nix::Error),
}

/// The sockets of a node.
pub struct Listeners {
    /// For clients.
    pub client: Option<TcpListener>,
    /// For peers: streams and gossip.
    pub peer: Option<(TcpListener, UdpSocket)>,
    /// For health, metrics and statistics.
    pub http: Option<TcpListener>,
}

impl Listeners {
    /// Opens what the settings name. A node without secrets hears of that first.
    pub async fn bind(settings: &Settings) -> Result<Self, StartError> {
        load_security(settings)?;
        let client = listen("clients", settings.bind_addr).await?;
        let http = listen("http", settings.http_addr).await?;
        let peer = if has_peer_port(settings) { Some(Self::bind_peer(settings).await?) } else { None };
        Ok(Self { client: Some(client), peer, http: Some(http) })
    }

    /// Opens the client and peer ports only: for a node inside another program.
    pub async fn embedded(settings: &Settings) -> Result<Self, StartError> {
        let client = listen("clients", settings.bind_addr).await?;
        let peer = if has_peer_port(settings) { Some(Self::bind_peer(settings).await?) } else { None };
        Ok(Self { client: Some(client), peer, http: None })
    }

    async fn bind_peer(settings: &Settings) -> Result<(TcpListener, UdpSocket), StartError> {
        let mut address = settings.bind_addr;
        address.set_port(settings.gossip_port());
        let streams = listen("peers", address).await?;
        let gossip = UdpSocket::bind(address).await.map_err(|source| StartError::Listen {
            what: "gossip",
            address: address.to_string(),
            source,
        })?;
        Ok((streams, gossip))
    }
}

async fn listen(what: &'static str, address: std::net::SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { what, address: address.to_string(), source };
    TcpListener::bind(address).await.map_err(failed)
}

/// Without peers the peer port only serves the admin service; without certificates even that is left out, so that a
/// single node needs none.
fn has_peer_port(settings: &Settings) -> bool {
    settings.mode == Mode::Ha || settings.security.dir.is_some() || settings.security.insecure
}

pub(super) fn load_security(settings: &Settings) -> Result<Security, SecurityError> {
    match Security::load(settings) {
        Err(SecurityError::NotConfigured) if !has_peer_port(settings) => Ok(Security::Insecure),
        other => other,
    }
}

/// The name that a node has when its settings give none.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

/// The settings in the words of the logic.
pub(super) fn config(settings: &Settings, zone: String) -> Config {
    let alone = settings.mode != Mode::Ha;
    let name = settings.name.clone().unwrap_or_else(host_name);
    let max_bytes = settings.max_memory.unwrap_or_else(|| {
        let budget = memory::budget();
        if let Some(warning) = budget.warning {
            tracing::warn!("{warning}");
        }
        budget.bytes
    });
    let live = Live {
        generation: settings.settings_generation,
        factor: if alone { 1 } else { settings.replica_count },
        read_quorum: if alone { 1 } else { settings.read_quorum },
        write_quorum: if alone { 1 } else { settings.write_quorum },
        member_quorum: if alone { MemberQuorum::Fixed(1) } else { settings.member_count_quorum },
    };
    let peers = settings.peers.iter().filter_map(|peer| peer_address(peer)).filter(|(host, _)| *host != name).collect();
    Config {
        identity: Identity {
            cluster_name: settings.cluster_name.clone(),
            name: MemberName::from(name.as_str()),
            generation: Generation(rand::random()),
            client_port: settings.bind_addr.port(),
            peer_port: settings.gossip_port(),
            environment: format!("{:?}", settings.environment).to_lowercase(),
            default_map: settings.dmap_name.clone(),
            zone,
        },
        partitions: settings.partitions,
        live,
        timing: settings.environment.timing(),
        peers: if alone { Vec::new() } else { peers },
        max_bytes,
        eviction: settings.eviction,
        bootstrap_timeout: if alone { Duration::ZERO } else { settings.bootstrap_timeout },
        rejoin_timeout: settings.rejoin_timeout,
        restore: settings.data_dir.is_some().then_some(settings.restore),
        mirroring: Mirroring { lasts: settings.hot_key_mirror, hot_reads: Mirroring::HOT_READS },
        move_rate: thread::available_parallelism().map_or(1, |cores| cores.get() as u64) * MOVE_RATE_OF_A_CORE,
    }
}

/// `host:port`, where an IPv6 address may stand in brackets.
fn peer_address(peer: &str) -> Option<(String, u16)> {
    let (host, port) = peer.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port.parse().ok()?))
}
