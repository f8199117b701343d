//! What the next table should be: the coordinator's plan, a pure function of the table before it and of what was
//! observed (rules T3, T6, T7, T9, L1, W2).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    member::{Generation, Intent, Member, MemberId, MemberName, State},
    memory::{Keeps, Kept},
    message::{Claim, Lost},
    placement::{Seat, Target, place},
    table::{Assignment, Copy, Live, Mark, PartitionEpoch, Table},
};
use crate::logic::keyspace::Partition;

/// Copies that may be built at once on one member, so that a move does not take the network from clients. Those without
/// which a partition refuses every write are built beyond it.
pub const MAX_BUILDS_PER_MEMBER: usize = 16;
/// Primaries that change in one table: each is held for a moment.
pub const MAX_HANDOVERS: usize = 64;

/// A node that wants to be a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joiner {
    /// Which start of it.
    pub generation: Generation,
    /// Port of clients.
    pub client_port: u16,
    /// Port of peers.
    pub peer_port: u16,
    /// Zone.
    pub zone: String,
}

/// What the coordinator has seen and been asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Starts that the failure detector declared down.
    pub down: BTreeSet<(MemberName, Generation)>,
    /// Nodes that want to join, by name.
    pub joiners: BTreeMap<MemberName, Joiner>,
    /// Joining members that have the table in force.
    pub caught_up: BTreeSet<MemberId>,
    /// Members that left for a restart and have not returned in time.
    pub overdue: BTreeSet<MemberId>,
    /// States asked for.
    pub states: BTreeMap<MemberId, State>,
    /// Members to be removed.
    pub forget: BTreeSet<MemberName>,
    /// New live settings.
    pub live: Option<Live>,
    /// Copies that have become in sync.
    pub in_sync: BTreeSet<Claim>,
    /// Copies that must no longer count as in sync.
    pub lost: BTreeMap<Claim, Lost>,
    /// New starts that consent to no table yet, because a lease that their former ones confirmed may still run (rule W7).
    /// A primary that were handed to one would be held until then.
    pub young: BTreeSet<MemberId>,
    /// What comes back from volumes; none: there are none.
    pub restoring: Option<Restoring>,
}

/// What members have kept of earlier starts (rule S1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restoring {
    /// Snapshots that are not final count where there is no other.
    pub lossy: bool,
    /// What each member that runs has, as far as it is known. Filled only while a partition has nobody.
    pub returned: BTreeMap<MemberId, Arc<Keeps>>,
}

/// From where a partition without a copy that runs is taken.
enum Source {
    /// Who has it may still come.
    Wait,
    /// A member's snapshot.
    Snapshot(MemberId),
    /// Nobody has it: it starts empty.
    Nobody,
}

struct Next<'a> {
    table: Table,
    counter: u64,
    young: &'a BTreeSet<MemberId>,
}

/// What is known of a table that another one is to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is in force.
    InForce,
    /// Every voter that still has a memory has told what it has taken, and this is the highest. Its former primaries
    /// may not have agreed.
    ByAll,
    /// It may be in force, or come into force.
    BySome,
}

/// The table to propose with `counter`, or none if `base` is as it should be. Unless `base` is known to be in force, its
/// former primaries stay as they are, and its voters too while there may be other memories (rule T3).
pub fn next_table(base: &Table, wishes: &Wishes, counter: u64, known: Known) -> Option<Table> {
    let settled = known == Known::InForce;
    let mut next = Next { table: base.clone(), counter, young: &wishes.young };
    if settled {
        next.table.partitions.iter_mut().for_each(|assignment| assignment.from = None);
    }
    next.mark_states(wishes);
    if known != Known::BySome {
        next.change_voters(wishes);
    }
    next.drop_the_dead();
    next.apply_claims(wishes);
    if settled {
        next.change_settings(wishes);
        next.move_towards_target(wishes.restoring.as_ref());
    }
    next.end_eligibility();
    let unchanged = Table { epoch: base.epoch, partitions: next.table.partitions.clone(), ..next.table.clone() };
    let only_settled =
        unchanged.partitions.iter().zip(&base.partitions).all(|(a, b)| a.copies == b.copies && a.epoch == b.epoch)
            && unchanged.members == base.members
            && unchanged.live == base.live
            && unchanged.quorum == base.quorum;
    (!only_settled).then_some(next.table)
}

