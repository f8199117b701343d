//! What goes wrong, and what is done on purpose.

use std::collections::{BTreeMap, BTreeSet};

use mizuya_node::logic::cluster::message::Message;
use rand::RngExt;

use crate::{cluster::Cluster, network::PLACES, queue::Event, shape::Class};

/// A message at which its sender ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Prepare,
    Promise,
    Propose,
    Taken,
    InForce,
    Chunk,
    Append,
    Confirm,
    Forwarded,
}

impl Moment {
    const ALL: [Self; 9] = [
        Self::Prepare,
        Self::Promise,
        Self::Propose,
        Self::Taken,
        Self::InForce,
        Self::Chunk,
        Self::Append,
        Self::Confirm,
        Self::Forwarded,
    ];

    fn is(self, message: &Message) -> bool {
        match self {
            Self::Prepare => matches!(message, Message::Prepare(_)),
            Self::Promise => matches!(message, Message::Promise { .. }),
            Self::Propose => matches!(message, Message::Propose(_)),
            Self::Taken => matches!(message, Message::Taken { .. }),
            Self::InForce => matches!(message, Message::InForce { .. }),
            Self::Chunk => matches!(message, Message::Chunk(_)),
            Self::Append => matches!(message, Message::Append(append) if !append.records.is_empty()),
            Self::Confirm => matches!(message, Message::Confirm(_)),
            Self::Forwarded => matches!(message, Message::Forwarded { .. }),
        }
    }
}

/// Something that takes time.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Blocked pairs are free again at this time.
    Heal(u64, Vec<(usize, usize)>),
    /// Slow pairs are fast again.
    Quicken(u64, Vec<(usize, usize)>, u64),
    /// Datagrams get through again.
    Clear(u64),
    /// All frames are fast again.
    Even(u64, u64),
    /// A planned restart: place, when it began, how long it may take, how far it is.
    Restart(usize, u64, u64, Step),
    /// A planned departure, and when it is turned back.
    Depart(usize, u64, Option<u64>, Step),
    /// A kill at a moment that may not come.
    Wait(u64),
    /// A kill at this time.
    Die(u64, usize),
    /// What came of a fault may still be under way: late verdicts, late messages.
    Linger(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Begun,
    /// It says goodbye, since then.
    Goodbye(u64),
}

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) plans: Vec<Plan>,
    moment: Option<(usize, Moment, u32)>,
    /// Members that should run, and when a dead one starts again.
    pub(crate) expected: BTreeMap<usize, Option<u64>>,
    /// Members whose copies may be lost since all was quiet.
    out: BTreeSet<usize>,
    pub(crate) next_place: usize,
    /// The dead do not come back by themselves.
    pub(crate) stay_dead: bool,
}

impl Faults {
    /// Whether the sender of these messages ends now.
    pub(crate) fn is_moment(&mut self, from: usize, messages: &[Message]) -> bool {
        let Some((place, moment, left)) = &mut self.moment else { return false };
        if *place != from || !messages.iter().any(|message| moment.is(message)) {
            return false;
        }
        *left -= 1;
        let now = *left == 0;
        if now {
            self.moment = None;
        }
        now
    }

    fn is_planned(&self, place: usize) -> bool {
        self.plans.iter().any(|plan| matches!(plan, Plan::Restart(p, ..) | Plan::Depart(p, ..) if *p == place))
    }

    /// Whom a node is told of at its start: everyone who should run, itself among them.
    pub(crate) fn members(&self, own: usize) -> impl Iterator<Item = usize> {
        let others = self.expected.keys().copied().filter(move |place| *place != own);
        others.chain([own])
    }

    pub(crate) fn at_rest(&self) -> bool {
        self.plans.is_empty() && self.expected.values().all(Option::is_none)
    }
}

type Strike = fn(&mut Cluster) -> bool;

