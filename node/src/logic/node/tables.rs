//! How tables are proposed, taken and obeyed (rules T1 to T5).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    Clock, Effects, Generation, Level, MemberName, Message, Node, Ordering, Routing,
    control::{Control, Taking},
    volume::Restored,
};
use crate::logic::{
    cluster::{
        bootstrap::Beginning,
        member::{Intent, MemberId, State},
        next_table::{Known, next_table},
        proposer::{HandedOver, Proposer},
        replica::{BEGIN, Begin, Orders},
        table::{Assignment, ClusterId, Epoch, Table, Version},
        voter::Take,
    },
    keyspace::Partition,
};

/// Between two sendings of the same proposal.
const PROPOSAL_RESEND: u64 = 200;
/// How long a proposal may take before it is started again, beside the leases that it waits for.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(3);

impl Node {
    // ---- the voter

    pub(super) fn prepare_from(&self, control: &mut Control, from: &MemberName, asked: Epoch, effects: &mut Effects) {
        let Some(promised) = control.voter.promise(asked) else { return };
        let taken = control.voter.taken().cloned();
        self.deliver(control, from, Message::Promise { asked, promised, taken }, effects);
    }

    pub(super) fn propose_from(
        &self,
        control: &mut Control,
        from: &MemberName,
        table: &Arc<Table>,
        clock: Clock,
        effects: &mut Effects,
    ) {
        match control.voter.take(table, self.name(), self.config.identity.generation) {
            Take::NotForMe => {}
            Take::Refused(promised) => {
                let message = Message::Taken { epoch: table.epoch, promised, handed_over: HandedOver::new() };
                self.deliver(control, from, message, effects);
            }
            Take::Taken => {
                let me = self.own(table).map(|member| member.id);
                let before = control.voter.in_force().cloned();
                let mut losing = Vec::new();
                for (number, assignment) in table.partitions.iter().enumerate() {
                    if assignment.from.is_some() && assignment.from == me {
                        losing.push(Partition(number as u16));
                    }
                    let former = before.as_ref().map(|before| &before.partitions[number]);
                    let dead = former.and_then(Assignment::primary).is_some_and(|primary| !table.is_live(primary));
                    if dead && former.is_some_and(|former| former.epoch < assignment.epoch) {
                        self.replicas[number].lock().refuse_below(assignment.epoch);
                    }
                }
                let lease = self.config.timing.lease;
                let granted = control.pulses.granted_until(table, before.as_deref(), lease);
                // What its former start confirmed, a new start does not remember.
                let forgotten = (!is_first(table)).then_some(control.started + lease);
                control.taking = Some(Taking {
                    coordinator: from.clone(),
                    epoch: table.epoch,
                    partitions: losing,
                    leases_until: granted.max(forgotten).unwrap_or_default(),
                });
                control.volume.write(table, clock.now, effects);
                if !self.lives_in(table) {
                    self.resign(control);
                }
                self.finish_taking(control, clock, effects);
            }
        }
    }

    /// Answers a proposal once the partitions that it takes away have come to rest (rule T2), and the members that it
    /// leaves out cannot answer any more (rule W7).
    pub(super) fn finish_taking(&self, control: &mut Control, clock: Clock, effects: &mut Effects) {
        if control.volume.is_behind() {
            return;
        }
        let Some(taking) = control.taking.as_ref().filter(|taking| taking.leases_until <= clock.now) else { return };
        let mut handed_over = HandedOver::new();
        let mut waits = false;
        for partition in &taking.partitions {
            match self.replicas[partition.index()].lock().freeze(clock.now) {
                Some(version) => handed_over.push((*partition, version)),
                None => waits = true,
            }
        }
        if waits {
            return;
        }
        if let Some(taking) = control.taking.take() {
            let message = Message::Taken { epoch: taking.epoch, promised: taking.epoch, handed_over };
            self.deliver(control, &taking.coordinator, message, effects);
        }
    }

    // ---- the proposer

