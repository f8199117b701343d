//! The settings file: what a node reads once, at its start (rule O1).
//!
//! The names are those of the cache settings that users already know (requirements A10 to A17). A file written by
//! hand is strict: an unknown word is an error. A file that the operator wrote carries `generated_by`, and there an
//! unknown word is only reported, so that an older node starts under a newer operator (rule O2).

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::quorum::{MemberQuorum, Quorums};

/// The newest version of the file's format that this program reads.
pub const FORMAT_VERSION: u32 = 1;
/// The gossip port is the client port plus this (requirement A12).
pub const GOSSIP_PORT_OFFSET: u16 = 2;
/// Default port for clients.
pub const DEFAULT_CLIENT_PORT: u16 = 3320;
/// Default port for health, metrics and statistics.
pub const DEFAULT_HTTP_PORT: u16 = 8080;
/// Longest life of a mirror of a hot remote key (rule C4).
pub const LONGEST_MIRROR: Duration = Duration::from_millis(100);
/// Most peers that one file may name.
pub const MAX_PEERS: usize = 1024;

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Local only: one node, no gossip, admission-controlled.
    Single,
    /// A member of a cluster.
    #[default]
    Ha,
    /// Stores nothing; every get is not found.
    Disabled,
}

/// What comes back after all members were down at once (rule S1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Restore {
    /// Only what was written to the volume after the last acknowledged write: at the end of a member that left in order.
    #[default]
    Strict,
    /// Where there is no such snapshot, the newest of another kind: writes after it are lost, and keys that were
    /// deleted after it come back. Counted.
    Lossy,
}

/// Which entries a node removes when its memory is full (requirement B6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Eviction {
    /// Those used least or those unused longest, whichever lets fewer reads miss at present.
    #[default]
    Auto,
    /// Those unused longest.
    Lru,
    /// Those used least.
    Lfu,
}

/// How far apart the members are: a preset of the failure detector's times (requirement A13).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// One host.
    Local,
    /// One data centre.
    #[default]
    Lan,
    /// Several data centres.
    Wan,
}

/// Times of the failure detector and of what depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two rounds of gossip.
    pub gossip_interval: Duration,
    /// Between two probes.
    pub probe_interval: Duration,
    /// How long a probe may take; never above the interval.
    pub probe_timeout: Duration,
    /// How long a silent member is only suspected (rule T10).
    pub suspicion: Duration,
    /// How long a primary may answer after its table was last confirmed; shorter than `suspicion` (rule W7).
    pub lease: Duration,
    /// Between two heartbeats on the peer streams.
    pub heartbeat: Duration,
    /// How long a copy may stay silent before it is removed (rule W2).
    pub replica_timeout: Duration,
}

