//! What a node tells about itself and the cluster.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use mizuya_wire::admin;

use super::{
    Clock, MemberName, Node,
    control::{Control, Refused},
};
use crate::logic::cluster::{
    bootstrap::Beginning,
    member::{Intent, Member, State},
    message::{Record, Totals},
    next_table::drained,
    table::{Assignment, Live, Table, Version},
};
use crate::logic::keyspace::Partition;

/// How long a member without quorum stays ready (rule O10).
const READY_WITHOUT_QUORUM: u64 = 10_000;

/// How long a copy may be silent before anyone is told why it is not in sync.
const STALLED: Duration = Duration::from_secs(10);

/// How far a member that leaves has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leave {
    /// Partitions that it still is primary of.
    pub primaries: u32,
    /// Copies that it still holds beside them.
    pub backups: u32,
    /// Nothing is left that its intent must move.
    pub drained: bool,
    /// It is out of the table.
    pub gone: bool,
}

/// What waits on a member, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Accounted bytes.
    pub bytes: u64,
    /// Commands that have no answer yet: forwarded, held, or waiting for copies.
    pub requests: usize,
    /// Changes that are kept for copies.
    pub changes: usize,
}

impl Node {
    /// What waits here now.
    pub fn backlog(&self) -> Backlog {
        let mut backlog =
            Backlog { bytes: self.bytes(), requests: self.forwards.lock().count() + self.waiting.count(), changes: 0 };
        for replica in &self.replicas {
            let (requests, changes) = replica.lock().backlog();
            backlog.requests += requests;
            backlog.changes += changes;
        }
        backlog
    }

    /// How far this member has come with leaving.
    pub fn leave_progress(&self) -> Leave {
        let routing = self.routing();
        let gone = self.control.lock().gone;
        let Some((table, me)) = routing.table.as_ref().zip(routing.me) else {
            return Leave { drained: true, gone: true, ..Leave::default() };
        };
        let (primaries, backups, _) = holdings(table, me);
        let others = table.members.iter().any(|member| member.id != me && member.state.is_live());
        Leave { primaries, backups, drained: drained(table, me) || !others, gone: gone || !others }
    }

    /// Keys that end with this member: no member that stays has a copy of them in sync (rule L2).
    pub fn left_behind(&self) -> u64 {
        let routing = self.routing();
        let Some((table, me)) = routing.table.as_ref().zip(routing.me) else { return 0 };
        let stays = |id| table.member(id).is_some_and(|m| matches!(m.state, State::Active | State::Cordoned));
        let held = self.replicas.iter().zip(&table.partitions);
        held.filter(|(_, owners)| {
            owners.primary() == Some(me) && !owners.in_sync().any(|copy| copy != me && stays(copy))
        })
        .map(|(replica, _)| replica.lock().store.len() as u64)
        .sum()
    }

    /// Whether clients should be sent here, or why not (rule O10).
    pub fn ready(&self, clock: Clock) -> Result<(), String> {
        let routing = self.routing();
        let control = self.control.lock();
        if control.leaving.is_some() {
            return Err("it is leaving".to_owned());
        }
        let Some((table, me)) = routing.table.as_ref().zip(routing.me) else {
            return Err(self.why_no_table(&control, clock));
        };
        let Some(member) = table.member(me).filter(|member| member.state != State::Joining) else {
            return Err("it is joining".to_owned());
        };
        let without_quorum = control.quorum_lost.map_or(0, |since| clock.now.since(since));
        if without_quorum > READY_WITHOUT_QUORUM {
            return Err(format!("it reaches fewer than the {} voters that the quorum needs", table.quorum));
        }
        drop(control);
        let unreachable = table.partitions.iter().filter_map(Assignment::primary).find(|primary| {
            *primary != member.id
                && table
                    .member(*primary)
                    .is_some_and(|owner| owner.state.is_live() && !self.outbox(&owner.name).is_open())
        });
        match unreachable.and_then(|id| table.member(id)) {
            Some(owner) if without_quorum == 0 && owner.state.is_live() && control_fresh(self, &owner.name, clock) => {
                Err(format!("it has no connection to {} yet, which owns keys", owner.name))
            }
            _ => Ok(()),
        }
    }

