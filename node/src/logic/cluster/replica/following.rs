//! The partition's stream on a copy: live changes, existing entries, and where this copy stands (rule W3).

use std::collections::BTreeSet;

use super::{MAX_LOG_BYTES, Replica, Role};
use crate::logic::{
    cluster::{
        member::MemberName,
        message::{Append, Chunk, Confirm, Digests, Message},
        table::{Mark, PartitionEpoch},
    },
    store::{Cause, Op},
};

/// What a message of the primary meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// An answer is due.
    pub answers: bool,
    /// The copy's entries differ from the primary's at the same change.
    pub differs: bool,
}

#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
pub(super) struct Following {
    pub(super) epoch: PartitionEpoch,
    pub(super) primary: MemberName,
    /// What the table says of this copy.
    pub(super) mark: Mark,
    /// The table has added or demoted this copy since it was last whole: it may be built anew.
    pub(super) anew: bool,
    pub(super) since: u64,
    /// From where existing entries are still missing; none: it has all.
    pub(super) needs_from: Option<u64>,
    /// It had entries before it is built: they are compared with the primary's first.
    pub(super) holds: bool,
    /// Its entries at `needs_from` are not the primary's.
    pub(super) differs: bool,
    pub(super) confirm_due: bool,
    pub(super) gap: bool,
    pub(super) probe: u64,
}

impl Replica {
    pub(super) fn confirm_for(&mut self, to: &MemberName) -> Option<Message> {
        let (partition, version) = (self.partition, self.last);
        let Role::Copy(following) = &mut self.role else { return None };
        if !following.confirm_due || following.primary != *to {
            return None;
        }
        following.confirm_due = false;
        Some(Message::Confirm(Confirm {
            partition,
            epoch: following.epoch,
            since: following.since,
            version,
            gap: std::mem::take(&mut following.gap),
            refused: false,
            needs_from: following.needs_from,
            holds: following.holds,
            differs: following.differs,
            probe: following.probe,
            pressure: false,
        }))
    }

    /// The epoch that a message's sender must have to be heard, if this member is a copy.
    fn accepts(&self, epoch: PartitionEpoch) -> bool {
        matches!(&self.role, Role::Copy(following) if following.epoch == epoch) && epoch >= self.floor
    }

    /// Live changes from the primary.
    pub fn append(&mut self, append: Append) -> Heard {
        if !self.accepts(append.epoch) {
            return Heard::default();
        }
        let starts = append.previous;
        let ends = append.records.last().map_or(starts, |record| record.version);
        let follows = starts == self.last || (starts.sequence < self.last.sequence && self.overlaps(&append));
        if follows {
            for record in append.records {
                if record.version.sequence == self.last.sequence + 1 {
                    self.store.apply(&record.op, record.version);
                    self.last = record.version;
                    self.push(record);
                }
            }
            self.forget_to(append.stable.min(self.last.sequence));
            if self.log_bytes > MAX_LOG_BYTES {
                self.forget_to(self.last.sequence);
            }
        }
        let same = append.digest.is_none_or(|digest| self.last != ends || self.store.digest() == digest);
        let Role::Copy(following) = &mut self.role else { return Heard::default() };
        let differs = !same && following.needs_from.is_none();
        if differs {
            following.needs_from = Some(0);
        }
        following.gap |= !follows;
        if same {
            following.probe = following.probe.max(append.probe);
        }
        following.confirm_due = true;
        Heard { answers: true, differs }
    }

    /// Whether a batch that begins before this copy's last change contains that very change.
    fn overlaps(&self, append: &Append) -> bool {
        append.records.iter().any(|record| record.version == self.last)
    }

    /// Existing entries from the primary. Returns whether an answer is due.
    pub fn chunk(&mut self, chunk: &Chunk) -> bool {
        if !self.accepts(chunk.epoch) {
            return false;
        }
        let last = self.last;
        let Role::Copy(following) = &mut self.role else { return false };
        following.confirm_due = true;
        let range = following.differs && following.needs_from == Some(0) && chunk.at == last;
        if chunk.from == 0 && !range {
            // A late repetition must not empty a copy that is whole.
            if following.mark == Mark::InSync || !(following.anew || chunk.at > last) {
                return true;
            }
            // One that may be promoted keeps what it has, and hears only what differs.
            if following.mark == Mark::Eligible && !self.store.is_empty() {
                (following.holds, following.gap) = (true, true);
                return true;
            }
            following.gap = false;
            (following.holds, following.differs) = (false, false);
            self.start_from(chunk.at);
        } else if following.needs_from != Some(chunk.from) || chunk.at != self.last {
            following.gap = true;
            return true;
        }
        if matches!(&self.role, Role::Copy(following) if following.holds) {
            self.drop_others(chunk);
        }
        for record in &chunk.entries {
            self.store.apply(&record.op, record.version);
        }
        if let Role::Copy(following) = &mut self.role {
            following.differs = false;
            following.needs_from = chunk.next;
            following.anew &= chunk.next.is_some();
        }
        true
    }

    /// What the primary lacks goes (rule W3).
    fn drop_others(&mut self, chunk: &Chunk) {
        let kept: BTreeSet<(&[u8], &[u8])> = chunk
            .entries
            .iter()
            .filter_map(|record| match &record.op {
                Op::Put { map, key, .. } => Some((&**map, &**key)),
                _ => None,
            })
            .collect();
        for (map, key) in self.store.names(chunk.from, chunk.next) {
            if !kept.contains(&(&*map, &*key)) {
                self.store.apply(&Op::Remove { map, key, cause: Cause::Deleted }, chunk.at);
            }
        }
    }

    /// What the primary has. Ranges that are the same here stay as they are. Returns whether an answer is due.
    pub fn digests(&mut self, digests: &Digests) -> bool {
        if !self.accepts(digests.epoch) {
            return false;
        }
        let last = self.last;
        let Role::Copy(following) = &mut self.role else { return false };
        following.confirm_due = true;
        if digests.from == 0 {
            if following.mark == Mark::InSync || !(following.anew || digests.at > last) {
                return true;
            }
            following.gap = false;
            self.restart_log(digests.at);
        } else if following.needs_from != Some(digests.from) || digests.at != last {
            following.gap = true;
            return true;
        }
        let mut needs_from = Some(digests.from);
        let same = digests.ranges.iter().take_while(|range| {
            let from = needs_from.unwrap_or_default();
            let same = self.store.range_digest(from, range.next) == range.digest;
            if same {
                needs_from = range.next;
            }
            same
        });
        let differs = same.count() < digests.ranges.len();
        if let Role::Copy(following) = &mut self.role {
            (following.needs_from, following.differs) = (needs_from, differs);
            following.anew &= needs_from.is_some();
        }
        true
    }
}