impl Environment {
    /// The times of this preset. The `local` preset names a probe timeout of 200 ms above its interval of 100 ms;
    /// it is clamped to the interval, and the node says so in its log.
    pub fn timing(self) -> Timing {
        let ms = Duration::from_millis;
        let (gossip, interval, timeout, suspicion, lease) = match self {
            Self::Local => (100, 100, 100, 400, 300),
            Self::Lan => (200, 1000, 500, 1000, 800),
            Self::Wan => (500, 3000, 2000, 5000, 4000),
        };
        Timing {
            gossip_interval: ms(gossip),
            probe_interval: ms(interval),
            probe_timeout: ms(timeout),
            suspicion: ms(suspicion),
            lease: ms(lease),
            heartbeat: ms(lease / 5),
            replica_timeout: ms(suspicion * 2),
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Format of this file; see [`FORMAT_VERSION`].
    pub version: u32,
    /// The program that wrote the file; absent when a person did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_by: Option<String>,
    /// Name of the cluster: members of another name are refused.
    pub cluster_name: String,
    /// What the node is.
    pub mode: Mode,
    /// This member's stable DNS name, without a port; other members dial it. Absent: the host's name. The environment
    /// variable `MIZUYA_NAME` and the flag `--name` go before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address for clients. The peer and gossip port is this port plus 2 (requirement A12).
    pub bind_addr: SocketAddr,
    /// Address for health, metrics and statistics.
    pub http_addr: SocketAddr,
    /// The other members, each as `host:gossip-port`. May contain the member itself.
    pub peers: Vec<String>,
    /// Name of the map that Redis commands use (requirement A11).
    pub dmap_name: String,
    /// Preset of the failure detector's times.
    pub environment: Environment,
    /// Copies of each key (the factor).
    pub replica_count: u32,
    /// Copies that confirm a read.
    pub read_quorum: u32,
    /// Copies that hold a write before it is acknowledged.
    pub write_quorum: u32,
    /// Voters that must be reachable.
    pub member_count_quorum: MemberQuorum,
    /// Generation of the live settings in this file (rule O1).
    pub settings_generation: u64,
    /// How long SIGTERM may spend on handing primaries over, in seconds or as `5s`, `500ms`, `2m` (requirement A17).
    #[serde(with = "duration")]
    pub leave_timeout: Duration,
    /// How long the first peer waits for others before it starts a cluster alone (rule T4; only with a quorum of 1).
    #[serde(with = "duration")]
    pub bootstrap_timeout: Duration,
    /// How long copies of a member that left for a restart are not rebuilt (rule L1).
    #[serde(with = "duration")]
    pub rejoin_timeout: Duration,
    /// Partitions of a new cluster; fixed once it has started (rule T8).
    pub partitions: u16,
    /// Most bytes that all entries may take, as a number or as `256Mi`; absent: 70 % of the container's memory limit.
    #[serde(skip_serializing_if = "Option::is_none", with = "opt_bytes")]
    pub max_memory: Option<u64>,
    /// Which entries go when that is full.
    pub eviction: Eviction,
    /// Folder on a volume that outlives the process, for tables and snapshots (rule S2). Absent: nothing is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<String>,
    /// Between two snapshots while the node runs; 0: only the one at its end.
    #[serde(with = "duration")]
    pub snapshot_interval: Duration,
    /// What comes back after all members were down at once.
    pub restore: Restore,
    /// How long a node may answer a `GET` of a hot key whose primary is elsewhere with the value that it was given before; at
    /// most [`LONGEST_MIRROR`]. Its answers, and those of no other kind, may then be that old. 0: never (rule C4).
    #[serde(with = "duration")]
    pub hot_key_mirror: Duration,
    /// Certificates and keys.
    pub security: Security,
    /// Settings of mode `single` (requirement A7).
    pub single: Single,
    /// What is written to the log: a `tracing` filter such as `info` or `mizuya_node=debug`.
    pub log: String,
}

/// Where certificates and keys are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Folder with `ca.crt`, `tls.crt`, `tls.key` and `gossip.key` (32 bytes in base64).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Run without certificates and keys: anyone who reaches the peer port is then a member.
    pub insecure: bool,
}

/// Settings of mode `single`, named as in Ristretto (requirement A7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Single {
    /// Access counters; about 10 for each entry that is expected.
    pub num_counters: u64,
    /// Most bytes of all values; an entry above it is never stored.
    #[serde(with = "bytes")]
    pub max_cost: u64,
    /// Keys in a get buffer. Accepted for compatibility.
    pub buffer_items: u64,
}

