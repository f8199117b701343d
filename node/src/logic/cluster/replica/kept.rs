//! Entries without a part in a table: what an earlier start left on the volume, and what this one leaves there (rule S1).

use super::{Due, Replica, Role};
use crate::logic::cluster::{
    member::MemberId,
    message::Record,
    table::{Mark, Version},
};

/// Entries that no table has given this member a part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The last change that is in them.
    pub last: Version,
    /// Whose last state they are.
    pub final_of: Option<MemberId>,
    /// None of its entries was too old to be taken over.
    pub whole: bool,
}

/// A partition for a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// The last change that is in it.
    pub last: Version,
    /// The member whose copy it was, in sync or eligible, if nothing was confirmed or acknowledged on it afterwards.
    pub final_of: Option<MemberId>,
    /// Its entries.
    pub entries: Vec<Record>,
}

impl Replica {
    /// Entries of a snapshot.
    pub fn keep(&mut self, records: &[Record]) {
        for record in records {
            self.store.apply(&record.op, record.version);
        }
    }

    /// The snapshot's entries of this partition are here. `whole`: all that it had.
    pub fn keep_until(&mut self, last: Version, final_of: Option<MemberId>, whole: bool) {
        self.restart_log(last);
        self.kept = Some(Held { last, final_of, whole });
    }

    /// The entries of an earlier start that wait here for a part in a table.
    pub fn held(&self) -> Option<Held> {
        self.kept
    }

    /// Whether entries of an earlier start wait here for a part in a table.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Drops what an earlier start left, if it still waits.
    pub fn forget_kept(&mut self) {
        if self.kept.take().is_some() {
            self.start_from(Version::default());
        }
    }

    /// Ends this member's part: nothing is executed or confirmed any more, and the entries are as they will be left on
    /// the volume. What was not whole is dropped, and what waits is given up.
    pub fn retire(&mut self, me: MemberId, due: &mut Vec<Due>) {
        if self.kept.is_some() {
            return;
        }
        let (whole, has_all) = match &self.role {
            Role::None => (false, false),
            Role::Copy(following) => (following.needs_from.is_none(), following.mark != Mark::Building),
            Role::Primary(_) => (true, true),
        };
        self.step_down(due);
        self.role = Role::None;
        if whole {
            let final_of = has_all.then_some(me);
            self.kept = Some(Held { last: self.last, final_of, whole: true });
        }
    }

    /// This partition for a snapshot, unless there is nothing whole.
    pub fn for_snapshot(&self) -> Option<Kept> {
        let (last, final_of) = match (&self.kept, &self.role) {
            (Some(held), _) => (held.last, held.final_of),
            (None, Role::None) => return None,
            (None, Role::Copy(following)) if following.needs_from.is_some() => return None,
            _ => (self.last, None),
        };
        Some(Kept { last, final_of, entries: self.store.read_from(0, usize::MAX).0 })
    }

    /// A table gives this member a part. Returns whether its entries are exactly those at `last`.
    pub(super) fn takes_part(&mut self) -> bool {
        self.kept.take().is_none_or(|held| held.whole)
    }
}