const PLANNED: [(&str, Strike); 4] = [
    ("planned restart", Cluster::planned_restart),
    ("departure", Cluster::departure),
    ("drain turned back", Cluster::turned_back_drain),
    ("join", Cluster::join),
];
const NOISE: [(&str, Strike); 3] = [
    ("broken stream", Cluster::broken_streams),
    ("short pause", Cluster::short_pause),
    ("slow link", Cluster::slow_link),
];
const HARD: [(&str, Strike); 14] = [
    ("crash", Cluster::plain_crash),
    ("fast restart", Cluster::fast_restart),
    ("crash at a step", Cluster::crash_at_a_step),
    ("crash at a step", Cluster::crash_at_a_step),
    ("crash behind slow links", Cluster::crash_behind_slow_links),
    ("crash of one that some cannot hear", Cluster::crash_of_one_unheard),
    ("long pause", Cluster::long_pause),
    ("isolated member", Cluster::isolation),
    ("one-way block", Cluster::one_way),
    ("pair cut", Cluster::cut_pair),
    ("split", Cluster::split),
    ("lost datagrams", Cluster::lost_datagrams),
    ("uneven network", Cluster::uneven_network),
    ("false verdict", Cluster::false_verdict),
];
const CATASTROPHES: [(&str, Strike); 2] =
    [("all restarted", Cluster::restart_all), ("killed while leaving", Cluster::kill_while_leaving)];

impl Cluster {
    pub(crate) fn expect_members(&mut self) {
        self.faults.next_place = self.shape.members;
        for place in 0..self.shape.members {
            self.faults.expected.insert(place, None);
        }
    }

    pub(crate) fn expect(&mut self, place: usize) {
        self.faults.expected.insert(place, None);
    }

