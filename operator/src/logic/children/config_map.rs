//! The settings file, and which settings need a restart.
//!
//! | setting | how a change reaches a running node |
//! |---|---|
//! | `replica_count`, `read_quorum`, `write_quorum`, `member_count_quorum` | pushed over the admin service (rule O1) |
//! | `peers` | not at all: members learn of each other by gossip; the file serves the next start |
//! | `settings_generation`, `generated_by` | not at all |
//! | everything else | by a restart: its hash is an annotation of the pod template |

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use mizuya_wire::{
    quorum::MemberQuorum,
    settings::{Security, Settings, parse_bytes, parse_duration},
};

use super::{Child, RenderError, Wanted};
use crate::{
    crd::{CacheCluster, Mode},
    logic::drift,
};

/// Key of the file in the `ConfigMap`.
pub const FILE: &str = "settings.yaml";
/// Folder of the settings file in the container.
pub const FOLDER: &str = "/etc/mizuya";
/// Folder of the node's volume in the container.
pub const DATA_FOLDER: &str = "/var/lib/mizuya";
/// Folder of certificates and keys in the container.
pub const SECURITY_FOLDER: &str = "/etc/mizuya/security";

/// The `ConfigMap`.
pub fn render(wanted: &Wanted<'_>) -> Result<ConfigMap, RenderError> {
    let settings = settings(wanted)?;
    let text = settings.to_yaml().map_err(|e| RenderError::Settings(e.to_string()))?;
    Ok(ConfigMap {
        metadata: wanted.id.metadata(Child::Settings),
        data: Some(BTreeMap::from([(FILE.to_owned(), text)])),
        ..ConfigMap::default()
    })
}

/// The settings of these nodes.
pub fn settings(wanted: &Wanted<'_>) -> Result<Settings, RenderError> {
    let spec = &wanted.cluster.spec;
    let id = &wanted.id;
    let gossip = spec.ports.gossip_port();
    let peers = (0..wanted.members).map(|ordinal| format!("{}:{gossip}", id.member(ordinal)));
    let settings = Settings {
        generated_by: Some("mizuya-operator".to_owned()),
        cluster_name: format!("{}/{}", id.namespace, id.name),
        mode: spec.mode.into(),
        bind_addr: address(spec.ports.client)?,
        http_addr: address(spec.ports.http)?,
        peers: if spec.mode == Mode::Ha { peers.collect() } else { Vec::new() },
        dmap_name: spec.default_map.clone(),
        environment: spec.environment.into(),
        replica_count: spec.replication.factor as u32,
        read_quorum: spec.replication.read_quorum as u32,
        write_quorum: spec.replication.write_quorum as u32,
        member_count_quorum: spec.replication.member_count_quorum,
        settings_generation: wanted.cluster.metadata.generation.unwrap_or_default() as u64,
        leave_timeout: duration("leaveTimeout", &spec.leave_timeout)?,
        partitions: u16::try_from(spec.partitions).map_err(|_| {
            RenderError::Settings(format!("partitions: {} must be between 1 and 16384", spec.partitions))
        })?,
        max_memory: max_memory(wanted.cluster)?,
        eviction: spec.memory.eviction.into(),
        data_dir: spec.storage.as_ref().map(|_| DATA_FOLDER.to_owned()),
        snapshot_interval: match &spec.storage {
            Some(storage) => duration("storage.snapshotInterval", &storage.snapshot_interval)?,
            None => Settings::default().snapshot_interval,
        },
        restore: spec.storage.as_ref().map(|storage| storage.restore.into()).unwrap_or_default(),
        hot_key_mirror: match &spec.hot_keys.mirror {
            Some(mirror) => duration("hotKeys.mirror", mirror)?,
            None => Settings::default().hot_key_mirror,
        },
        security: Security { dir: Some(SECURITY_FOLDER.to_owned()), insecure: false },
        ..Settings::default()
    };
    settings.check().map_err(|e| RenderError::Settings(e.to_string()))?;
    Ok(settings)
}

/// Hash of the settings that need a restart; see the table above.
pub fn restart_hash(wanted: &Wanted<'_>) -> Result<String, RenderError> {
    let constant = Settings::default();
    let settings = Settings {
        generated_by: None,
        peers: Vec::new(),
        replica_count: constant.replica_count,
        read_quorum: constant.read_quorum,
        write_quorum: constant.write_quorum,
        member_count_quorum: MemberQuorum::Auto,
        settings_generation: constant.settings_generation,
        ..settings(wanted)?
    };
    let json =
        |settings: &Settings| serde_json::to_value(settings).map_err(|e| RenderError::Json("settings", e.to_string()));
    let (mut json, usual) = (json(&settings)?, json(&constant)?);
    // A setting that a later version adds must not restart anything while it has its default (feature F8).
    if let Some(fields) = json.as_object_mut() {
        fields.retain(|name, value| usual.get(name) != Some(value));
    }
    Ok(drift::hash(&json))
}

/// The duration in a field, or what to write instead.
pub fn duration(field: &str, text: &str) -> Result<Duration, RenderError> {
    parse_duration(text)
        .ok_or_else(|| RenderError::Settings(format!("{field}: '{text}' is not a time; write 5s, 500ms or 2m")))
}

fn max_memory(cluster: &CacheCluster) -> Result<Option<u64>, RenderError> {
    let parse = |text: &String| {
        parse_bytes(text).ok_or_else(|| {
            RenderError::Settings(format!("memory.maxMemory: '{text}' is not a size; write 180Mi or 2Gi"))
        })
    };
    cluster.spec.memory.max_memory.as_ref().map(parse).transpose()
}

/// Every address of the pod, on this port. The type is inferred, so that no socket type is named here.
fn address<T: std::str::FromStr>(port: i32) -> Result<T, RenderError> {
    let text = format!("0.0.0.0:{port}");
    text.parse().map_err(|_| RenderError::Settings(format!("ports: {port} is not a port; use 1024 to 65533")))
}