/// The first table of a cluster: all of `members` active, partitions placed, nothing stored (rule T4).
pub fn first_table(mut table: Table) -> Table {
    table.quorum = table.wanted_quorum();
    let seats: Vec<Seat<'_>> = table.members.iter().map(|m| Seat { id: m.id, zone: &m.zone }).collect();
    let target = place(&seats, &table.partitions, table.live.factor, table.hash_seed);
    let counter = table.epoch.counter;
    for (assignment, members) in table.partitions.iter_mut().zip(target.copies) {
        let copies = members.into_iter().map(|member| Copy { member, mark: Mark::InSync, since: counter }).collect();
        *assignment = Assignment { epoch: PartitionEpoch(counter), began: counter, copies, from: None };
    }
    table
}

/// Whether a member has nothing left that its intent must move away (rule L1).
pub fn drained(table: &Table, id: MemberId) -> bool {
    let Some(State::Leaving(intent)) = table.member(id).map(|member| member.state) else { return false };
    let nobody_left =
        !table.members.iter().any(|m| matches!(m.state, State::Active | State::Cordoned | State::Joining));
    let stays = |copy: MemberId| table.member(copy).is_some_and(|member| !matches!(member.state, State::Leaving(_)));
    nobody_left
        || table.partitions.iter().all(|assignment| match intent {
            Intent::Restart => {
                !assignment.holds(id)
                    || assignment.primary() != Some(id)
                        && assignment.in_sync().filter(|copy| stays(*copy)).count() >= copies_to_stay(table)
            }
            Intent::Depart => !assignment.holds(id),
        })
}

/// In-sync copies of a partition that must be on members that stay before one that leaves lets go: enough for a
/// write to be acknowledged, as far as there are members.
fn copies_to_stay(table: &Table) -> usize {
    let staying = table.members.iter().filter(|m| matches!(m.state, State::Active | State::Cordoned)).count();
    (table.live.write_quorum as usize).min(staying).max(1)
}