    pub(super) fn promise_from(
        &self,
        control: &mut Control,
        (from, generation): (&MemberName, Generation),
        (asked, promised): (Epoch, Epoch),
        taken: Option<Arc<Table>>,
        clock: Clock,
        effects: &mut Effects,
    ) {
        control.highest_seen = control.highest_seen.max(promised.counter);
        let Proposer::Preparing { epoch, highest, .. } = &control.proposer else { return };
        if promised > *epoch {
            control.proposer = Proposer::Idle;
            return;
        }
        let known =
            taken.as_ref().and_then(|table| table.start(from, generation)).or_else(|| highest.start(from, generation));
        let Some(id) = known.map(|member| member.id) else { return };
        let replaced = control.replaced(highest, self.config.timing.lease, clock.now);
        let Some((base, complete)) = control.proposer.promised(id, asked, taken, &replaced) else { return };
        control.highest_seen = control.highest_seen.max(base.epoch.counter);
        if base.epoch.counter >= asked.counter {
            // Another proposer has used this counter. A partition's epoch is the counter alone, so it must not be used
            // twice, or two members are primary in one epoch (rules T1, W1).
            control.proposer = Proposer::Idle;
            return;
        }
        if !self.lives_in(&base) && control.left_out_by != Some(base.epoch) {
            // What this member thinks of the others has been overruled: it listens anew before it judges anybody.
            control.left_out_by = Some(base.epoch);
            control.hears_quorum = control.hears_quorum.and(Some(clock.now));
        }
        self.propose_after(control, (&base, complete), asked, clock, effects);
    }

    fn propose_after(
        &self,
        control: &mut Control,
        (base, complete): (&Arc<Table>, bool),
        epoch: Epoch,
        clock: Clock,
        effects: &mut Effects,
    ) {
        let settled = control.voter.in_force().is_some_and(|table| table.epoch == base.epoch);
        let known = match (settled, complete) {
            (true, _) => Known::InForce,
            (false, true) => Known::ByAll,
            (false, false) => Known::BySome,
        };
        let wishes = self.wishes(control, base, clock);
        let next = next_table(base, &wishes, epoch.counter, known);
        control.proposed(wishes, clock.now);
        // What somebody has taken may be in force: it is brought into force before anything else.
        let unfinished = !settled || self.highest_heard(control, base, clock.now) > base.epoch;
        let Some(mut table) = next.or_else(|| unfinished.then(|| (**base).clone())) else {
            control.proposer = Proposer::Idle;
            return;
        };
        table.epoch = epoch;
        let table = Arc::new(table);
        control.proposer = Proposer::propose(Some(base.clone()), table.clone(), clock.now);
        self.send_proposal(control, clock, effects);
    }

    fn send_proposal(&self, control: &mut Control, clock: Clock, effects: &mut Effects) {
        control.proposal_sent = clock.now;
        let (to, message) = match &control.proposer {
            Proposer::Idle => return,
            Proposer::Preparing { epoch, highest, .. } => (recipients(highest, None), Message::Prepare(*epoch)),
            Proposer::Proposing { base, table, .. } => {
                (recipients(table, base.as_deref()), Message::Propose(table.clone()))
            }
        };
        for name in to {
            self.deliver(control, &name, message.clone(), effects);
        }
        self.remind_new_starts(control, effects);
    }

    /// New starts that the highest table takes in, and that have not got it yet, cannot promise anything: they get that
    /// table once more, as it was proposed.
    fn remind_new_starts(&self, control: &Control, effects: &mut Effects) {
        let Proposer::Preparing { highest, .. } = &control.proposer else { return };
        if control.voter.in_force().is_some_and(|known| known.epoch >= highest.epoch) {
            return;
        }
        for member in &highest.members {
            let heard = control.heard.get(&member.name).map(|heard| &heard.hello);
            if heard.is_some_and(|hello| hello.generation == member.generation && hello.table.is_none()) {
                self.send(&member.name, Message::Propose(highest.clone()), effects);
            }
        }
    }

