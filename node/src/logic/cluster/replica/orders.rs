//! What a table in force makes of a member's part in a partition: primary, copy, or nothing.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Due, FREEZE, Replica, Role, copy_state::CopyState, following::Following, outcome_unknown, primary::Primary,
};
use crate::logic::{
    clock::Millis,
    cluster::{
        member::{MemberId, MemberName},
        table::{Assignment, Copy, Mark, PartitionEpoch, Version},
    },
    node::Origin,
};

/// When a primary begins to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At once. A predecessor that could not be asked cannot answer any more (rule W7).
    Now,
    /// When it has this version, which its predecessor reported, or at this time: what the predecessor has beyond it
    /// by then was never acknowledged (rule T2).
    At(Version, Millis),
}

/// What a table in force says of this member and this partition.
pub struct Orders<'a> {
    /// This member.
    pub me: MemberId,
    /// Counter of the table.
    pub counter: u64,
    /// The assignment.
    pub assignment: &'a Assignment,
    /// Names of the members in it.
    pub names: &'a dyn Fn(MemberId) -> Option<MemberName>,
    /// When a new primary begins.
    pub begin: Begin,
    /// Copies that hold a write before it is acknowledged.
    pub write_quorum: u32,
    /// Copies that confirm a read.
    pub read_quorum: u32,
    /// As many members that run have it in sync as the factor says.
    pub complete: bool,
}

impl Replica {
    /// A table that takes the primary role away from a member that does not run was taken: its changes are refused
    /// from now on.
    pub fn refuse_below(&mut self, epoch: PartitionEpoch) {
        self.floor = self.floor.max(epoch);
    }

    /// Carries out what a table in force says. Replies that can never come are given up.
    pub fn obey(&mut self, orders: &Orders<'_>, now: Millis, due: &mut Vec<Due>) {
        let assignment = orders.assignment;
        let mine = assignment.copies.iter().find(|copy| copy.member == orders.me).copied();
        // A table that is newer than what set the floor knows better: this member may have been primary on the side that
        // lost (rule Q3).
        let outdated = orders.counter >= self.floor.0;
        self.floor = if outdated { assignment.epoch } else { self.floor.max(assignment.epoch) };
        let Some(mine) = mine else {
            if !self.is_kept() || orders.complete {
                self.resign(due);
            }
            return;
        };
        // A copy that has all that was acknowledged, and has nothing of the time since the partition started empty, began
        // with it.
        if mine.has_all() && self.last.epoch.0 < assignment.began {
            self.kept = None;
            self.start_from(Version { epoch: PartitionEpoch(assignment.began), sequence: 0 });
            if matches!(self.role, Role::Copy(_)) {
                self.role = Role::None;
            }
        }
        let leads = assignment.primary() == Some(orders.me);
        // Also when it is primary again, in another epoch: what waits for the copies of the former one is never answered.
        let goes_on = leads && self.knows(assignment.epoch);
        if matches!(self.role, Role::Primary(_)) && !goes_on {
            self.step_down(due);
        }
        if leads {
            self.lead(orders, now);
        } else {
            self.follow(assignment, mine, orders);
        }
    }

    fn resign(&mut self, due: &mut Vec<Due>) {
        self.step_down(due);
        self.kept = None;
        if !matches!(self.role, Role::None) || !self.store.is_empty() {
            self.start_from(Version::default());
        }
        self.role = Role::None;
    }

    pub(super) fn step_down(&mut self, due: &mut Vec<Due>) {
        let Role::Primary(primary) = std::mem::replace(&mut self.role, Role::None) else { return };
        let unknown = |origin: Origin| (origin, outcome_unknown(self.partition));
        due.extend(primary.writes.into_iter().filter_map(|write| write.origin).map(unknown));
        due.extend(primary.reads.into_iter().map(|read| unknown(read.origin)));
    }

    fn follow(&mut self, assignment: &Assignment, mine: Copy, orders: &Orders<'_>) {
        let Some(primary) = assignment.primary().and_then(|id| (orders.names)(id)) else { return };
        let epoch = assignment.epoch;
        if let Role::Copy(following) = &mut self.role
            && following.epoch == epoch
            && following.primary == primary
        {
            if following.since != mine.since && !mine.in_sync() {
                (following.anew, following.holds) = (true, !self.store.is_empty());
            }
            (following.mark, following.since) = (mine.mark, mine.since);
            return;
        }
        if !self.takes_part() {
            self.restart_log(Version::default());
        }
        let needs_from = match &self.role {
            // What another primary has half built is built anew.
            Role::Copy(following) => following.needs_from.map(|_| 0),
            _ if mine.in_sync() || self.last != Version::default() => None,
            _ => Some(0),
        };
        self.role = Role::Copy(Following {
            epoch,
            primary,
            mark: mine.mark,
            anew: !mine.in_sync(),
            since: mine.since,
            needs_from,
            holds: !self.store.is_empty(),
            differs: false,
            confirm_due: false,
            gap: false,
            probe: 0,
        });
    }

    fn lead(&mut self, orders: &Orders<'_>, now: Millis) {
        let assignment = orders.assignment;
        self.takes_part();
        if let Role::Copy(following) = &self.role
            && following.needs_from.is_some()
            && following.mark != Mark::InSync
        {
            // It was eligible, and its entries are of more than one moment: nobody else has exactly these at its version.
            self.restart_log(Version { epoch: assignment.epoch, sequence: self.last.sequence + 1 });
        }
        if !matches!(&self.role, Role::Primary(primary) if primary.epoch == assignment.epoch) {
            self.role = Role::Primary(Box::new(Primary {
                epoch: assignment.epoch,
                begin: if self.last.epoch == assignment.epoch { Begin::Now } else { orders.begin },
                write_quorum: 1,
                read_quorum: 1,
                copies: BTreeMap::new(),
                writes: VecDeque::new(),
                building_since: None,
                reads: VecDeque::new(),
                // Whatever this copy has may have been acknowledged.
                acknowledged: self.last.sequence,
                probe: 0,
                frozen: None,
            }));
        }
        let Role::Primary(primary) = &mut self.role else { return };
        primary.frozen = None;
        primary.write_quorum = orders.write_quorum as usize;
        primary.read_quorum = orders.read_quorum as usize;
        let mut former = std::mem::take(&mut primary.copies);
        for copy in assignment.copies.iter().skip(1) {
            let Some(name) = (orders.names)(copy.member) else { continue };
            let known = former.remove(&copy.member);
            let kept = known.as_ref().and_then(CopyState::keeps);
            let goes_on = known.filter(|state| state.since == copy.since);
            let mut state = goes_on.unwrap_or_else(|| CopyState::new(name, now));
            state.claimed &= !copy.in_sync();
            (state.since, state.mark) = (copy.since, copy.mark);
            state.kept = kept.filter(|_| copy.mark == Mark::Eligible);
            primary.copies.insert(copy.member, state);
        }
        if !primary.waits_for_builds() {
            primary.building_since = None;
        }
        // Copies that went need nothing any more.
        self.trim();
    }

    /// A table that gives the primary role to another was proposed: nothing new is executed from now on. Returns the
    /// last version once every copy that counts has it, or the time for that is over.
    pub fn freeze(&mut self, now: Millis) -> Option<Version> {
        let last = self.last;
        let Role::Primary(primary) = &mut self.role else { return Some(last) };
        let since = *primary.frozen.get_or_insert(now);
        let over = now >= since + FREEZE;
        let calm = primary.holds(last.sequence) && primary.writes.is_empty() && primary.reads.is_empty();
        (calm || over).then_some(last)
    }
}
