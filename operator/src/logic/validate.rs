//! Settings that cannot keep their promise. What the schema's rules refuse never gets here; this is for what they
//! cannot see, and for objects that were stored under older rules.

use mizuya_wire::quorum::Quorums;

use super::children::{RenderError, Wanted, config_map};
use crate::crd::{CacheCluster, Mode};

/// What nodes would refuse or what could never work, with the way out.
pub fn check(wanted: &Wanted<'_>) -> Result<(), RenderError> {
    let spec = &wanted.cluster.spec;
    config_map::settings(wanted)?;
    config_map::duration("scaleDown.stabilization", &spec.scale_down.stabilization)?;
    if let Some(timeout) = &spec.scale_down.drain_timeout {
        config_map::duration("scaleDown.drainTimeout", timeout)?;
    }
    if spec.mode == Mode::Single && spec.replicas != 1 {
        return Err(RenderError::Settings(
            "mode single is one local cache: set replicas to 1, or mode to ha".to_owned(),
        ));
    }
    let gossip = spec.ports.gossip_port();
    if spec.ports.gossip.is_some_and(|given| given != gossip) {
        return Err(RenderError::Settings(format!(
            "ports.gossip must be ports.client + 2, which is {gossip}: leave it out"
        )));
    }
    Ok(())
}

/// The numbers that the quorum rules are about, for `nodes` nodes.
pub fn quorums(cluster: &CacheCluster, nodes: u32) -> Quorums {
    let replication = &cluster.spec.replication;
    Quorums {
        members: nodes,
        factor: replication.factor as u32,
        read: replication.read_quorum as u32,
        write: replication.write_quorum as u32,
        member_count: replication.member_count_quorum,
    }
}

/// Combinations that work but cannot survive what they seem to promise, each with its way out.
pub fn warnings(cluster: &CacheCluster, nodes: u32) -> Vec<String> {
    if cluster.spec.mode == Mode::Ha { quorums(cluster, nodes).warnings() } else { Vec::new() }
}
