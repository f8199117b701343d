//! The partition's stream on a copy: live changes, existing entries, and where this copy stands (rule W3).

use super::{MAX_LOG_BYTES, Replica, Role};
use crate::logic::cluster::{
    member::MemberName,
    message::{Append, Chunk, Confirm, Message},
    table::PartitionEpoch,
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
    /// The table says that this copy is in sync.
    pub(super) in_sync: bool,
    /// The table has added or demoted this copy since it was last whole: it may be built anew.
    pub(super) anew: bool,
    pub(super) since: u64,
    /// From where existing entries are still missing; none: it has all.
    pub(super) needs_from: Option<u64>,
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
            version,
            gap: std::mem::take(&mut following.gap),
            refused: false,
            needs_from: following.needs_from,
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
        if chunk.from == 0 {
            // A late repetition must not empty a copy that is whole.
            if following.in_sync || !(following.anew || chunk.at > last) {
                return true;
            }
            following.gap = false;
            self.start_from(chunk.at);
        } else if following.needs_from != Some(chunk.from) || chunk.at != self.last {
            following.gap = true;
            return true;
        }
        for record in &chunk.entries {
            self.store.apply(&record.op, record.version);
        }
        if let Role::Copy(following) = &mut self.role {
            following.needs_from = chunk.next;
            following.anew &= chunk.next.is_some();
        }
        true
    }
}
