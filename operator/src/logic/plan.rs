//! The only place that decides: everything observed in, one [`Plan`] out (DESIGN §3).

use std::collections::BTreeSet;

use mizuya_wire::admin::{Intent as WireIntent, LiveSettings, MemberState, MemberSummary};
use serde::Serialize;
use serde_json::Value;

use super::{
    children::{Child, Wanted},
    drift,
    observed::{Observed, PodFacts, controller_of, is, is_leaving},
    roll, scale_down, validate,
};
use crate::crd::Zones;

/// Why a member leaves (rule L1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Intent {
    /// It comes back: primaries move away.
    Restart,
    /// It does not come back: everything moves away.
    Depart,
}

impl Intent {
    /// As the admin service has it.
    pub fn to_wire(self) -> WireIntent {
        match self {
            Self::Restart => WireIntent::Restart,
            Self::Depart => WireIntent::Depart,
        }
    }

    /// As the status has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Depart => "depart",
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Step {
    /// Make the Secrets that are absent.
    CreateSecrets {
        /// Which.
        missing: Vec<Child>,
    },
    /// Write a child by server-side apply.
    Apply {
        /// Which.
        child: Child,
        /// All rendered fields.
        manifest: Value,
        /// The first field that differs; none when the child does not exist.
        because: Option<String>,
    },
    /// Delete a child that is no longer wanted.
    Delete {
        /// Which.
        child: Child,
        /// UID that was observed; another object of that name stays.
        uid: String,
    },
    /// Lower the `StatefulSet` by one (rule O7). The manifest carries the resource version that was observed.
    Lower {
        /// Pods afterwards.
        to: u32,
        /// The whole `StatefulSet`.
        manifest: Value,
    },
    /// The member takes no new partitions.
    Cordon {
        /// Ordinal.
        member: u32,
    },
    /// Turns a cordon or a drain back.
    Uncordon {
        /// Ordinal.
        member: u32,
    },
    /// Moves away what the member has.
    Drain {
        /// Ordinal.
        member: u32,
        /// Why.
        intent: Intent,
    },
    /// Removes a member that is gone from the table.
    Forget {
        /// Ordinal.
        member: u32,
    },
    /// Hands live settings to the cluster (rule O1).
    ApplySettings(Live),
    /// Takes an emptied pod out of the disruption budget and evicts it.
    Evict {
        /// Name of the pod.
        pod: String,
        /// UID that was observed.
        uid: String,
        /// Resource version that was observed.
        resource_version: String,
    },
    /// Tells a pod its zone (rule O13).
    TellZone {
        /// Name of the pod.
        pod: String,
        /// UID that was observed.
        uid: String,
        /// Zone.
        zone: String,
    },
    /// Puts a pod that is to stay back into the disruption budget.
    PutBack {
        /// Name of the pod.
        pod: String,
        /// UID that was observed.
        uid: String,
    },
}

/// Settings that change without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Live {
    /// Generation; higher than that in the table.
    pub generation: u64,
    /// Copies of each key.
    pub factor: u32,
    /// Copies that confirm a read.
    pub read_quorum: u32,
    /// Copies that hold a write.
    pub write_quorum: u32,
    /// Voters that must be reachable; 0 is auto.
    pub member_count_quorum: u32,
}

impl Live {
    /// As the admin service has it.
    pub fn to_wire(self) -> LiveSettings {
        LiveSettings {
            generation: self.generation,
            factor: self.factor,
            read_quorum: self.read_quorum,
            write_quorum: self.write_quorum,
            member_count_quorum: self.member_count_quorum,
        }
    }
}

/// What there is to say about the spec not being reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Say {
    /// It is reached.
    #[default]
    Reached,
    /// It will be; the reason is a word for machines, the message a sentence.
    Underway(String, String),
    /// A person must do something; the message says what.
    Blocked(String, String),
}

impl Say {
    pub(super) fn underway(reason: &str, message: impl Into<String>) -> Self {
        Self::Underway(reason.to_owned(), message.into())
    }

    pub(super) fn blocked(reason: &str, message: impl Into<String>) -> Self {
        Self::Blocked(reason.to_owned(), message.into())
    }
}

