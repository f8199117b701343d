//! What is told: status, conditions and events, from what was observed, planned and done.

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use mizuya_wire::{
    admin::{MemberState, Totals},
    quorum::Posture,
};

use super::{
    children::{Child, NO_ZONE},
    observed::{Observed, PodFacts, is},
    plan::{Plan, Say, Step},
    validate,
};
use crate::crd::{
    CacheClusterStatus, DrainStatus, Figures, FirewallPort, ProblemStatus, QuorumStatus, ReplicasFrom, Zones,
};

/// Most problems that a status lists.
const MAX_PROBLEMS: usize = 16;
/// Longest message of a condition that Kubernetes takes is 32,768; nobody reads that much.
const MAX_MESSAGE: usize = 1_000;
/// Figures are written at most this often (rule O22), and when the spec was just reached: then the status is written anyway.
const FIGURES_EVERY_SECONDS: i64 = 60;
/// And only on a change of this share, in percent.
const FIGURES_CHANGE_PERCENT: u64 = 5;

/// What became of the steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Steps that were done.
    pub done: Vec<Step>,
    /// The first one that failed.
    pub failure: Option<Failure>,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed, and why.
    pub message: String,
    /// The API server found the object itself invalid: trying again does not help.
    pub invalid: bool,
}

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// A warning, or something normal.
    pub warning: bool,
    /// A word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// What is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The whole new status.
    pub status: CacheClusterStatus,
    /// Events, in order.
    pub events: Vec<Event>,
}

/// Tells what was observed, planned and done.
pub fn report(observed: &Observed, plan: &Plan, outcome: &Outcome) -> Report {
    let before = observed.cluster.status.clone().unwrap_or_default();
    let status = status(observed, plan, outcome, &before);
    let mut events = step_events(observed, plan, outcome);
    events.extend(transition_events(&before, &status));
    Report { status, events }
}

fn status(observed: &Observed, plan: &Plan, outcome: &Outcome, before: &CacheClusterStatus) -> CacheClusterStatus {
    let id = observed.id();
    let ports = observed.cluster.spec.ports;
    let ready = observed.pods.values().filter(|pod| pod.serves()).count();
    let outdated = observed.outdated().map_or(observed.pods.len(), |outdated| outdated.len());
    let answer = observed.answers().max_by_key(|(_, view)| view.epoch).map(|(_, view)| view);
    let cluster_id = answer.map(|view| view.cluster_id.clone()).filter(|id| !id.is_empty());
    let image = if plan.refused.is_some() { observed.live_image() } else { Some(plan.image.clone()) };
    let mut status = CacheClusterStatus {
        observed_generation: observed.cluster.metadata.generation,
        replicas: observed.pods.len() as i32,
        replicas_from: observed.replicas_from(),
        selector: id.selector(),
        ready: format!("{ready}/{}", plan.replicas),
        ready_replicas: ready as i32,
        updated_replicas: observed.pods.len().saturating_sub(outdated) as i32,
        image: image.filter(|image| !image.is_empty()),
        endpoint: Some(format!("{}.{}.svc:{}", id.name, id.namespace, ports.client)),
        ports: firewall(observed),
        cluster_id: cluster_id.or_else(|| before.cluster_id.clone()),
        quorum: Some(quorum(observed, plan.replicas)),
        figures: figures(observed, plan, before),
        progress: progress(plan, outcome),
        drain: drain(observed, plan, before),
        turned_back_at: if plan.turned_back { Some(Time(observed.now)) } else { before.turned_back_at.clone() },
        problems: problems(observed, before),
        rejected_callers: rejected_callers(observed).or(before.rejected_callers),
        conditions: Vec::new(),
    };
    status.conditions = conditions(observed, plan, outcome, &status, before);
    status
}

fn firewall(observed: &Observed) -> Vec<FirewallPort> {
    let ports = observed.cluster.spec.ports;
    let port = |port: i32, protocol: &str, purpose: &str| FirewallPort {
        port,
        protocol: protocol.to_owned(),
        purpose: purpose.to_owned(),
    };
    vec![
        port(ports.client, "TCP", "clients, from anywhere they are"),
        port(ports.gossip_port(), "TCP", "peers, between nodes and from the operator"),
        port(ports.gossip_port(), "UDP", "gossip, between nodes"),
        port(ports.http, "TCP", "health and metrics"),
    ]
}