impl Default for Single {
    fn default() -> Self {
        Self { num_counters: 1_000_000, max_cost: 100 << 20, buffer_items: 64 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: FORMAT_VERSION,
            generated_by: None,
            cluster_name: "mizuya".to_owned(),
            mode: Mode::Ha,
            name: None,
            bind_addr: SocketAddr::from(([0, 0, 0, 0], DEFAULT_CLIENT_PORT)),
            http_addr: SocketAddr::from(([0, 0, 0, 0], DEFAULT_HTTP_PORT)),
            peers: Vec::new(),
            dmap_name: "cc-relay".to_owned(),
            environment: Environment::Lan,
            replica_count: 1,
            read_quorum: 1,
            write_quorum: 1,
            member_count_quorum: MemberQuorum::Auto,
            settings_generation: 0,
            leave_timeout: Duration::from_secs(5),
            bootstrap_timeout: Duration::from_secs(10),
            rejoin_timeout: Duration::from_mins(2),
            partitions: 256,
            max_memory: None,
            eviction: Eviction::Auto,
            data_dir: None,
            snapshot_interval: Duration::from_mins(5),
            restore: Restore::Strict,
            hot_key_mirror: Duration::ZERO,
            security: Security::default(),
            single: Single::default(),
            log: "info".to_owned(),
        }
    }
}

/// Why a settings file cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Not YAML, or a value of the wrong type.
    #[error("the settings are not valid YAML of this format: {0}")]
    Yaml(String),
    /// A word that no setting has.
    #[error("unknown setting '{0}'; remove it or correct its name (known: {1})")]
    Unknown(String, String),
    /// A newer format than this program reads.
    #[error("settings of format version {0} need a newer node; this one reads up to {FORMAT_VERSION}")]
    NewerFormat(u32),
    /// A value that cannot be used, with the way out.
    #[error("{0}")]
    Invalid(String),
}

