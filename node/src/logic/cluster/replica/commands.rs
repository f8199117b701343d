//! Commands on a primary: when they run, when they are refused, and when their replies are due (rules W2, Q1).

use bytes::Bytes;
use mizuya_wire::settings::Eviction;

use super::{
    Begin, Due, MAX_LOG_BYTES, PATIENCE, Replica, Role, WRITE_TIMEOUT,
    primary::{PendingRead, PendingWrite},
};
use crate::logic::{
    clock::Millis,
    cluster::{message::Record, table::Version},
    keyspace::Partition,
    node::Origin,
    resp::Reply,
    store::{Cause, Change, NewValue, Op},
};

/// Whether a command can be executed here now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Yes.
    Serving,
    /// At this time at the latest.
    Beginning(Millis),
    /// This member is not the primary, or hands over.
    Elsewhere,
}

impl Replica {
    /// Whether commands are executed here at `now`; if so, this primary has begun.
    pub fn standing(&mut self, now: Millis) -> Standing {
        let standing = self.stands(now);
        if let Role::Primary(primary) = &mut self.role
            && standing == Standing::Serving
            && primary.begin != Begin::Now
        {
            primary.begin = Begin::Now;
            primary.acknowledged = self.last.sequence;
        }
        standing
    }

    /// Whether commands would be executed here at `now`.
    pub fn stands(&self, now: Millis) -> Standing {
        let Role::Primary(primary) = &self.role else { return Standing::Elsewhere };
        if primary.frozen.is_some() {
            return Standing::Elsewhere;
        }
        match primary.begin {
            Begin::At(version, time) if self.last < version && now < time => Standing::Beginning(time),
            _ => Standing::Serving,
        }
    }

    /// Replies that have waited for copies for too long.
    pub fn overdue(&mut self, now: Millis, due: &mut Vec<Due>) {
        let partition = self.partition;
        let Role::Primary(primary) = &mut self.role else { return };
        while primary.writes.front().is_some_and(|write| now >= write.deadline) {
            if let Some(PendingWrite { origin: Some(origin), .. }) = primary.writes.pop_front() {
                due.push((origin, outcome_unknown(partition)));
            }
        }
        while primary.reads.front().is_some_and(|read| now >= read.deadline) {
            if let Some(read) = primary.reads.pop_front() {
                due.push((read.origin, read_quorum_missed(partition, primary.read_quorum)));
            }
        }
    }

    /// Why a write cannot be executed at `now`, whatever it is: too few copies, copies that take long to be built, or too
    /// much unconfirmed.
    pub fn refuses_write(&self, now: Millis) -> Option<Reply> {
        let Role::Primary(primary) = &self.role else { return None };
        let copies = 1 + primary.copies.len();
        if copies < primary.write_quorum {
            return Some(Reply::Error(format!(
                "WRITEQUORUM not executed: partition {} has {copies} of the {} copies that a write needs",
                self.partition.0, primary.write_quorum
            )));
        }
        if primary.building_since.is_some_and(|since| now >= since + PATIENCE) {
            return Some(Reply::Error(format!(
                "WRITEQUORUM not executed: partition {} has {} of the {} copies that a write needs, and is building more; \
                 try again later",
                self.partition.0,
                primary.in_sync(),
                primary.write_quorum
            )));
        }
        (self.log_bytes > MAX_LOG_BYTES).then(|| {
            Reply::Error(format!(
                "OVERLOADED not executed: copies of partition {} are too far behind",
                self.partition.0
            ))
        })
    }

    /// Why a read cannot be answered now.
    pub fn refuses_read(&self) -> Option<Reply> {
        if self.answers_reads_at_once() {
            return None;
        }
        let Role::Primary(primary) = &self.role else { return None };
        (primary.in_sync() < primary.read_quorum).then(|| read_quorum_missed(self.partition, primary.read_quorum))
    }

