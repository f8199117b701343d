//! The partition's stream on its primary: what copies are sent, what they confirm, and what is sent again (rule W3).

use std::time::Duration;

use super::{
    CHUNK_TIMEOUT, COMPARE_EVERY, Due, MAX_LOG_BYTES, RANGE_BYTES, RANGES, RESEND, Replica, Role,
    copy_state::{Build, CopyState, Step},
    record_bytes,
};
use crate::logic::{
    clock::{Clock, Millis},
    cluster::{
        member::{MemberId, MemberName},
        message::{Append, Chunk, Claim, Confirm, Digests, Lost, Message, Record},
        table::Version,
    },
};

/// What a primary wants the coordinator to know, and whom it must speak to.
#[derive(Debug, Default)]
pub struct Claims {
    /// Copies that are in sync now.
    pub in_sync: Vec<Claim>,
    /// Copies that must not count any more, and why.
    pub lost: Vec<(Claim, Lost)>,
    /// Copies that have something to hear.
    pub wake: Vec<MemberName>,
}

/// What one member has to say to another about a partition.
#[derive(Debug, Default)]
pub struct Said {
    /// The messages.
    pub messages: Vec<Message>,
    /// Changes are left over.
    pub more: bool,
    /// Existing entries are due: among the messages if there was room for them, else they wait.
    pub builds: bool,
}

impl Replica {
    /// What a peer should hear next: changes of about `max_bytes` at most, and existing entries of about `chunk` bytes, if
    /// there is room for them.
    pub fn messages_for(&mut self, to: &MemberName, max_bytes: usize, chunk: Option<usize>, clock: Clock) -> Said {
        match &mut self.role {
            Role::None => Said::default(),
            Role::Copy(_) => Said { messages: self.confirm_for(to).into_iter().collect(), ..Said::default() },
            Role::Primary(_) => self.stream_for(to, max_bytes, chunk, clock.now).unwrap_or_default(),
        }
    }

    fn stream_for(&mut self, to: &MemberName, max_bytes: usize, chunk: Option<usize>, now: Millis) -> Option<Said> {
        let (partition, last, base) = (self.partition, self.last, self.base);
        let Role::Primary(primary) = &mut self.role else { return None };
        let (epoch, stable, probe) = (primary.epoch, primary.stable(last.sequence), primary.probe);
        let copy = primary.copies.values_mut().find(|copy| copy.name == *to)?;
        let append = |previous: Version, records: Vec<Record>, digest: Option<u64>| {
            Message::Append(Append { partition, epoch, previous, records, stable, probe, digest })
        };
        if copy.confirmed.is_none() {
            // Where the copy stands is not known yet: ask.
            if copy.asked.is_some_and(|asked| now < asked + RESEND) {
                return None;
            }
            copy.asked = Some(now);
            return Some(Said { messages: vec![append(last, Vec::new(), None)], ..Said::default() });
        }
        let mut said = Said::default();
        if copy.build.as_ref().is_some_and(Build::restarts) {
            // The first one takes the copy to where the stream is now.
            copy.sent = last.sequence;
        }
        if copy.sent < last.sequence || copy.probe_sent < probe || copy.compare {
            let skip = copy.sent.saturating_sub(base.sequence) as usize;
            let previous = if skip == 0 { base } else { self.log[skip - 1].version };
            let mut bytes = 0;
            let records: Vec<Record> = self
                .log
                .iter()
                .skip(skip)
                .take_while(|record| {
                    let fits = bytes == 0 || bytes < max_bytes;
                    bytes += record_bytes(record);
                    fits
                })
                .cloned()
                .collect();
            copy.sent += records.len() as u64;
            // A read that asks its copies compares them too, so that one which differs does not count for it.
            let compares = copy.in_sync() && copy.sent == last.sequence && (copy.compare || copy.probe_sent < probe);
            if compares {
                (copy.compare, copy.compared) = (false, now);
            }
            copy.probe_sent = probe;
            copy.asked = Some(now);
            said.messages.push(append(previous, records, compares.then(|| self.store.digest())));
        }
        said.more = copy.sent < last.sequence;
        let build = copy.build.as_mut().filter(|build| !said.more && build.outstanding.is_none());
        said.builds = build.is_some();
        if let Some((build, bytes)) = build.zip(chunk) {
            (build.begun, build.outstanding) = (true, Some(now));
            copy.asked = Some(now);
            let (at, from) = (last, build.next);
            let bytes = match build.step {
                Step::Compare => {
                    let ranges = self.store.digests(from, RANGE_BYTES, RANGES);
                    said.messages.push(Message::Digests(Digests { partition, epoch, at, from, ranges }));
                    return Some(said);
                }
                Step::Range => RANGE_BYTES,
                Step::Chunk => bytes,
            };
            let (entries, next) = self.store.read_from(from, bytes);
            self.moved.0 += entries.len() as u64;
            self.moved.1 += entries.iter().map(|record| record_bytes(record) as u64).sum::<u64>();
            said.messages.push(Message::Chunk(Chunk { partition, epoch, at, from, next, entries }));
        }
        Some(said)
    }