/// A file that was read, and what should be said about it in the log.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Sentences for the log: unknown words, combinations that survive less than they seem to.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads and checks a file's text.
    pub fn load(text: &str) -> Result<Loaded, SettingsError> {
        let yaml: serde_yaml_ng::Value =
            serde_yaml_ng::from_str(text).map_err(|e| SettingsError::Yaml(e.to_string()))?;
        let yaml = if yaml.is_null() { serde_yaml_ng::Value::Mapping(serde_yaml_ng::Mapping::new()) } else { yaml };
        if let Some(version) = yaml.get("version").and_then(serde_yaml_ng::Value::as_u64)
            && version > u64::from(FORMAT_VERSION)
        {
            return Err(SettingsError::NewerFormat(version as u32));
        }
        let mut warnings = Vec::new();
        let generated = yaml.get("generated_by").is_some();
        let known = known_words()?;
        for word in yaml.as_mapping().into_iter().flat_map(|m| m.keys()).filter_map(|k| k.as_str()) {
            if known.iter().any(|k| k == word) {
                continue;
            }
            if !generated {
                return Err(SettingsError::Unknown(word.to_owned(), known.join(", ")));
            }
            warnings.push(format!("unknown setting '{word}' from a newer operator is ignored"));
        }
        let settings: Self = serde_yaml_ng::from_value(yaml).map_err(|e| SettingsError::Yaml(e.to_string()))?;
        warnings.extend(settings.check()?);
        Ok(Loaded { settings, warnings })
    }

    /// The file's text.
    pub fn to_yaml(&self) -> Result<String, SettingsError> {
        serde_yaml_ng::to_string(self).map_err(|e| SettingsError::Yaml(e.to_string()))
    }

    /// Checks values against each other; returns warnings.
    pub fn check(&self) -> Result<Vec<String>, SettingsError> {
        let invalid = |text: String| Err(SettingsError::Invalid(text));
        if self.version == 0 {
            return invalid(format!("version: 0 is not a format; use {FORMAT_VERSION}"));
        }
        if self.bind_addr.port() == 0 || self.bind_addr.port() > u16::MAX - GOSSIP_PORT_OFFSET {
            return invalid(format!(
                "bind_addr: port {} leaves no room for the gossip port (port + 2)",
                self.bind_addr.port()
            ));
        }
        if [self.bind_addr.port(), self.gossip_port()].contains(&self.http_addr.port()) {
            return invalid(format!(
                "http_addr: port {} is the client or gossip port; choose another",
                self.http_addr.port()
            ));
        }
        if !(1..=16_384).contains(&self.partitions) {
            return invalid(format!("partitions: {} must be between 1 and 16384", self.partitions));
        }
        if self.peers.len() > MAX_PEERS {
            return invalid(format!("peers: {} are too many; at most {MAX_PEERS}", self.peers.len()));
        }
        if self.replica_count == 0 || self.replica_count > 16 {
            return invalid(format!("replica_count: {} must be between 1 and 16", self.replica_count));
        }
        for (name, quorum) in [("read_quorum", self.read_quorum), ("write_quorum", self.write_quorum)] {
            if quorum == 0 || quorum > self.replica_count {
                return invalid(format!(
                    "{name}: {quorum} must be between 1 and replica_count ({})",
                    self.replica_count
                ));
            }
        }
        if self.hot_key_mirror > LONGEST_MIRROR {
            return invalid(format!(
                "hot_key_mirror: {} ms must be at most {} ms; 0 for none",
                self.hot_key_mirror.as_millis(),
                LONGEST_MIRROR.as_millis()
            ));
        }
        let mut warnings = self.check_peers()?;
        if self.mode == Mode::Ha && !self.peers.is_empty() {
            warnings.extend(self.quorums().warnings());
        }
        if self.mode == Mode::Ha && self.environment == Environment::Local {
            warnings.push(
                "environment local: its probe timeout of 200 ms is above its probe interval and counts as 100 ms"
                    .to_owned(),
            );
        }
        Ok(warnings)
    }

    fn check_peers(&self) -> Result<Vec<String>, SettingsError> {
        let mut warnings = Vec::new();
        for peer in &self.peers {
            let port = peer
                .rsplit_once(':')
                .filter(|(host, _)| !host.is_empty())
                .and_then(|(_, port)| port.parse::<u16>().ok());
            match port {
                None => return Err(SettingsError::Invalid(format!("peers: '{peer}' must be host:port with the gossip port"))),
                Some(port) if port == self.bind_addr.port() => warnings.push(format!(
                    "peers: '{peer}' names the client port {port}; peers are reached on the gossip port {} (client port + 2)",
                    self.gossip_port()
                )),
                Some(_) => {}
            }
        }
        Ok(warnings)
    }

    /// Port of gossip (UDP) and of peers (TCP).
    pub fn gossip_port(&self) -> u16 {
        self.bind_addr.port().saturating_add(GOSSIP_PORT_OFFSET)
    }

    /// The numbers that the quorum rules are about; members are the peers and this node.
    pub fn quorums(&self) -> Quorums {
        let own = self.name.as_deref();
        let listed = self.peers.iter().any(|peer| own.is_some() && peer.rsplit_once(':').map(|(host, _)| host) == own);
        Quorums {
            members: self.peers.len() as u32 + u32::from(!listed),
            factor: self.replica_count,
            read: self.read_quorum,
            write: self.write_quorum,
            member_count: self.member_count_quorum,
        }
    }
}

fn known_words() -> Result<Vec<String>, SettingsError> {
    let all = Settings {
        generated_by: Some(String::new()),
        name: Some(String::new()),
        max_memory: Some(0),
        data_dir: Some(String::new()),
        ..Settings::default()
    };
    let yaml = serde_yaml_ng::to_value(all).map_err(|e| SettingsError::Yaml(e.to_string()))?;
    let words = yaml.as_mapping().into_iter().flat_map(|m| m.keys()).filter_map(|k| k.as_str());
    Ok(words.map(str::to_owned).collect())
}

