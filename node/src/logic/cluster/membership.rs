//! Who lives: the SWIM failure detector (foca) with the clock and the network taken out (rule T10).
//!
//! Datagrams and the time go in; datagrams to send and what changed come out. A member is known by its name and the
//! random number of its start. Addresses are no part of it: a pod keeps its name and changes its address, so whoever
//! carries the datagrams resolves the name.
//!
//! Starts and rejoins of one name are ordered by a number that begins with the wall clock. That is only a guess at
//! which one is newer: a start that finds itself behind takes ever higher numbers until it is heard (rule T6 leaves
//! the true order to the table).

mod codec;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use bytes::Bytes;
use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, OwnedNotification, PeriodicParams, Timer};
use mizuya_wire::settings::Timing;
use rand::{SeedableRng, rngs::StdRng};

use self::codec::{Gossip, Speaker};
use super::member::{Generation, MemberName};
use crate::logic::clock::Millis;

/// Largest datagram that comes out. With the seal around it, it stays under the smallest common MTU.
pub const MAX_DATAGRAM: usize = 1_300;
/// Members that one round of gossip or one indirect probe asks.
const FAN_OUT: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// How often an update is passed on by one member.
const TRANSMISSIONS: NonZeroU8 = NonZeroU8::new(10).unwrap();
/// How long a member that is down is remembered.
const REMEMBER_DOWN: Duration = Duration::from_hours(1);
/// Between two words to the configured peers while alone.
const SEARCH_EVERY: Duration = Duration::from_millis(500);
/// Between two words to the configured peers otherwise: what heals a cluster that fell in two.
const SEARCH_SLOWLY: Duration = Duration::from_secs(10);
/// Probes of a member whose stream broke, within the suspicion time.
const PROBES: u32 = 5;
/// First step of the number with which a start outbids others of its name; doubles with each try.
const OUTBID: u64 = 1_000;
/// Longest wait between two such tries.
const OUTBID_EVERY: Duration = Duration::from_secs(1);
/// After this time without having to outbid, the steps start anew.
const OUTBID_RESET: Duration = Duration::from_mins(1);

/// What a detector needs to know at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Own name.
    pub name: MemberName,
    /// This start.
    pub generation: Generation,
    /// Own gossip port.
    pub port: u16,
    /// Peers that the settings name, as host and gossip port.
    pub peers: Vec<(String, u16)>,
    /// The preset's times.
    pub timing: Timing,
    /// Wall clock in milliseconds; see the module's text.
    pub wall: u64,
    /// Randomness.
    pub seed: u64,
}

/// Where a datagram goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To a member by its name, with its gossip port.
    Member(MemberName, u16),
    /// To a configured peer whose name is not known yet.
    Peer(String, u16),
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This start of a member lives.
    Up(MemberName, Generation),
    /// This start of a member is gone.
    Down(MemberName, Generation),
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// To send.
    pub datagrams: Vec<(Destination, Bytes)>,
    /// To tell.
    pub changes: Vec<Change>,
}

/// A member whose stream broke and that is asked whether it lives.
#[derive(Clone, Debug)]
struct Doubt {
    speaker: Speaker,
    next: Millis,
    until: Millis,
    number: u64,
}

/// The detector.
pub struct Membership {
    foca: Foca<Speaker, Gossip, StdRng, NoCustomBroadcast>,
    events: AccumulatingRuntime<Speaker>,
    timers: BTreeMap<(Millis, u64), Timer<Speaker>>,
    timers_made: u64,
    timing: Timing,
    peers: Vec<(String, u16)>,
    search_at: Millis,
    told: BTreeMap<MemberName, Generation>,
    doubts: BTreeMap<MemberName, Doubt>,
    doubts_made: u64,
    outbid_at: Option<Millis>,
    outbid_tries: u32,
    last_outbid: Millis,
    left: bool,
}

impl Membership {
    /// A detector that knows nobody yet. The first [`Membership::tick`] speaks to the configured peers.
    pub fn new(setup: Setup, now: Millis) -> Self {
        let speaker = Speaker { name: setup.name, generation: setup.generation, order: setup.wall, port: setup.port };
        let foca = Foca::new(speaker, config(&setup.timing), StdRng::seed_from_u64(setup.seed), Gossip);
        Self {
            foca,
            events: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            timers_made: 0,
            timing: setup.timing,
            peers: setup.peers,
            search_at: now,
            told: BTreeMap::new(),
            doubts: BTreeMap::new(),
            doubts_made: 0,
            outbid_at: None,
            outbid_tries: 0,
            last_outbid: now,
            left: false,
        }
    }

