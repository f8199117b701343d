//! Replacing pods that were made from an older template, one at a time, each after its handover (rules O8, O9).
//!
//! How a roll and `kubectl drain` share one budget. While nothing runs, the `PodDisruptionBudget` allows one pod to be
//! away. A step of a roll first sets it to 0 and waits until Kubernetes has it in force and nobody is on the way out
//! under the earlier one; from then on no eviction succeeds, because the API server refuses evictions under a budget
//! whose status is older than its spec. Only then is the member drained. A pod that is drained gets the label
//! `cache.mizuya.dev/handed-over`, which takes it out of the budget's selector, and is evicted with its UID and resource
//! version as preconditions: it can go, and nobody else can. Raising the budget back to 1 for our own eviction, as one
//! might, would let `kubectl drain` take another pod in that moment, while this one still leaves. The budget stays 0
//! until the new pod is ready and every copy is there. If the operator dies in between, the drained pod can still be
//! evicted by anyone, and the next operator opens the budget again; `kubectl drain` waits and retries meanwhile.
//!
//! A pod whose process does not run holds nothing: it is replaced without any of this, so that a corrected image
//! reaches pods that a wrong one kept from starting.

use mizuya_wire::admin::{Intent as WireIntent, MemberState};

use super::{
    gate,
    observed::{Observed, PodFacts, is_leaving},
    plan::{Draining, Intent, Operation, Say, Step},
    scale_down::progress,
};

const REASON: &str = "RollingOut";
/// How long a pod that runs but is not ready is given before it is replaced without a handover of the operator's.
const UNREADY_PATIENCE_SECONDS: i64 = 60;

/// The pod whose step is under way: outdated, and leaving for a restart or stopping.
pub fn under_way(observed: &Observed) -> Option<u32> {
    let leaves =
        |ordinal: &u32| observed.member(*ordinal).is_some_and(|member| is_leaving(member, WireIntent::Restart));
    let outdated = observed.outdated()?;
    let candidates = outdated.iter().rev().filter(|ordinal| **ordinal < observed.live_replicas());
    candidates.copied().find(|ordinal| leaves(ordinal) || observed.pods.get(ordinal).is_some_and(|pod| pod.terminating))
}

/// Whether an outdated pod other than `except` is not ready: until it is replaced, no gate opens for anything else.
pub fn must_go_first(observed: &Observed, except: u32) -> bool {
    let outdated = observed.outdated().unwrap_or_default();
    let mut others = outdated.iter().filter(|ordinal| **ordinal != except && **ordinal < observed.live_replicas());
    others.any(|ordinal| observed.pods.get(ordinal).is_some_and(|pod| !pod.ready))
}

/// The next move towards a cluster where no pod is outdated.
pub fn next(observed: &Observed) -> Operation {
    let live = observed.live_replicas();
    let Some(outdated) = observed.outdated() else { return Operation::default() };
    let candidates: Vec<(u32, &PodFacts)> = outdated
        .iter()
        .rev()
        .filter(|ordinal| **ordinal < live)
        .filter_map(|ordinal| Some((*ordinal, observed.pods.get(ordinal)?)))
        .collect();
    if candidates.is_empty() {
        return Operation::default();
    }
    let idle = candidates.iter().filter(|(ordinal, pod)| !pod.terminating && holds_nothing(observed, *ordinal, pod));
    let idle: Vec<Step> = idle.map(|(_, pod)| evict(pod)).collect();
    if !idle.is_empty() {
        let text = format!("replacing {} pods that hold nothing", idle.len());
        return Operation { steps: idle, ..Operation::say(Say::Underway(REASON.to_owned(), text)) };
    }
    if observed.is_clustered() && !observed.asked_all {
        return Operation::ask_all();
    }
    let left = candidates.len();
    let under_way = under_way(observed);
    let chosen = candidates
        .iter()
        .find(|(ordinal, _)| Some(*ordinal) == under_way)
        .or_else(|| candidates.iter().find(|(_, pod)| !pod.ready))
        .or(candidates.first());
    let Some((ordinal, pod)) = chosen else { return Operation::default() };
    replace(observed, *ordinal, pod, left)
}

