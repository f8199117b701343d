//! Heartbeats between members, and the lease under which a primary answers (rule W7).
//!
//! A lease ends for certain before a successor begins: a voter that takes a table without a member says so only when the
//! lease that it last confirmed to that member is over. Whatever quorum brings the table into force contains a voter
//! without which the member cannot renew its lease. Since a member is declared down only after it was silent for longer
//! than a lease, nobody waits for that in practice.

use std::{collections::BTreeMap, time::Duration};

use super::{
    member::{Generation, Member, MemberName, State},
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
    /// When a heartbeat of this start of a member was last confirmed to it.
    granted: BTreeMap<(MemberName, Generation), Millis>,
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

    /// A heartbeat of this start of a member is confirmed to it.
    pub fn grant(&mut self, name: &MemberName, generation: Generation, now: Millis) {
        self.granted.insert((name.clone(), generation), now);
    }

    /// Until when leases may run that this member has confirmed, of members that are not in `table`. Those that gave up
    /// what they had before they left have none: `before` is the table in force.
    pub fn granted_until(&self, table: &Table, before: Option<&Table>, lease: Duration) -> Option<Millis> {
        let resigned = |member: &Member| match member.state {
            State::Away => true,
            State::Leaving(_) => before.is_none_or(|before| !before.partitions.iter().any(|a| a.holds(member.id))),
            _ => false,
        };
        let runs = |name: &MemberName, generation: Generation| match table.start(name, generation) {
            Some(member) => !member.state.is_live() && member.state != State::Away,
            None => !before.and_then(|before| before.start(name, generation)).is_some_and(resigned),
        };
        let running = self.granted.iter().filter(|((name, generation), _)| runs(name, *generation));
        running.map(|(_, at)| *at + lease).max()
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
        // Whoever is no longer live in a table in force has no lease.
        let live = |name: &MemberName, generation: Generation| {
            table.start(name, generation).is_some_and(|member| member.state.is_live())
        };
        self.granted.retain(|(name, generation), _| live(name, *generation));
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

#[cfg(test)]
mod tests {
    use mizuya_wire::quorum::MemberQuorum;

    use super::*;
    use crate::logic::cluster::{
        member::{Intent, MemberId},
        table::{Assignment, ClusterId, Copy, Live, Mark, PartitionEpoch},
    };

    const LEASE: Duration = Duration::from_millis(800);

    fn table(states: [State; 3]) -> Table {
        let member = |(number, state): (usize, State)| Member {
            id: MemberId(number as u32),
            name: MemberName::from(["a", "b", "c"][number]),
            generation: Generation(number as u64),
            state,
            client_port: 3320,
            peer_port: 3322,
            zone: String::new(),
        };
        let copy = Copy { member: MemberId(2), mark: Mark::InSync, since: 1 };
        Table {
            cluster: ClusterId(1),
            epoch: Epoch::default(),
            hash_seed: 0,
            live: Live { generation: 1, factor: 2, read_quorum: 1, write_quorum: 1, member_quorum: MemberQuorum::Auto },
            quorum: 2,
            next_member: 3,
            members: states.into_iter().enumerate().map(member).collect(),
            partitions: vec![Assignment { epoch: PartitionEpoch(1), began: 1, copies: vec![copy], from: None }],
        }
    }

    #[test]
    fn a_table_without_a_member_waits_for_the_lease_that_was_confirmed_to_it() {
        let before = table([State::Active; 3]);
        let mut pulses = Pulses::default();
        let (b, c) = (MemberName::from("b"), MemberName::from("c"));
        pulses.grant(&b, Generation(1), Millis(900));
        pulses.grant(&c, Generation(2), Millis(100));
        pulses.grant(&c, Generation(2), Millis(500));
        let until = |after: &Table, pulses: &Pulses| pulses.granted_until(after, Some(&before), LEASE);
        assert_eq!(until(&before, &pulses), None);
        let down = table([State::Active, State::Active, State::Down]);
        assert_eq!(until(&down, &pulses), Some(Millis(1300)));
        // Away is what a member becomes that has handed over.
        assert_eq!(until(&table([State::Active, State::Active, State::Away]), &pulses), None);
        let mut replaced = before.clone();
        replaced.members[2].generation = Generation(9);
        assert_eq!(until(&replaced, &pulses), Some(Millis(1300)));
        pulses.retain(&down);
        assert_eq!(until(&table([State::Active, State::Down, State::Down]), &pulses), Some(Millis(1700)));
    }

    #[test]
    fn a_member_that_departs_with_empty_hands_has_no_lease() {
        let states = [State::Active, State::Leaving(Intent::Depart), State::Leaving(Intent::Depart)];
        let before = table(states);
        let mut pulses = Pulses::default();
        pulses.grant(&MemberName::from("b"), Generation(1), Millis(900));
        let mut after = before.clone();
        after.members.remove(1);
        assert_eq!(pulses.granted_until(&after, Some(&before), LEASE), None);
        pulses.grant(&MemberName::from("c"), Generation(2), Millis(500));
        after.members.remove(1);
        assert_eq!(pulses.granted_until(&after, Some(&before), LEASE), Some(Millis(1300)));
    }
}