/// A drain that runs, for the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Draining {
    /// Ordinal.
    pub member: u32,
    /// Why.
    pub intent: Intent,
    /// Partitions that still have to move.
    pub left: u32,
}

/// The next move of a scale-down or roll.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operation {
    /// What to do now.
    pub steps: Vec<Step>,
    /// The member that is being taken away; its cordon or drain is wanted.
    pub about: Option<u32>,
    /// Nobody else may be taken away meanwhile: the disruption budget is 0 (rule O9).
    pub guard: bool,
    /// Everybody's word is needed, and not everybody was asked.
    pub ask_all: bool,
    /// The `StatefulSet` is to be lowered to this.
    pub lower_to: Option<u32>,
    /// The drain that runs.
    pub draining: Option<Draining>,
    /// What to say.
    pub say: Say,
}

impl Operation {
    pub(super) fn say(say: Say) -> Self {
        Self { say, ..Self::default() }
    }

    pub(super) fn ask_all() -> Self {
        Self { ask_all: true, ..Self::say(Say::underway("AskingNodes", "asking every node")) }
    }
}

/// What one reconcile does, and what it reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// In order. A failure ends the reconcile; the next one observes anew.
    pub steps: Vec<Step>,
    /// Ask every node and plan again before doing anything.
    pub ask_all: bool,
    /// Pods that are wanted.
    pub replicas: u32,
    /// Image that is wanted.
    pub image: String,
    /// What the nodes would refuse, with the way out; the last good children stay.
    pub refused: Option<String>,
    /// The drain that runs.
    pub draining: Option<Draining>,
    /// A removal is turned back by this plan.
    pub turned_back: bool,
    /// What to say.
    pub say: Say,
    /// When to look again if nothing wakes the operator before.
    pub look_again_millis: u64,
}

const BUSY_MILLIS: u64 = 1_500;
const BLOCKED_MILLIS: u64 = 5_000;
const REST_MILLIS: u64 = 15_000;

/// Decides.
pub fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan {
        replicas: observed.wanted_replicas(),
        image: observed.wanted_image(),
        look_again_millis: BUSY_MILLIS,
        ..Plan::default()
    };
    if observed.cluster.metadata.deletion_timestamp.is_some() {
        // Deletion needs no operator: every child is owned (rule O19). Nothing is made anew meanwhile.
        plan.say = Say::underway("Deleting", "the children go by their owner references");
        plan.look_again_millis = REST_MILLIS;
        return plan;
    }
    if let Some(say) = names_in_the_way(observed) {
        plan.look_again_millis = if matches!(say, Say::Blocked(..)) { BLOCKED_MILLIS } else { BUSY_MILLIS };
        plan.say = say;
        return plan;
    }
    if one_word_is_not_enough(observed) {
        plan.ask_all = true;
        return plan;
    }
    let operation = if observed.cluster.spec.paused { Operation::default() } else { next_operation(observed) };
    plan.ask_all = operation.ask_all;
    plan.draining.clone_from(&operation.draining);
    fill(observed, operation, &mut plan);
    plan.look_again_millis = look_again(observed, &plan);
    plan
}

/// At rest one member is asked. When it does not answer, or is not well, the others are heard before anything is said or
/// done about it.
fn one_word_is_not_enough(observed: &Observed) -> bool {
    let well = observed.answers().any(|(_, view)| view.ready) && !observed.copies_are_missing();
    observed.is_clustered() && !observed.asked_all && !well
}