fn quorum(observed: &Observed, nodes: u32) -> QuorumStatus {
    let quorums = validate::quorums(&observed.cluster, nodes);
    QuorumStatus {
        members: quorums.member_count.resolve(nodes) as i32,
        copies: quorums.factor.min(nodes) as i32,
        posture: Posture::of(quorums.factor, quorums.read, quorums.write).as_str().to_owned(),
    }
}

fn progress(plan: &Plan, outcome: &Outcome) -> Option<String> {
    match (&outcome.failure, &plan.say) {
        (Some(failure), _) => Some(shortened(&failure.message)),
        (None, Say::Underway(_, message) | Say::Blocked(_, message)) => Some(shortened(message)),
        (None, Say::Reached) => None,
    }
}

fn drain(observed: &Observed, plan: &Plan, before: &CacheClusterStatus) -> Option<DrainStatus> {
    let draining = plan.draining.as_ref()?;
    let pod = observed.id().pod(draining.member);
    let intent = draining.intent.as_str();
    let known = before.drain.clone().filter(|drain| drain.pod == pod && drain.intent == intent);
    Some(known.unwrap_or_else(|| DrainStatus {
        pod,
        intent: intent.to_owned(),
        since: Time(observed.now),
        partitions: draining.left as i32,
    }))
}

/// Totals of each member: its own word where it was asked, else what another knows from its last heartbeat. None while
/// that is not known of every member.
fn totals(observed: &Observed) -> Option<BTreeMap<String, Totals>> {
    let id = observed.id();
    let own = |name: &str| {
        let view = observed.views.get(&id.ordinal_of_member(name)?)?.as_ref().ok()?;
        view.totals
    };
    let (_, view) = observed.answers().filter(|(_, view)| view.epoch > 0).max_by_key(|(_, view)| view.epoch)?;
    let known = |totals: &Totals| totals.max_bytes > 0;
    view.members
        .iter()
        .filter(|member| !is(member, MemberState::Down) && !is(member, MemberState::Away))
        .map(|member| Some((member.name.clone(), own(&member.name).or(member.totals).filter(known)?)))
        .collect()
}

/// The first figures are those of a cluster that is complete.
fn figures(observed: &Observed, plan: &Plan, before: &CacheClusterStatus) -> Option<Figures> {
    let Some(totals) = totals(observed).filter(|_| before.figures.is_some() || plan.say == Say::Reached) else {
        return before.figures.clone();
    };
    let sum = |figure: fn(&Totals) -> u64| totals.values().map(figure).sum::<u64>();
    let (hits, misses) = (sum(|t| t.hits), sum(|t| t.misses));
    let (bytes, max_bytes) = (sum(|t| t.bytes), sum(|t| t.max_bytes));
    let fresh = Figures {
        keys: sum(|t| t.keys) as i64,
        bytes: bytes as i64,
        max_bytes: max_bytes as i64,
        memory: format!("{} of {}", for_people(bytes), for_people(max_bytes)),
        hit_percent: (hits * 100).checked_div(hits + misses).map(|percent| percent as i32),
        evictions: sum(|t| t.evictions) as i64,
        at: Time(observed.now),
    };
    let reached_now = before.progress.is_some() && plan.say == Say::Reached;
    match &before.figures {
        Some(old) if !worth_writing(old, &fresh, reached_now) => Some(old.clone()),
        _ => Some(fresh),
    }
}

fn worth_writing(old: &Figures, new: &Figures, reached_now: bool) -> bool {
    let moved = |old: i64, new: i64| {
        let (old, new) = (old.max(0) as u64, new.max(0) as u64);
        old.abs_diff(new) * 100 > old * FIGURES_CHANGE_PERCENT
    };
    let percent = |percent: Option<i32>| i64::from(percent.unwrap_or(-1));
    let due = reached_now || new.at.0.as_second() - old.at.0.as_second() >= FIGURES_EVERY_SECONDS;
    due && (moved(old.keys, new.keys)
        || moved(old.bytes, new.bytes)
        || moved(old.max_bytes, new.max_bytes)
        || moved(old.evictions, new.evictions)
        || moved(percent(old.hit_percent) + 1, percent(new.hit_percent) + 1))
}

