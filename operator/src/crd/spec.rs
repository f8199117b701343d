//! What a user writes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Affinity, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::CustomResource;
use mizuya_wire::{quorum::MemberQuorum, settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DEFAULT_REPLICAS, schema, status::CacheClusterStatus};

/// A partitioned, replicated in-memory cache for Redis clients. `spec: {}` is valid: three nodes with two copies of
/// each key.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "cache.mizuya.dev",
    version = "v1alpha1",
    kind = "CacheCluster",
    plural = "cacheclusters",
    shortname = "cc",
    category = "all",
    namespaced,
    doc = "A partitioned, replicated in-memory cache for Redis clients.",
    status = "CacheClusterStatus",
    derive = "PartialEq",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "string",
        json_path = ".status.ready",
        description = "Ready nodes of those wanted"
    ),
    printcolumn(
        name = "Keys",
        type_ = "integer",
        json_path = ".status.figures.keys",
        description = "Keys in the cache; each counts once"
    ),
    printcolumn(
        name = "Memory",
        type_ = "string",
        json_path = ".status.figures.memory",
        description = "Memory that all entries and their copies take, of what they may take"
    ),
    printcolumn(
        name = "Posture",
        type_ = "string",
        json_path = ".status.quorum.posture",
        description = "What reads and writes promise together"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it is or is not ready"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress",
        description = "What is going on",
        priority = 1
    ),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".status.image",
        description = "Image that the nodes run",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", default)]
pub struct CacheClusterSpec {
    /// Number of nodes. Lowered, the nodes that go are emptied first; raised, the new ones take their share.
    pub replicas: i32,
    /// What the nodes are: `ha` members of one cluster, `single` a local cache of one node, `disabled` nothing is stored
    /// and every key is absent. Cannot be changed.
    pub mode: Mode,
    /// Image of the nodes. Absent: the operator's own on creation, and then what runs already; see `update`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How far apart the nodes are, which sets the times of the failure detector: `local` one host, `lan` one data
    /// centre, `wan` several. Cannot be changed.
    pub environment: Environment,
    /// Ports of the nodes. Cannot be changed.
    pub ports: Ports,
    /// Memory of each node.
    pub memory: Memory,
    /// Copies and quorums.
    pub replication: Replication,
    /// Keys that are read much more often than others.
    pub hot_keys: HotKeys,
    /// Map that Redis commands use. Cannot be changed.
    pub default_map: String,
    /// Number of partitions that the keys are divided into. Cannot be changed.
    pub partitions: i32,
    /// How long a node that is told to stop may spend on handing over, such as `5s`.
    pub leave_timeout: String,
    /// How nodes are removed when `replicas` is lowered.
    pub scale_down: ScaleDown,
    /// How a newer version reaches the nodes.
    pub update: Update,
    /// CPU and memory of each node. Absent: requests of 50m and 64Mi and a memory limit of 256Mi. Given, it replaces
    /// that whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// A volume for each node, from which the cache comes back after all nodes were down. Absent: memory only. Cannot be
    /// added, removed or resized later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    /// Where the nodes may run.
    pub placement: Placement,
    /// While true the operator changes nothing but the disruption budget.
    pub paused: bool,
}

impl Default for CacheClusterSpec {
    fn default() -> Self {
        Self {
            replicas: DEFAULT_REPLICAS,
            mode: Mode::default(),
            image: None,
            environment: Environment::default(),
            ports: Ports::default(),
            memory: Memory::default(),
            replication: Replication::default(),
            hot_keys: HotKeys::default(),
            default_map: "cc-relay".to_owned(),
            partitions: 256,
            leave_timeout: "5s".to_owned(),
            scale_down: ScaleDown::default(),
            update: Update::default(),
            resources: None,
            storage: None,
            placement: Placement::default(),
            paused: false,
        }
    }
}

/// What the nodes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A local cache of one node.
    Single,
    /// Members of one cluster.
    #[default]
    Ha,
    /// Nothing is stored.
    Disabled,
}

impl From<Mode> for settings::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Single => Self::Single,
            Mode::Ha => Self::Ha,
            Mode::Disabled => Self::Disabled,
        }
    }
}

/// How far apart the nodes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

impl From<Environment> for settings::Environment {
    fn from(environment: Environment) -> Self {
        match environment {
            Environment::Local => Self::Local,
            Environment::Lan => Self::Lan,
            Environment::Wan => Self::Wan,
        }
    }
}

/// Ports of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ports {
    /// Port for clients (TCP).
    pub client: i32,
    /// Port for gossip (UDP) and for peers (TCP): always `client` + 2. Best left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gossip: Option<i32>,
    /// Port for health, metrics and statistics (TCP).
    pub http: i32,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            client: i32::from(settings::DEFAULT_CLIENT_PORT),
            gossip: None,
            http: i32::from(settings::DEFAULT_HTTP_PORT),
        }
    }
}

impl Ports {
    /// Port for gossip (UDP) and peers (TCP), requirement A12.
    pub fn gossip_port(self) -> i32 {
        self.client + i32::from(settings::GOSSIP_PORT_OFFSET)
    }
}