fn fill(observed: &Observed, operation: Operation, plan: &mut Plan) {
    let wanted = wanted(observed, &operation, plan);
    if let Err(refusal) = validate::check(&wanted) {
        plan.refused = Some(refusal.to_string());
        plan.say = Say::blocked("ConfigRefused", refusal.to_string());
        return;
    }
    let children = match children(observed, &wanted) {
        Ok(steps) => steps,
        Err(error) => {
            plan.refused = Some(error.to_string());
            plan.say = Say::blocked("ConfigRefused", error.to_string());
            return;
        }
    };
    let template_changes = children.iter().any(|step| matches!(step, Step::Apply { child: Child::StatefulSet, .. }));
    plan.steps = children;
    plan.steps.extend(untold_zones(observed));
    if observed.cluster.spec.paused {
        plan.say = standing(observed, plan.replicas, template_changes);
        return;
    }
    let strays = strays(observed, operation.about);
    let removing = observed.live_replicas() > plan.replicas;
    plan.turned_back = !removing && strays.iter().any(|stray| stray.removal);
    if plan.draining.is_none() {
        plan.draining = leaves_by_itself(observed, operation.about);
    }
    plan.steps.extend(put_back(observed, operation.about));
    plan.steps.extend(strays.into_iter().map(|stray| Step::Uncordon { member: stray.member }));
    plan.steps.extend(departed(observed, plan.replicas).into_iter().map(|member| Step::Forget { member }));
    plan.steps.extend(live_settings(observed).map(Step::ApplySettings));
    if !template_changes {
        plan.steps.extend(operation.steps);
        if let Some(to) = operation.lower_to {
            plan.steps.extend(lower(observed, &wanted, to));
        }
    }
    plan.say = match operation.say {
        Say::Reached => standing(observed, plan.replicas, template_changes),
        Say::Underway(reason, message) => first_that_cannot_start(observed)
            .or_else(|| first_that_cannot_stop(observed))
            .unwrap_or(Say::Underway(reason, message)),
        blocked @ Say::Blocked(..) => blocked,
    };
    if plan.say == Say::Reached && plan.steps.iter().any(|step| matches!(step, Step::ApplySettings(_))) {
        plan.say = Say::underway("ApplyingSettings", "the nodes are told the new settings");
    }
}

/// A pod is told its zone once, as soon as it has a Kubernetes node: it waits for that at its start, and asks no more
/// afterwards.
fn untold_zones(observed: &Observed) -> impl Iterator<Item = Step> {
    let placement = &observed.cluster.spec.placement;
    let wanted = observed.is_clustered() && placement.zones == Zones::Auto && placement.zone_label.is_none();
    let untold = observed.pods.values().filter(move |pod| wanted && pod.zone.is_none() && !pod.terminating);
    untold.filter_map(|pod| {
        let zone = observed.zones.get(pod.node.as_ref()?)?.clone();
        Some(Step::TellZone { pod: pod.name.clone(), uid: pod.uid.clone(), zone })
    })
}

/// The next move: a roll's step that is under way is finished first, and a broken pod is replaced first; then nodes are
/// removed, then others are rolled.
fn next_operation(observed: &Observed) -> Operation {
    if observed.stateful_set.is_none() {
        return Operation::default();
    }
    let live = observed.live_replicas();
    let wanted = observed.wanted_replicas();
    let removing = live > wanted;
    let rolling = roll::under_way(observed);
    if removing && rolling.is_none_or(|ordinal| ordinal == live - 1) && !roll::must_go_first(observed, live - 1) {
        return scale_down::next(observed, wanted);
    }
    roll::next(observed)
}

fn wanted<'a>(observed: &'a Observed, operation: &Operation, plan: &Plan) -> Wanted<'a> {
    let live = observed.live_replicas();
    let most = live.max(plan.replicas);
    let pods = observed.pods.keys().next_back().map_or(0, |ordinal| ordinal + 1);
    Wanted {
        cluster: &observed.cluster,
        id: observed.id(),
        replicas: most as i32,
        members: most.max(pods),
        image: plan.image.clone(),
        budget: budget(observed, operation, most),
        operator: &observed.operator,
    }
}

/// `maxUnavailable` of the budget (rule O9). While nobody answers, what is there stays.
fn budget(observed: &Observed, operation: &Operation, replicas: u32) -> Option<i32> {
    if replicas <= 1 {
        return None;
    }
    let someone_leaves = observed
        .answers()
        .flat_map(|(_, view)| &view.members)
        .any(|member| is_leaving(member, WireIntent::Depart) || is_leaving(member, WireIntent::Restart));
    if operation.guard || observed.copies_are_missing() || someone_leaves {
        return Some(0);
    }
    let nobody_answers = observed.is_clustered() && observed.answers().next().is_none();
    match observed.live_budget() {
        Some(live) if nobody_answers || operation.ask_all => Some(live),
        _ => Some(1),
    }
}