fn for_people(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("", 1)];
    let (unit, size) = UNITS.into_iter().find(|(_, size)| bytes >= *size).unwrap_or(("", 1));
    let tenths = bytes * 10 / size;
    if tenths >= 100 || unit.is_empty() {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

/// Problems that nodes report. A message that only counts on does not make a new problem.
fn problems(observed: &Observed, before: &CacheClusterStatus) -> Vec<ProblemStatus> {
    if observed.answers().next().is_none() {
        return before.problems.clone();
    }
    let mut problems: BTreeMap<(String, String), ProblemStatus> = BTreeMap::new();
    for problem in observed.answers().flat_map(|(_, view)| &view.problems) {
        let known = before.problems.iter().find(|old| old.code == problem.code && old.subject == problem.subject);
        let entry = known.cloned().unwrap_or_else(|| ProblemStatus {
            code: word(&problem.code),
            subject: problem.subject.clone(),
            message: shortened(&problem.message),
        });
        problems.entry((problem.code.clone(), problem.subject.clone())).or_insert(entry);
    }
    problems.into_values().take(MAX_PROBLEMS).collect()
}

fn rejected_callers(observed: &Observed) -> Option<i64> {
    Some(totals(observed)?.values().map(|totals| totals.rejected_callers as i64).sum())
}

/// A word that conditions take as a reason.
fn word(text: &str) -> String {
    let word: String = text.chars().filter(char::is_ascii_alphanumeric).take(100).collect();
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) { word } else { format!("Problem{word}") }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= MAX_MESSAGE {
        return text.to_owned();
    }
    let start: String = text.chars().take(MAX_MESSAGE - 1).collect();
    format!("{start}…")
}

/// Type, status, reason and message of one condition.
type Finding = (&'static str, &'static str, String, String);

fn finding(kind: &'static str, holds: bool, reason: &str, message: &str) -> Finding {
    (kind, if holds { "True" } else { "False" }, reason.to_owned(), message.to_owned())
}

fn conditions(
    observed: &Observed,
    plan: &Plan,
    outcome: &Outcome,
    status: &CacheClusterStatus,
    before: &CacheClusterStatus,
) -> Vec<Condition> {
    let mut findings = vec![available(observed, before)];
    findings.extend(standing(plan, outcome));
    findings.push(accepted(plan, outcome));
    findings.push(degraded(status));
    findings.extend(notices(observed, plan));
    let generation = observed.cluster.metadata.generation;
    findings.into_iter().map(|finding| condition(finding, generation, observed.now, before)).collect()
}

fn condition(finding: Finding, generation: Option<i64>, now: Timestamp, before: &CacheClusterStatus) -> Condition {
    let (kind, status, reason, message) = finding;
    let old = before.conditions.iter().find(|old| old.type_ == kind && old.status == status);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason,
        message: shortened(&message),
        observed_generation: generation,
        last_transition_time: old.map_or(Time(now), |old| old.last_transition_time.clone()),
    }
}

/// Every key is served with its quorum.
fn available(observed: &Observed, before: &CacheClusterStatus) -> Finding {
    let kind = "Available";
    let serving = observed.pods.values().any(PodFacts::serves);
    if !observed.is_clustered() {
        return finding(kind, serving, if serving { "Serving" } else { "NoNodeReady" }, "");
    }
    if let Some((_, view)) = observed.answers().find(|(_, view)| view.ready) {
        return match view.partitions_unavailable {
            0 => finding(kind, true, "Serving", "every key is served"),
            n => finding(
                kind,
                false,
                "PartitionsUnavailable",
                &format!("{n} of {} partitions cannot be served", view.partitions),
            ),
        };
    }
    if let Some((ordinal, view)) = observed.answers().next() {
        let message = format!("{}: {}", observed.id().pod(ordinal), view.not_ready_because);
        return finding(kind, false, "NoNodeReady", &message);
    }
    if serving && before.conditions.iter().any(|old| old.type_ == kind && old.status == "True") {
        let message = "nodes are ready, but none answers the operator; the state is the last one known";
        return finding(kind, true, "NodesDoNotAnswer", message);
    }
    finding(kind, false, "NoNodeReady", "no node is ready")
}