/// The process does not run, or it runs and has never had a table.
fn holds_nothing(observed: &Observed, ordinal: u32, pod: &PodFacts) -> bool {
    let never_joined =
        matches!(observed.views.get(&ordinal), Some(Ok(view)) if view.epoch == 0) && observed.member(ordinal).is_none();
    !pod.running || (!pod.ready && never_joined && observed.is_clustered())
}

fn replace(observed: &Observed, ordinal: u32, pod: &PodFacts, left: usize) -> Operation {
    let about = |steps: Vec<Step>, text: String| Operation {
        about: Some(ordinal),
        guard: true,
        steps,
        ..Operation::say(Say::Underway(REASON.to_owned(), format!("{left} pods to replace; {text}")))
    };
    if pod.terminating {
        return about(Vec::new(), format!("{} is stopping", pod.name));
    }
    if observed.live_replicas() == 1 {
        return about(vec![evict(pod)], format!("replacing the only node, {}", pod.name));
    }
    if !observed.is_clustered() {
        return replace_unclustered(observed, ordinal, pod, left);
    }
    if let Err(why) = gate::whole(observed, ordinal) {
        let started = under_way(observed) == Some(ordinal);
        let text = format!("{left} pods to replace; before {} goes: {why}", pod.name);
        let about = started.then_some(ordinal);
        return Operation { about, guard: started, ..Operation::say(Say::Underway(REASON.to_owned(), text)) };
    }
    if !gate::budget_is_closed(observed) {
        return about(Vec::new(), format!("before {} goes: closing the disruption budget", pod.name));
    }
    if !pod.ready {
        let patience = UNREADY_PATIENCE_SECONDS - pod.seconds_so(observed.now);
        if patience > 0 {
            return about(Vec::new(), format!("{} is not ready; it is replaced if that stays so", pod.name));
        }
        return about(vec![evict(pod)], format!("replacing {}, which is not ready", pod.name));
    }
    hand_over(observed, ordinal, pod, &about)
}

fn hand_over(
    observed: &Observed,
    ordinal: u32,
    pod: &PodFacts,
    about: &dyn Fn(Vec<Step>, String) -> Operation,
) -> Operation {
    let Some(member) = observed.member(ordinal) else {
        return about(Vec::new(), format!("{} is not in the table yet", pod.name));
    };
    if !is_leaving(member, WireIntent::Restart) {
        return match member.state() {
            MemberState::Leaving => {
                about(vec![Step::Uncordon { member: ordinal }], format!("turning the removal of {} back", pod.name))
            }
            MemberState::Active | MemberState::Cordoned => {
                let drain = Step::Drain { member: ordinal, intent: Intent::Restart };
                about(vec![drain], format!("starting the handover of {}", pod.name))
            }
            _ => about(Vec::new(), format!("{} is not active in the cluster yet", pod.name)),
        };
    }
    let draining = Some(Draining { member: ordinal, intent: Intent::Restart, left: member.primaries });
    let operation = match gate::emptied(observed, ordinal, WireIntent::Restart) {
        Ok(()) => about(vec![evict(pod)], format!("{} has handed over; replacing it", pod.name)),
        Err(why) => about(Vec::new(), progress(observed, &pod.name, member.primaries, &why)),
    };
    Operation { draining, ..operation }
}

/// Nodes that form no cluster are replaced when all others are ready.
fn replace_unclustered(observed: &Observed, ordinal: u32, pod: &PodFacts, left: usize) -> Operation {
    let others_serve = observed.pods.iter().filter(|(i, _)| **i != ordinal).all(|(_, pod)| pod.serves());
    let all_there = observed.pods.len() as u32 == observed.live_replicas();
    let steps = if others_serve && all_there { vec![evict(pod)] } else { Vec::new() };
    let text = format!("{left} pods to replace; next is {}", pod.name);
    Operation { steps, about: Some(ordinal), ..Operation::say(Say::Underway(REASON.to_owned(), text)) }
}

fn evict(pod: &PodFacts) -> Step {
    Step::Evict { pod: pod.name.clone(), uid: pod.uid.clone(), resource_version: pod.resource_version.clone() }
}