/// Children that must be written, and those that must go.
fn children(observed: &Observed, wanted: &Wanted<'_>) -> Result<Vec<Step>, super::children::RenderError> {
    let mut steps = Vec::new();
    let missing: Vec<Child> =
        Child::ALL.into_iter().filter(|child| child.is_secret() && !observed.live.contains_key(child)).collect();
    if !missing.is_empty() {
        steps.push(Step::CreateSecrets { missing });
    }
    for child in Child::ALL.into_iter().filter(|child| !child.is_secret()) {
        if observed.cluster.spec.paused && child != Child::DisruptionBudget {
            continue;
        }
        let live = observed.live.get(&child);
        match (wanted.render(child)?, live) {
            (Some(manifest), None) => steps.push(Step::Apply { child, manifest, because: None }),
            (Some(manifest), Some(live)) => {
                if let Some(path) = drift::first_difference(&manifest, live) {
                    let manifest = guarded(child, manifest, live);
                    steps.push(Step::Apply { child, manifest, because: Some(path) });
                }
            }
            (None, Some(live)) => steps.push(Step::Delete { child, uid: text(live, "/metadata/uid") }),
            (None, None) => {}
        }
    }
    Ok(steps)
}

/// The `StatefulSet` is written only as the one that was observed, so that its number of pods is never set from an old
/// view (rule O7).
fn guarded(child: Child, mut manifest: Value, live: &Value) -> Value {
    if child == Child::StatefulSet
        && let Some(metadata) = manifest.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("resourceVersion".to_owned(), Value::String(text(live, "/metadata/resourceVersion")));
    }
    manifest
}

