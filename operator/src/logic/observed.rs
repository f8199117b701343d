//! Everything that one reconcile may know: the objects in Kubernetes and what the nodes say.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetStatus},
        core::v1::{ContainerStatus, Pod, PodStatus},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{
        apis::meta::v1::{FieldsV1, ObjectMeta},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};
use mizuya_wire::admin::{Intent, MemberState, MemberSummary, StatusReply};
use serde_json::Value;

#[cfg(doc)]
use super::children::NO_ZONE;
use super::children::{CONTAINER, Child, HANDED_OVER, Identity, ZONE};
use crate::crd::{CacheCluster, DEFAULT_REPLICAS, Mode, ReplicasFrom};

/// Label that Kubernetes puts on the pods of a `StatefulSet`: the revision of the template that they were made from.
const REVISION: &str = "controller-revision-hash";

/// What one member answered, or why it did not.
pub type View = Result<StatusReply, String>;

/// What the operator is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorFacts {
    /// Version of the program.
    pub version: String,
    /// Image that new clusters get.
    pub node_image: String,
    /// Namespace that it runs in.
    pub namespace: String,
    /// It may read Kubernetes nodes: it looks after all namespaces.
    pub reads_nodes: bool,
}

/// Everything that one reconcile may know.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The object.
    pub cluster: CacheCluster,
    /// What exists under the names of its children, whoever it belongs to. Secrets without their content.
    pub live: BTreeMap<Child, Value>,
    /// The pods' controller, if it exists and is ours.
    pub stateful_set: Option<StatefulSet>,
    /// The disruption budget, if it exists and is ours.
    pub budget: Option<PodDisruptionBudget>,
    /// Pods by ordinal.
    pub pods: BTreeMap<u32, PodFacts>,
    /// Zones of the Kubernetes nodes that the pods run on, as far as they are known; [`NO_ZONE`] where there is none.
    pub zones: BTreeMap<String, String>,
    /// Answers by ordinal, of those that were asked.
    pub views: BTreeMap<u32, View>,
    /// Whether every pod that can answer was asked. Gates open only then (rule O23).
    pub asked_all: bool,
    /// The operator itself.
    pub operator: OperatorFacts,
    /// The time.
    pub now: Timestamp,
    /// Any number, for jitter and for choosing whom to ask.
    pub random: u32,
}

/// What matters about a pod.
#[allow(clippy::struct_excessive_bools)] // independent facts, each as Kubernetes has it
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Version of the object as it was read.
    pub resource_version: String,
    /// Address, once it has one.
    pub address: Option<String>,
    /// Condition Ready.
    pub ready: bool,
    /// Since when the condition Ready is as it is; before that, since the pod was made.
    pub since: Option<Timestamp>,
    /// Being deleted.
    pub terminating: bool,
    /// Since when.
    pub stopping_since: Option<Timestamp>,
    /// The node's process runs. While it does not, the pod holds no entries.
    pub running: bool,
    /// The node's process ran at any time.
    pub ever_ran: bool,
    /// It was emptied, and is outside the disruption budget.
    pub handed_over: bool,
    /// Revision of the template that it was made from.
    pub revision: String,
    /// Why it does not run: reason and message, as Kubernetes has them.
    pub waiting: Option<(String, String)>,
    /// The Kubernetes node that it runs on.
    pub node: Option<String>,
    /// The zone that it was told; see [`ZONE`].
    pub zone: Option<String>,
}

impl PodFacts {
    /// Of this pod.
    pub fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let status = pod.status.clone().unwrap_or_default();
        let node = node_status(&status);
        let ready = condition(&status, "Ready");
        let is_ready = ready.is_some_and(|(value, _)| value == "True");
        let running = node.and_then(|n| n.state.as_ref()).is_some_and(|state| state.running.is_some());
        let restarted =
            node.is_some_and(|n| n.restart_count > 0 || n.last_state.as_ref().is_some_and(|s| s.terminated.is_some()));
        let ended = node.and_then(|n| n.state.as_ref()).is_some_and(|state| state.terminated.is_some());
        Self {
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone().unwrap_or_default(),
            address: status.pod_ip.clone().filter(|address| !address.is_empty()),
            ready: is_ready,
            since: ready.and_then(|(_, since)| since).or_else(|| meta.creation_timestamp.as_ref().map(|t| t.0)),
            terminating: meta.deletion_timestamp.is_some(),
            stopping_since: stopping_since(meta),
            running,
            ever_ran: running || restarted || ended,
            handed_over: meta.labels.as_ref().is_some_and(|labels| labels.contains_key(HANDED_OVER)),
            revision: meta.labels.as_ref().and_then(|labels| labels.get(REVISION)).cloned().unwrap_or_default(),
            waiting: if is_ready { None } else { waiting(&status) },
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty()),
            zone: meta.annotations.as_ref().and_then(|annotations| annotations.get(ZONE)).cloned(),
        }
    }

    /// Ready and staying.
    pub fn serves(&self) -> bool {
        self.ready && !self.terminating
    }

    /// Seconds since the condition Ready changed.
    pub fn seconds_so(&self, now: Timestamp) -> i64 {
        self.since.map_or(0, |since| now.as_second() - since.as_second())
    }
}

