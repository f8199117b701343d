//! Changes of partitions, and the commands that are passed on.

use std::time::Duration;

use mizuya_wire::peer as wire;

use super::{Malformed, need, partition_in, version_in, version_out};
use crate::logic::{
    clock::Millis,
    cluster::{
        message::{Append, Chunk, Confirm, Digests, Forward, Forwarded, Range, Record},
        table::PartitionEpoch,
    },
    store::{Cause, Op},
};

fn op_out(op: Op, now: Millis) -> wire::Op {
    use wire::op::Kind;
    let kind = match op {
        Op::Put { map, key, value, expires } => {
            Kind::Put(wire::Put { map, key, value, left_ms: expires.map(|deadline| deadline.since(now)) })
        }
        Op::Remove { map, key, cause } => {
            let cause = match cause {
                Cause::Deleted => wire::Cause::Deleted,
                Cause::Expired => wire::Cause::Expired,
                Cause::Evicted => wire::Cause::Evicted,
            };
            Kind::Remove(wire::Remove { map, key, cause: cause.into() })
        }
        Op::Clear { map } => Kind::Clear(wire::Clear { map }),
    };
    wire::Op { kind: Some(kind) }
}

// A change of an unknown kind is an error, not ignored: a copy that leaves one out is no longer equal to its primary.
fn op_in(op: wire::Op, now: Millis) -> Result<Op, Malformed> {
    use wire::op::Kind;
    Ok(match need(op.kind, "op")? {
        Kind::Put(wire::Put { map, key, value, left_ms }) => {
            Op::Put { map, key, value, expires: left_ms.map(|left| now + Duration::from_millis(left)) }
        }
        Kind::Remove(wire::Remove { map, key, cause }) => {
            // The cause only counts; one from a newer program is a deletion.
            let cause = match wire::Cause::try_from(cause) {
                Ok(wire::Cause::Expired) => Cause::Expired,
                Ok(wire::Cause::Evicted) => Cause::Evicted,
                Ok(wire::Cause::Deleted | wire::Cause::Unspecified) | Err(_) => Cause::Deleted,
            };
            Op::Remove { map, key, cause }
        }
        Kind::Clear(wire::Clear { map }) => Op::Clear { map },
    })
}

fn records_out(records: Vec<Record>, now: Millis) -> Vec<wire::Record> {
    let record =
        |record: Record| wire::Record { version: Some(version_out(record.version)), op: Some(op_out(record.op, now)) };
    records.into_iter().map(record).collect()
}

fn records_in(records: Vec<wire::Record>, now: Millis) -> Result<Vec<Record>, Malformed> {
    let record = |record: wire::Record| {
        let version = version_in(need(record.version, "version")?);
        Ok(Record { version, op: op_in(need(record.op, "op")?, now)? })
    };
    records.into_iter().map(record).collect()
}

pub(super) fn append_out(append: Append, now: Millis) -> wire::Append {
    wire::Append {
        partition: u32::from(append.partition.0),
        epoch: append.epoch.0,
        previous: Some(version_out(append.previous)),
        records: records_out(append.records, now),
        stable: append.stable,
        probe: append.probe,
        digest: append.digest,
    }
}

pub(super) fn append_in(append: wire::Append, now: Millis) -> Result<Append, Malformed> {
    Ok(Append {
        partition: partition_in(append.partition)?,
        epoch: PartitionEpoch(append.epoch),
        previous: version_in(need(append.previous, "previous")?),
        records: records_in(append.records, now)?,
        stable: append.stable,
        probe: append.probe,
        digest: append.digest,
    })
}

pub(super) fn chunk_out(chunk: Chunk, now: Millis) -> wire::Chunk {
    wire::Chunk {
        partition: u32::from(chunk.partition.0),
        epoch: chunk.epoch.0,
        at: Some(version_out(chunk.at)),
        from: chunk.from,
        next: chunk.next,
        entries: records_out(chunk.entries, now),
    }
}