/// Ready, Reconciling and Stalled, as kstatus reads them (rule O21).
fn standing(plan: &Plan, outcome: &Outcome) -> [Finding; 3] {
    let (ready, reconciling, stalled, reason, message) = match (&outcome.failure, &plan.say) {
        (Some(failure), _) if failure.invalid => (false, false, true, "ConfigRefused", failure.message.as_str()),
        (Some(failure), _) => (false, true, false, "StepFailed", failure.message.as_str()),
        (None, Say::Reached) => (true, false, false, "Ready", "the spec is reached"),
        (None, Say::Underway(reason, message)) => (false, true, false, reason.as_str(), message.as_str()),
        (None, Say::Blocked(reason, message)) => (false, false, true, reason.as_str(), message.as_str()),
    };
    let reason = word(reason);
    let of = |kind, holds: bool, quiet: &str| {
        if holds || kind == "Ready" { finding(kind, holds, &reason, message) } else { finding(kind, false, quiet, "") }
    };
    [of("Ready", ready, ""), of("Reconciling", reconciling, "NothingToDo"), of("Stalled", stalled, "NothingStalled")]
}

fn accepted(plan: &Plan, outcome: &Outcome) -> Finding {
    let refused = plan.refused.as_deref();
    let invalid = outcome.failure.as_ref().filter(|failure| failure.invalid).map(|failure| failure.message.as_str());
    match refused.or(invalid) {
        Some(message) => finding("ConfigAccepted", false, "ConfigRefused", message),
        None => finding("ConfigAccepted", true, "Accepted", ""),
    }
}

/// Nodes report faults.
fn degraded(status: &CacheClusterStatus) -> Finding {
    let Some(first) = status.problems.first() else { return finding("Degraded", false, "NoProblems", "") };
    let all: Vec<String> = status
        .problems
        .iter()
        .map(|p| {
            if p.subject.is_empty() {
                format!("{}: {}", p.code, p.message)
            } else {
                format!("{} ({}): {}", p.code, p.subject, p.message)
            }
        })
        .collect();
    finding("Degraded", true, &word(&first.code), &all.join("; "))
}

/// What a user should know but need not act on.
fn notices(observed: &Observed, plan: &Plan) -> [Finding; 5] {
    let spec = &observed.cluster.spec;
    let paused = finding("Paused", spec.paused, if spec.paused { "SpecPaused" } else { "NotPaused" }, "");
    let newest = &observed.operator.node_image;
    let pending = spec.image.is_none() && &plan.image != newest;
    let update = if pending {
        let message = format!("the operator brings {newest}; set spec.image to it, or update.automatic to true");
        finding("UpdateAvailable", true, "NewerImage", &message)
    } else {
        finding("UpdateAvailable", false, "UpToDate", "")
    };
    let replicas = match observed.replicas_from() {
        ReplicasFrom::Default => {
            let nodes = plan.replicas;
            let message =
                format!("nobody wrote spec.replicas, so the number of nodes stays at {nodes}; write it to change that");
            finding("ReplicasUnmanaged", true, "NobodyWroteReplicas", &message)
        }
        ReplicasFrom::Spec => finding("ReplicasUnmanaged", false, "ReplicasWritten", ""),
        ReplicasFrom::Scale => finding("ReplicasUnmanaged", false, "ReplicasScaled", ""),
    };
    let warnings = validate::warnings(&observed.cluster, plan.replicas);
    let resilient = finding(
        "Resilient",
        warnings.is_empty(),
        if warnings.is_empty() { "SurvivesNodeLoss" } else { "QuorumWarning" },
        &warnings.join("; "),
    );
    [paused, update, replicas, resilient, zones(observed)]
}

/// Whether copies are kept in different zones, as far as the members know theirs (rule O13).
fn zones(observed: &Observed) -> Finding {
    const KIND: &str = "ZonesKnown";
    let placement = &observed.cluster.spec.placement;
    if !observed.is_clustered() || placement.zones == Zones::Off {
        return finding(KIND, false, "ZonesOff", "");
    }
    if placement.zone_label.is_none() && !observed.operator.reads_nodes {
        let message = "the operator looks after one namespace alone and may not read Kubernetes nodes: name a label of \
                       the pods in placement.zoneLabel, or set placement.zones to off";
        return finding(KIND, false, "NodesNotReadable", message);
    }
    if placement.zone_label.is_none() && observed.pods.values().any(|pod| pod.zone.as_deref() == Some(NO_ZONE)) {
        let message = "a Kubernetes node has no label topology.kubernetes.io/zone; each of its pods counts as a zone";
        return finding(KIND, false, "NodesWithoutZone", message);
    }
    finding(KIND, true, "ZonesTold", "")
}

fn event(warning: bool, reason: &str, message: impl Into<String>) -> Event {
    Event { warning, reason: reason.to_owned(), message: shortened(&message.into()) }
}