    pub(super) fn taken_from(
        &self,
        control: &mut Control,
        (from, generation): (&MemberName, Generation),
        (epoch, promised): (Epoch, Epoch),
        handed_over: HandedOver,
        clock: Clock,
        effects: &mut Effects,
    ) {
        control.highest_seen = control.highest_seen.max(promised.counter);
        let Proposer::Proposing { table, base, .. } = &control.proposer else { return };
        if table.epoch != epoch {
            return;
        }
        if promised > epoch {
            control.proposer = Proposer::Idle;
            return;
        }
        let known =
            table.start(from, generation).or_else(|| base.as_ref().and_then(|base| base.start(from, generation)));
        let Some(id) = known.map(|member| member.id) else { return };
        let replaced =
            base.as_ref().map(|base| control.replaced(base, self.config.timing.lease, clock.now)).unwrap_or_default();
        control.proposer.taken(id, epoch, handed_over);
        let Some((table, handed_over)) = control.proposer.in_force(&replaced) else { return };
        let to = match &control.proposer {
            Proposer::Proposing { base, .. } => recipients(&table, base.as_deref()),
            _ => Vec::new(),
        };
        control.proposer = Proposer::Idle;
        for name in to.into_iter().filter(|name| name != self.name()) {
            let message = Message::InForce { table: table.clone(), handed_over: handed_over.clone() };
            self.send(&name, message, effects);
        }
        self.enforce(control, &table, handed_over, clock, effects);
    }

    /// Lets the coordinator propose what is due, resends, and gives up what takes too long.
    pub(super) fn drive_proposer(&self, control: &mut Control, clock: Clock, effects: &mut Effects) {
        let bootstraps = control.voter.in_force().is_none();
        let Some(since) = control.proposer.since() else {
            return self.consider_proposal(control, clock, effects);
        };
        if clock.now > since + PROPOSAL_TIMEOUT + self.config.timing.lease
            || (!bootstraps && self.is_overtaken(control, clock))
        {
            control.proposer = Proposer::Idle;
        } else if clock.now.since(control.proposal_sent) > PROPOSAL_RESEND {
            self.send_proposal(control, clock, effects);
        }
    }

    /// A member that must take the proposal has gone down, or another member proposes now.
    fn is_overtaken(&self, control: &mut Control, clock: Clock) -> bool {
        let Some(in_force) = control.voter.in_force().cloned() else { return false };
        if self.acting_coordinator(control, &in_force, clock.now).as_ref() != Some(self.name()) {
            return true;
        }
        let Proposer::Proposing { table, .. } = &control.proposer else { return false };
        let table = table.clone();
        let down = self.wishes(control, &table, clock).down;
        table.live().any(|member| down.contains(&(member.name.clone(), member.generation)))
    }

    fn consider_proposal(&self, control: &mut Control, clock: Clock, effects: &mut Effects) {
        let Some(base) = control.voter.in_force().cloned() else { return };
        if self.acting_coordinator(control, &base, clock.now).as_ref() != Some(self.name()) {
            return;
        }
        let Some(taken) = control.voter.taken().cloned() else { return };
        let remembered = control.remembered(&taken, clock.now).filter(|table| self.lives_in(table));
        let taken = remembered.unwrap_or(taken);
        // What others have taken may be in force without this member's knowing, and until it is known they do not
        // confirm the lease of a member that it leaves out.
        let heard = self.highest_heard(control, &base, clock.now);
        let highest = control.highest_seen.max(control.voter.promised().counter).max(taken.epoch.counter);
        let counter = highest.max(heard.counter) + 1;
        let unfinished = taken.epoch.max(heard) > base.epoch;
        let wishes = self.wishes(control, &base, clock);
        if !unfinished {
            // Nothing is computed twice: at rest a tick compares and goes on.
            if control.rests(&base, &wishes, clock.now) {
                return;
            }
            let considered = Some((base.epoch, wishes));
            if control.considered == considered {
                return;
            }
            let nothing_to_do = considered
                .as_ref()
                .is_none_or(|(_, wishes)| next_table(&base, wishes, counter, Known::InForce).is_none());
            if nothing_to_do {
                control.considered = considered;
                return;
            }
        }
        let epoch = Epoch { counter, proposer: self.config.identity.generation.0 };
        control.proposer = Proposer::prepare(epoch, taken, clock.now);
        self.send_proposal(control, clock, effects);
    }

