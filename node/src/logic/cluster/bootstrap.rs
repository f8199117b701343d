//! How a node gets its first table: by joining, or by starting a cluster (rule T4).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    member::{Generation, Member, MemberId, MemberName, State},
    message::{Hello, Refusal},
    next_table::first_table,
    table::{Assignment, ClusterId, Epoch, Live, Table},
};
use crate::logic::clock::Millis;

/// Version of the peer protocol that this program speaks.
pub const PROTOCOL: u32 = 1;
/// How long a hello counts as the present state of its sender, in milliseconds.
const HELLO_FRESH: u64 = 3000;

/// A hello, and when it came.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What was said.
    pub hello: Hello,
    /// When.
    pub at: Millis,
    /// When this start was first heard.
    pub since: Millis,
}

impl Heard {
    /// Whether it still tells how its sender is.
    pub fn is_fresh(&self, now: Millis) -> bool {
        now.since(self.at) <= HELLO_FRESH
    }
}

/// Why a hello cannot be accepted, from the view of a node that would say `own` itself.
pub fn mismatch(own: &Hello, other: &Hello) -> Option<Refusal> {
    let differs = |code: &str, what: &str, theirs: &str, ours: &str| {
        Some(Refusal {
            code: code.to_owned(),
            message: format!(
                "{} has {what} {theirs}, {} has {ours}: all members need the same; correct it on one of them and restart it",
                other.name, own.name
            ),
        })
    };
    if own.protocol != other.protocol {
        return differs("ProtocolMismatch", "peer protocol", &other.protocol.to_string(), &own.protocol.to_string());
    }
    if own.cluster_name != other.cluster_name {
        return differs("ClusterNameMismatch", "cluster_name", &other.cluster_name, &own.cluster_name);
    }
    if own.environment != other.environment {
        return differs("EnvironmentMismatch", "environment", &other.environment, &own.environment);
    }
    if own.default_map != other.default_map {
        return differs("DefaultMapMismatch", "dmap_name", &other.default_map, &own.default_map);
    }
    if own.peer_port != other.peer_port || own.client_port != other.client_port {
        let ports = |hello: &Hello| format!("{} and {}", hello.client_port, hello.peer_port);
        return differs("PortMismatch", "client and gossip port", &ports(other), &ports(own));
    }
    if own.partitions != other.partitions {
        return differs("PartitionsMismatch", "partitions", &other.partitions.to_string(), &own.partitions.to_string());
    }
    if own.table.is_none() && other.table.is_none() && own.factor != other.factor {
        return differs("FactorMismatch", "replica_count", &other.factor.to_string(), &own.factor.to_string());
    }
    None
}

/// What a node knows when it asks itself whether to start a cluster.
#[derive(Debug)]
pub struct Beginning<'a> {
    /// What it would say of itself.
    pub own: &'a Hello,
    /// Names of the configured peers, itself left out.
    pub peers: &'a [MemberName],
    /// The newest hello of everyone.
    pub heard: &'a BTreeMap<MemberName, Heard>,
    /// Time since it started, and how long the first peer waits before it starts alone, in milliseconds.
    pub waited: (u64, u64),
    /// Now.
    pub now: Millis,
    /// Live settings of the new cluster.
    pub live: Live,
}

impl Beginning<'_> {
    fn fresh(&self, name: &MemberName) -> Option<&Hello> {
        self.heard.get(name).filter(|heard| heard.is_fresh(self.now)).map(|heard| &heard.hello)
    }

    /// Everyone who starts the cluster, this node first, if it is this node that starts it.
    pub fn founders(&self) -> Option<Vec<&Hello>> {
        let everyone: Vec<&Hello> = self.heard.keys().filter_map(|name| self.fresh(name)).collect();
        if everyone.iter().any(|hello| hello.table.is_some()) {
            return None;
        }
        let first = self.peers.iter().chain(everyone.iter().map(|hello| &hello.name)).all(|name| self.own.name < *name);
        if !first {
            return None;
        }
        let complete = self.peers.iter().all(|peer| self.fresh(peer).is_some());
        let alone = everyone.is_empty()
            && self.waited.0 >= self.waited.1
            && self.live.member_quorum.resolve(self.peers.len() as u32 + 1) == 1;
        if !complete && !alone {
            return None;
        }
        Some(std::iter::once(self.own).chain(everyone).collect())
    }

    /// The configured peers that have not answered yet.
    pub fn missing(&self) -> Vec<&MemberName> {
        self.peers.iter().filter(|peer| self.fresh(peer).is_none()).collect()
    }

    /// The highest table that a founder's volume remembers: its cluster goes on.
    pub fn remembered(founders: &[&Hello]) -> Option<Arc<Table>> {
        let tables = founders.iter().filter_map(|hello| hello.memory.table.as_ref());
        tables.max_by_key(|table| table.epoch).cloned()
    }

    /// The first table for these founders: of a new cluster, or of the one that `former` was the last table of. There
    /// they are new starts, and every partition still names whose copies were in sync last (rule S1). `wall` is Unix
    /// time in seconds.
    pub fn table(
        &self,
        founders: &[&Hello],
        former: Option<&Table>,
        cluster: ClusterId,
        wall: u64,
        hash_seed: u64,
    ) -> Table {
        let first = former.map_or(1, |former| former.next_member);
        let member = |(number, hello): (usize, &&Hello)| Member {
            id: MemberId(number as u32 + first),
            name: hello.name.clone(),
            generation: hello.generation,
            state: State::Active,
            client_port: hello.client_port,
            peer_port: hello.peer_port,
            zone: hello.zone.clone(),
        };
        let counter = former.map_or(wall, |former| wall.max(former.epoch.counter + 1));
        let mut table = Table {
            cluster,
            epoch: Epoch { counter, proposer: self.own.generation.0 },
            hash_seed,
            live: self.live,
            quorum: 1,
            next_member: founders.len() as u32 + first,
            members: founders.iter().enumerate().map(member).collect(),
            partitions: vec![Assignment::default(); usize::from(self.own.partitions)],
        };
        let Some(former) = former else { return first_table(table) };
        (table.cluster, table.hash_seed) = (former.cluster, former.hash_seed);
        if former.live.generation > table.live.generation {
            table.live = former.live;
        }
        table.quorum = table.wanted_quorum();
        let ended = |assignment: &Assignment| Assignment { from: None, ..assignment.clone() };
        table.partitions = former.partitions.iter().map(ended).collect();
        table
    }
}

/// Whether a hello tells of a start that is not the one in the table.
pub fn replaces(table: &Table, hello: &Hello) -> Option<(MemberId, Generation)> {
    let member = table.named(&hello.name)?;
    (hello.joining && hello.table.is_none() && member.generation != hello.generation)
        .then_some((member.id, hello.generation))
}
