//! Removing nodes, one at a time, highest ordinal first (rule O5): preflight → cordon → drain → every other member asked
//! → `StatefulSet` lowered by one → the pod gone and forgotten. Where it stands is read from the cluster each time, so a
//! new operator goes on where the old one ended.

use k8s_openapi::jiff::Timestamp;
use mizuya_wire::{
    admin::{Intent as WireIntent, MemberState, Totals},
    quorum::MemberQuorum,
};

use super::{
    children::config_map,
    gate,
    observed::{Observed, PodFacts, is, is_leaving},
    plan::{Draining, Intent, Operation, Say, Step},
};

const REASON: &str = "ScalingDown";

/// The next move towards `wanted` nodes.
pub fn next(observed: &Observed, wanted: u32) -> Operation {
    let live = observed.live_replicas();
    let leaver = live - 1;
    let name = observed.id().pod(leaver);
    if !observed.is_clustered() {
        return lower(leaver, format!("removing {name}"));
    }
    if !observed.asked_all {
        return Operation::ask_all();
    }
    if let Some((ordinal, _)) = observed.pods.iter().find(|(ordinal, _)| **ordinal >= live) {
        let text = format!("{} is stopping; {wanted} nodes are wanted", observed.id().pod(*ordinal));
        return Operation { guard: true, ..Operation::say(Say::underway(REASON, text)) };
    }
    if observed.member(leaver).is_some_and(|member| is_leaving(member, WireIntent::Depart)) {
        return drain_goes_on(observed, leaver);
    }
    if holds_nothing(observed, leaver) {
        return lower(leaver, format!("{name} holds nothing; removing it"));
    }
    if let Err((reason, why)) = preflight(observed, leaver) {
        return Operation::say(Say::blocked(reason, why));
    }
    if let Some(until) = stabilizing_until(observed) {
        let text = format!("a removal was turned back; the next begins at {until} (scaleDown.stabilization)");
        return Operation::say(Say::underway(REASON, text));
    }
    if let Err(why) = gate::whole(observed, leaver) {
        // A cordon that is there already stays: a gate that closes for a moment turns nothing back.
        let say = Say::underway(REASON, format!("before {name} goes: {why}"));
        return Operation { about: Some(leaver), ..Operation::say(say) };
    }
    begin(observed, leaver)
}

fn lower(leaver: u32, text: String) -> Operation {
    Operation {
        about: Some(leaver),
        lower_to: Some(leaver),
        guard: true,
        ..Operation::say(Say::Underway(REASON.to_owned(), text))
    }
}

/// Everything else is whole: the member is cordoned, then drained; one that is gone already is removed at once.
fn begin(observed: &Observed, leaver: u32) -> Operation {
    let name = observed.id().pod(leaver);
    let Some(member) = observed.member(leaver) else {
        return lower(leaver, format!("{name} is not a member; removing it"));
    };
    let about = |steps: Vec<Step>, text: String| Operation {
        about: Some(leaver),
        guard: true,
        steps,
        ..Operation::say(Say::Underway(REASON.to_owned(), text))
    };
    let serves = observed.pods.get(&leaver).is_some_and(PodFacts::serves);
    if !serves && (is(member, MemberState::Down) || is(member, MemberState::Away)) && member.primaries == 0 {
        return lower(leaver, format!("{name} is down and every copy is elsewhere; removing it"));
    }
    if !gate::budget_is_closed(observed) {
        return about(Vec::new(), format!("before {name} goes: closing the disruption budget"));
    }
    match member.state() {
        MemberState::Active => about(vec![Step::Cordon { member: leaver }], format!("cordoning {name}")),
        MemberState::Cordoned => {
            let drain = Step::Drain { member: leaver, intent: Intent::Depart };
            let left = member.primaries + member.backups;
            let draining = Some(Draining { member: leaver, intent: Intent::Depart, left });
            let text = progress(observed, &name, left, "");
            Operation { draining, ..about(vec![drain], text) }
        }
        // It leaves for a restart; an intent is changed by turning it back first.
        MemberState::Leaving => {
            about(vec![Step::Uncordon { member: leaver }], format!("turning the restart of {name} back"))
        }
        _ => about(Vec::new(), format!("before {name} goes: waiting until it is in the cluster or down")),
    }
}

fn drain_goes_on(observed: &Observed, leaver: u32) -> Operation {
    let name = observed.id().pod(leaver);
    let empty = gate::emptied(observed, leaver, WireIntent::Depart).and_then(|()| gate::whole(observed, leaver));
    let left = observed.member(leaver).map_or(0, |member| member.primaries + member.backups);
    let draining = Some(Draining { member: leaver, intent: Intent::Depart, left });
    let why = match empty {
        // Who watches the status sees every drain, and has a moment to turn it back, before the pod goes.
        Ok(()) if !was_told(observed, &name) => "it is removed next".to_owned(),
        Ok(()) => return Operation { draining, ..lower(leaver, format!("{name} is empty; removing it")) },
        Err(why) => why,
    };
    let text = progress(observed, &name, left, &why);
    let say = match overdue(observed, &name) {
        Some(limit) => Say::blocked(
            "DrainTimeout",
            format!("{text}; longer than scaleDown.drainTimeout ({limit}): it goes on; raise replicas to turn it back"),
        ),
        None => Say::Underway(REASON.to_owned(), text),
    };
    Operation { about: Some(leaver), guard: true, draining, ..Operation::say(say) }
}