    /// Applies changes that the primary makes, and puts them into the stream. Returns the last sequence.
    pub fn commit<'a>(&mut self, changes: impl IntoIterator<Item = Change<'a>>) -> u64 {
        let Role::Primary(primary) = &self.role else { return self.last.sequence };
        let (epoch, followed) = (primary.epoch, !primary.copies.is_empty());
        for mut change in changes {
            self.last = Version { epoch, sequence: self.last.sequence + 1 };
            if followed {
                let op = change.to_op(&mut self.map);
                if let (Change::Put { value, .. }, Op::Put { value: own, .. }) = (&mut change, &op) {
                    *value = NewValue::Own(own.clone());
                }
                self.store.change(&change, self.last);
                self.push(Record { version: self.last, op });
            } else {
                self.store.change(&change, self.last);
                self.base = self.last;
            }
        }
        if !followed {
            self.log.clear();
            self.log_bytes = 0;
        }
        self.last.sequence
    }

    /// Evicts entries of at least `bytes`, or all of them (rule W4), and puts that into the stream. Returns how many.
    pub fn evict(&mut self, bytes: u64, eviction: Eviction, random: u64) -> usize {
        let Role::Primary(primary) = &self.role else { return 0 };
        let (epoch, followed, mut last, mut records) =
            (primary.epoch, !primary.copies.is_empty(), self.last, Vec::new());
        let removed = |map: &Bytes, key: &[u8]| {
            last = Version { epoch, sequence: last.sequence + 1 };
            if followed {
                let op = Op::Remove { map: map.clone(), key: Bytes::copy_from_slice(key), cause: Cause::Evicted };
                records.push(Record { version: last, op });
            }
        };
        let count = self.store.evict(bytes, eviction, random, removed);
        if followed {
            self.last = last;
            for record in records {
                self.push(record);
            }
        } else {
            self.restart_log(last);
        }
        count
    }

    /// The reply to a write whose last change is `sequence`: now, if enough copies have it, else later.
    pub fn answer_write(&mut self, origin: &Origin, reply: Reply, sequence: u64, now: Millis) -> Option<Reply> {
        let Role::Primary(primary) = &mut self.role else { return Some(reply) };
        if primary.writes.is_empty() && primary.holds(sequence) {
            primary.acknowledged = primary.acknowledged.max(sequence);
            return Some(reply);
        }
        if primary.waits_for_builds() {
            primary.building_since.get_or_insert(now);
        }
        primary.writes.push_back(PendingWrite {
            sequence,
            origin: Some(origin.clone()),
            reply,
            deadline: now + WRITE_TIMEOUT,
        });
        None
    }

    /// Whether reads are answered without asking copies (rule Q1).
    pub fn answers_reads_at_once(&self) -> bool {
        matches!(&self.role, Role::Primary(primary) if primary.read_quorum <= 1)
    }

    /// The reply to a read: now with a read quorum of 1, else when enough copies have confirmed (rule Q1).
    pub fn answer_read(&mut self, origin: &Origin, reply: Reply, now: Millis) -> Option<Reply> {
        let Role::Primary(primary) = &mut self.role else { return Some(reply) };
        if primary.read_quorum <= 1 {
            return Some(reply);
        }
        primary.probe += 1;
        primary.reads.push_back(PendingRead {
            probe: primary.probe,
            sequence: self.last.sequence,
            origin: origin.clone(),
            reply,
            deadline: now + WRITE_TIMEOUT,
        });
        None
    }

    /// Acknowledges what enough copies have.
    pub fn settle(&mut self, due: &mut Vec<Due>) {
        let Role::Primary(primary) = &mut self.role else { return };
        while let Some(write) = primary.writes.front() {
            if !primary.holds(write.sequence) {
                break;
            }
            primary.acknowledged = primary.acknowledged.max(write.sequence);
            if let Some(PendingWrite { origin: Some(origin), reply, .. }) = primary.writes.pop_front() {
                due.push((origin, reply));
            }
        }
        while let Some(read) = primary.reads.front() {
            let confirmed =
                primary.copies.values().filter(|copy| copy.in_sync() && copy.probe_confirmed >= read.probe).count();
            // What is answered must not be lost with this primary.
            if confirmed + 1 < primary.read_quorum || !primary.survives(read.sequence) {
                break;
            }
            if let Some(read) = primary.reads.pop_front() {
                due.push((read.origin, read.reply));
            }
        }
    }
}

/// A prefix that no client library retries: the command may have been executed (rule F1).
pub fn outcome_unknown(partition: Partition) -> Reply {
    Reply::Error(format!(
        "OUTCOMEUNKNOWN the command may or may not have been executed: partition {} lost its primary or copies; read before you retry",
        partition.0
    ))
}

/// Nobody could take the command in time.
pub fn not_begun(partition: Partition) -> Reply {
    Reply::Error(format!(
        "UNAVAILABLE not executed: partition {} has no primary that can answer; try again",
        partition.0
    ))
}

fn read_quorum_missed(partition: Partition, quorum: usize) -> Reply {
    Reply::Error(format!("READQUORUM partition {} has fewer than {quorum} copies in sync; try again", partition.0))
}
