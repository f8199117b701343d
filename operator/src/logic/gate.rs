//! What must be true before a member may be taken away, asked of every other member (feature F3).

use k8s_openapi::api::policy::v1::PodDisruptionBudgetStatus;
use mizuya_wire::admin::{Intent, MemberState, StatusReply};

use super::observed::{Observed, PodFacts, is_leaving};

/// Why a gate is closed, in words for the status.
pub type Closed = String;

/// Everybody but `except` is ready, answers, agrees on one table, is active in it, and every copy is there.
pub fn whole(observed: &Observed, except: u32) -> Result<(), Closed> {
    let id = observed.id();
    let live = observed.live_replicas();
    if let Some((ordinal, _)) = observed.pods.iter().find(|(ordinal, _)| **ordinal >= live) {
        return Err(format!("{} has not stopped yet", id.pod(*ordinal)));
    }
    let others = || (0..live).filter(|ordinal| *ordinal != except);
    if let Some(ordinal) = others().find(|ordinal| !observed.pods.get(ordinal).is_some_and(PodFacts::serves)) {
        return Err(format!("{} is not ready", id.pod(ordinal)));
    }
    let mut epoch = None;
    for ordinal in others() {
        let name = id.pod(ordinal);
        let view = match observed.views.get(&ordinal) {
            Some(Ok(view)) => view,
            Some(Err(error)) => return Err(format!("{name} does not answer: {error}")),
            None => return Err(format!("{name} was not asked yet")),
        };
        copies_whole(&name, view)?;
        if *epoch.get_or_insert(view.epoch) != view.epoch {
            return Err("the nodes do not agree on one table yet".to_owned());
        }
        all_active(observed, ordinal, view, except)?;
    }
    Ok(())
}

fn copies_whole(name: &str, view: &StatusReply) -> Result<(), Closed> {
    if view.epoch == 0 {
        return Err(format!("{name} has no table yet"));
    }
    if view.partitions_unavailable > 0 {
        return Err(format!("{} partitions cannot be served", view.partitions_unavailable));
    }
    if view.partitions_short_of_copies > 0 {
        return Err(format!("{} partitions are short of copies", view.partitions_short_of_copies));
    }
    Ok(())
}

fn all_active(observed: &Observed, answering: u32, view: &StatusReply, except: u32) -> Result<(), Closed> {
    let id = observed.id();
    let live = observed.live_replicas();
    for ordinal in (0..live).filter(|ordinal| *ordinal != except) {
        let state = match observed.member_in(view, ordinal) {
            Some(member) => member.state(),
            None if ordinal == answering => view.state(),
            None => return Err(format!("{} has not joined", id.pod(ordinal))),
        };
        if state != MemberState::Active {
            return Err(format!("{} is {}", id.pod(ordinal), word(state)));
        }
    }
    let stranger = view.members.iter().find(|member| id.ordinal_of_member(&member.name).is_none_or(|i| i >= live));
    match stranger {
        Some(member) => Err(format!("{} is still in the table", member.name)),
        None => Ok(()),
    }
}

/// Every other member confirms that the leaver has nothing left that its intent must move away.
pub fn emptied(observed: &Observed, leaver: u32, intent: Intent) -> Result<(), Closed> {
    let name = observed.id().pod(leaver);
    for ordinal in (0..observed.live_replicas()).filter(|ordinal| *ordinal != leaver) {
        let Some(Ok(view)) = observed.views.get(&ordinal) else {
            return Err(format!("{} does not answer", observed.id().pod(ordinal)));
        };
        let Some(member) = observed.member_in(view, leaver) else {
            return Err(format!("{} does not know {name}", observed.id().pod(ordinal)));
        };
        let backups = if intent == Intent::Depart { member.backups } else { 0 };
        if !is_leaving(member, intent) || !member.drained || member.primaries > 0 || backups > 0 {
            return Err(format!("{} does not see {name} empty yet", observed.id().pod(ordinal)));
        }
    }
    Ok(())
}

/// Whether the disruption budget is 0 and in force, with nobody on the way out under an earlier one. Without a budget
/// there is nothing to close.
pub fn budget_is_closed(observed: &Observed) -> bool {
    let Some(budget) = &observed.budget else { return observed.live_replicas() <= 1 };
    let default = PodDisruptionBudgetStatus::default();
    let status = budget.status.as_ref().unwrap_or(&default);
    observed.live_budget() == Some(0)
        && status.observed_generation.is_some()
        && status.observed_generation == budget.metadata.generation
        && status.disruptions_allowed == 0
        && status.disrupted_pods.as_ref().is_none_or(std::collections::BTreeMap::is_empty)
}

fn word(state: MemberState) -> &'static str {
    match state {
        MemberState::Unspecified => "in an unknown state",
        MemberState::Joining => "joining",
        MemberState::Active => "active",
        MemberState::Cordoned => "cordoned",
        MemberState::Leaving => "leaving",
        MemberState::Away => "away for a restart",
        MemberState::Down => "down",
    }
}