/// The deletion timestamp is when the grace period ends, not when it began.
fn stopping_since(meta: &ObjectMeta) -> Option<Timestamp> {
    let ends = meta.deletion_timestamp.as_ref()?.0.as_second();
    Timestamp::from_second(ends - meta.deletion_grace_period_seconds.unwrap_or_default()).ok()
}

fn node_status(status: &PodStatus) -> Option<&ContainerStatus> {
    status.container_statuses.as_ref()?.iter().find(|container| container.name == CONTAINER)
}

fn condition<'a>(status: &'a PodStatus, name: &str) -> Option<(&'a str, Option<Timestamp>)> {
    let found = status.conditions.as_ref()?.iter().find(|condition| condition.type_ == name)?;
    Some((&found.status, found.last_transition_time.as_ref().map(|time| time.0)))
}

fn waiting(status: &PodStatus) -> Option<(String, String)> {
    let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = scheduled {
        let reason = condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
        return Some((reason, condition.message.clone().unwrap_or_default()));
    }
    let waiting = node_status(status)?.state.as_ref()?.waiting.as_ref()?;
    Some((waiting.reason.clone()?, waiting.message.clone().unwrap_or_default()))
}

/// The UID of the controller that an object belongs to.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

impl Observed {
    /// Who the CacheCluster is.
    pub fn id(&self) -> Identity {
        Identity::of(&self.cluster)
    }

    /// Pods that the `StatefulSet` is told to have; 0 without one.
    pub fn live_replicas(&self) -> u32 {
        let replicas =
            self.stateful_set.as_ref().and_then(|set| set.spec.as_ref()).map(|spec| spec.replicas.unwrap_or(1));
        replicas.unwrap_or_default().max(0) as u32
    }

    /// Whose wish `spec.replicas` is (rule O4). A number that nobody owns and that is not the default came through
    /// `/scale`; so did the default when the number before it had. But a default that takes the place of a number which
    /// somebody owned is what is left when its owner gives it up, which only server-side apply can do.
    pub fn replicas_from(&self) -> ReplicasFrom {
        let entries = || self.cluster.metadata.managed_fields.iter().flatten();
        let owns = |fields: &FieldsV1| fields.0.pointer("/f:spec/f:replicas").is_some();
        let applied_by_server =
            entries().any(|entry| entry.operation.as_deref() == Some("Apply") && entry.subresource.is_none());
        let before = self.cluster.status.as_ref().map(|status| status.replicas_from);
        let given_up = self.cluster.spec.replicas == DEFAULT_REPLICAS && before != Some(ReplicasFrom::Scale);
        if entries().filter_map(|entry| entry.fields_v1.as_ref()).any(owns) {
            ReplicasFrom::Spec
        } else if !given_up || !applied_by_server {
            ReplicasFrom::Scale
        } else {
            ReplicasFrom::Default
        }
    }

    /// Pods that are wanted: the spec's number, or on an existing cluster what is there when it is nobody's wish (O4).
    pub fn wanted_replicas(&self) -> u32 {
        match &self.stateful_set {
            Some(_) if self.replicas_from() == ReplicasFrom::Default => self.live_replicas().max(1),
            _ => self.cluster.spec.replicas.max(1) as u32,
        }
    }

    /// Image of the live template.
    pub fn live_image(&self) -> Option<String> {
        let template = self.stateful_set.as_ref()?.spec.as_ref()?.template.spec.as_ref()?;
        template.containers.iter().find(|container| container.name == CONTAINER)?.image.clone()
    }