    /// Starts a cluster, if it is this node that must (rule T4).
    pub(super) fn start_cluster(&self, control: &mut Control, clock: Clock, random: u64, effects: &mut Effects) {
        if control.voter.in_force().is_some() || control.proposer.since().is_some() || control.leaving.is_some() {
            return;
        }
        let own = self.hello(control);
        let peers: Vec<MemberName> = self
            .config
            .peers
            .iter()
            .map(|(host, _)| MemberName::from(host.as_str()))
            .filter(|name| name != self.name())
            .collect();
        // Who remembers others waits for them as long as copies of a member that left for a restart are waited for.
        let remembers = own.memory.table.as_ref().is_some_and(|table| table.members.len() > 1);
        let patience = self.config.bootstrap_timeout;
        let patience = if remembers { patience.max(self.config.rejoin_timeout) } else { patience };
        let waited = (clock.now.since(control.started), patience.as_millis() as u64);
        let beginning = Beginning {
            own: &own,
            peers: &peers,
            heard: &control.heard,
            waited,
            now: clock.now,
            live: self.config.live,
        };
        let Some(founders) = beginning.founders() else { return };
        let cluster = ClusterId(u128::from(random) << 64 | u128::from(own.generation.0));
        let seed = super::hash_seed(&self.config.identity.cluster_name);
        let former = Beginning::remembered(&founders);
        let table = Arc::new(beginning.table(&founders, former.as_deref(), cluster, clock.wall / 1000, seed));
        let names: Vec<&str> = table.members.iter().map(|member| member.name.as_str()).collect();
        let what = if former.is_some() { "the former cluster goes on" } else { "starting a new cluster" };
        effects.say(Level::Info, format!("{what} with {}", names.join(", ")));
        control.proposer = Proposer::propose(None, table, clock.now);
        self.send_proposal(control, clock, effects);
    }

    // ---- a table in force

    pub(super) fn enforce(
        &self,
        control: &mut Control,
        table: &Arc<Table>,
        handed_over: HandedOver,
        clock: Clock,
        effects: &mut Effects,
    ) {
        let before = control.voter.in_force().cloned();
        let own = self.own(table);
        let me = own.filter(|member| member.state.is_live()).map(|member| member.id);
        // Who left before it was a member holds nothing that it could hand over, and must not be given anything any more.
        if before.is_none() && (own.is_none() || control.leaving.is_some()) {
            return;
        }
        if control.volume.is_retired() || !control.voter.enforce(table) {
            return;
        }
        control.volume.write(table, clock.now, effects);
        self.drop_foreign(control, table, effects);
        if before.is_none() {
            control.member_since = clock.now;
            control.leave_after_all(self.name(), clock);
        }
        control.handed_over = handed_over;
        control.pulses.retain(table);
        control.admitted(table);
        let Some(me) = me else {
            return self.out_of_the_table(control, table, effects);
        };
        Self::tell_changes(before.as_deref(), table, effects);
        self.obey(control, before.as_deref(), table, me, clock, effects);
        self.routing.store(Arc::new(Routing { table: Some(table.clone()), me: Some(me), epoch: table.epoch.counter }));
        self.renew_lease(control);
        effects.table_changed = true;
    }

    /// A member that never became a voter, and whose voters have all ended with their memory, begins anew: it holds
    /// nothing, and nobody else can take it in.
    pub(super) fn give_up_joining(&self, control: &Control, clock: Clock, effects: &mut Effects) {
        let Some(table) = control.voter.in_force() else { return };
        if self.own(table).is_none_or(|own| own.state != State::Joining) {
            return;
        }
        let replaced = control.replaced(table, self.config.timing.lease, clock.now);
        if table.voters().all(|member| replaced.contains(&member.id) || control.is_elsewhere(table, member, clock.now))
        {
            effects.fatal = Some("all voters of the cluster that it was joining have ended; restarting".to_owned());
        }
    }

    /// A member without quorum learns from the volumes of new starts that the cluster had gone on without it: its copies
    /// are old, and the members begin again together (rule S1).
    pub(super) fn give_up_an_old_table(&self, control: &Control, clock: Clock, effects: &mut Effects) {
        if control.quorum_lost.is_none() || control.leaving.is_some() {
            return;
        }
        let Some(taken) = control.voter.taken() else { return };
        let Some(higher) = control.remembered(taken, clock.now) else { return };
        if !self.lives_in(&higher) {
            effects.fatal = Some(format!(
                "members that were restarted remember table {}, which goes on without this start; restarting",
                higher.epoch.counter
            ));
        }
    }