pub(super) fn chunk_in(chunk: wire::Chunk, now: Millis) -> Result<Chunk, Malformed> {
    Ok(Chunk {
        partition: partition_in(chunk.partition)?,
        epoch: PartitionEpoch(chunk.epoch),
        at: version_in(need(chunk.at, "at")?),
        from: chunk.from,
        next: chunk.next,
        entries: records_in(chunk.entries, now)?,
    })
}

pub(super) fn digests_out(digests: Digests) -> wire::Digests {
    let range = |range: Range| wire::Range { next: range.next, digest: range.digest };
    wire::Digests {
        partition: u32::from(digests.partition.0),
        epoch: digests.epoch.0,
        at: Some(version_out(digests.at)),
        from: digests.from,
        ranges: digests.ranges.into_iter().map(range).collect(),
    }
}

pub(super) fn digests_in(digests: wire::Digests) -> Result<Digests, Malformed> {
    let range = |range: wire::Range| Range { next: range.next, digest: range.digest };
    Ok(Digests {
        partition: partition_in(digests.partition)?,
        epoch: PartitionEpoch(digests.epoch),
        at: version_in(need(digests.at, "at")?),
        from: digests.from,
        ranges: digests.ranges.into_iter().map(range).collect(),
    })
}

pub(super) fn confirm_out(confirm: &Confirm) -> wire::Confirm {
    wire::Confirm {
        partition: u32::from(confirm.partition.0),
        epoch: confirm.epoch.0,
        version: Some(version_out(confirm.version)),
        gap: confirm.gap,
        refused: confirm.refused,
        needs_from: confirm.needs_from,
        probe: confirm.probe,
        pressure: confirm.pressure,
        holds: confirm.holds,
        differs: confirm.differs,
        since: confirm.since,
    }
}

pub(super) fn confirm_in(confirm: wire::Confirm) -> Result<Confirm, Malformed> {
    Ok(Confirm {
        partition: partition_in(confirm.partition)?,
        epoch: PartitionEpoch(confirm.epoch),
        since: confirm.since,
        version: version_in(need(confirm.version, "version")?),
        gap: confirm.gap,
        refused: confirm.refused,
        needs_from: confirm.needs_from,
        probe: confirm.probe,
        pressure: confirm.pressure,
        holds: confirm.holds,
        differs: confirm.differs,
    })
}

pub(super) fn forward_out(forward: Forward) -> wire::Forward {
    wire::Forward {
        id: forward.id,
        epoch: forward.epoch,
        hops: u32::from(forward.hops),
        partition: u32::from(forward.partition.0),
        words: forward.words,
        mirrors: forward.mirrors,
    }
}

pub(super) fn forward_in(forward: wire::Forward) -> Result<Forward, Malformed> {
    if forward.words.is_empty() {
        return Err(Malformed::Missing("words"));
    }
    Ok(Forward {
        id: forward.id,
        epoch: forward.epoch,
        hops: u8::try_from(forward.hops).map_err(|_| Malformed::Range("hops", u64::from(forward.hops)))?,
        partition: partition_in(forward.partition)?,
        words: forward.words,
        mirrors: forward.mirrors,
    })
}

pub(super) fn forwarded_out(id: u64, outcome: Forwarded) -> wire::Forwarded {
    use wire::forwarded::Outcome;
    let (outcome, mirror) = match outcome {
        Forwarded::Reply { bytes, mirror } => (Outcome::Reply(bytes), mirror),
        Forwarded::NotExecuted(counter) => (Outcome::NotExecuted(counter), 0),
    };
    wire::Forwarded { id, outcome: Some(outcome), mirror }
}

/// None: an outcome that this program does not know.
pub(super) fn forwarded_in(forwarded: wire::Forwarded) -> Option<(u64, Forwarded)> {
    use wire::forwarded::Outcome;
    let outcome = match forwarded.outcome? {
        Outcome::Reply(bytes) => Forwarded::Reply { bytes, mirror: forwarded.mirror },
        Outcome::NotExecuted(counter) => Forwarded::NotExecuted(counter),
    };
    Some((forwarded.id, outcome))
}
