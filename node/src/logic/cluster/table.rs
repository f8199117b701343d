//! The table: who is a member, and who holds which partition. One is in force at a time (rules T1 to T8).

use mizuya_wire::quorum::MemberQuorum;

use super::member::{Generation, Member, MemberId, MemberName, State};
use crate::logic::keyspace::Partition;

/// Order of tables: a counter, then the proposer (rule T1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Rises by at least one with each table; the first of a cluster is Unix seconds (rule T4).
    pub counter: u64,
    /// Generation of the member that proposed it.
    pub proposer: u64,
}

/// A partition's epoch: the table counter at its last change of primary (rule W1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionEpoch(pub u64);

/// Order of the changes of one partition (rule W1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The partition's epoch when the change was made.
    pub epoch: PartitionEpoch,
    /// Number of the change; goes on over epochs without a gap.
    pub sequence: u64,
}

/// Identity of a cluster, random, given when it starts (rule T4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u128);

/// What is known of a copy (rule W2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It has confirmed every acknowledged write, and each further one waits for it.
    InSync,
    /// It was in sync, and since it no longer is there have been too few copies in sync for any write to be
    /// acknowledged: it has every acknowledged one, and is promoted when no copy in sync is left.
    Eligible,
    /// It may lack some.
    Building,
}

/// One copy of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Who holds it.
    pub member: MemberId,
    /// What is known of it. The first copy, the primary, is in sync.
    pub mark: Mark,
    /// Counter of the table that added this copy or took its in-sync mark away. A primary's claim about a copy names
    /// it, so that a late claim about an earlier copy on the same member is void.
    pub since: u64,
}

impl Copy {
    /// Whether each write waits for it.
    pub fn in_sync(&self) -> bool {
        self.mark == Mark::InSync
    }

    /// Whether it has every acknowledged write.
    pub fn has_all(&self) -> bool {
        matches!(self.mark, Mark::InSync | Mark::Eligible)
    }
}

/// Who holds one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The partition's epoch.
    pub epoch: PartitionEpoch,
    /// Counter of the table in which the partition last started empty. What a copy has from before is void.
    pub began: u64,
    /// The copies; the first is the primary. Empty: nobody holds it and its keys are lost.
    pub copies: Vec<Copy>,
    /// A live member that was primary before and must take this table before it is in force (rule T2).
    pub from: Option<MemberId>,
}

impl Assignment {
    /// The primary.
    pub fn primary(&self) -> Option<MemberId> {
        self.copies.first().map(|copy| copy.member)
    }

    /// Whether a member holds a copy, in sync or not.
    pub fn holds(&self, member: MemberId) -> bool {
        self.copies.iter().any(|copy| copy.member == member)
    }

    /// The members whose copies are in sync, the primary first.
    pub fn in_sync(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.copies.iter().filter(|copy| copy.in_sync()).map(|copy| copy.member)
    }
}

/// Settings that change while the cluster runs (rule O1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Grows with each change; the higher one holds.
    pub generation: u64,
    /// Copies of each partition.
    pub factor: u32,
    /// Copies that confirm a read.
    pub read_quorum: u32,
    /// Copies that hold a write before it is acknowledged.
    pub write_quorum: u32,
    /// Voters that must be reachable.
    pub member_quorum: MemberQuorum,
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which cluster it is of.
    pub cluster: ClusterId,
    /// Its place in the order of tables.
    pub epoch: Epoch,
    /// Seed of the entries' hash order, the same on every member (rules T8, C2).
    pub hash_seed: u64,
    /// Live settings.
    pub live: Live,
    /// Voters that must take a table and be reachable: `live.member_quorum` resolved, changed only together with the
    /// voters (rule T3).
    pub quorum: u32,
    /// Number that the next joiner gets.
    pub next_member: u32,
    /// Members in the order in which they joined (rule T5).
    pub members: Vec<Member>,
    /// One for each partition.
    pub partitions: Vec<Assignment>,
}

impl Table {
    /// The member with this number.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The member with this name, in whatever generation.
    pub fn named(&self, name: &MemberName) -> Option<&Member> {
        self.members.iter().find(|member| member.name == *name)
    }

    /// The member with this name and generation.
    pub fn start(&self, name: &MemberName, generation: Generation) -> Option<&Member> {
        self.named(name).filter(|member| member.generation == generation)
    }

    /// Members whose process is believed to run.
    pub fn live(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state.is_live())
    }

    /// The member that proposes tables: the running voter that joined first (rule T5).
    pub fn coordinator(&self) -> Option<&Member> {
        self.live().find(|member| member.state.is_voter())
    }

    /// Whether this member is in the table and believed to run.
    pub fn is_live(&self, id: MemberId) -> bool {
        self.member(id).is_some_and(|member| member.state.is_live())
    }

    /// The copies in sync of a partition whose members run. One that has nobody still names who had it last (rule S1).
    pub fn running(&self, assignment: &Assignment) -> impl Iterator<Item = MemberId> {
        assignment.in_sync().filter(|id| self.is_live(*id))
    }

    /// Copies that a partition can have: its factor, but no more than there are members that may hold one. A cordoned
    /// member keeps what it has and takes nothing new, so it counts only where it holds a copy; one that is away is
    /// expected back until `rejoin_timeout` has it down.
    pub fn copies_possible(&self, assignment: &Assignment) -> usize {
        let may = self.members.iter().filter(|member| match member.state {
            State::Down | State::Leaving(_) => false,
            State::Cordoned => assignment.holds(member.id),
            State::Joining | State::Active | State::Away => true,
        });
        (self.live.factor as usize).min(may.count().max(1))
    }

    /// Whether a partition has fewer copies in sync than it can have: another loss would be worse than before.
    pub fn is_short(&self, assignment: &Assignment) -> bool {
        self.running(assignment).count() < self.copies_possible(assignment)
    }

    /// Whether the copies of a partition are urgent: it is short of them, or one is on a member that leaves, and whoever
    /// ends that member waits for the others.
    pub fn is_urgent(&self, assignment: &Assignment) -> bool {
        let leaves = |copy: &Copy| self.member(copy.member).is_some_and(|m| matches!(m.state, State::Leaving(_)));
        self.is_short(assignment) || assignment.copies.iter().any(leaves)
    }

    /// Who holds a partition.
    pub fn assignment(&self, partition: Partition) -> &Assignment {
        &self.partitions[partition.index()]
    }

    /// Number of partitions.
    pub fn partition_count(&self) -> u16 {
        self.partitions.len() as u16
    }

    /// Members that count towards the quorum's size, whether they run or not (rule T6).
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state.is_voter())
    }

    /// The quorum that `live.member_quorum` asks for with the present voters.
    pub fn wanted_quorum(&self) -> u32 {
        self.live.member_quorum.resolve(self.voters().count() as u32)
    }

    /// Members in this state.
    pub fn in_state(&self, state: State) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |member| member.state == state)
    }
}
