//! The table, what a volume remembers, and the changes that are asked for.

use std::sync::Arc;

use mizuya_wire::{peer as wire, quorum::MemberQuorum};

use super::{Malformed, epoch_in, epoch_out, need, partition_in, small, version_in, version_out};
use crate::logic::cluster::{
    member::{Generation, Intent, Member, MemberId, MemberName, State},
    memory::{Keeps, Kept, Memory},
    message::{Change, Claim, Lost},
    table::{Assignment, ClusterId, Copy, Live, Mark, PartitionEpoch, Table},
};

pub(super) fn cluster_out(cluster: ClusterId) -> wire::ClusterId {
    wire::ClusterId { high: (cluster.0 >> 64) as u64, low: cluster.0 as u64 }
}

pub(super) fn cluster_in(cluster: wire::ClusterId) -> ClusterId {
    ClusterId(u128::from(cluster.high) << 64 | u128::from(cluster.low))
}

pub(in crate::io) fn table_out(table: &Table) -> wire::Table {
    wire::Table {
        cluster: Some(cluster_out(table.cluster)),
        epoch: Some(epoch_out(table.epoch)),
        hash_seed: table.hash_seed,
        live: Some(live_out(table.live)),
        quorum: table.quorum,
        next_member: table.next_member,
        members: table.members.iter().map(member_out).collect(),
        partitions: table.partitions.iter().map(assignment_out).collect(),
    }
}

pub(in crate::io) fn table_in(table: wire::Table) -> Result<Table, Malformed> {
    let partitions = table.partitions.len();
    if partitions == 0 || u16::try_from(partitions).is_err() {
        return Err(Malformed::Range("partitions", partitions as u64));
    }
    Ok(Table {
        cluster: cluster_in(need(table.cluster, "cluster")?),
        epoch: epoch_in(need(table.epoch, "epoch")?),
        hash_seed: table.hash_seed,
        live: live_in(need(table.live, "live")?),
        quorum: table.quorum,
        next_member: table.next_member,
        members: table.members.into_iter().map(member_in).collect::<Result<_, _>>()?,
        partitions: table.partitions.into_iter().map(assignment_in).collect(),
    })
}

pub(super) fn memory_out(memory: &Memory) -> wire::Memory {
    let kept = |kept: &Kept| wire::Kept {
        partition: u32::from(kept.partition.0),
        last: Some(version_out(kept.last)),
        final_of: kept.final_of.map(|id| id.0),
    };
    wire::Memory {
        table: memory.table.as_deref().map(table_out),
        cluster: Some(cluster_out(memory.kept.cluster)),
        kept: memory.kept.partitions.iter().map(kept).collect(),
    }
}

pub(super) fn memory_in(memory: wire::Memory) -> Result<Memory, Malformed> {
    let kept = |kept: wire::Kept| {
        Ok(Kept {
            partition: partition_in(kept.partition)?,
            last: version_in(need(kept.last, "last")?),
            final_of: kept.final_of.map(MemberId),
        })
    };
    let mut partitions = memory.kept.into_iter().map(kept).collect::<Result<Vec<_>, Malformed>>()?;
    partitions.sort_by_key(|kept| kept.partition);
    Ok(Memory {
        table: memory.table.map(|table| table_in(table).map(Arc::new)).transpose()?,
        kept: Arc::new(Keeps { cluster: cluster_in(memory.cluster.unwrap_or_default()), partitions }),
    })
}

fn member_out(member: &Member) -> wire::Member {
    wire::Member {
        id: member.id.0,
        name: member.name.as_str().to_owned(),
        generation: member.generation.0,
        state: state_out(member.state).into(),
        client_port: u32::from(member.client_port),
        peer_port: u32::from(member.peer_port),
        zone: member.zone.clone(),
    }
}

fn member_in(member: wire::Member) -> Result<Member, Malformed> {
    Ok(Member {
        id: MemberId(member.id),
        name: MemberName::from(member.name.as_str()),
        generation: Generation(member.generation),
        state: state_in(member.state)?,
        client_port: small(member.client_port, "client_port")?,
        peer_port: small(member.peer_port, "peer_port")?,
        zone: member.zone,
    })
}

fn state_out(state: State) -> wire::State {
    match state {
        State::Joining => wire::State::Joining,
        State::Active => wire::State::Active,
        State::Cordoned => wire::State::Cordoned,
        State::Leaving(Intent::Restart) => wire::State::LeavingRestart,
        State::Leaving(Intent::Depart) => wire::State::LeavingDepart,
        State::Away => wire::State::Away,
        State::Down => wire::State::Down,
    }
}

