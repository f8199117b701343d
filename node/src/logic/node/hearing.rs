//! Whom a member hears, and whom it therefore judges (rules T5, T10).

use std::collections::BTreeSet;

use super::{Clock, Effects, Generation, Level, MemberName, Millis, Node, control::Control};
use crate::logic::cluster::table::{Epoch, Table};

impl Node {
    /// The failure detector hears of a member.
    pub fn member_up(&self, name: &MemberName, generation: Generation, clock: Clock, effects: &mut Effects) {
        let mut control = self.control.lock();
        let news = control.detector.insert(name.clone(), (generation, true)) != Some((generation, true));
        if news && *name != *self.name() {
            effects.say(Level::Info, format!("{name} is up"));
        }
        let _ = clock;
    }

    /// The failure detector declares a member down.
    pub fn member_down(&self, name: &MemberName, generation: Generation, clock: Clock, effects: &mut Effects) {
        let mut control = self.control.lock();
        if control.detector.get(name).is_some_and(|(known, _)| *known != generation) {
            return;
        }
        let news = control.detector.insert(name.clone(), (generation, false)) != Some((generation, false));
        if news {
            effects.say(Level::Warn, format!("{name} is down"));
        }
        let _ = clock;
    }

    /// Keeps since when this member hears as many voters as the quorum needs, itself among them.
    pub(super) fn listen(&self, control: &mut Control, table: &Table, now: Millis) {
        let heard = table.voters().filter(|m| self.reachable(control, &m.name, m.generation, now)).count();
        let enough = heard >= table.quorum as usize;
        control.hears_quorum = if enough { control.hears_quorum.or(Some(now)) } else { None };
    }

    pub(super) fn reachable(&self, control: &Control, name: &MemberName, generation: Generation, now: Millis) -> bool {
        name == self.name() || control.pulses.reachable(name, generation, self.config.timing.heartbeat, now)
    }

    /// The highest table that a voter that can be reached says it has taken.
    pub(super) fn highest_heard(&self, control: &Control, table: &Table, now: Millis) -> Epoch {
        let reached = table.voters().filter(|m| self.reachable(control, &m.name, m.generation, now));
        let taken = reached.filter_map(|member| control.pulses.get(&member.name)).map(|pulse| pulse.taken);
        taken.max().unwrap_or_default()
    }

    /// The member that proposes now: of the voters that can be reached, the one that joined first (rule T5).
    pub(super) fn acting_coordinator(&self, control: &Control, table: &Table, now: Millis) -> Option<MemberName> {
        let mut voters = table.live().filter(|member| member.state.is_voter());
        voters
            .find(|member| self.reachable(control, &member.name, member.generation, now))
            .map(|member| member.name.clone())
    }

    /// Members that the failure detector declared down and that are silent on their streams too; and members that it
    /// never saw, once they have been silent for long (rule T10).
    pub(super) fn down(&self, control: &mut Control, table: &Table, now: Millis) -> BTreeSet<(MemberName, Generation)> {
        let suspicion = self.config.timing.suspicion;
        // Who was cut off or stood still itself judges nobody before the others had time to be heard again: else its
        // first table would take members out that run, and their copies with them.
        self.listen(control, table, now);
        if control.hears_quorum.is_none_or(|since| now < since + suspicion) {
            return BTreeSet::new();
        }
        let is_down = |name: &MemberName, generation: Generation| {
            if self.reachable(control, name, generation, now) {
                return false;
            }
            let pulse = control.pulses.get(name).filter(|pulse| pulse.generation == generation);
            let hello = control.heard.get(name).filter(|heard| heard.hello.generation == generation);
            let contact = pulse.map(|pulse| pulse.heard).max(hello.map(|heard| heard.at));
            match control.detector.get(name) {
                // A suspicion may have begun before the member was last heard on a stream.
                Some((known, up)) if *known == generation => !up && contact.is_none_or(|at| now >= at + suspicion),
                _ => now >= contact.unwrap_or(control.member_since).max(control.member_since) + suspicion * 5,
            }
        };
        let others = table.live().filter(|member| member.name != *self.name());
        others
            .filter(|member| is_down(&member.name, member.generation))
            .map(|m| (m.name.clone(), m.generation))
            .collect()
    }
}
