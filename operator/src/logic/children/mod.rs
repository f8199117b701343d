//! The Kubernetes objects that a CacheCluster consists of: one file a kind.

pub mod config_map;
pub mod disruption_budget;
pub mod network_policy;
pub mod secrets;
pub mod service_account;
pub mod services;
pub mod stateful_set;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::Value;

use super::{drift, observed::OperatorFacts};
use crate::crd::{API_VERSION, CacheCluster, KIND};

/// Value of `app.kubernetes.io/managed-by`, and the field manager of every write.
pub const MANAGER: &str = "mizuya-operator";
/// Label of a pod that was emptied and may go: it is outside the disruption budget (see [`super::roll`]).
pub const HANDED_OVER: &str = "cache.mizuya.dev/handed-over";
/// Annotation on a CacheCluster: a new value restarts the nodes.
pub const RESTARTED_AT: &str = "cache.mizuya.dev/restartedAt";
/// Label of a Kubernetes node that names its zone (rule O13).
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Annotation on a pod: the zone of its Kubernetes node, or [`NO_ZONE`] (rule O13).
pub const ZONE: &str = "cache.mizuya.dev/zone";
/// Value of [`ZONE`] where the Kubernetes node has none. No label has this value.
pub const NO_ZONE: &str = "-";
/// Annotation on the pod template: hash of the settings that need a restart.
pub const SETTINGS_HASH: &str = "cache.mizuya.dev/settings";
/// Name of the node's container.
pub const CONTAINER: &str = "node";

/// One child of a CacheCluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Child {
    /// Identity of the pods; it may do nothing.
    ServiceAccount,
    /// CA and client certificate of the operator.
    OperatorSecret,
    /// Certificates and gossip key of the nodes.
    SecuritySecret,
    /// The settings file.
    Settings,
    /// Headless Service: stable names of the members.
    PeersService,
    /// Service for clients.
    ClientService,
    /// Who may reach which port.
    NetworkPolicy,
    /// How many pods may be taken away.
    DisruptionBudget,
    /// The pods.
    StatefulSet,
}

impl Child {
    /// All of them, in the order in which they are made: what pods need comes before the pods.
    pub const ALL: [Self; 9] = [
        Self::ServiceAccount,
        Self::OperatorSecret,
        Self::SecuritySecret,
        Self::Settings,
        Self::PeersService,
        Self::ClientService,
        Self::NetworkPolicy,
        Self::DisruptionBudget,
        Self::StatefulSet,
    ];

    /// Name of this child of `cluster`.
    pub fn name(self, cluster: &str) -> String {
        match self {
            Self::OperatorSecret => format!("{cluster}-operator"),
            Self::SecuritySecret => format!("{cluster}-security"),
            Self::Settings => format!("{cluster}-settings"),
            Self::PeersService => format!("{cluster}-peers"),
            _ => cluster.to_owned(),
        }
    }

    /// API group, version, kind and plural.
    pub fn kind(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::OperatorSecret | Self::SecuritySecret => ("", "v1", "Secret", "secrets"),
            Self::Settings => ("", "v1", "ConfigMap", "configmaps"),
            Self::PeersService | Self::ClientService => ("", "v1", "Service", "services"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::DisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::StatefulSet => ("apps", "v1", "StatefulSet", "statefulsets"),
        }
    }

    /// Whether the child holds secrets: such children are made once and never rendered again (rule O20).
    pub fn is_secret(self) -> bool {
        matches!(self, Self::OperatorSecret | Self::SecuritySecret)
    }
}

/// Who a CacheCluster is, and the names that follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// UID.
    pub uid: String,
}

impl Identity {
    /// Of this object.
    pub fn of(cluster: &CacheCluster) -> Self {
        let part = |value: &Option<String>| value.clone().unwrap_or_default();
        let meta = &cluster.metadata;
        Self { name: part(&meta.name), namespace: part(&meta.namespace), uid: part(&meta.uid) }
    }

    /// Name of the pod with this ordinal.
    pub fn pod(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// Name of the member in that pod: a DNS name that stays the same over restarts.
    pub fn member(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}.{}", self.name, self.peers_domain())
    }

    /// Domain below which the members' names are.
    pub fn peers_domain(&self) -> String {
        format!("{}.{}.svc", Child::PeersService.name(&self.name), self.namespace)
    }

    /// The ordinal of a pod, if its name is one of ours.
    pub fn ordinal_of_pod(&self, pod: &str) -> Option<u32> {
        pod.strip_prefix(&self.name)?.strip_prefix('-')?.parse().ok()
    }

    /// The ordinal of a member, if its name is one of ours.
    pub fn ordinal_of_member(&self, member: &str) -> Option<u32> {
        let (pod, domain) = member.split_once('.')?;
        (domain == self.peers_domain()).then(|| self.ordinal_of_pod(pod)).flatten()
    }

    /// Labels of every child, and the selector of the pods.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let label = |key: &str, value: &str| (format!("app.kubernetes.io/{key}"), value.to_owned());
        BTreeMap::from([
            label("name", "mizuya"),
            label("instance", &self.name),
            label("component", CONTAINER),
            label("managed-by", MANAGER),
        ])
    }

    /// The same as a selector for `kubectl` and autoscalers.
    pub fn selector(&self) -> String {
        let labels: Vec<String> = self.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
        labels.join(",")
    }

    /// Metadata of a child.
    pub fn metadata(&self, child: Child) -> ObjectMeta {
        ObjectMeta {
            name: Some(child.name(&self.name)),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: Some(vec![self.owner()]),
            ..ObjectMeta::default()
        }
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// What the children are rendered from.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The object.
    pub cluster: &'a CacheCluster,
    /// Who it is.
    pub id: Identity,
    /// Pods that the StatefulSet is to have.
    pub replicas: i32,
    /// Pods that the settings file names as peers: those that exist and those that will.
    pub members: u32,
    /// Image of the nodes.
    pub image: String,
    /// `maxUnavailable` of the disruption budget; none without a budget.
    pub budget: Option<i32>,
    /// The operator itself.
    pub operator: &'a OperatorFacts,
}

/// Why a child cannot be rendered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RenderError {
    /// Settings that nodes would refuse.
    #[error("{0}")]
    Settings(String),
    /// Not JSON, which only a mistake in this crate can cause.
    #[error("cannot render {0}: {1}")]
    Json(&'static str, String),
}

impl Wanted<'_> {
    /// The child as it is to be, sealed with the hash of what was rendered. None: it is to be absent, or is a secret.
    pub fn render(&self, child: Child) -> Result<Option<Value>, RenderError> {
        let json = match child {
            Child::OperatorSecret | Child::SecuritySecret => return Ok(None),
            Child::ServiceAccount => serde_json::to_value(service_account::render(self)),
            Child::Settings => serde_json::to_value(config_map::render(self)?),
            Child::PeersService => serde_json::to_value(services::peers(self)),
            Child::ClientService => serde_json::to_value(services::client(self)),
            Child::NetworkPolicy => serde_json::to_value(network_policy::render(self)),
            Child::StatefulSet => serde_json::to_value(stateful_set::render(self)?),
            Child::DisruptionBudget => match self.budget {
                Some(budget) => serde_json::to_value(disruption_budget::render(self, budget)),
                None => return Ok(None),
            },
        };
        let json = json.map_err(|e| RenderError::Json(child.kind().2, e.to_string()))?;
        Ok(Some(drift::seal(json)))
    }
}