    fn why_no_table(&self, control: &Control, clock: Clock) -> String {
        if let Some(Refused { refusal, .. }) = control.refusals.values().max_by_key(|refused| refused.at) {
            return format!("it was refused: {}", refusal.message);
        }
        let own = self.hello(control);
        let peers: Vec<MemberName> = self
            .config
            .peers
            .iter()
            .map(|(host, _)| MemberName::from(host.as_str()))
            .filter(|name| name != self.name())
            .collect();
        let beginning = Beginning {
            own: &own,
            peers: &peers,
            heard: &control.heard,
            waited: (0, 1),
            now: clock.now,
            live: self.config.live,
        };
        let missing: Vec<&str> = beginning.missing().into_iter().map(MemberName::as_str).collect();
        if missing.is_empty() {
            "it waits for the cluster to take it in".to_owned()
        } else {
            format!("it is not a member yet and waits for an answer of {}", missing.join(", "))
        }
    }

    /// The admin service's status.
    pub fn status(&self, clock: Clock) -> admin::StatusReply {
        let routing = self.routing();
        let ready = self.ready(clock);
        let own = self.totals();
        let control = self.control.lock();
        let mut reply = admin::StatusReply {
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            member: self.name().to_string(),
            ready: ready.is_ok(),
            not_ready_because: ready.err().unwrap_or_default(),
            state: admin::MemberState::Joining.into(),
            settings: Some(live_settings(&self.config.live)),
            totals: Some(totals(&own)),
            problems: self.problems(&control),
            partitions: u32::from(self.config.partitions),
            generation: self.config.identity.generation.0,
            environment: self.config.identity.environment.clone(),
            default_map: self.config.identity.default_map.clone(),
            ..admin::StatusReply::default()
        };
        if let Some(table) = &routing.table {
            self.add_table(&mut reply, table, &control, &own, clock);
        }
        reply
    }

    fn add_table(&self, reply: &mut admin::StatusReply, table: &Table, control: &Control, own: &Totals, clock: Clock) {
        reply.cluster_id = format!("{:032x}", table.cluster.0);
        reply.epoch = table.epoch.counter;
        reply.coordinator =
            self.acting_coordinator(control, table, clock.now).map(|name| name.to_string()).unwrap_or_default();
        reply.member_quorum = table.quorum;
        reply.settings = Some(live_settings(&table.live));
        reply.members = table.members.iter().map(|member| self.summary(member, table, control, own, clock)).collect();
        reply.voters_reachable = reply.members.iter().filter(|member| member.reachable).count() as u32;
        reply.partitions_short_of_copies = table.partitions.iter().filter(|a| table.is_short(a)).count() as u32;
        reply.partitions_unavailable =
            table.partitions.iter().filter(|a| !a.primary().is_some_and(|id| table.is_live(id))).count() as u32;
        let moving =
            table.partitions.iter().filter(|a| a.copies.iter().any(|copy| !copy.in_sync()) || a.from.is_some());
        reply.partitions_moving = moving.count() as u32;
        if let Some(me) = table.named(self.name()) {
            reply.state = state(me.state).into();
        }
    }

    fn summary(
        &self,
        member: &Member,
        table: &Table,
        control: &Control,
        own: &Totals,
        clock: Clock,
    ) -> admin::MemberSummary {
        let (primaries, backups, syncing) = holdings(table, member.id);
        let mine = member.name == *self.name();
        let pulse = control.pulses.get(&member.name).filter(|pulse| pulse.generation == member.generation);
        let figures = if mine { Some(*own) } else { pulse.map(|pulse| pulse.totals) };
        let epoch = if mine { table.epoch.counter } else { pulse.map_or(0, |pulse| pulse.in_force.counter) };
        let departs = member.state == State::Leaving(Intent::Depart);
        let leaving = match member.state {
            State::Leaving(Intent::Restart) => admin::Intent::Restart,
            State::Leaving(Intent::Depart) => admin::Intent::Depart,
            _ => admin::Intent::Unspecified,
        };
        admin::MemberSummary {
            name: member.name.to_string(),
            state: state(member.state).into(),
            leaving: leaving.into(),
            reachable: member.state.is_live() && self.reachable(control, &member.name, member.generation, clock.now),
            primaries,
            backups,
            backups_syncing: syncing,
            totals: Some(totals(&figures.unwrap_or_default())),
            generation: member.generation.0,
            epoch,
            drained: drained(table, member.id) && !figures.is_some_and(|figures| figures.stored && departs),
            zone: member.zone.clone(),
        }
    }

