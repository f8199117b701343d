//! What a simulated cluster is made of, and what it promises under which faults.

use mizuya_wire::quorum::MemberQuorum;
use rand::{RngExt, rngs::StdRng};

/// Members, copies and quorums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) members: usize,
    pub(crate) factor: u32,
    pub(crate) read_quorum: u32,
    pub(crate) write_quorum: u32,
    pub(crate) member_quorum: MemberQuorum,
    /// The failure detector that ships, over datagrams that get lost; else verdicts that come when they like.
    pub(crate) gossip: bool,
    /// Budget of all entries of one member.
    pub(crate) max_bytes: u64,
    /// About how many bytes of messages one frame carries: when few, copies are built in many chunks.
    pub(crate) frame_bytes: usize,
    /// Hot remote keys are mirrored, and every key that is read is hot.
    pub(crate) mirrors: bool,
    /// What primaries say of changes to those who mirror them is lost.
    pub(crate) deaf_mirrors: bool,
}

/// How long a mirror lives.
pub(crate) const MIRROR: u64 = 100;

/// No memory limit that matters here.
pub(crate) const ROOMY: u64 = 1 << 30;

impl Shape {
    /// Three members with the quorums that follow by themselves.
    pub(crate) const THREE: Self = Self {
        members: 3,
        factor: 2,
        read_quorum: 1,
        write_quorum: 1,
        member_quorum: MemberQuorum::Auto,
        gossip: false,
        max_bytes: ROOMY,
        frame_bytes: 64 << 10,
        mirrors: false,
        deaf_mirrors: false,
    };

    fn random(rng: &mut StdRng, class: Class) -> Self {
        let members = match (class, rng.random_range(0..20)) {
            (Class::Divided, _) => rng.random_range(1..=2),
            (Class::Beyond, 0) => 1,
            (Class::Moves, 0..4) | (Class::Beyond, 1..3) => 2,
            (_, 0..14) => 3,
            (_, 14..17) => 4,
            _ => 5,
        };
        let copies = match class {
            Class::Strong => 3,
            Class::Promise => rng.random_range(2..=3),
            _ => rng.random_range(1..=3),
        };
        let factor = copies.min(members as u32);
        let write_quorum = match class {
            Class::Strong => 2,
            Class::Promise => rng.random_range(2..=factor),
            _ => rng.random_range(1..=factor),
        };
        let two_of_two = members == 2 && class == Class::Beyond && rng.random_bool(0.5);
        Self {
            members,
            factor,
            read_quorum: if class == Class::Strong { 2 } else { rng.random_range(1..=factor) },
            write_quorum,
            member_quorum: if two_of_two { MemberQuorum::Fixed(2) } else { MemberQuorum::Auto },
            gossip: rng.random_ratio(1, 4),
            max_bytes: if class != Class::Strong && rng.random_ratio(1, 10) { 2_000 } else { ROOMY },
            frame_bytes: if rng.random_bool(0.5) { 300 } else { 64 << 10 },
            mirrors: false,
            deaf_mirrors: false,
        }
    }

    /// Whether a read may be answered with what was so a moment ago.
    pub(crate) fn is_mirrored(&self) -> bool {
        self.mirrors && self.read_quorum == 1
    }
}

/// What a history does to its cluster, and so what may be expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Planned moves only: nothing is lost and no key is missed, whatever the quorums.
    Moves,
    /// At most W − 1 members are out at once, M above half: nothing is lost, and no partition starts empty.
    Promise,
    /// As `Promise`, with factor 3 and R = W = 2: every key's history is linearizable.
    Strong,
    /// Anything: a partition may start empty when the table says so; whatever stays must still be right.
    Beyond,
    /// M at most half, and the network falls apart: both sides go on, and one of them wins.
    Divided,
}

impl Class {
    pub(crate) const ALL: [Self; 5] = [Self::Moves, Self::Promise, Self::Strong, Self::Beyond, Self::Divided];

    pub(crate) fn draw(rng: &mut StdRng) -> (Self, Shape) {
        let class = match rng.random_range(0..20) {
            0..5 => Self::Moves,
            5..10 => Self::Promise,
            10..13 => Self::Strong,
            13..19 => Self::Beyond,
            _ => Self::Divided,
        };
        (class, Shape::random(rng, class))
    }

    /// Whether no more may be out at once than the promise allows.
    pub(crate) fn is_bounded(self) -> bool {
        matches!(self, Self::Promise | Self::Strong)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Moves => "planned moves",
            Self::Promise => "W - 1 out at once",
            Self::Strong => "factor 3, R = W = 2",
            Self::Beyond => "anything",
            Self::Divided => "M at most half",
        }
    }
}