    /// A datagram came. Returns who sent it, when it could be read.
    pub fn receive(&mut self, datagram: &[u8], now: Millis, output: &mut Output) -> Option<MemberName> {
        let (kind, body) = datagram.split_first()?;
        match *kind {
            codec::SWIM => {
                let sender = codec::sender(body)?;
                // Errors are datagrams that are damaged, foreign, or our own; foca stays as it was.
                let _ = self.foca.handle_data(body, &mut self.events);
                self.settle(now, output);
                Some(sender)
            }
            codec::PROBE => {
                let (sender, number) = codec::read_probe(body)?;
                let own = self.foca.identity();
                output.datagrams.push((
                    Destination::Member(sender.name.clone(), sender.port),
                    codec::write_probe(codec::ANSWER, own, number),
                ));
                Some(sender.name)
            }
            codec::ANSWER => {
                let (sender, number) = codec::read_probe(body)?;
                if let Entry::Occupied(doubt) = self.doubts.entry(sender.name.clone())
                    && doubt.get().number == number
                    && doubt.get().speaker.generation == sender.generation
                {
                    doubt.remove();
                }
                Some(sender.name)
            }
            _ => None,
        }
    }

    /// Time passed. Call it at [`Membership::next_deadline`] or later.
    pub fn tick(&mut self, now: Millis, output: &mut Output) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            // Errors are about timers of an earlier connection; foca recovers by itself.
            let _ = self.foca.handle_timer(timer, &mut self.events);
            self.settle(now, output);
        }
        if self.outbid_at.is_some_and(|at| at <= now) {
            self.outbid(now, output);
        }
        if self.search_at <= now && !self.left {
            self.search(now, output);
        }
        self.doubt(now, output);
    }

    /// When `tick` has something to do next.
    pub fn next_deadline(&self) -> Millis {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        let doubt = self.doubts.values().map(|doubt| doubt.next.min(doubt.until)).min();
        [timer, doubt, self.outbid_at].into_iter().flatten().fold(self.search_at, Millis::min)
    }

    /// The stream to a member broke: it is asked until the suspicion time ends, and then counts as down (rule T10).
    pub fn stream_broke(&mut self, name: &MemberName, now: Millis, output: &mut Output) {
        let known = self.foca.iter_members().find(|member| member.id().name == *name).map(|member| member.id().clone());
        if let Some(speaker) = known
            && !self.doubts.contains_key(name)
        {
            self.doubts_made += 1;
            let until = now + self.timing.suspicion;
            self.doubts.insert(name.clone(), Doubt { speaker, next: now, until, number: self.doubts_made });
            self.doubt(now, output);
        }
    }

    /// The stream to a member works: it lives.
    pub fn stream_works(&mut self, name: &MemberName) {
        self.doubts.remove(name);
    }

    /// This member goes; the others are told.
    pub fn leave(&mut self, now: Millis, output: &mut Output) {
        self.left = true;
        self.outbid_at = None;
        self.search_at = Millis(u64::MAX);
        let _ = self.foca.leave_cluster(&mut self.events);
        self.settle(now, output);
    }

    /// The members that live, without this one.
    pub fn members(&self) -> impl Iterator<Item = (&MemberName, Generation)> {
        self.told.iter().map(|(name, generation)| (name, *generation))
    }

    /// Speaks to the configured peers.
    fn search(&mut self, now: Millis, output: &mut Output) {
        let alone = self.foca.num_members() == 0;
        self.search_at = now + if alone { SEARCH_EVERY } else { SEARCH_SLOWLY };
        for (host, port) in self.peers.clone() {
            let _ = self.foca.announce(Speaker::anyone(port), &mut self.events);
            while let Some((_, data)) = self.events.to_send() {
                output.datagrams.push((Destination::Peer(host.clone(), port), codec::swim(&data)));
            }
        }
        self.settle(now, output);
    }

    fn doubt(&mut self, now: Millis, output: &mut Output) {
        let every = self.timing.suspicion / PROBES;
        let own = self.foca.identity().clone();
        for doubt in self.doubts.values_mut().filter(|doubt| doubt.next <= now && now < doubt.until) {
            doubt.next = now + every;
            let to = Destination::Member(doubt.speaker.name.clone(), doubt.speaker.port);
            output.datagrams.push((to, codec::write_probe(codec::PROBE, &own, doubt.number)));
        }
        let over: Vec<Doubt> = self.doubts.values().filter(|doubt| doubt.until <= now).cloned().collect();
        for doubt in over {
            self.doubts.remove(&doubt.speaker.name);
            let down = foca::Member::down(doubt.speaker);
            let _ = self.foca.apply_many(std::iter::once(down), true, &mut self.events);
            self.settle(now, output);
        }
    }

    /// Others say that this start is down while it runs, or that an older start of this name is newer: it takes a
    /// higher number.
    fn outbid(&mut self, now: Millis, output: &mut Output) {
        self.outbid_at = None;
        self.last_outbid = now;
        let mut speaker = self.foca.identity().clone();
        speaker.order = speaker.order.saturating_add(OUTBID << self.outbid_tries.min(40));
        self.outbid_tries += 1;
        let _ = self.foca.change_identity(speaker, &mut self.events);
        self.search_at = now;
        self.settle(now, output);
    }

    fn plan_outbid(&mut self, now: Millis) {
        if self.left || self.outbid_at.is_some() {
            return;
        }
        if now.since(self.last_outbid) > OUTBID_RESET.as_millis() as u64 {
            self.outbid_tries = 0;
        }
        let wait = match self.outbid_tries {
            0 => Duration::ZERO,
            tries => OUTBID_EVERY.min(Duration::from_millis(10 << tries.min(10))),
        };
        self.outbid_at = Some(now + wait);
    }

    /// Takes over what foca wants done.
    fn settle(&mut self, now: Millis, output: &mut Output) {
        while let Some((to, data)) = self.events.to_send() {
            output.datagrams.push((Destination::Member(to.name, to.port), codec::swim(&data)));
        }
        while let Some((after, timer)) = self.events.to_schedule() {
            self.timers_made += 1;
            self.timers.insert((now + after, self.timers_made), timer);
        }
        let mut changed = false;
        while let Some(notification) = self.events.to_notify() {
            match notification {
                OwnedNotification::Defunct => self.plan_outbid(now),
                OwnedNotification::Idle => self.search_at = self.search_at.min(now + SEARCH_EVERY),
                _ => {}
            }
            changed = true;
        }
        if changed {
            self.tell(output);
        }
    }

    /// Says what differs from what was said last.
    fn tell(&mut self, output: &mut Output) {
        let living: BTreeMap<MemberName, Generation> =
            self.foca.iter_members().map(|member| (member.id().name.clone(), member.id().generation)).collect();
        for (name, generation) in &self.told {
            if living.get(name) != Some(generation) {
                output.changes.push(Change::Down(name.clone(), *generation));
                self.doubts.remove(name);
            }
        }
        for (name, generation) in &living {
            if self.told.get(name) != Some(generation) {
                output.changes.push(Change::Up(name.clone(), *generation));
            }
        }
        self.told = living;
    }
}

fn config(timing: &Timing) -> foca::Config {
    let periodic = |frequency, num_members| Some(PeriodicParams { frequency, num_members });
    foca::Config {
        probe_period: timing.probe_interval,
        // The rest of the period is for the indirect probe.
        probe_rtt: timing.probe_timeout.min(timing.probe_interval * 2 / 3),
        num_indirect_probes: FAN_OUT,
        max_transmissions: TRANSMISSIONS,
        suspect_to_down_after: timing.suspicion,
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: NonZeroUsize::new(MAX_DATAGRAM - 1).unwrap_or(FAN_OUT),
        notify_down_members: true,
        periodic_announce: periodic(Duration::from_secs(30), NonZeroUsize::MIN),
        periodic_announce_to_down_members: periodic(timing.probe_interval * 5, FAN_OUT),
        periodic_gossip: periodic(timing.gossip_interval, FAN_OUT),
    }
}
