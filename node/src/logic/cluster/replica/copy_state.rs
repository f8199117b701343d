//! What a primary knows of one of its copies: what it was sent, what it has confirmed, and whether it counts.

use crate::logic::{
    clock::Millis,
    cluster::{
        member::MemberName,
        message::{Confirm, Lost},
        table::Mark,
    },
};

#[allow(clippy::struct_excessive_bools)] // independent facts, not one state
pub(super) struct CopyState {
    pub(super) name: MemberName,
    pub(super) since: u64,
    pub(super) mark: Mark,
    /// The primary has asked for the in-sync mark and waits for this copy from then on.
    pub(super) claimed: bool,
    /// The primary has asked that the copy be demoted.
    pub(super) lost: Option<Lost>,
    pub(super) confirmed: Option<u64>,
    /// What it had confirmed when it was demoted. While it is eligible it keeps that.
    pub(super) kept: Option<u64>,
    pub(super) sent: u64,
    pub(super) build: Option<Build>,
    /// It has entries of its own that may be the right ones.
    pub(super) holds: bool,
    pub(super) probe_sent: u64,
    pub(super) probe_confirmed: u64,
    pub(super) asked: Option<Millis>,
    pub(super) heard: Millis,
    /// When it was last sent a digest, and whether the next one is due.
    pub(super) compared: Millis,
    pub(super) compare: bool,
}

pub(super) struct Build {
    /// Where the next chunk starts.
    pub(super) next: u64,
    /// Anything of it was ever sent: the copy may be anywhere between then and now.
    pub(super) begun: bool,
    /// When that was sent which is not answered yet.
    pub(super) outstanding: Option<Millis>,
    pub(super) step: Step,
}

/// What a copy that is being built hears next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What the primary has, to be compared.
    Compare,
    /// The entries of one range that differs.
    Range,
    /// Entries.
    Chunk,
}

impl Build {
    fn from_start(holds: bool) -> Self {
        let step = if holds { Step::Compare } else { Step::Chunk };
        Self { next: 0, begun: false, outstanding: None, step }
    }

    /// Goes on where the copy says.
    fn go_on(&mut self, next: u64, confirm: &Confirm) {
        self.step = match (confirm.holds, confirm.differs) {
            (true, true) => Step::Range,
            (true, false) => Step::Compare,
            (false, _) => Step::Chunk,
        };
        (self.next, self.outstanding) = (next, None);
    }

    /// Whether it takes the copy to where the stream is now.
    pub(super) fn restarts(&self) -> bool {
        self.next == 0 && self.outstanding.is_none() && self.step != Step::Range
    }
}

impl CopyState {
    pub(super) fn new(name: MemberName, now: Millis) -> Self {
        Self {
            name,
            since: 0,
            mark: Mark::Building,
            claimed: false,
            lost: None,
            confirmed: None,
            kept: None,
            sent: 0,
            build: None,
            holds: false,
            probe_sent: 0,
            probe_confirmed: 0,
            asked: None,
            heard: now,
            compared: now,
            compare: false,
        }
    }

    pub(super) fn wants_more(&self, last: u64, probe: u64) -> bool {
        self.confirmed.is_none()
            || self.sent < last
            || self.probe_sent < probe
            || self.compare
            || self.build.as_ref().is_some_and(|build| build.outstanding.is_none())
    }

    pub(super) fn awaits_answer(&self) -> bool {
        self.confirmed.is_none_or(|confirmed| confirmed < self.sent)
            || self.probe_confirmed < self.probe_sent
            || self.build.as_ref().is_some_and(|build| build.outstanding.is_some())
    }

    /// Where a copy that does not count yet goes on.
    pub(super) fn place(&mut self, confirm: &Confirm) {
        let version = confirm.version.sequence;
        match (&mut self.build, confirm.needs_from) {
            (None, Some(_)) => {
                self.confirmed = Some(version);
                self.sent = version;
                self.build = Some(Build::from_start(confirm.holds));
            }
            (Some(build), Some(from)) => {
                let differs = confirm.differs && build.step == Step::Compare;
                if build.next != from || confirm.gap || differs {
                    build.go_on(from, confirm);
                }
                self.confirmed = Some(version);
            }
            (_, None) => {
                self.build = None;
                self.confirmed = Some(version);
            }
        }
        if confirm.gap || self.sent < version {
            self.sent = version;
        }
    }

    pub(super) fn rebuild(&mut self, last: u64) {
        self.confirmed = Some(last);
        self.sent = last;
        self.build = Some(Build::from_start(self.holds));
    }

    /// It is to be built and was sent nothing yet.
    pub(super) fn waits_to_begin(&self) -> bool {
        !self.counts() && self.build.as_ref().is_some_and(|build| !build.begun)
    }

    pub(super) fn send_again(&mut self) {
        if let Some(confirmed) = self.confirmed {
            self.sent = self.sent.min(confirmed);
        }
        self.probe_sent = self.probe_confirmed;
        self.asked = None;
    }

    /// A chunk that was sent no later than this is not waited for any more.
    pub(super) fn give_up_chunk(&mut self, sent: Millis) {
        if let Some(build) = &mut self.build {
            build.outstanding = build.outstanding.filter(|at| *at > sent);
        }
    }

    pub(super) fn counts(&self) -> bool {
        self.in_sync() || self.claimed
    }

    pub(super) fn in_sync(&self) -> bool {
        self.mark == Mark::InSync
    }

    /// Whether it may be promoted when this primary ends.
    pub(super) fn may_follow(&self) -> bool {
        self.counts() || self.mark == Mark::Eligible
    }

    /// The last change that it is known to have, even while it is built anew.
    pub(super) fn keeps(&self) -> Option<u64> {
        self.kept.max(self.confirmed.filter(|_| self.build.is_none()))
    }

    pub(super) fn has(&self, sequence: u64) -> bool {
        self.confirmed.is_some_and(|confirmed| confirmed >= sequence)
    }
}
