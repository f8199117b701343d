//! What people and the operator do on purpose: restarts, departures, drains that are turned back, joins.

use mizuya_node::logic::{
    cluster::{
        member::{Intent, State},
        message::Change,
        table::Table,
    },
    node::Node,
};
use rand::RngExt;

use crate::{
    cluster::{Cluster, name},
    faults::{Plan, Step},
    network::PLACES,
    shape::Class,
};

impl Cluster {
    pub(crate) fn planned_restart(&mut self) -> bool {
        self.restart_within(20_000..20_001)
    }

    pub(crate) fn kill_while_leaving(&mut self) -> bool {
        self.restart_within(20..900)
    }

    fn restart_within(&mut self, limit: std::ops::Range<u64>) -> bool {
        let planned = self.faults.plans.iter().any(|plan| matches!(plan, Plan::Restart(..) | Plan::Depart(..)));
        if self.alive().len() < 2 || planned && self.class != Class::Beyond {
            return false;
        }
        let Some(victim) = self.out() else { return false };
        let limit = self.rng.random_range(limit);
        self.leave(victim, Intent::Restart);
        self.faults.plans.push(Plan::Restart(victim, self.now, limit, Step::Begun));
        true
    }

    fn departs(&mut self, back: Option<u64>) -> bool {
        let shape = &self.shape;
        // Within the promise a departure leaves room for all copies, also when a late request revives another one.
        let needed = if self.class.is_bounded() { shape.factor + 1 } else { shape.read_quorum.max(shape.write_quorum) };
        let enough = self.alive().len() > needed as usize;
        let planned = self.faults.plans.iter().any(|plan| matches!(plan, Plan::Restart(..) | Plan::Depart(..)));
        let fixed = self.shape.member_quorum != mizuya_wire::quorum::MemberQuorum::Auto;
        let harmless = back.is_some() && self.alive().len() > 1 && !self.class.is_bounded();
        if !(enough || harmless) || planned || fixed {
            return false;
        }
        let Some(victim) = self.victim().filter(|v| self.state(*v) == Some(State::Active)) else { return false };
        self.change(victim, Change::SetState(name(victim), State::Leaving(Intent::Depart)));
        self.faults.plans.push(Plan::Depart(victim, self.now, back.map(|after| self.now + after), Step::Begun));
        true
    }

    pub(crate) fn departure(&mut self) -> bool {
        self.departs(None)
    }

    pub(crate) fn turned_back_drain(&mut self) -> bool {
        let after = self.rng.random_range(50..900);
        self.departs(Some(after))
    }

    pub(crate) fn join(&mut self) -> bool {
        let fixed = self.shape.member_quorum != mizuya_wire::quorum::MemberQuorum::Auto;
        let place = self.faults.next_place;
        // A single member that starts again begins a new cluster: with M = 1 nobody can tell it of another one.
        if place >= PLACES || fixed || self.shape.members == 1 || self.alive().len() >= 5 {
            return false;
        }
        self.faults.next_place += 1;
        self.faults.expected.insert(place, None);
        self.start(place);
        true
    }

    /// Someone asks a running node for a change, as the operator does.
    pub(crate) fn change(&mut self, about: usize, change: Change) {
        let asked: Vec<usize> = self.alive().into_iter().filter(|place| !self.is_paused(*place)).collect();
        let others: Vec<usize> = asked.iter().copied().filter(|place| *place != about).collect();
        let choice = if others.is_empty() { asked } else { others };
        if choice.is_empty() {
            return;
        }
        let place = choice[self.rng.random_range(0..choice.len())];
        self.note(|| format!("node-{place} is asked for {change:?}"));
        let clock = self.clock(place);
        if let Some(node) = self.node(place) {
            node.change(change, clock);
        }
    }

    pub(crate) fn leave(&mut self, place: usize, intent: Intent) {
        self.note(|| format!("node-{place} leaves: {intent:?}"));
        let clock = self.clock(place);
        if let Some(node) = self.node(place) {
            node.begin_leave(intent, clock);
        }
    }

    pub(crate) fn finish_leave(&mut self, place: usize) {
        self.note(|| format!("node-{place} says goodbye"));
        let clock = self.clock(place);
        if let Some(node) = self.node(place) {
            node.finish_leave(clock);
        }
    }

    pub(crate) fn step_restart(&mut self, place: usize, since: u64, limit: u64, step: Step) -> Option<Plan> {
        let progress = self.node(place)?.leave_progress();
        let over = self.now >= since + limit;
        match step {
            Step::Begun if progress.drained || over => {
                self.finish_leave(place);
                Some(Plan::Restart(place, since, limit, Step::Goodbye(self.now)))
            }
            Step::Goodbye(at) if progress.gone || self.now > at + 1000 => {
                if self.disks.restore.is_some() {
                    self.end_in_order(place);
                    return None;
                }
                self.kill(place, 50..1500);
                None
            }
            step => Some(Plan::Restart(place, since, limit, step)),
        }
    }

    pub(crate) fn step_departure(&mut self, place: usize, since: u64, back: Option<u64>, step: Step) -> Option<Plan> {
        let Some(node) = self.node(place) else {
            // It was killed: it comes back as a new start, or the table still has the former one.
            return None;
        };
        let progress = node.leave_progress();
        let state = self.state(place);
        let repeat = (self.now - since) % 1000 < 20;
        if let Some(at) = back.filter(|at| self.now >= *at) {
            if self.now > at + 100 && state == Some(State::Active) || matches!(state, None | Some(State::Down)) {
                return None;
            }
            if self.now < at + 20 || repeat {
                self.change(place, Change::SetState(name(place), State::Active));
            }
        } else if let Step::Goodbye(at) = step {
            if progress.gone || self.now > at + 5000 {
                self.faults.expected.remove(&place);
                self.end_in_order(place);
                return None;
            }
        } else if matches!(state, Some(State::Leaving(_))) {
            if self.is_empty(place) && back.is_none() && self.others_are_active(place) {
                self.leave(place, Intent::Restart);
                self.finish_leave(place);
                return Some(Plan::Depart(place, since, back, Step::Goodbye(self.now)));
            }
        } else if repeat {
            self.change(place, Change::SetState(name(place), State::Leaving(Intent::Depart)));
        }
        Some(Plan::Depart(place, since, back, step))
    }

    /// A member that departs has nothing left.
    pub(crate) fn is_empty(&self, place: usize) -> bool {
        self.node(place).map(Node::leave_progress).is_some_and(|p| p.drained && p.primaries + p.backups == 0)
    }

    /// The operator lets nobody go while another one is missing.
    fn others_are_active(&self, place: usize) -> bool {
        let others = |table: &Table| table.members.iter().all(|m| m.name == name(place) || m.state == State::Active);
        self.table().is_some_and(|table| others(&table))
    }

    /// What the operator does again and again: members that will not come back are forgotten, and drains that nobody
    /// wants any more are turned back.
    pub(crate) fn reconcile(&mut self) {
        let Some(table) = self.table() else { return };
        for member in &table.members {
            let place = crate::cluster::number(&member.name);
            if matches!(member.state, State::Leaving(_)) && self.process(place).is_some() {
                self.change(place, Change::SetState(member.name.clone(), State::Active));
            }
            if !self.faults.expected.contains_key(&place) && self.process(place).is_none() {
                self.change(place, Change::Forget(member.name.clone()));
            }
        }
    }
}
