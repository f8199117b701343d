//! The nodes, as far as the operator sees them: members in a table, copies of partitions that move at a limited speed.

use std::collections::{BTreeMap, BTreeSet};

use mizuya_operator::{
    crd::CacheCluster,
    logic::plan::{Intent, Live},
};
use mizuya_wire::admin::{Intent as WireIntent, LiveSettings, MemberState, MemberSummary, StatusReply, Totals};

use super::{NAME, NAMESPACE, kubernetes::Kubernetes};

/// Partitions of this world.
const PARTITIONS: u32 = 12;
/// Copies that can move in a second.
const SPEED: usize = 3;
/// Seconds after which a member that is away for a restart counts as down.
const REJOIN_TIMEOUT: u32 = 60;

#[derive(Clone, Debug)]
pub struct Member {
    pub state: MemberState,
    pub leaving: Option<Intent>,
    pub running: bool,
    /// Seconds since it went for a restart.
    pub away_for: u32,
    pub bytes: u64,
    pub max_bytes: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Nodes {
    pub members: BTreeMap<u32, Member>,
    /// Who holds a copy; the first is the primary.
    pub copies: BTreeMap<u32, Vec<u32>>,
    pub epoch: u64,
    pub settings: Option<LiveSettings>,
    /// Partitions whose last copy went.
    pub lost: BTreeSet<u32>,
    /// Members that ended without being asked.
    pub crashed: BTreeSet<u32>,
    /// Bytes of one copy of one partition.
    pub weight: u64,
    pub problems: Vec<mizuya_wire::admin::Problem>,
}

fn member_name(ordinal: u32) -> String {
    format!("{NAME}-{ordinal}.{NAME}-peers.{NAMESPACE}.svc")
}

impl Nodes {
    pub fn start(&mut self, ordinal: u32) {
        self.crashed.remove(&ordinal);
        let member = self.members.entry(ordinal).or_insert(Member {
            state: MemberState::Joining,
            leaving: None,
            running: true,
            away_for: 0,
            bytes: 0,
            max_bytes: 1000,
        });
        (member.state, member.leaving, member.running) = (MemberState::Joining, None, true);
        self.epoch += 1;
    }

    /// SIGTERM: primaries are handed over at once; the copies go when the process ends.
    pub fn stop(&mut self, ordinal: u32) {
        for holders in self.copies.values_mut() {
            if holders.first() == Some(&ordinal) && holders.len() > 1 {
                holders.rotate_left(1);
            }
        }
        if let Some(member) = self.members.get_mut(&ordinal)
            && member.leaving.is_none()
        {
            (member.state, member.leaving) = (MemberState::Leaving, Some(Intent::Restart));
            self.epoch += 1;
        }
    }

    /// The process ended.
    pub fn gone(&mut self, ordinal: u32) {
        for (partition, holders) in &mut self.copies {
            holders.retain(|holder| *holder != ordinal);
            if holders.is_empty() {
                self.lost.insert(*partition);
            }
        }
        if let Some(member) = self.members.get_mut(&ordinal) {
            let departed = member.leaving == Some(Intent::Depart);
            (member.state, member.running) = (if departed { MemberState::Down } else { MemberState::Away }, false);
            member.away_for = 0;
        }
        if !self.members.values().any(|member| member.running) {
            self.copies.clear(); // whoever starts next starts a new cluster
        }
        self.epoch += 1;
    }

    pub fn cordon(&mut self, ordinal: u32) -> String {
        self.set(ordinal, MemberState::Cordoned, None);
        format!("cordon {ordinal}")
    }

    pub fn uncordon(&mut self, ordinal: u32) -> String {
        self.set(ordinal, MemberState::Active, None);
        format!("uncordon {ordinal}")
    }

    pub fn drain(&mut self, ordinal: u32, intent: Intent) -> String {
        self.set(ordinal, MemberState::Leaving, Some(intent));
        format!("drain {ordinal} {}", intent.as_str())
    }

    pub fn forget(&mut self, ordinal: u32, kubernetes: &Kubernetes) -> String {
        assert!(!kubernetes.pods.contains_key(&ordinal), "{ordinal} is forgotten and has a pod");
        self.members.remove(&ordinal);
        self.epoch += 1;
        format!("forget {ordinal}")
    }