/// Memory of each node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// Most memory that the entries of one node may take, such as `180Mi`. Absent: 70 % of the memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<String>,
    /// Which entries a node removes when that is full: `lru` those unused longest, `lfu` those used least, `auto` whichever
    /// of the two lets fewer reads miss at present. A change replaces the nodes one by one.
    pub eviction: Eviction,
}

/// Which entries go when memory is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Eviction {
    /// Used least or unused longest, whichever does better.
    #[default]
    Auto,
    /// Unused longest.
    Lru,
    /// Used least.
    Lfu,
}

impl From<Eviction> for settings::Eviction {
    fn from(eviction: Eviction) -> Self {
        match eviction {
            Eviction::Auto => Self::Auto,
            Eviction::Lru => Self::Lru,
            Eviction::Lfu => Self::Lfu,
        }
    }
}

/// Copies and quorums. These change without a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Replication {
    /// Copies of each key, at most one on each node.
    pub factor: i32,
    /// Copies that confirm a read.
    pub read_quorum: i32,
    /// Copies that hold a write before it is acknowledged.
    pub write_quorum: i32,
    /// Nodes that must reach each other for reads and writes: `auto` (a majority from three nodes up, 1 below) or a
    /// number.
    #[schemars(schema_with = "schema::member_quorum")]
    pub member_count_quorum: MemberQuorum,
}

impl Default for Replication {
    fn default() -> Self {
        Self { factor: 2, read_quorum: 1, write_quorum: 1, member_count_quorum: MemberQuorum::Auto }
    }
}

/// Keys that are read much more often than others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HotKeys {
    /// How long a node may answer `GET` for a hot key of another node with the value that it was given before, such as
    /// `100ms`, which is the longest. Reads may then be that old, but never older than what their client wrote or read
    /// through the same node. It has no effect with a `readQuorum` above 1. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
}

/// How nodes are removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// How long to wait after a removal was turned back before the next begins, such as `5m`.
    pub stabilization: String,
    /// Remove nodes although what remains has too little memory, so that entries are evicted.
    pub allow_eviction: bool,
    /// After this time a drain that is not finished is reported as stalled; it goes on. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<String>,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self { stabilization: "5m".to_owned(), allow_eviction: false, drain_timeout: None }
    }
}

/// How a newer version reaches the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Update {
    /// Move to the operator's own image whenever the operator is updated. Has no effect while `image` is set.
    pub automatic: bool,
}

/// CPU and memory of each node, as in a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Most that a node may take. The memory limit decides how much it may cache.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub limits: BTreeMap<String, Quantity>,
    /// What is reserved for a node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::quantities")]
    pub requests: BTreeMap<String, Quantity>,
}

/// Whether the copies of a key are kept in different zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Zones {
    /// As far as zones are known.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// A volume for each node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Storage {
    /// Size of each volume, such as `1Gi`. Three times the memory of a node leaves room for two snapshots. Cannot be
    /// changed.
    pub size: String,
    /// Storage class. Absent: the default one of the Kubernetes cluster. Cannot be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// Between two snapshots while a node runs, such as `5m`; `0s`: only the one at its end.
    pub snapshot_interval: String,
    /// What comes back after all nodes were down at once: `strict` only what nodes wrote that stopped in order; `lossy`
    /// else the newest snapshot of another kind, without later writes and with keys that were deleted later.
    pub restore: Restore,
    /// What becomes of volumes that are not used any more.
    pub retention: Retention,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: "1Gi".to_owned(),
            storage_class_name: None,
            snapshot_interval: "5m".to_owned(),
            restore: Restore::default(),
            retention: Retention::default(),
        }
    }
}

/// What comes back after all nodes were down at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Restore {
    /// Only final snapshots.
    #[default]
    Strict,
    /// Else the newest of another kind.
    Lossy,
}

impl From<Restore> for settings::Restore {
    fn from(restore: Restore) -> Self {
        match restore {
            Restore::Strict => Self::Strict,
            Restore::Lossy => Self::Lossy,
        }
    }
}

/// What becomes of volumes that are not used any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// Volumes of nodes that were removed: they are empty by then.
    pub when_scaled: Keep,
    /// Volumes of a CacheCluster that was deleted.
    pub when_deleted: Keep,
}

/// Whether a volume stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Keep {
    /// It goes.
    #[default]
    Delete,
    /// It stays, and is used again by a node of the same name.
    Retain,
}

/// Where the nodes may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Placement {
    /// Labels that a Kubernetes node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated, beside those of a lost node for 30 s.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Affinity rules, as in a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Spread over zones and hosts, as in a pod. Absent: over both, where possible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Whether the copies of a key are kept in different zones while there are enough: `auto` or `off`. A node's zone is
    /// the label `topology.kubernetes.io/zone` of the Kubernetes node that its pod runs on.
    pub zones: Zones,
    /// Label of the pods that names their zone. Only needed where the operator looks after one namespace alone and so may
    /// not read Kubernetes nodes; something else must then put it on the pods. A pod without it starts 30 s late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_label: Option<String>,
    /// Priority class of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}