fn lower(observed: &Observed, wanted: &Wanted<'_>, to: u32) -> Option<Step> {
    let lowered = Wanted { replicas: to as i32, ..wanted.clone() };
    let manifest = lowered.render(Child::StatefulSet).ok()??;
    let live = observed.live.get(&Child::StatefulSet)?;
    Some(Step::Lower { to, manifest: guarded(Child::StatefulSet, manifest, live) })
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A child's name that is not free: taken by somebody else's object (rule O15), or by one that is being deleted.
fn names_in_the_way(observed: &Observed) -> Option<Say> {
    let id = observed.id();
    let mut waiting = None;
    for (child, live) in &observed.live {
        let metadata = live.get("metadata").cloned().unwrap_or_default();
        let metadata = serde_json::from_value(metadata).unwrap_or_default();
        let what = format!("{} {}", child.kind().2, child.name(&id.name));
        let ours = controller_of(&metadata) == Some(id.uid.as_str());
        let of_a_former =
            metadata.owner_references.iter().flatten().any(|o| o.kind == crate::crd::KIND && o.name == id.name);
        if !ours && !of_a_former {
            return Some(Say::blocked(
                "NameTaken",
                format!(
                    "{what} exists and does not belong to this CacheCluster; nothing was touched: rename one of them, or delete the {what}"
                ),
            ));
        }
        if !ours || metadata.deletion_timestamp.is_some() {
            waiting = Some(Say::underway(
                "WaitingForDeletion",
                format!("{what} is being deleted; it is made anew afterwards"),
            ));
        }
    }
    waiting
}

/// Pods that were taken out of the disruption budget and are to stay after all.
fn put_back(observed: &Observed, keep: Option<u32>) -> Vec<Step> {
    let pods =
        observed.pods.iter().filter(|(ordinal, pod)| pod.handed_over && !pod.terminating && Some(**ordinal) != keep);
    pods.map(|(_, pod)| Step::PutBack { pod: pod.name.clone(), uid: pod.uid.clone() }).collect()
}

/// A member that is cordoned or leaving although nothing wants it any more.
struct Stray {
    member: u32,
    /// It was to be removed, not restarted.
    removal: bool,
}

/// Finds them. One whose pod stops is left alone.
fn strays(observed: &Observed, keep: Option<u32>) -> Vec<Stray> {
    let mut strays = Vec::new();
    if observed.outdated().is_none() {
        // Whether a handover is still wanted cannot be told while Kubernetes has not seen the newest template.
        return strays;
    }
    for (member, summary) in staying(observed, keep) {
        match summary.state() {
            MemberState::Cordoned => strays.push(Stray { member, removal: true }),
            MemberState::Leaving if is_leaving(summary, WireIntent::Depart) => {
                strays.push(Stray { member, removal: true });
            }
            MemberState::Leaving if has_left_for_long(observed, member) => {
                strays.push(Stray { member, removal: false });
            }
            _ => {}
        }
    }
    strays
}

/// Members whose pods serve and stay.
fn staying(observed: &Observed, keep: Option<u32>) -> impl Iterator<Item = (u32, &MemberSummary)> {
    let pods =
        observed.pods.iter().filter(move |(ordinal, pod)| Some(**ordinal) != keep && pod.serves() && pod.running);
    pods.filter_map(|(ordinal, _)| Some((*ordinal, observed.member(*ordinal)?)))
}

/// How long a member may leave for a restart before that counts as a handover which nobody wants any more.
const LEAVES_FOR_SECONDS: i64 = 15;

/// A member leaves for a restart by itself too: at SIGTERM, which Kubernetes may show a moment later. So it is turned
/// back only when its pod still serves long after.
fn has_left_for_long(observed: &Observed, ordinal: u32) -> bool {
    let drain = observed.cluster.status.as_ref().and_then(|status| status.drain.as_ref());
    let ours =
        drain.filter(|drain| drain.pod == observed.id().pod(ordinal) && drain.intent == Intent::Restart.as_str());
    ours.is_some_and(|drain| observed.now.as_second() - drain.since.0.as_second() > LEAVES_FOR_SECONDS)
}

/// The first such member, so that the status remembers since when.
fn leaves_by_itself(observed: &Observed, keep: Option<u32>) -> Option<Draining> {
    let (member, summary) = staying(observed, keep).find(|(_, summary)| is_leaving(summary, WireIntent::Restart))?;
    Some(Draining { member, intent: Intent::Restart, left: summary.primaries })
}

/// Members that are gone, have no pod and will get none.
fn departed(observed: &Observed, wanted: u32) -> BTreeSet<u32> {
    let id = observed.id();
    let most = observed.live_replicas().max(wanted);
    let named = observed.answers().flat_map(|(_, view)| &view.members);
    let gone = named.filter(|member| is(member, MemberState::Down) || is(member, MemberState::Away));
    let ordinals = gone.filter_map(|member| id.ordinal_of_member(&member.name));
    ordinals.filter(|ordinal| *ordinal >= most && !observed.pods.contains_key(ordinal)).collect()
}

/// Live settings that the cluster does not have yet.
fn live_settings(observed: &Observed) -> Option<Live> {
    let replication = &observed.cluster.spec.replication;
    let (_, view) = observed.answers().filter(|(_, view)| view.epoch > 0).max_by_key(|(_, view)| view.epoch)?;
    let theirs = view.settings.as_ref()?;
    let ours = Live {
        generation: (observed.cluster.metadata.generation.unwrap_or_default() as u64).max(theirs.generation + 1),
        factor: replication.factor as u32,
        read_quorum: replication.read_quorum as u32,
        write_quorum: replication.write_quorum as u32,
        member_count_quorum: replication.member_count_quorum.to_wire(),
    };
    let same = LiveSettings { generation: theirs.generation, ..ours.to_wire() } == *theirs;
    (!same && observed.is_clustered()).then_some(ours)
}

/// What still differs from the spec when no operation is due.
fn standing(observed: &Observed, wanted: u32, template_changes: bool) -> Say {
    let live = observed.live_replicas();
    let id = observed.id();
    if observed.stateful_set.is_none() {
        return Say::underway("Creating", "the children are being made");
    }
    if live < wanted {
        return Say::underway("ScalingUp", format!("from {live} to {wanted} nodes"));
    }
    if let Some(say) = first_that_cannot_start(observed).or_else(|| first_that_cannot_stop(observed)) {
        return say;
    }
    let ready = observed.pods.iter().filter(|(ordinal, pod)| **ordinal < live && pod.serves()).count() as u32;
    if ready < live {
        return Say::underway("WaitingForNodes", format!("{ready} of {live} nodes are ready"));
    }
    if let Some((ordinal, _)) = observed.pods.iter().find(|(ordinal, _)| **ordinal >= live) {
        return Say::underway("ScalingDown", format!("{} is stopping", id.pod(*ordinal)));
    }
    if template_changes || observed.outdated().is_none() {
        return Say::underway("RollingOut", "the template changed");
    }
    if live > wanted || observed.outdated().is_some_and(|outdated| !outdated.is_empty()) {
        return Say::underway("Paused", "what differs from the spec waits until the cluster is no longer paused");
    }
    if observed.is_clustered() { nodes_stand(observed, live) } else { Say::Reached }
}

fn nodes_stand(observed: &Observed, live: u32) -> Say {
    let Some((answering, view)) = observed.answers().next() else {
        let error = observed.views.values().find_map(|view| view.as_ref().err()).cloned().unwrap_or_default();
        return Say::underway("NodesDoNotAnswer", format!("no node answers the operator: {error}"));
    };
    if view.partitions_unavailable > 0 {
        return Say::underway(
            "PartitionsUnavailable",
            format!("{} partitions cannot be served", view.partitions_unavailable),
        );
    }
    if view.partitions_short_of_copies > 0 {
        return Say::underway(
            "CopiesMissing",
            format!("{} partitions are short of copies", view.partitions_short_of_copies),
        );
    }
    for ordinal in 0..live {
        let state = observed.member_in(view, ordinal).map(MemberSummary::state);
        let state = if state.is_none() && ordinal == answering { Some(view.state()) } else { state };
        if state != Some(MemberState::Active) {
            return Say::underway(
                "WaitingForNodes",
                format!("{} is not active in the cluster yet", observed.id().pod(ordinal)),
            );
        }
    }
    Say::Reached
}

/// How long a pod may fail to start before it takes a person.
const START_PATIENCE_SECONDS: i64 = 300;

/// The first pod that cannot start, with Kubernetes' reason and the way out.
fn first_that_cannot_start(observed: &Observed) -> Option<Say> {
    let (pod, (reason, message)) = observed.pods.values().find_map(|pod| Some((pod, pod.waiting.as_ref()?)))?;
    let way_out = match reason.as_str() {
        "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" => {
            "correct spec.image or make the image available"
        }
        "CrashLoopBackOff" => "see the log: kubectl logs --previous",
        "Unschedulable" => "free or add Kubernetes nodes, or change spec.placement or spec.resources",
        "ContainerCreating" | "PodInitializing" => return None,
        _ => "see kubectl describe pod",
    };
    let text = format!("{}: {reason}: {message}; {way_out}", pod.name);
    let text: String = text.chars().take(1000).collect();
    if pod.seconds_so(observed.now) > START_PATIENCE_SECONDS {
        Some(Say::blocked(reason, text))
    } else {
        Some(Say::underway(reason, text))
    }
}

/// How long a pod may take to stop: `leaveTimeout` is at most 4 minutes.
const STOP_PATIENCE_SECONDS: i64 = 330;

/// A pod that does not stop, most likely on a node that is lost (rule O11).
fn first_that_cannot_stop(observed: &Observed) -> Option<Say> {
    let stuck = |pod: &&PodFacts| {
        let since = pod.stopping_since.filter(|_| pod.terminating);
        since.is_some_and(|since| observed.now.as_second() - since.as_second() > STOP_PATIENCE_SECONDS)
    };
    let pod = observed.pods.values().find(stuck)?;
    Some(Say::blocked(
        "PodDoesNotStop",
        format!(
            "{} does not stop; if its Kubernetes node is lost for good, say so: kubectl taint node NODE node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, and the pod starts elsewhere",
            pod.name
        ),
    ))
}

fn look_again(observed: &Observed, plan: &Plan) -> u64 {
    let at_rest = plan.say == Say::Reached && plan.steps.is_empty();
    let problems = observed.answers().any(|(_, view)| !view.problems.is_empty());
    let base = match &plan.say {
        _ if at_rest && problems => BLOCKED_MILLIS,
        _ if at_rest => REST_MILLIS,
        Say::Blocked(..) => BLOCKED_MILLIS,
        _ if observed.pods.values().all(PodFacts::serves) => BUSY_MILLIS,
        _ => BUSY_MILLIS + 500,
    };
    // A fifth either way, so that a thousand clusters do not ask at once.
    base - base / 5 + u64::from(observed.random) % (base * 2 / 5)
}