    pub fn settings(&mut self, live: Live) -> String {
        self.settings = Some(live.to_wire());
        self.epoch += 1;
        format!("settings factor {}", live.factor)
    }

    fn set(&mut self, ordinal: u32, state: MemberState, leaving: Option<Intent>) {
        if let Some(member) = self.members.get_mut(&ordinal) {
            (member.state, member.leaving) = (state, leaving);
            self.epoch += 1;
        }
    }

    pub fn held_by(&self, ordinal: u32) -> Vec<u32> {
        self.copies.iter().filter(|(_, holders)| holders.contains(&ordinal)).map(|(partition, _)| *partition).collect()
    }

    pub fn primaries(&self, ordinal: u32) -> u32 {
        self.copies.values().filter(|holders| holders.first() == Some(&ordinal)).count() as u32
    }

    pub fn is_empty(&self, ordinal: u32) -> bool {
        self.held_by(ordinal).is_empty()
    }

    pub fn is_serving(&self, ordinal: u32) -> bool {
        let serving = [MemberState::Active, MemberState::Cordoned, MemberState::Leaving];
        self.members.get(&ordinal).is_some_and(|member| member.running && serving.contains(&member.state))
    }

    pub fn is_active_or_leaving(&self, ordinal: u32) -> bool {
        self.is_serving(ordinal)
    }

    pub fn all_active(&self, wanted: u32) -> bool {
        self.members.len() as u32 == wanted && self.members.values().all(|member| member.state == MemberState::Active)
    }

    fn takers(&self) -> Vec<u32> {
        self.members
            .iter()
            .filter(|(_, m)| m.running && m.state == MemberState::Active)
            .map(|(ordinal, _)| *ordinal)
            .collect()
    }

    /// Members that may hold a copy of what these hold: a cordoned one takes nothing new.
    fn able_to_hold(&self, holders: &[u32]) -> usize {
        let may = self.members.iter().filter(|(ordinal, m)| match m.state {
            MemberState::Cordoned => holders.contains(ordinal),
            MemberState::Down => false,
            _ => m.leaving != Some(Intent::Depart),
        });
        may.count()
    }

    fn factor(&self, cluster: &CacheCluster) -> usize {
        self.settings.as_ref().map_or(cluster.spec.replication.factor as usize, |settings| settings.factor as usize)
    }

    /// Joining members become active; missing copies are built; leaving members hand over.
    pub fn tick(&mut self, cluster: &CacheCluster, kubernetes: &Kubernetes) {
        let can_boot =
            self.epoch > 0 && self.members.values().filter(|m| m.running).count() as u32 >= kubernetes.replicas();
        if self.copies.is_empty() && !can_boot {
            return;
        }
        if self.settings.is_none() {
            let replication = &cluster.spec.replication;
            self.settings = Some(LiveSettings {
                generation: 1,
                factor: replication.factor as u32,
                read_quorum: replication.read_quorum as u32,
                write_quorum: replication.write_quorum as u32,
                member_count_quorum: replication.member_count_quorum.to_wire(),
            });
        }
        for member in self.members.values_mut() {
            member.away_for += u32::from(member.state == MemberState::Away);
            let overdue = member.away_for > REJOIN_TIMEOUT;
            member.state = match member.state {
                MemberState::Joining => MemberState::Active,
                MemberState::Away if overdue => MemberState::Down,
                _ => continue,
            };
            self.epoch += 1;
        }
        let takers = self.takers();
        if self.copies.is_empty() && !takers.is_empty() {
            self.copies = (0..PARTITIONS).map(|p| (p, vec![takers[p as usize % takers.len()]])).collect();
        }
        for holders in self.copies.values_mut().filter(|holders| holders.is_empty()) {
            holders.extend(takers.first()); // what was lost is lost; the keys are served again, empty
        }
        let mut moves = SPEED;
        let factor = self.factor(cluster);
        let leaving: BTreeMap<u32, Intent> =
            self.members.iter().filter_map(|(ordinal, m)| Some((*ordinal, m.leaving.filter(|_| m.running)?))).collect();
        for (partition, holders) in &mut self.copies {
            rebuild(*partition, holders, factor, &takers, &leaving, &mut moves);
        }
        self.weigh();
    }