    /// Whether a chunk to this copy is under way.
    pub fn awaits_chunk(&self, copy: MemberId) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        let build = primary.copies.get(&copy).and_then(|copy| copy.build.as_ref());
        build.is_some_and(|build| build.outstanding.is_some())
    }

    /// A copy says where it stands. Replies that become due are added. Returns whether it has more to hear.
    pub fn confirmed(&mut self, from: MemberId, confirm: &Confirm, now: Millis, due: &mut Vec<Due>) -> bool {
        let known = self.in_lineage(confirm.version);
        let last = self.last;
        let Role::Primary(primary) = &mut self.role else { return false };
        if confirm.epoch != primary.epoch || confirm.refused {
            return false;
        }
        let Some(copy) = primary.copies.get_mut(&from) else { return false };
        if (1..copy.since).contains(&confirm.since) {
            // A late word about a former copy of this member, which was emptied since.
            return false;
        }
        copy.heard = now;
        copy.holds = confirm.holds;
        copy.probe_confirmed = copy.probe_confirmed.max(confirm.probe);
        if copy.counts() && confirm.needs_from.is_some() {
            // It found that its entries differ from ours, or that it lacks some: it is built anew (rule W6).
            copy.lost = Some(Lost::Unfit);
        } else if known && !copy.counts() {
            copy.place(confirm);
        } else if known {
            copy.confirmed = Some(copy.confirmed.unwrap_or(0).max(confirm.version.sequence));
            if confirm.gap || copy.sent < confirm.version.sequence {
                copy.sent = confirm.version.sequence;
            }
        } else if copy.counts() {
            // It went astray: it must not count as in sync before it is built anew (rule W3).
            copy.lost = copy.lost.max(Some(Lost::Unheard));
        } else {
            copy.rebuild(last.sequence);
        }
        if let Some(copy) = primary.copies.get_mut(&from)
            && !copy.counts()
            && copy.build.is_none()
            && copy.has(primary.acknowledged)
            && copy.confirmed.is_some()
        {
            copy.claimed = true;
        }
        if let Some(copy) = primary.copies.get_mut(&from) {
            copy.asked = copy.awaits_answer().then_some(now);
        }
        self.settle(due);
        self.trim();
        matches!(&self.role, Role::Primary(primary) if primary.copies.get(&from).is_some_and(|copy| copy.wants_more(last.sequence, primary.probe)))
    }

    /// Whether `version` is a change of this partition's own history, still in the log or just before it.
    fn in_lineage(&self, version: Version) -> bool {
        if version == self.base {
            return true;
        }
        let Some(at) = version.sequence.checked_sub(self.base.sequence + 1) else { return false };
        self.log.get(at as usize).is_some_and(|record| record.version == version)
    }

    pub(super) fn trim(&mut self) {
        let Role::Primary(primary) = &self.role else { return };
        // A copy of which nothing was sent yet begins wherever the stream is then.
        let begun = primary.copies.values().filter(|copy| !copy.waits_to_begin());
        let everyone = begun.map(|copy| copy.confirmed.unwrap_or(self.base.sequence)).min();
        let mut keep_after = everyone.unwrap_or(self.last.sequence);
        if self.log_bytes > MAX_LOG_BYTES {
            // Copies that are still being built are built anew rather than waited for.
            keep_after = keep_after.max(primary.stable(self.last.sequence));
        }
        self.forget_to(keep_after);
        let base = self.base.sequence;
        let Role::Primary(primary) = &mut self.role else { return };
        for copy in
            primary.copies.values_mut().filter(|copy| !copy.counts() && copy.confirmed.is_some_and(|c| c < base))
        {
            copy.rebuild(self.last.sequence);
        }
    }

    /// Time passes: resends, and claims for the coordinator. `hears` is since when this member hears as many others as
    /// the quorum needs: who is cut off itself must not call its copies silent.
    pub fn tick(&mut self, now: Millis, replica_timeout: Duration, hears: Option<Millis>) -> Claims {
        let (partition, last) = (self.partition, self.last);
        let mut claims = Claims::default();
        let Role::Primary(primary) = &mut self.role else { return claims };
        for (member, copy) in &mut primary.copies {
            if copy.asked.is_some_and(|asked| now >= asked + RESEND) {
                copy.send_again();
            }
            copy.give_up_chunk(now - CHUNK_TIMEOUT);
            copy.compare |= copy.in_sync() && now >= copy.compared + COMPARE_EVERY;
            let waits = copy.asked.is_some() || copy.wants_more(last.sequence, primary.probe);
            if !waits {
                copy.heard = now;
            }
            let silent = hears.is_some_and(|since| now >= copy.heard.max(since) + replica_timeout);
            if copy.counts() && silent {
                // One that began with nothing may not know of that yet, and have what was there before.
                let unknown = copy.confirmed.is_none() && copy.since == primary.epoch.0;
                copy.lost = copy.lost.max(Some(if unknown { Lost::Unfit } else { Lost::Unheard }));
            }
            let claim = Claim { partition, epoch: primary.epoch, member: *member, since: copy.since };
            if let Some(lost) = copy.lost {
                claims.lost.push((claim, lost));
            } else if copy.claimed && !copy.in_sync() {
                claims.in_sync.push(claim);
            }
            if waits {
                claims.wake.push(copy.name.clone());
            }
        }
        claims
    }

    /// Copies that are not in sync, have something to hear or to say, and have been silent for `time`.
    pub fn stalled(&self, time: Duration, now: Millis) -> impl Iterator<Item = &MemberName> {
        let copies = match &self.role {
            Role::Primary(primary) => Some(primary.copies.values()),
            _ => None,
        };
        let silent = move |copy: &&CopyState| !copy.in_sync() && copy.heard + time <= now;
        copies.into_iter().flatten().filter(silent).map(|copy| &copy.name)
    }

    /// The stream to a member broke: what it was sent may not have arrived.
    pub fn stream_broke(&mut self, name: &MemberName) {
        if let Role::Primary(primary) = &mut self.role {
            for copy in primary.copies.values_mut().filter(|copy| copy.name == *name) {
                copy.send_again();
                copy.give_up_chunk(Millis(u64::MAX));
                copy.asked = None;
            }
        }
    }
}
