//! Members of a cluster.

use std::{fmt, sync::Arc};

/// A member's stable DNS name, without a port. A pod keeps it over restarts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName(pub Arc<str>);

impl MemberName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for MemberName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One start of a member's process: random, so that two starts differ (rule T6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// Number that the table gives to one start of a member when it joins; later joiners have higher ones (rules T5, T6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Why a member leaves (rule L1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// It comes back: primaries move away, copies are not rebuilt.
    Restart,
    /// It does not come back: every copy is rebuilt elsewhere first.
    Depart,
}

/// State of a member in the table (rule T7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Known, but without a vote until it has the table in force.
    Joining,
    /// Takes partitions, votes.
    Active,
    /// Keeps what it has, takes nothing new, votes.
    Cordoned,
    /// Hands over what its intent says, votes.
    Leaving(Intent),
    /// Left for a restart and is expected back under the same name; counts as a voter, has no vote.
    Away,
    /// Declared down by the failure detector; counts as a voter, has no vote.
    Down,
}

impl State {
    /// Whether the member's process is believed to run.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Joining | Self::Active | Self::Cordoned | Self::Leaving(_))
    }

    /// Whether the member counts towards the quorum's size (rule T6).
    pub fn is_voter(self) -> bool {
        self != Self::Joining
    }
}

/// One member in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Number given at joining.
    pub id: MemberId,
    /// Stable DNS name.
    pub name: MemberName,
    /// Which start of the process it is.
    pub generation: Generation,
    /// State.
    pub state: State,
    /// Port of clients.
    pub client_port: u16,
    /// Port of peers (TCP) and gossip (UDP).
    pub peer_port: u16,
    /// Zone for placement; empty when unknown.
    pub zone: String,
}