fn state_in(state: i32) -> Result<State, Malformed> {
    match wire::State::try_from(state) {
        Ok(wire::State::Joining) => Ok(State::Joining),
        Ok(wire::State::Active) => Ok(State::Active),
        Ok(wire::State::Cordoned) => Ok(State::Cordoned),
        Ok(wire::State::LeavingRestart) => Ok(State::Leaving(Intent::Restart)),
        Ok(wire::State::LeavingDepart) => Ok(State::Leaving(Intent::Depart)),
        Ok(wire::State::Away) => Ok(State::Away),
        Ok(wire::State::Down) => Ok(State::Down),
        Ok(wire::State::Unspecified) | Err(_) => Err(Malformed::Range("state", u64::from(state.unsigned_abs()))),
    }
}

fn assignment_out(assignment: &Assignment) -> wire::Assignment {
    let copy = |copy: &Copy| wire::Copy {
        member: copy.member.0,
        in_sync: copy.in_sync(),
        since: copy.since,
        eligible: copy.mark == Mark::Eligible,
    };
    wire::Assignment {
        epoch: assignment.epoch.0,
        began: Some(assignment.began),
        copies: assignment.copies.iter().map(copy).collect(),
        from: assignment.from.map(|member| member.0),
    }
}

fn assignment_in(assignment: wire::Assignment) -> Assignment {
    let mark = |copy: &wire::Copy| match (copy.in_sync, copy.eligible) {
        (true, _) => Mark::InSync,
        (false, true) => Mark::Eligible,
        (false, false) => Mark::Building,
    };
    // Without that word: its primary came with the epoch, or it started empty before anyone can say.
    let anew = || assignment.copies.first().is_some_and(|primary| primary.since == assignment.epoch);
    let began = assignment.began.unwrap_or_else(|| if anew() { assignment.epoch } else { 0 });
    let copy = |copy: wire::Copy| Copy { member: MemberId(copy.member), mark: mark(&copy), since: copy.since };
    Assignment {
        epoch: PartitionEpoch(assignment.epoch),
        began,
        copies: assignment.copies.into_iter().map(copy).collect(),
        from: assignment.from.map(MemberId),
    }
}

fn live_out(live: Live) -> wire::Live {
    wire::Live {
        generation: live.generation,
        factor: live.factor,
        read_quorum: live.read_quorum,
        write_quorum: live.write_quorum,
        member_quorum: live.member_quorum.to_wire(),
    }
}

fn live_in(live: wire::Live) -> Live {
    Live {
        generation: live.generation,
        factor: live.factor,
        read_quorum: live.read_quorum,
        write_quorum: live.write_quorum,
        member_quorum: MemberQuorum::from_wire(live.member_quorum),
    }
}

pub(super) fn change_out(change: Change) -> wire::Change {
    use wire::change::Kind;
    let kind = match change {
        Change::SetState(member, state) => {
            Kind::SetState(wire::SetState { member: member.as_str().to_owned(), state: state_out(state).into() })
        }
        Change::Forget(member) => Kind::Forget(member.as_str().to_owned()),
        Change::Settings(live) => Kind::Settings(live_out(live)),
        Change::CopyInSync(claim) => Kind::CopyInSync(claim_out(claim)),
        Change::CopyLost(claim, lost) => {
            Kind::CopyLost(wire::Claim { keeps: lost == Lost::Unheard, ..claim_out(claim) })
        }
    };
    wire::Change { kind: Some(kind) }
}

/// None: a kind that this program does not know.
pub(super) fn change_in(change: wire::Change) -> Result<Option<Change>, Malformed> {
    use wire::change::Kind;
    let Some(kind) = change.kind else { return Ok(None) };
    Ok(Some(match kind {
        Kind::SetState(set) => Change::SetState(MemberName::from(set.member.as_str()), state_in(set.state)?),
        Kind::Forget(member) => Change::Forget(MemberName::from(member.as_str())),
        Kind::Settings(live) => Change::Settings(live_in(live)),
        Kind::CopyInSync(claim) => Change::CopyInSync(claim_in(claim)?),
        Kind::CopyLost(claim) => {
            let lost = if claim.keeps { Lost::Unheard } else { Lost::Unfit };
            Change::CopyLost(claim_in(claim)?, lost)
        }
    }))
}

fn claim_out(claim: Claim) -> wire::Claim {
    wire::Claim {
        partition: u32::from(claim.partition.0),
        epoch: claim.epoch.0,
        member: claim.member.0,
        since: claim.since,
        keeps: false,
    }
}

fn claim_in(claim: wire::Claim) -> Result<Claim, Malformed> {
    Ok(Claim {
        partition: partition_in(claim.partition)?,
        epoch: PartitionEpoch(claim.epoch),
        member: MemberId(claim.member),
        since: claim.since,
    })
}
