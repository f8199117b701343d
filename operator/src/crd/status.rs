//! What the operator answers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of a CacheCluster, as the operator last saw it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CacheClusterStatus {
    /// Generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nodes that exist; what autoscalers read.
    pub replicas: i32,
    /// Whose wish `spec.replicas` is.
    pub replicas_from: ReplicasFrom,
    /// Label selector of the nodes' pods; what autoscalers read.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Ready nodes of those wanted, such as `3/3`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ready: String,
    /// Nodes whose pod is ready.
    pub ready_replicas: i32,
    /// Nodes whose pod runs the newest template.
    pub updated_replicas: i32,
    /// Image that the nodes run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Address for clients inside the Kubernetes cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Ports to open in firewalls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<FirewallPort>,
    /// Identity of the running cluster; a new one means that it started empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Quorums as computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<QuorumStatus>,
    /// Figures, written on a change of 5 % and at most once in 60 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// What is going on, such as `drain of quickstart-2: 61 of 170 partitions left`. Absent at rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The drain that runs. Absent when none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// When a removal was last turned back; the next one waits `scaleDown.stabilization` from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turned_back_at: Option<Time>,
    /// Faults that nodes report, each with its way out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemStatus>,
    /// Calls to peer ports without a certificate of this cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected_callers: Option<i64>,
    /// Conditions: Available, Ready, Reconciling, Stalled and others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Whose wish `spec.replicas` is (rule O4).
///
/// The API server does not note who wrote a value through `/scale` when nobody owned it before, so `managedFields` alone
/// cannot tell an autoscaler's wish from the schema's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplicasFrom {
    /// Nobody's: it is the schema's default, and the number of nodes stays as it is.
    #[default]
    Default,
    /// Somebody wrote and owns it.
    Spec,
    /// It came through `/scale`: from an autoscaler, or `kubectl scale`.
    Scale,
}

/// A port that must be open between nodes or for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirewallPort {
    /// Number.
    pub port: i32,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// Who needs it.
    pub purpose: String,
}

/// Quorums as computed from the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuorumStatus {
    /// Nodes that must reach each other.
    pub members: i32,
    /// Copies of each key that can exist: the factor, or the number of nodes if that is lower.
    pub copies: i32,
    /// `eventual`, `majority` or `strong`.
    pub posture: String,
}

/// Figures of the whole cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Keys; each counts once.
    pub keys: i64,
    /// Bytes of all entries and their copies.
    pub bytes: i64,
    /// Most bytes that they may take.
    pub max_bytes: i64,
    /// Both for people, such as `12Mi of 537Mi`.
    pub memory: String,
    /// Share of gets that found their key, in percent, since the nodes started. Absent before the first get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hit_percent: Option<i32>,
    /// Evicted entries since the nodes started.
    pub evictions: i64,
    /// When these figures were written.
    pub at: Time,
}

/// A drain that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// Pod that is drained.
    pub pod: String,
    /// `depart` or `restart`.
    pub intent: String,
    /// When it began.
    pub since: Time,
    /// Partitions that had to move when it began.
    pub partitions: i32,
}

/// A fault that a node reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemStatus {
    /// A stable word.
    pub code: String,
    /// The member or address that it is about.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub subject: String,
    /// One sentence with the way out.
    pub message: String,
}