/// `drain of quickstart-2: 61 of 170 partitions left`.
pub(super) fn progress(observed: &Observed, pod: &str, left: u32, why: &str) -> String {
    let started = observed.cluster.status.as_ref().and_then(|status| status.drain.as_ref());
    let of = started.filter(|drain| drain.pod == pod).map_or(left, |drain| drain.partitions as u32).max(left);
    if left == 0 {
        format!("drain of {pod}: no partitions left; {why}")
    } else {
        format!("drain of {pod}: {left} of {of} partitions left")
    }
}

fn was_told(observed: &Observed, pod: &str) -> bool {
    let drain = observed.cluster.status.as_ref().and_then(|status| status.drain.as_ref());
    drain.is_some_and(|drain| drain.pod == pod && drain.intent == Intent::Depart.as_str())
}

fn overdue<'a>(observed: &'a Observed, pod: &str) -> Option<&'a String> {
    let limit = observed.cluster.spec.scale_down.drain_timeout.as_ref()?;
    let limit_seconds = config_map::duration("scaleDown.drainTimeout", limit).ok()?.as_secs() as i64;
    let drain = observed.cluster.status.as_ref()?.drain.as_ref().filter(|drain| drain.pod == pod)?;
    (observed.now.as_second() - drain.since.0.as_second() > limit_seconds).then_some(limit)
}

/// The pod is absent or its process does not run, and it is in nobody's table; or no process of this cluster ever ran.
fn holds_nothing(observed: &Observed, ordinal: u32) -> bool {
    let stopped = observed.pods.get(&ordinal).is_none_or(|pod| !pod.running);
    let unknown = observed.answers().all(|(_, view)| observed.member_in(view, ordinal).is_none());
    let someone_has_a_table = observed.answers().any(|(_, view)| view.epoch > 0);
    let nothing_ever_ran = observed.pods.values().all(|pod| !pod.ever_ran);
    stopped && unknown && (someone_has_a_table || nothing_ever_ran)
}

/// Until when no removal begins, because one was turned back.
fn stabilizing_until(observed: &Observed) -> Option<Timestamp> {
    let turned_back = observed.cluster.status.as_ref()?.turned_back_at.as_ref()?;
    let text = &observed.cluster.spec.scale_down.stabilization;
    let wait = config_map::duration("scaleDown.stabilization", text).ok()?.as_secs() as i64;
    let until = Timestamp::from_second(turned_back.0.as_second() + wait).ok()?;
    (until > observed.now).then_some(until)
}

/// Whether what remains is enough (rule O6), with the exact shortage.
fn preflight(observed: &Observed, leaver: u32) -> Result<(), (&'static str, String)> {
    let spec = &observed.cluster.spec;
    let name = observed.id().pod(leaver);
    if let MemberQuorum::Fixed(quorum) = spec.replication.member_count_quorum
        && leaver < quorum
    {
        return Err((
            "ScaleInBlocked",
            format!(
                "without {name} there are {leaver} nodes, and replication.memberCountQuorum asks for {quorum}: set it to auto or lower it, or raise replicas"
            ),
        ));
    }
    if spec.scale_down.allow_eviction {
        return Ok(());
    }
    let Some((needed, room)) = bytes_after(observed, leaver) else { return Ok(()) };
    if needed > room {
        return Err((
            "ScaleInBlocked",
            format!(
                "without {name} the entries need {needed} bytes and the remaining nodes may hold {room}: {} bytes are missing; raise memory, raise replicas, or set scaleDown.allowEviction",
                needed - room
            ),
        ));
    }
    Ok(())
}

/// Bytes that all entries will take without the leaver, and what the others may hold. A key has at most one copy on
/// each node, so with as many copies as nodes one copy goes with the leaver.
fn bytes_after(observed: &Observed, leaver: u32) -> Option<(u64, u64)> {
    let totals: Vec<(u32, &Totals)> =
        observed.answers().filter_map(|(ordinal, view)| Some((ordinal, view.totals.as_ref()?))).collect();
    let all: u64 = totals.iter().map(|(_, totals)| totals.bytes).sum();
    let room: u64 = totals.iter().filter(|(ordinal, _)| *ordinal != leaver).map(|(_, totals)| totals.max_bytes).sum();
    let factor = observed.cluster.spec.replication.factor.max(1) as u32;
    let copies_now = factor.min(leaver + 1).max(1);
    let copies_then = factor.min(leaver).max(1);
    let needed = u128::from(all) * u128::from(copies_then) / u128::from(copies_now);
    (room > 0).then_some((needed as u64, room))
}