    fn weigh(&mut self) {
        let held: BTreeMap<u32, u64> = self.members.keys().map(|o| (*o, self.held_by(*o).len() as u64)).collect();
        let weight = self.weight;
        for (ordinal, member) in &mut self.members {
            member.bytes = held[ordinal] * weight;
        }
    }

    pub fn view(&self, answering: u32, cluster: &CacheCluster, kubernetes: &Kubernetes) -> StatusReply {
        let booted = !self.copies.is_empty();
        let factor = self.factor(cluster);
        let short = self.copies.values().filter(|holders| holders.len() < factor.min(self.able_to_hold(holders)));
        let short = short.count() as u32;
        let members =
            if booted { self.members.keys().map(|ordinal| self.summary(*ordinal)).collect() } else { Vec::new() };
        let own = self.members.get(&answering);
        StatusReply {
            member: member_name(answering),
            state: own.map_or(MemberState::Joining, |m| m.state).into(),
            ready: booted && kubernetes.is_ready(answering, self),
            cluster_id: "id".into(),
            epoch: if booted { self.epoch } else { 0 },
            settings: self.settings,
            members,
            totals: own.map(|m| Totals { bytes: m.bytes, max_bytes: m.max_bytes, ..Totals::default() }),
            partitions_short_of_copies: short,
            partitions_unavailable: self.copies.values().filter(|holders| holders.is_empty()).count() as u32,
            partitions: PARTITIONS,
            problems: self.problems.clone(),
            ..StatusReply::default()
        }
    }

    fn summary(&self, ordinal: u32) -> MemberSummary {
        let member = &self.members[&ordinal];
        let held = self.held_by(ordinal).len() as u32;
        let primaries = self.primaries(ordinal);
        let wire = |intent: Intent| match intent {
            Intent::Restart => WireIntent::Restart,
            Intent::Depart => WireIntent::Depart,
        };
        let drained = match member.leaving {
            Some(Intent::Depart) => held == 0,
            Some(Intent::Restart) => primaries == 0,
            None => false,
        };
        MemberSummary {
            name: member_name(ordinal),
            state: member.state.into(),
            leaving: member.leaving.map_or(WireIntent::Unspecified, wire).into(),
            reachable: member.running,
            primaries,
            backups: held - primaries,
            drained,
            epoch: self.epoch,
            totals: Some(Totals { bytes: member.bytes, max_bytes: member.max_bytes, ..Totals::default() }),
            ..MemberSummary::default()
        }
    }
}

/// One partition's copies a second later: missing ones are built on members that take, the leaving hand over.
fn rebuild(
    partition: u32,
    holders: &mut Vec<u32>,
    factor: usize,
    takers: &[u32],
    leaving: &BTreeMap<u32, Intent>,
    moves: &mut usize,
) {
    if holders.is_empty() || takers.is_empty() {
        return;
    }
    let departing = |holder: &u32| leaving.get(holder) == Some(&Intent::Depart);
    let restarting = |holder: &u32| leaving.get(holder) == Some(&Intent::Restart);
    let staying = holders.iter().filter(|holder| !departing(holder)).count();
    let alone = holders.len() == 1 && restarting(&holders[0]);
    let free =
        takers.iter().cycle().skip(partition as usize % takers.len()).take(takers.len()).find(|t| !holders.contains(t));
    if (staying < factor || alone) && *moves > 0 {
        if let Some(free) = free {
            holders.push(*free);
            *moves -= 1;
        } else if let Some(at) = holders.iter().position(departing).filter(|_| holders.len() > 1) {
            holders.remove(at); // as many copies as nodes: this one is given up
        }
    } else if let Some(at) = holders.iter().position(departing).filter(|_| holders.len() > 1 && *moves > 0) {
        holders.remove(at);
        *moves -= 1;
    } else if holders.len() > factor && !restarting(&holders[holders.len() - 1]) {
        holders.pop();
    }
    if leaving.contains_key(&holders[0])
        && let Some(at) = holders.iter().position(|holder| !leaving.contains_key(holder)).filter(|_| *moves > 0)
    {
        holders.swap(0, at);
        *moves -= 1;
    }
}