/// Parses a number of bytes: `1000`, `64Ki`, `256Mi`, `2Gi`, `1k`, `1M`, `1G` (as Kubernetes quantities).
pub fn parse_bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor: u64 = match unit {
        "" => 1,
        "k" => 1000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// Parses a duration: `5s`, `500ms`, `2m`, or a number of seconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let n: u64 = digits.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(n)),
        "s" | "" => Some(Duration::from_secs(n)),
        "m" => n.checked_mul(60).map(Duration::from_secs),
        "h" => n.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

mod duration {
    use super::{Duration, NumberOrText, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}ms", value.as_millis()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        match NumberOrText::deserialize(from)? {
            NumberOrText::Number(n) => Ok(Duration::from_secs(n)),
            NumberOrText::Text(text) => parse_duration(&text)
                .ok_or_else(|| serde::de::Error::custom(format!("'{text}' is not a duration; write 5s, 500ms or 2m"))),
        }
    }
}

mod bytes {
    use super::{NumberOrText, parse_bytes};
    use serde::{Deserialize, Deserializer, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        match NumberOrText::deserialize(from)? {
            NumberOrText::Number(n) => Ok(n),
            NumberOrText::Text(text) => parse_bytes(&text)
                .ok_or_else(|| serde::de::Error::custom(format!("'{text}' is not a size; write 1000, 64Mi or 2Gi"))),
        }
    }
}

mod opt_bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Bytes(#[serde(with = "super::bytes")] u64);

    #[allow(clippy::ref_option)] // serde's signature
    pub(super) fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(n) => to.serialize_u64(*n),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Ok(Option::<Bytes>::deserialize(from)?.map(|b| b.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_two_node_file_loads_and_warns_that_it_survives_no_failure() {
        let loaded = Settings::load(
            "mode: ha\nname: cc-relay-1\nbind_addr: 0.0.0.0:3320\ndmap_name: cc-relay\nenvironment: lan\npeers: ['cc-relay-2:3322']\n\
             replica_count: 2\nread_quorum: 1\nwrite_quorum: 1\nmember_count_quorum: 2\nleave_timeout: 5s\n",
        )
        .unwrap();
        assert_eq!(loaded.settings.gossip_port(), 3322);
        assert!(loaded.warnings.iter().any(|w| w.contains("survive no failure")), "{:?}", loaded.warnings);
    }

    #[test]
    fn a_peer_on_the_client_port_is_named_with_the_right_port() {
        let loaded = Settings::load("peers: ['other:3320']").unwrap();
        assert!(loaded.warnings.iter().any(|w| w.contains("names the client port 3320") && w.contains("3322")));
    }

    #[test]
    fn broken_files_say_what_is_wrong_and_what_to_do() {
        let cases = [
            ("mode: [", "not valid YAML"),
            ("mood: ha", "unknown setting 'mood'"),
            ("mode: cluster", "unknown variant"),
            ("version: 99", "need a newer node"),
            ("bind_addr: 0.0.0.0:65535", "no room for the gossip port"),
            ("http_addr: 0.0.0.0:3322", "is the client or gossip port"),
            ("replica_count: 2\nwrite_quorum: 3", "write_quorum: 3 must be between 1 and replica_count (2)"),
            ("read_quorum: 0", "read_quorum: 0"),
            ("peers: [nowhere]", "must be host:port"),
            ("partitions: 0", "between 1 and 16384"),
            ("leave_timeout: soon", "is not a duration"),
            ("max_memory: lots", "is not a size"),
            ("eviction: fifo", "unknown variant `fifo`, expected one of `auto`, `lru`, `lfu`"),
            ("member_count_quorum: most", "must be a number or auto"),
        ];
        for (text, expected) in cases {
            let error = Settings::load(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_generated_file_with_a_word_of_the_future_loads_with_a_warning() {
        let loaded = Settings::load("generated_by: operator/9\nhologram: true\n").unwrap();
        assert!(loaded.warnings.iter().any(|w| w.contains("hologram")));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let settings = Settings {
            max_memory: Some(64 << 20),
            eviction: Eviction::Lfu,
            peers: vec!["a:3322".into(), "b:3322".into()],
            generated_by: Some("operator/0.1.0".into()),
            ..Settings::default()
        };
        assert_eq!(Settings::load(&settings.to_yaml().unwrap()).unwrap().settings, settings);
    }
}
