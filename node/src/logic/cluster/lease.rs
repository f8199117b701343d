//! Heartbeats between members, and the lease under which a primary answers (rule W7).

use std::{collections::BTreeMap, time::Duration};

use super::{
    member::{Generation, MemberName},
    message::Totals,
    table::{Epoch, Table},
};
use crate::logic::clock::Millis;

/// Heartbeats missing in a row before a member counts as unreachable (rule T5).
pub const MISSED_HEARTBEATS: u32 = 3;

/// What is known of another member from its heartbeats and its answers to ours.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    /// Which start of it.
    pub generation: Generation,
    /// When something was last heard of it.
    pub heard: Millis,
    /// When the newest heartbeat of ours was sent that it confirmed.
    pub confirmed: Option<Millis>,
    /// Highest table it has taken.
    pub taken: Epoch,
    /// Table in force as it knows.
    pub in_force: Epoch,
    /// Its figures.
    pub totals: Totals,
}

/// Pulses of all other members.
#[derive(Debug, Default)]
pub struct Pulses {
    members: BTreeMap<MemberName, Pulse>,
}

impl Pulses {
    fn of(&mut self, name: &MemberName, generation: Generation, now: Millis) -> &mut Pulse {
        let fresh = Pulse {
            generation,
            heard: now,
            confirmed: None,
            taken: Epoch::default(),
            in_force: Epoch::default(),
            totals: Totals::default(),
        };
        let pulse = self.members.entry(name.clone()).or_insert(fresh);
        if pulse.generation != generation {
            *pulse = fresh;
        }
        pulse.heard = now;
        pulse
    }

    /// A heartbeat came.
    pub fn heartbeat(
        &mut self,
        name: &MemberName,
        generation: Generation,
        now: Millis,
        epochs: (Epoch, Epoch),
        totals: Totals,
    ) {
        let pulse = self.of(name, generation, now);
        (pulse.taken, pulse.in_force) = epochs;
        pulse.totals = totals;
    }

    /// An answer to a heartbeat of ours came, which we sent at `sent`.
    pub fn answer(&mut self, name: &MemberName, generation: Generation, now: Millis, sent: Millis, confirms: bool) {
        let pulse = self.of(name, generation, now);
        if confirms && pulse.confirmed.is_none_or(|confirmed| confirmed < sent) {
            pulse.confirmed = Some(sent);
        }
    }

    /// What is known of a member.
    pub fn get(&self, name: &MemberName) -> Option<&Pulse> {
        self.members.get(name)
    }

    /// Whether this start of the member was heard within three heartbeats.
    pub fn reachable(&self, name: &MemberName, generation: Generation, heartbeat: Duration, now: Millis) -> bool {
        self.members.get(name).is_some_and(|pulse| {
            pulse.generation == generation
                && now.since(pulse.heard) <= (heartbeat * MISSED_HEARTBEATS).as_millis() as u64 + 100
        })
    }

    /// Forgets members that are not in the table.
    pub fn retain(&mut self, table: &Table) {
        self.members.retain(|name, _| table.named(name).is_some());
    }

    /// Until when this member may answer: M − 1 other voters confirmed it within `lease`. None: it may not. With a
    /// quorum of 1 there is no lease.
    pub fn lease_until(&self, table: &Table, me: &MemberName, lease: Duration) -> Option<Millis> {
        let others = (table.quorum as usize).saturating_sub(1);
        if others == 0 {
            return Some(Millis(u64::MAX));
        }
        let mut confirmed: Vec<Millis> = table
            .voters()
            .filter(|member| member.name != *me && member.state.is_live())
            .filter_map(|member| {
                let pulse = self.members.get(&member.name)?;
                pulse.confirmed.filter(|_| pulse.generation == member.generation)
            })
            .collect();
        confirmed.sort_unstable_by(|a, b| b.cmp(a));
        confirmed.get(others - 1).map(|sent| *sent + lease)
    }
}