    fn problems(&self, control: &Control) -> Vec<admin::Problem> {
        let mut problems: Vec<admin::Problem> = control
            .refusals
            .iter()
            .map(|(subject, Refused { refusal, .. })| admin::Problem {
                code: refusal.code.clone(),
                subject: subject.to_string(),
                message: refusal.message.clone(),
            })
            .collect();
        if control.quorum_lost.is_some() {
            let quorum = control.voter.in_force().map_or(1, |table| table.quorum);
            problems.push(admin::Problem {
                code: "TooFewMembers".to_owned(),
                subject: self.name().to_string(),
                message: format!(
                    "fewer than {quorum} voters reach each other, so reads and writes are refused; bring members back, or lower member_count_quorum"
                ),
            });
        }
        if let Some(why) = &control.volume.failed {
            problems.push(admin::Problem {
                code: "VolumeFailed".to_owned(),
                subject: self.name().to_string(),
                message: format!(
                    "nothing is kept on the volume any more ({why}): make room or replace it, then restart the node"
                ),
            });
        }
        let lost = self.counters.lost_partitions.load(Ordering::Relaxed);
        if lost > 0 && self.config.live.factor == 1 {
            problems.push(admin::Problem {
                code: "SingleCopyLost".to_owned(),
                subject: self.name().to_string(),
                message: format!("{lost} partitions were lost with the only copy; set replica_count to 2 or more"),
            });
        }
        problems
    }

    /// Configured peers that are known, and whose gossip port is another one than the settings say. They are reached all
    /// the same as long as others tell of them; a cluster of such settings would never begin (requirement A22).
    pub fn misdirected_peers(&self) -> Vec<admin::Problem> {
        let mut known: BTreeMap<MemberName, (u16, u16)> = BTreeMap::new();
        {
            let control = self.control.lock();
            let heard = control.heard.iter();
            known.extend(heard.map(|(name, heard)| (name.clone(), (heard.hello.client_port, heard.hello.peer_port))));
        }
        if let Some(table) = &self.routing.load().table {
            let members = table.members.iter();
            known.extend(members.map(|member| (member.name.clone(), (member.client_port, member.peer_port))));
        }
        let judge = |(host, port): &(String, u16)| {
            let (client, peer) = *known.get(&MemberName::from(host.as_str()))?;
            (*port != peer).then(|| {
                let (code, what) = if *port == client {
                    ("PeerPortIsClientPort", format!("the client port {port}"))
                } else {
                    ("PeerPortDiffers", format!("port {port}"))
                };
                admin::Problem {
                    code: code.to_owned(),
                    subject: format!("{host}:{port}"),
                    message: format!(
                        "peers: '{host}:{port}' names {what}; peers are reached on {peer} (client port + 2), write '{host}:{peer}'"
                    ),
                }
            })
        };
        self.config.peers.iter().filter_map(judge).collect()
    }