/// An event for each step that matters to people and was done.
fn step_events(observed: &Observed, plan: &Plan, outcome: &Outcome) -> Vec<Event> {
    let id = observed.id();
    let of = |step: &Step| match step {
        Step::Apply { child: Child::StatefulSet, because: None, .. } => {
            Some(event(false, "Created", format!("{} nodes with image {}", plan.replicas, plan.image)))
        }
        Step::Apply { child: Child::StatefulSet, because: Some(_), .. } if observed.live_replicas() < plan.replicas => {
            Some(event(false, "ScaledUp", format!("from {} to {} nodes", observed.live_replicas(), plan.replicas)))
        }
        Step::Apply { child, because: Some(path), .. }
            if !matches!(child, Child::DisruptionBudget | Child::Settings) =>
        {
            Some(event(false, "Corrected", format!("{} {}: {path} differed", child.kind().2, child.name(&id.name))))
        }
        Step::Cordon { member } => {
            Some(event(false, "Cordoned", format!("{} takes no new partitions", id.pod(*member))))
        }
        Step::Drain { member, intent } => {
            Some(event(false, "DrainStarted", format!("{} ({})", id.pod(*member), intent.as_str())))
        }
        Step::Uncordon { member } => Some(event(false, "TurnedBack", format!("{} stays", id.pod(*member)))),
        Step::Lower { to, .. } => {
            Some(event(false, "NodeRemoved", format!("{} was empty; {to} nodes remain", id.pod(*to))))
        }
        Step::Evict { pod, .. } => Some(event(false, "PodReplaced", format!("{pod} has handed over and is replaced"))),
        Step::ApplySettings(live) => Some(event(false, "SettingsApplied", format!("generation {}", live.generation))),
        _ => None,
    };
    outcome.done.iter().filter_map(of).collect()
}

/// An event for each change between two statuses that a person should hear of.
fn transition_events(before: &CacheClusterStatus, after: &CacheClusterStatus) -> Vec<Event> {
    let mut events = Vec::new();
    for now in &after.conditions {
        let old = before.conditions.iter().find(|old| old.type_ == now.type_);
        let turned = old.is_none_or(|old| old.status != now.status);
        let other_reason = old.is_some_and(|old| old.reason != now.reason);
        match (now.type_.as_str(), now.status.as_str()) {
            ("Ready", "True") if turned => events.push(event(false, "Ready", &now.message)),
            ("Stalled", "True") if turned || other_reason => events.push(event(true, &now.reason, &now.message)),
            ("Available", "False") if turned && old.is_some() => events.push(event(true, "Unavailable", &now.message)),
            ("Resilient", "False") if turned => events.push(event(true, &now.reason, &now.message)),
            ("Reconciling", "True") if other_reason && is_trouble(&now.reason) => {
                events.push(event(true, &now.reason, &now.message));
            }
            _ => {}
        }
    }
    for problem in &after.problems {
        if !before.problems.iter().any(|old| old.code == problem.code && old.subject == problem.subject) {
            let subject = if problem.subject.is_empty() { String::new() } else { format!("{}: ", problem.subject) };
            events.push(event(true, &problem.code, format!("{subject}{}", problem.message)));
        }
    }
    if let (Some(now), old) = (after.rejected_callers, before.rejected_callers.unwrap_or_default())
        && now > old
    {
        let message = format!(
            "{} calls to peer ports came without a certificate of this cluster and were refused; see the nodes' logs for their addresses",
            now - old
        );
        events.push(event(true, "CallerRejected", message));
    }
    events
}

fn is_trouble(reason: &str) -> bool {
    ["ImagePull", "ErrImage", "CrashLoop", "CreateContainer", "Unschedulable", "StepFailed", "NodesDoNotAnswer"]
        .iter()
        .any(|trouble| reason.contains(trouble))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_seldom_and_when_the_spec_was_just_reached() {
        let figures = |keys: i64, second: i64| Figures {
            keys,
            bytes: 0,
            max_bytes: 0,
            memory: String::new(),
            hit_percent: None,
            evictions: 0,
            at: Time(Timestamp::from_second(second).unwrap()),
        };
        let old = figures(1_000, 0);
        assert!(!worth_writing(&old, &figures(2_000, 59), false));
        assert!(worth_writing(&old, &figures(2_000, 60), false));
        assert!(!worth_writing(&old, &figures(1_050, 3_600), false));
        assert!(worth_writing(&old, &figures(2_000, 1), true));
        assert!(!worth_writing(&old, &figures(1_000, 1), true));
    }
}