    /// Image that the nodes are to run (rule O2).
    pub fn wanted_image(&self) -> String {
        let spec = &self.cluster.spec;
        let live = self.live_image().filter(|_| !spec.update.automatic);
        spec.image.clone().or(live).unwrap_or_else(|| self.operator.node_image.clone())
    }

    /// Status of the `StatefulSet`, when it is about the newest spec.
    pub fn current_status(&self) -> Option<&StatefulSetStatus> {
        let set = self.stateful_set.as_ref()?;
        set.status.as_ref().filter(|status| status.observed_generation == set.metadata.generation)
    }

    /// Ordinals of pods made from an older template (rule O8). None while that cannot be told.
    pub fn outdated(&self) -> Option<BTreeSet<u32>> {
        let newest = self.current_status()?.update_revision.as_ref()?;
        let outdated = self.pods.iter().filter(|(_, pod)| &pod.revision != newest);
        Some(outdated.map(|(ordinal, _)| *ordinal).collect())
    }

    /// Whether members of a cluster are asked and gates apply at all.
    pub fn is_clustered(&self) -> bool {
        self.cluster.spec.mode == Mode::Ha
    }

    /// Answers of those who answered and hold a table.
    pub fn answers(&self) -> impl Iterator<Item = (u32, &StatusReply)> {
        self.views.iter().filter_map(|(ordinal, view)| Some((*ordinal, view.as_ref().ok()?)))
    }

    /// What the others say about a member: the first answer of anyone but itself.
    pub fn member(&self, ordinal: u32) -> Option<&MemberSummary> {
        self.answers().filter(|(i, _)| *i != ordinal).find_map(|(_, view)| self.member_in(view, ordinal))
    }

    /// What one answer says about a member.
    pub fn member_in<'a>(&self, view: &'a StatusReply, ordinal: u32) -> Option<&'a MemberSummary> {
        let name = self.id().member(ordinal);
        view.members.iter().find(|member| member.name == name)
    }

    /// Whether any answer says that copies are missing or keys cannot be served.
    pub fn copies_are_missing(&self) -> bool {
        self.answers().any(|(_, view)| view.partitions_short_of_copies > 0 || view.partitions_unavailable > 0)
    }

    /// Pods that can be asked: they have an address and their process runs.
    pub fn can_be_asked(&self) -> BTreeSet<u32> {
        let able = self.pods.iter().filter(|(_, pod)| pod.running && pod.address.is_some());
        able.map(|(ordinal, _)| *ordinal).collect()
    }

    /// Whether the objects in Kubernetes say that all is as it should be, so that one member's word is enough.
    pub fn looks_settled(&self) -> bool {
        let live = self.live_replicas();
        self.was_ready()
            && live == self.wanted_replicas()
            && self.pods.len() as u32 == live
            && self.pods.values().all(PodFacts::serves)
            && self.outdated().is_some_and(|outdated| outdated.is_empty())
    }

    /// Whether the last report said Ready about this generation, and nothing was wrong with any node.
    fn was_ready(&self) -> bool {
        let Some(status) = &self.cluster.status else { return false };
        status.observed_generation == self.cluster.metadata.generation
            && status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
            && status.problems.is_empty()
    }

    /// Whom to ask first: one at rest, in turns; everybody otherwise.
    pub fn whom_to_ask(&self) -> BTreeSet<u32> {
        let able = self.can_be_asked();
        if !self.is_clustered() {
            return BTreeSet::new();
        }
        if !self.looks_settled() || able.is_empty() {
            return able;
        }
        let turn = self.random as usize % able.len();
        able.into_iter().nth(turn).into_iter().collect()
    }

    /// `maxUnavailable` of the live budget.
    pub fn live_budget(&self) -> Option<i32> {
        match self.budget.as_ref()?.spec.as_ref()?.max_unavailable.as_ref()? {
            IntOrString::Int(n) => Some(*n),
            IntOrString::String(_) => None,
        }
    }
}

/// Whether the member is in this state.
pub fn is(member: &MemberSummary, state: MemberState) -> bool {
    member.state() == state
}

/// Whether the member leaves with this intent.
pub fn is_leaving(member: &MemberSummary, intent: Intent) -> bool {
    is(member, MemberState::Leaving) && member.leaving() == intent
}