    /// Members whose copies of this primary's partitions do not come into sync because nothing is heard of them. A copy
    /// that waits for its turn while others on its member are built is none of them.
    pub fn stalled_copies(&self, clock: Clock) -> Vec<admin::Problem> {
        let mut stalled: BTreeMap<MemberName, usize> = BTreeMap::new();
        for replica in &self.replicas {
            for name in replica.lock().stalled(STALLED, clock.now) {
                *stalled.entry(name.clone()).or_default() += 1;
            }
        }
        let builds = |name: &MemberName| {
            self.outbox(name).pace(|pace| pace.last_answer()).is_some_and(|at| clock.now < at + STALLED)
        };
        stalled.retain(|name, _| !builds(name));
        let problem = |(name, count): (MemberName, usize)| {
            let why = if self.outbox(&name).is_open() {
                "a stream to it is open, but it confirms nothing; its log says why".to_owned()
            } else {
                let port = self.config.identity.peer_port;
                format!("no stream from {} to it is open; let {port}/tcp through in this direction too", self.name())
            };
            admin::Problem {
                code: "CopiesStalled".to_owned(),
                subject: name.to_string(),
                message: format!(
                    "the copies of {count} partitions on {name} have not answered for {} s: {why}",
                    STALLED.as_secs()
                ),
            }
        };
        stalled.into_iter().map(problem).collect()
    }

    /// What this member holds of a partition, primary or copy, and the last change that it has. For comparing copies.
    pub fn holding(&self, partition: Partition) -> (Version, Vec<Record>) {
        let replica = self.replicas[partition.index()].lock();
        (replica.last(), replica.store.read_from(0, usize::MAX).0)
    }

    /// The admin service's table.
    pub fn table(&self) -> admin::TableReply {
        let routing = self.routing();
        let Some(table) = &routing.table else { return admin::TableReply::default() };
        let index = |id| table.members.iter().position(|member| member.id == id).unwrap_or_default() as u32;
        let partitions = table.partitions.iter().enumerate().map(|(number, assignment)| admin::PartitionOwners {
            partition: number as u32,
            in_sync: assignment.in_sync().filter(|id| table.member(*id).is_some()).map(index).collect(),
            syncing: assignment
                .copies
                .iter()
                .filter(|copy| !copy.in_sync() && table.member(copy.member).is_some())
                .map(|copy| index(copy.member))
                .collect(),
        });
        admin::TableReply {
            epoch: table.epoch.counter,
            members: table.members.iter().map(|member| member.name.to_string()).collect(),
            partitions: partitions.collect(),
        }
    }
}

/// A member that was heard lately should have a connection; one that is silent is the failure detector's business.
fn control_fresh(node: &Node, name: &MemberName, clock: Clock) -> bool {
    let control = node.control.lock();
    control
        .voter
        .in_force()
        .and_then(|table| table.named(name))
        .is_some_and(|member| node.reachable(&control, name, member.generation, clock.now))
}

fn holdings(table: &Table, id: super::MemberId) -> (u32, u32, u32) {
    let mut held = (0, 0, 0);
    for assignment in &table.partitions {
        if assignment.primary() == Some(id) {
            held.0 += 1;
        } else if let Some(copy) = assignment.copies.iter().find(|copy| copy.member == id) {
            held.1 += 1;
            held.2 += u32::from(!copy.in_sync());
        }
    }
    held
}

fn state(state: State) -> admin::MemberState {
    match state {
        State::Joining => admin::MemberState::Joining,
        State::Active => admin::MemberState::Active,
        State::Cordoned => admin::MemberState::Cordoned,
        State::Leaving(_) => admin::MemberState::Leaving,
        State::Away => admin::MemberState::Away,
        State::Down => admin::MemberState::Down,
    }
}

fn live_settings(live: &Live) -> admin::LiveSettings {
    admin::LiveSettings {
        generation: live.generation,
        factor: live.factor,
        read_quorum: live.read_quorum,
        write_quorum: live.write_quorum,
        member_count_quorum: live.member_quorum.to_wire(),
    }
}

fn totals(totals: &Totals) -> admin::Totals {
    admin::Totals {
        keys: totals.keys,
        backup_keys: totals.backup_keys,
        bytes: totals.bytes,
        max_bytes: totals.max_bytes,
        hits: totals.hits,
        misses: totals.misses,
        evictions: totals.evictions,
        expirations: totals.expirations,
        commands: totals.commands,
        connections: totals.connections,
        lost_partitions: totals.lost_partitions,
        diverged_copies: totals.diverged_copies,
        moved_keys: totals.moved_keys,
        moved_bytes: totals.moved_bytes,
        rejected_callers: totals.rejected_callers,
    }
}