    fn out_of_the_table(&self, control: &mut Control, table: &Arc<Table>, effects: &mut Effects) {
        self.lease_until.store(0, Ordering::Release);
        self.routing.store(Arc::new(Routing { table: Some(table.clone()), me: None, epoch: table.epoch.counter }));
        effects.table_changed = true;
        if control.leaving.is_some() {
            control.gone = true;
        } else {
            effects.fatal = Some(format!(
                "the cluster has gone on without this start of {} (it was silent for longer than the suspicion time, or was \
                 removed); restarting as a new one",
                self.name()
            ));
        }
    }

    /// Makes every partition do what the table says.
    fn obey(
        &self,
        control: &Control,
        before: Option<&Table>,
        table: &Table,
        me: MemberId,
        clock: Clock,
        effects: &mut Effects,
    ) {
        let versions: BTreeMap<Partition, Version> = control.handed_over.iter().copied().collect();
        let names = |id: MemberId| table.member(id).map(|member| member.name.clone());
        let (mut due, mut lost, mut restored) = (Vec::new(), 0, Restored::default());
        effects.erase |= table.member(me).is_some_and(|m| m.state == State::Leaving(Intent::Depart));
        for (number, assignment) in table.partitions.iter().enumerate() {
            let partition = Partition(number as u16);
            let former = before.map(|before| &before.partitions[number]);
            lost += u64::from(former.is_some_and(|former| was_lost(former, assignment)));
            let begin = versions.get(&partition).map_or(Begin::Now, |version| Begin::At(*version, clock.now + BEGIN));
            let orders = Orders {
                me,
                counter: table.epoch.counter,
                assignment,
                names: &names,
                begin,
                write_quorum: table.live.write_quorum,
                read_quorum: table.live.read_quorum,
                complete: is_complete(table, assignment),
            };
            let mut replica = self.replicas[number].lock();
            let kept = replica.held();
            self.counting(&mut replica, |replica| replica.obey(&orders, clock.now, &mut due));
            let goes_on = replica.is_primary() && assignment.began < assignment.epoch.0;
            restored.count(kept.filter(|_| goes_on), former);
            replica.settle(&mut due);
            for name in replica.followers() {
                self.mark(name, partition, effects);
            }
        }
        if lost > 0 {
            self.counters.lost_partitions.fetch_add(lost, Ordering::Relaxed);
            effects.say(Level::Error, format!("{lost} partitions had no in-sync copy left and start empty"));
        }
        self.counters.restored_partitions.fetch_add(restored.partitions, Ordering::Relaxed);
        self.counters.restored_lossy.fetch_add(restored.lossy, Ordering::Relaxed);
        restored.say(effects);
        self.reply_all(due, effects);
    }

    fn tell_changes(before: Option<&Table>, table: &Table, effects: &mut Effects) {
        let former = |id| before.and_then(|before: &Table| before.member(id)).map(|member| member.state);
        for member in &table.members {
            if former(member.id) != Some(member.state) {
                let level = if member.state == State::Down { Level::Warn } else { Level::Info };
                effects.say(level, format!("{} ({}) is {}", member.name, member.id, word(member.state)));
            }
        }
        for gone in before.iter().flat_map(|before| &before.members).filter(|member| table.member(member.id).is_none())
        {
            effects.say(Level::Info, format!("{} ({}) is no longer a member", gone.name, gone.id));
        }
    }
}

fn is_complete(table: &Table, assignment: &Assignment) -> bool {
    table.running(assignment).count() >= table.live.factor as usize
}

fn was_lost(former: &Assignment, now: &Assignment) -> bool {
    !former.copies.is_empty() && (former.began < now.began || now.copies.is_empty())
}

/// Whom a proposal goes to: everyone in it, also those that it or an unfinished one before it declared down. They still
/// count as voters, and when they run after all, their votes may be the ones that are missing.
fn recipients(table: &Table, base: Option<&Table>) -> Vec<MemberName> {
    let members = table.members.iter().chain(base.into_iter().flat_map(|base| &base.members));
    let mut names: Vec<MemberName> = members.map(|member| member.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

fn word(state: State) -> &'static str {
    match state {
        State::Joining => "joining",
        State::Active => "active",
        State::Cordoned => "cordoned",
        State::Leaving(_) => "leaving",
        State::Away => "away for a restart",
        State::Down => "down",
    }
}

/// Whether a table begins its cluster: then nothing was ever confirmed to anybody.
fn is_first(table: &Table) -> bool {
    table.partitions.iter().all(|assignment| assignment.epoch.0 == table.epoch.counter)
}