impl Next<'_> {
    fn mark_states(&mut self, wishes: &Wishes) {
        let is_down = |member: &Member| wishes.down.contains(&(member.name.clone(), member.generation));
        // Who never became a voter must not be counted as one because it ended (rule T6).
        self.table.members.retain(|member| member.state != State::Joining || !is_down(member));
        for member in &mut self.table.members {
            let down = is_down(member);
            if member.state.is_live() && down {
                member.state = State::Down;
            }
            if member.state == State::Away && wishes.overdue.contains(&member.id) {
                member.state = State::Down;
            }
            let Some(wanted) = wishes.states.get(&member.id).copied() else { continue };
            if member.state.is_live() && member.state != State::Joining && wanted != member.state {
                member.state = wanted;
            }
        }
    }

    /// New starts take the place of old ones; beyond that at most one voter comes or goes in one table (rule T3).
    fn change_voters(&mut self, wishes: &Wishes) {
        for (name, joiner) in &wishes.joiners {
            if wishes.down.contains(&(name.clone(), joiner.generation)) {
                continue;
            }
            let known = self.table.members.iter().position(|member| member.name == *name);
            match known {
                Some(at) if self.table.members[at].generation == joiner.generation => {}
                Some(at) => {
                    let voter = self.table.members[at].state.is_voter();
                    self.table.members.remove(at);
                    self.admit(name, joiner, if voter { State::Active } else { State::Joining });
                }
                None => self.admit(name, joiner, State::Joining),
            }
        }
        let promoted =
            self.table.members.iter_mut().find(|m| m.state == State::Joining && wishes.caught_up.contains(&m.id));
        if let Some(member) = promoted {
            member.state = State::Active;
        } else {
            let table = &self.table;
            let gone = table
                .members
                .iter()
                .position(|member| wishes.forget.contains(&member.name) && removable(table, member));
            if let Some(at) = gone {
                self.table.members.remove(at);
            }
        }
        self.table.quorum = self.table.wanted_quorum();
    }

    fn admit(&mut self, name: &MemberName, joiner: &Joiner, state: State) {
        let id = MemberId(self.table.next_member);
        self.table.next_member += 1;
        self.table.members.push(Member {
            id,
            name: name.clone(),
            generation: joiner.generation,
            state,
            client_port: joiner.client_port,
            peer_port: joiner.peer_port,
            zone: joiner.zone.clone(),
        });
    }

    fn state(&self, id: MemberId) -> Option<State> {
        self.table.member(id).map(|member| member.state)
    }

    fn is_leaving(&self, id: MemberId) -> bool {
        matches!(self.state(id), Some(State::Leaving(_)))
    }

    /// Copies of members that do not run go; an in-sync copy takes the place of a lost primary, or an eligible one.
    fn drop_the_dead(&mut self) {
        let live: BTreeSet<MemberId> = self.table.live().map(|member| member.id).collect();
        let leaving: BTreeSet<MemberId> = live.iter().copied().filter(|id| self.is_leaving(*id)).collect();
        let counter = self.counter;
        for assignment in &mut self.table.partitions {
            let before = assignment.primary();
            assignment.from = assignment.from.filter(|from| live.contains(from));
            let last = assignment.copies.iter().filter(|copy| copy.has_all()).copied().collect();
            assignment.copies.retain(|copy| live.contains(&copy.member));
            if assignment.primary() == before {
                continue;
            }
            // Who is in sync has all that was read too. A copy that stays goes before one that leaves, and of those that
            // are eligible the one that was in sync last heard the most.
            let place = |copy: &Copy| {
                let eligible = (copy.mark == Mark::Eligible).then_some(Reverse(copy.since));
                (eligible.is_some(), leaving.contains(&copy.member), eligible)
            };
            let successor = (0..assignment.copies.len())
                .filter(|at| assignment.copies[*at].has_all())
                .min_by_key(|at| place(&assignment.copies[*at]));
            let Some(at) = successor else {
                // No copy with every acknowledged write is left: what the others have must not be served (rule W2). Whose
                // were the last ones stays written down: their snapshots may have them (rule S1).
                assignment.copies = last;
                continue;
            };
            assignment.copies[at].mark = Mark::InSync;
            assignment.copies[..=at].rotate_right(1);
            if assignment.from == assignment.primary() {
                assignment.from = None;
            }
            assignment.epoch = PartitionEpoch(counter);
        }
    }

    fn apply_claims(&mut self, wishes: &Wishes) {
        for claim in &wishes.in_sync {
            if let Some(copy) = self.claimed(claim) {
                copy.mark = Mark::InSync;
            }
        }
        let counter = self.counter;
        for (claim, lost) in &wishes.lost {
            if let Some(copy) = self.claimed(claim) {
                let mark = if copy.has_all() && *lost == Lost::Unheard { Mark::Eligible } else { Mark::Building };
                *copy = Copy { mark, since: counter, ..*copy };
            }
        }
    }

    /// Where enough copies are in sync for a write to be acknowledged, those that are not in sync may come to lack one
    /// (rule W2). A partition that has nobody acknowledges nothing.
    fn end_eligibility(&mut self) {
        let table = &self.table;
        let needed = table.live.write_quorum as usize;
        let acknowledges: Vec<bool> =
            table.partitions.iter().map(|assignment| table.running(assignment).count() >= needed).collect();
        for (assignment, _) in self.table.partitions.iter_mut().zip(acknowledges).filter(|(_, yes)| *yes) {
            for copy in assignment.copies.iter_mut().filter(|copy| copy.mark == Mark::Eligible) {
                copy.mark = Mark::Building;
            }
        }
    }

    /// The copy that a claim is about, if the claim is not outdated and the copy is not the primary.
    fn claimed(&mut self, claim: &Claim) -> Option<&mut Copy> {
        let assignment = self.table.partitions.get_mut(claim.partition.index())?;
        if assignment.epoch != claim.epoch {
            return None;
        }
        assignment.copies.iter_mut().skip(1).find(|copy| copy.member == claim.member && copy.since == claim.since)
    }

    /// A quorum of reads or writes rises only when the partitions have the copies for it: until then the former one
    /// holds, and the former generation, so that the change stays wanted. Else each write would be refused until the
    /// copies are built.
    fn change_settings(&mut self, wishes: &Wishes) {
        let former = self.table.live;
        let Some(wanted) = wishes.live.filter(|live| live.generation > former.generation) else { return };
        self.table.live = wanted;
        let risen = |wanted: u32, former: u32| if wanted > former { wanted as usize } else { 0 };
        let highest =
            risen(wanted.write_quorum, former.write_quorum).max(risen(wanted.read_quorum, former.read_quorum));
        let short = |assignment: &Assignment| {
            self.table.running(assignment).count() < self.table.copies_possible(assignment).min(highest)
        };
        if self.table.partitions.iter().any(short) {
            self.table.live = Live {
                generation: former.generation,
                read_quorum: wanted.read_quorum.min(former.read_quorum),
                write_quorum: wanted.write_quorum.min(former.write_quorum),
                ..wanted
            };
        }
        self.table.quorum = self.table.wanted_quorum();
    }

    fn move_towards_target(&mut self, restoring: Option<&Restoring>) {
        let Some(target) = self.target() else { return };
        let away = self.table.in_state(State::Away).next().is_some();
        let mut builds: BTreeMap<MemberId, usize> = BTreeMap::new();
        for copy in self.table.partitions.iter().flat_map(|assignment| &assignment.copies) {
            *builds.entry(copy.member).or_default() += usize::from(!copy.in_sync());
        }
        let mut handovers = 0;
        for (partition, wanted) in target.copies.into_iter().enumerate() {
            if !self.table.partitions[partition].copies.iter().any(|copy| self.table.is_live(copy.member)) {
                self.start(partition, &wanted, restoring);
                continue;
            }
            self.add_copies(partition, &wanted, away, &mut builds);
            let moved = handovers < MAX_HANDOVERS && self.hand_over(partition, &wanted);
            handovers += usize::from(moved);
            if !moved {
                self.drop_surplus(partition, &wanted);
            }
        }
    }

    /// Where every partition should be, or none while nobody can take any.
    fn target(&self) -> Option<Target> {
        let table = &self.table;
        let seated = |state: State| matches!(state, State::Active | State::Cordoned | State::Leaving(Intent::Restart));
        let taking = table.members.iter().any(|member| member.state == State::Active);
        if !taking {
            return None;
        }
        let seats: Vec<Seat<'_>> = table
            .members
            .iter()
            .filter(|member| seated(member.state))
            .map(|member| Seat { id: member.id, zone: &member.zone })
            .collect();
        let mut target = place(&seats, &table.partitions, table.live.factor, table.hash_seed);
        for (partition, wanted) in target.copies.iter_mut().enumerate() {
            self.keep_while_unsettled(partition, wanted);
            self.pass_over_restarting(partition, wanted);
        }
        Some(target)
    }

    /// While a member is cordoned or away nothing is balanced: only what is missing is made good.
    fn keep_while_unsettled(&self, partition: usize, wanted: &mut Vec<MemberId>) {
        let quiet = |m: &Member| !matches!(m.state, State::Cordoned | State::Away | State::Leaving(Intent::Restart));
        if self.table.members.iter().all(quiet) {
            return;
        }
        let factor = self.table.live.factor as usize;
        let departs = |id: MemberId| self.state(id) == Some(State::Leaving(Intent::Depart));
        let current: Vec<MemberId> = self.table.partitions[partition]
            .copies
            .iter()
            .map(|copy| copy.member)
            .filter(|id| self.table.is_live(*id) && !departs(*id))
            .collect();
        let added: Vec<MemberId> = wanted
            .iter()
            .copied()
            .filter(|id| !current.contains(id) && self.state(*id) == Some(State::Active))
            .collect();
        *wanted = current;
        let room = factor.saturating_sub(wanted.len());
        wanted.extend(added.into_iter().take(room));
    }

    /// A member that leaves for a restart keeps its copies but no primary; enough copies for a write stay elsewhere.
    fn pass_over_restarting(&self, partition: usize, wanted: &mut Vec<MemberId>) {
        let restarts = |id: &MemberId| self.state(*id) == Some(State::Leaving(Intent::Restart));
        if !wanted.iter().any(restarts) {
            return;
        }
        wanted.sort_by_key(restarts);
        let staying = wanted.iter().filter(|id| !restarts(id)).count();
        let needed = copies_to_stay(&self.table);
        let mut spare: Vec<MemberId> =
            self.table.in_state(State::Active).map(|member| member.id).filter(|id| !wanted.contains(id)).collect();
        let seats = spare.len();
        spare.sort_by_key(|id| (rotation(partition, *id, seats), *id));
        let extra: Vec<MemberId> = spare.into_iter().take(needed.saturating_sub(staying)).collect();
        wanted.splice(staying..staying, extra);
    }

    /// Gives a partition that has nobody to someone.
    fn start(&mut self, partition: usize, wanted: &[MemberId], restoring: Option<&Restoring>) {
        match self.source(partition, restoring) {
            Source::Wait => {}
            Source::Nobody => self.start_anew(partition, wanted),
            Source::Snapshot(member) => {
                let assignment = &mut self.table.partitions[partition];
                // It is no new copy: what it has goes on.
                let since = assignment.copies.first().map_or(0, |copy| copy.since);
                assignment.copies = vec![Copy { member, mark: Mark::InSync, since }];
                assignment.epoch = PartitionEpoch(self.counter);
            }
        }
    }

    /// Who has the last state of a partition: of the final snapshots of those whose copies were in sync or eligible last,
    /// the one with the highest version. Each of them has every acknowledged write.
    fn source(&self, partition: usize, restoring: Option<&Restoring>) -> Source {
        let last = &self.table.partitions[partition].copies;
        let Some(restoring) = restoring.filter(|_| !last.is_empty()) else { return Source::Nobody };
        if self.table.live().any(|member| !restoring.returned.contains_key(&member.id)) {
            return Source::Wait;
        }
        let own = |keeps: &&Arc<Keeps>| keeps.cluster == self.table.cluster;
        let keepers: Vec<(MemberId, &Kept)> = restoring
            .returned
            .iter()
            .filter_map(|(id, keeps)| Some((*id, own(&keeps).then(|| keeps.get(Partition(partition as u16)))??)))
            .collect();
        let is_final = |kept: &Kept| kept.final_of.is_some_and(|id| last.iter().any(|copy| copy.member == id));
        let best = |keepers: &mut dyn Iterator<Item = &(MemberId, &Kept)>| {
            keepers.max_by_key(|(_, kept)| kept.last).map(|(id, _)| *id)
        };
        let away = last.iter().any(|copy| self.state(copy.member) == Some(State::Away));
        match best(&mut keepers.iter().filter(|(_, kept)| is_final(kept))) {
            Some(id) if self.state(id) == Some(State::Joining) => Source::Wait,
            Some(id) => Source::Snapshot(id),
            None if away => Source::Wait,
            None if restoring.lossy => {
                let voters = |id: MemberId| self.state(id) != Some(State::Joining);
                best(&mut keepers.iter().filter(|(id, _)| voters(*id))).map_or(Source::Nobody, Source::Snapshot)
            }
            None => Source::Nobody,
        }
    }

    fn start_anew(&mut self, partition: usize, wanted: &[MemberId]) {
        let counter = self.counter;
        let live: Vec<MemberId> = wanted.iter().copied().filter(|id| self.table.is_live(*id)).collect();
        let assignment = &mut self.table.partitions[partition];
        // Nothing is stored anywhere, so every copy is in sync with nothing.
        assignment.copies =
            live.into_iter().map(|member| Copy { member, mark: Mark::InSync, since: counter }).collect();
        (assignment.epoch, assignment.began) = (PartitionEpoch(counter), counter);
    }

    fn add_copies(
        &mut self,
        partition: usize,
        wanted: &[MemberId],
        away: bool,
        builds: &mut BTreeMap<MemberId, usize>,
    ) {
        let needed = copies_to_stay(&self.table);
        for id in wanted {
            let assignment = &self.table.partitions[partition];
            let takes = matches!(self.state(*id), Some(State::Active));
            let takes_writes = assignment.copies.len() >= needed;
            let rests = away && takes_writes;
            let building = builds.entry(*id).or_default();
            let is_full = takes_writes && *building >= MAX_BUILDS_PER_MEMBER;
            if assignment.holds(*id) || !takes || rests || is_full {
                continue;
            }
            *building += 1;
            let copy = Copy { member: *id, mark: Mark::Building, since: self.counter };
            self.table.partitions[partition].copies.push(copy);
        }
    }

    /// Makes the wanted primary the primary, if its copy is in sync and enough others are.
    fn hand_over(&mut self, partition: usize, wanted: &[MemberId]) -> bool {
        let counter = self.counter;
        let needed = copies_to_stay(&self.table);
        let assignment = &self.table.partitions[partition];
        let leaves = |id: MemberId| self.is_leaving(id);
        let Some(primary) = assignment.primary() else { return false };
        let staying = assignment.in_sync().filter(|id| !leaves(*id)).count();
        let first_choice = wanted.first().copied();
        if first_choice == Some(primary) || (leaves(primary) && staying < needed) {
            return false;
        }
        // A leaver does not wait for the ideal successor.
        let successor = assignment
            .in_sync()
            .find(|id| Some(*id) == first_choice)
            .or_else(|| assignment.in_sync().find(|id| leaves(primary) && !leaves(*id)))
            .filter(|id| !self.young.contains(id));
        let Some(at) = successor.and_then(|id| assignment.copies.iter().position(|copy| copy.member == id)) else {
            return false;
        };
        let assignment = &mut self.table.partitions[partition];
        assignment.copies[..=at].rotate_right(1);
        assignment.epoch = PartitionEpoch(counter);
        assignment.from = Some(primary);
        true
    }

    /// Copies beyond the wanted ones go, once every wanted one is in sync.
    fn drop_surplus(&mut self, partition: usize, wanted: &[MemberId]) {
        let assignment = &mut self.table.partitions[partition];
        let whole = wanted.iter().all(|id| assignment.in_sync().any(|copy| copy == *id));
        if whole && assignment.from.is_none() {
            let primary = assignment.primary();
            assignment.copies.retain(|copy| wanted.contains(&copy.member) || Some(copy.member) == primary);
        }
    }
}

fn removable(table: &Table, member: &Member) -> bool {
    let holds = table.partitions.iter().any(|assignment| assignment.holds(member.id));
    match member.state {
        State::Down | State::Away | State::Joining => true,
        State::Leaving(_) => !holds,
        State::Active | State::Cordoned => false,
    }
}

fn rotation(partition: usize, id: MemberId, members: usize) -> usize {
    (partition + id.0 as usize) % members.max(1)
}

/// A claim about one copy, as its primary makes it.
pub fn claim(partition: Partition, assignment: &Assignment, copy: Copy) -> Claim {
    Claim { partition, epoch: assignment.epoch, member: copy.member, since: copy.since }
}

#[cfg(test)]
mod tests;