    /// Something happens, if the history allows it.
    pub(crate) fn strike(&mut self) -> bool {
        let mut choice: Vec<(&'static str, Strike)> = PLANNED.into_iter().chain(NOISE).collect();
        if self.class != Class::Moves {
            choice.extend(HARD);
        }
        if self.class == Class::Beyond {
            choice.extend(CATASTROPHES);
        }
        let (what, strike) = choice[self.rng.random_range(0..choice.len())];
        let struck = strike(self);
        if struck {
            *self.figures.faults.entry(what).or_default() += 1;
            self.note(|| format!("FAULT {what}"));
        }
        struck
    }

    /// Members that may be out at once.
    fn bound(&self) -> usize {
        let voters = self.shape.members as u32;
        match self.class {
            Class::Moves => 1,
            Class::Promise | Class::Strong => {
                let quorum = self.shape.member_quorum.resolve(voters);
                (self.shape.write_quorum - 1).min(voters - quorum) as usize
            }
            Class::Beyond | Class::Divided => PLACES,
        }
    }

    /// Members are out from now on, if that is allowed.
    fn take_out(&mut self, places: &[usize]) -> bool {
        let mut out = self.faults.out.clone();
        out.extend(places);
        let fits = out.len() <= self.bound();
        if fits {
            self.faults.out = out;
        }
        fits
    }

    pub(crate) fn victim(&mut self) -> Option<usize> {
        let alive: Vec<usize> =
            self.alive().into_iter().filter(|p| !self.is_paused(*p) && !self.faults.is_planned(*p)).collect();
        (!alive.is_empty()).then(|| alive[self.rng.random_range(0..alive.len())])
    }

    /// Someone who is not out.
    pub(crate) fn out(&mut self) -> Option<usize> {
        let victim = self.victim()?;
        self.take_out(&[victim]).then_some(victim)
    }

    pub(crate) fn kill(&mut self, place: usize, back: std::ops::Range<u64>) {
        let at = self.now + self.rng.random_range(back);
        self.crash(place);
        if let Some(start) = self.faults.expected.get_mut(&place) {
            *start = Some(at);
        }
    }

    // ---- what goes wrong

    fn plain_crash(&mut self) -> bool {
        let Some(victim) = self.out() else { return false };
        self.kill(victim, 300..3000);
        true
    }

    fn fast_restart(&mut self) -> bool {
        let Some(victim) = self.out() else { return false };
        self.kill(victim, 5..120);
        true
    }

    /// Somebody ends of whom some others had heard more than others.
    fn crash_behind_slow_links(&mut self) -> bool {
        let Some(victim) = self.out() else { return false };
        // Also longer than a primary waits for its copies: it may call all of them lost before it ends itself.
        let delay = self.rng.random_range(50..1500);
        let life = if self.rng.random_bool(0.5) { delay + 100 } else { 3000 };
        let life = self.rng.random_range(20..life);
        let others = (0..PLACES).filter(|other| *other != victim);
        let pairs = others.map(|other| (victim, other)).filter(|_| self.rng.random_bool(0.5)).collect();
        self.slow_down(victim, pairs, delay, life + 300);
        self.faults.plans.push(Plan::Die(self.now + life, victim));
        // Copies that are being built meanwhile are behind those links too.
        self.sometimes_moves()
    }

    /// Somebody ends whom some others have not heard for longer than a primary waits for its copies: those are behind, and
    /// may be all that is left of a partition. Everyone runs until then, and is known to.
    fn crash_of_one_unheard(&mut self) -> bool {
        let Some(victim) = (!self.shape.gossip).then(|| self.out()).flatten() else { return false };
        let others: Vec<usize> = self.alive().into_iter().filter(|other| *other != victim).collect();
        // Most still hear it, so it keeps its lease.
        let most = others.len() / 2;
        let from = self.rng.random_range(0..others.len().max(1));
        let unheard = others.iter().cycle().skip(from).take(self.rng.random_range(1..=most.max(1)));
        let pairs: Vec<_> = unheard.flat_map(|other| [(victim, *other), (*other, victim)]).collect();
        for (from, to) in &pairs {
            self.network.block(*from, *to);
        }
        self.note(|| format!("nothing gets through, and nobody notices: {pairs:?}"));
        // Beyond five times the suspicion time a member that is silent counts as down without a verdict.
        let cut = self.rng.random_range(900..1800);
        self.faults.plans.push(Plan::Heal(self.now + cut, pairs));
        let life = if self.rng.random_bool(0.5) { 900..cut + 1 } else { cut..cut + 600 };
        let life = self.rng.random_range(life);
        self.faults.plans.push(Plan::Die(self.now + life, victim));
        true
    }

    /// Copies move at the same time, in half of the cases. Whether what was to happen has.
    fn sometimes_moves(&mut self) -> bool {
        !self.rng.random_bool(0.5) || self.turned_back_drain() || self.join() || self.departure()
    }

    /// Somebody ends while a table is changed; often the coordinator.
    fn crash_at_a_step(&mut self) -> bool {
        let coordinator = self.coordinator();
        let victim = if self.rng.random_bool(0.7) { coordinator } else { self.victim() };
        let Some(victim) = victim.filter(|v| self.faults.expected.contains_key(v) && !self.faults.is_planned(*v))
        else {
            return false;
        };
        if self.faults.moment.is_some() || !self.take_out(&[victim]) {
            return false;
        }
        let moment = Moment::ALL[self.rng.random_range(0..Moment::ALL.len())];
        let nth = self.rng.random_range(1..5);
        self.faults.moment = Some((victim, moment, nth));
        self.faults.plans.push(Plan::Wait(self.now + 4000));
        self.note(|| format!("node-{victim} is to end at {moment:?} number {nth}"));
        // Something must change for it to come about.
        if self.rng.random_bool(0.5) { self.turned_back_drain() || self.join() } else { true }
    }

    fn short_pause(&mut self) -> bool {
        let Some(victim) = self.victim() else { return false };
        let millis = self.rng.random_range(20..150);
        self.pause(victim, millis);
        true
    }

    fn long_pause(&mut self) -> bool {
        let Some(victim) = self.out() else { return false };
        let millis = self.rng.random_range(200..3500);
        self.pause(victim, millis);
        self.faults.plans.push(Plan::Linger(self.now + millis.max(1100) + 200));
        self.doubt(&[victim]);
        true
    }

    /// The oracle declares those down who cannot be heard.
    fn doubt(&mut self, silent: &[usize]) {
        for place in silent {
            let Some(start) = self.process(*place).map(|process| process.generation) else { continue };
            self.verdicts(*place, start, false, 400..1100);
            for other in (0..PLACES).filter(|other| other != place) {
                let Some(start) = self.process(other).map(|process| process.generation) else { continue };
                self.verdict(*place, other, start, false, 400..1100);
            }
        }
    }

    fn block(&mut self, pairs: Vec<(usize, usize)>) {
        for (from, to) in &pairs {
            self.network.block(*from, *to);
            self.note(|| format!("nothing gets from node-{from} to node-{to}"));
            for (a, b) in [(*from, *to), (*to, *from)] {
                if let Some(id) =
                    self.network.stream(a, b).map(|stream| stream.id).filter(|_| self.rng.random_bool(0.6))
                {
                    let at = self.now + self.rng.random_range(200..2500);
                    self.later(at, Event::Break(a, b, id));
                }
            }
        }
        let longest = if self.rng.random_bool(0.3) { 400 } else { 4000 };
        let until = self.now + self.rng.random_range(100..longest);
        self.faults.plans.push(Plan::Heal(until, pairs));
        self.faults.plans.push(Plan::Linger(until.max(self.now + 1100) + 200));
    }

    fn isolation(&mut self) -> bool {
        let Some(victim) = self.out() else { return false };
        let pairs = (0..PLACES).filter(|other| *other != victim).flat_map(|other| [(victim, other), (other, victim)]);
        self.block(pairs.collect());
        self.doubt(&[victim]);
        true
    }

    fn one_way(&mut self) -> bool {
        let Some(victim) = self.out() else { return false };
        let mute = self.rng.random_bool(0.5);
        let others = (0..PLACES).filter(|other| *other != victim);
        let pairs = others.map(|other| if mute { (victim, other) } else { (other, victim) }).collect();
        self.block(pairs);
        self.doubt(&[victim]);
        true
    }

    fn cut_pair(&mut self) -> bool {
        let (Some(a), Some(b)) = (self.victim(), self.victim()) else { return false };
        if a == b || !self.take_out(&[a, b]) {
            return false;
        }
        let pairs = if self.rng.random_bool(0.5) { vec![(a, b), (b, a)] } else { vec![(a, b)] };
        self.block(pairs);
        if self.rng.random_bool(0.5) {
            // Neither hears the other, although others hear both.
            for (observer, about) in [(a, b), (b, a)] {
                let Some(start) = self.process(about).map(|process| process.generation) else { continue };
                self.verdict(observer, about, start, false, 400..1100);
            }
        }
        true
    }

    fn split(&mut self) -> bool {
        let side: Vec<usize> = self.alive().into_iter().filter(|_| self.rng.random_bool(0.4)).collect();
        if side.is_empty() || side.len() == self.alive().len() || !self.take_out(&side) {
            return false;
        }
        let other: Vec<usize> = (0..PLACES).filter(|place| !side.contains(place)).collect();
        let pairs: Vec<_> = side.iter().flat_map(|a| other.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect();
        self.block(pairs);
        self.doubt(&side);
        true
    }

    fn broken_streams(&mut self) -> bool {
        let pairs = self.network.pairs();
        if pairs.is_empty() {
            return false;
        }
        let all = self.rng.random_ratio(1, 6);
        let one = pairs[self.rng.random_range(0..pairs.len())];
        for (from, to) in pairs {
            if (all || (from, to) == one) && !self.is_paused(from) {
                self.break_stream(from, to);
            }
        }
        true
    }

    fn slow_link(&mut self) -> bool {
        let gentle = self.class == Class::Moves;
        let victim = if gentle { self.victim() } else { self.out() };
        let Some(victim) = victim else { return false };
        let delay = self.rng.random_range(if gentle { 5..40 } else { 20..300 });
        let mut pairs = Vec::new();
        for other in (0..PLACES).filter(|other| *other != victim) {
            pairs.extend([(victim, other), (other, victim)].into_iter().filter(|_| self.rng.random_bool(0.5)));
        }
        let time = self.rng.random_range(200..2500);
        self.slow_down(victim, pairs, delay, time);
        true
    }

    fn slow_down(&mut self, victim: usize, pairs: Vec<(usize, usize)>, delay: u64, time: u64) {
        for (from, to) in &pairs {
            self.network.slow[*from][*to] += delay;
        }
        self.note(|| format!("node-{victim} is {delay} ms slower: {pairs:?}"));
        self.faults.plans.push(Plan::Quicken(self.now + time, pairs, delay));
    }

    /// Everything takes its time, some things more than others: changes of the table overlap.
    fn uneven_network(&mut self) -> bool {
        let most = self.rng.random_range(20..250);
        self.network.uneven += most;
        self.faults.plans.push(Plan::Even(self.now + self.rng.random_range(500..4000), most));
        self.sometimes_moves()
    }

    fn lost_datagrams(&mut self) -> bool {
        if !self.shape.gossip {
            return false;
        }
        self.network.datagram_loss = self.rng.random_range(10..70);
        let until = self.now + self.rng.random_range(500..3000);
        self.faults.plans.push(Plan::Clear(until));
        true
    }

    fn false_verdict(&mut self) -> bool {
        // Whoever is taken for dead begins anew, with empty memory.
        let Some(victim) = (!self.shape.gossip).then(|| self.out()).flatten() else { return false };
        let Some(start) = self.process(victim).map(|process| process.generation) else { return false };
        self.verdicts(victim, start, false, 0..500);
        self.verdicts(victim, start, true, 600..1500);
        true
    }

    fn restart_all(&mut self) -> bool {
        if !self.rng.random_ratio(1, 3) {
            return false;
        }
        for place in self.alive() {
            self.kill(place, 5..800);
        }
        true
    }

    // ---- time

    /// Everything under way goes one step further; the dead come back.
    pub(crate) fn step_faults(&mut self) {
        let now = self.now;
        let plans = std::mem::take(&mut self.faults.plans);
        for plan in plans {
            let next = match plan {
                Plan::Heal(at, pairs) if now >= at => self.heal(&pairs),
                Plan::Quicken(at, pairs, delay) if now >= at => {
                    for (from, to) in &pairs {
                        self.network.slow[*from][*to] -= delay;
                    }
                    None
                }
                Plan::Linger(at) if now >= at => None,
                Plan::Die(at, place) if now >= at => {
                    if self.process(place).is_some() {
                        self.kill(place, 300..3000);
                    }
                    None
                }
                Plan::Even(at, most) if now >= at => {
                    self.network.uneven -= most;
                    None
                }
                Plan::Clear(at) if now >= at => {
                    self.network.datagram_loss = 1;
                    None
                }
                Plan::Wait(until) if now >= until || self.faults.moment.is_none() => {
                    self.faults.moment = None;
                    None
                }
                Plan::Restart(place, since, limit, step) => self.step_restart(place, since, limit, step),
                Plan::Depart(place, since, back, step) => self.step_departure(place, since, back, step),
                other => Some(other),
            };
            self.faults.plans.extend(next);
        }
        for place in self.alive() {
            if let Some(start) = self.faults.expected.get_mut(&place) {
                *start = None;
            }
        }
        let gone: Vec<usize> =
            self.faults.expected.keys().copied().filter(|place| self.process(*place).is_none()).collect();
        for place in gone {
            let after = self.rng.random_range(50..2500);
            let at = *self.faults.expected.entry(place).or_default().get_or_insert(now + after);
            if now >= at && !self.faults.stay_dead && !self.faults.is_planned(place) {
                self.faults.expected.insert(place, None);
                self.start(place);
            }
        }
        if !self.faults.out.is_empty() && self.faults.at_rest() && self.is_quiet() {
            self.faults.out.clear();
        }
    }

    fn heal(&mut self, pairs: &[(usize, usize)]) -> Option<Plan> {
        let mut places = BTreeSet::new();
        for (from, to) in pairs {
            self.unblock(*from, *to);
            places.extend([*from, *to]);
        }
        self.note(|| format!("healed: {pairs:?}"));
        for place in places {
            if let Some(start) = self.process(place).map(|process| process.generation) {
                self.verdicts(place, start, true, 50..400);
            }
        }
        None
    }
}
