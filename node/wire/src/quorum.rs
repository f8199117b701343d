//! Quorum rules: how many members must agree, and what a combination of numbers promises.
//!
//! Requirements A14 to A18; rules T3, Q1 to Q3 and W2 of the protocol.

use serde::{Deserialize, Serialize};

/// Voters that must be reachable for any read or write (`member_count_quorum`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberQuorum {
    /// A majority from three voters up, 1 below: with two voters a majority would survive no failure.
    #[default]
    Auto,
    /// A fixed number of voters, at least 1.
    Fixed(u32),
}

impl MemberQuorum {
    /// The number that holds for a cluster of `voters`.
    pub fn resolve(self, voters: u32) -> u32 {
        match self {
            Self::Auto if voters >= 3 => voters / 2 + 1,
            Self::Auto => 1,
            Self::Fixed(n) => n.max(1),
        }
    }

    /// As the admin service carries it: 0 is auto.
    pub fn to_wire(self) -> u32 {
        match self {
            Self::Auto => 0,
            Self::Fixed(n) => n,
        }
    }

    /// The reverse of [`MemberQuorum::to_wire`].
    pub fn from_wire(n: u32) -> Self {
        if n == 0 { Self::Auto } else { Self::Fixed(n) }
    }
}

impl Serialize for MemberQuorum {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => to.serialize_str("auto"),
            Self::Fixed(n) => to.serialize_u32(*n),
        }
    }
}

impl<'de> Deserialize<'de> for MemberQuorum {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Number(u32),
            Word(String),
        }
        match Raw::deserialize(from)? {
            Raw::Number(n) if n >= 1 => Ok(Self::Fixed(n)),
            Raw::Word(word) if word == "auto" => Ok(Self::Auto),
            Raw::Number(n) => {
                Err(serde::de::Error::custom(format!("member_count_quorum: {n} must be at least 1, or auto")))
            }
            Raw::Word(word) => {
                Err(serde::de::Error::custom(format!("member_count_quorum: '{word}' must be a number or auto")))
            }
        }
    }
}

/// What reads and writes promise together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posture {
    /// A read may miss the newest write after a failure (R + W at most the factor).
    Eventual,
    /// Every read sees the newest acknowledged write, and one copy may be lost (R + W above the factor, both below it).
    Majority,
    /// As majority, and every copy takes part in reads or in writes: no copy may be missing.
    Strong,
}

impl Posture {
    /// The posture of `factor` copies with `read` and `write` quorum.
    pub fn of(factor: u32, read: u32, write: u32) -> Self {
        if read + write <= factor {
            Self::Eventual
        } else if factor > 1 && (read == factor || write == factor) {
            Self::Strong
        } else {
            Self::Majority
        }
    }

    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Majority => "majority",
            Self::Strong => "strong",
        }
    }
}

/// The numbers that quorum rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorums {
    /// Members of the cluster.
    pub members: u32,
    /// Copies of each key.
    pub factor: u32,
    /// Copies that confirm a read.
    pub read: u32,
    /// Copies that hold a write before it is acknowledged.
    pub write: u32,
    /// Voters that must be reachable.
    pub member_count: MemberQuorum,
}

impl Quorums {
    /// Combinations that work but cannot survive what a reader of the numbers would expect. Each is one sentence
    /// with the way out.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let quorum = self.member_count.resolve(self.members);
        if self.members > 1 && quorum >= self.members {
            warnings.push(format!(
                "{} members with a member quorum of {quorum} survive no failure; set it to auto, or add members",
                self.members
            ));
        }
        if self.members == 2 && quorum == 1 {
            warnings.push(
                "two members with a member quorum of 1 both go on when they cannot reach each other, and one side's \
                 writes are discarded afterwards; use three members"
                    .to_owned(),
            );
        }
        if self.factor == 1 && self.members > 1 {
            warnings.push("a factor of 1 loses the keys of every member that fails; set it to 2 or more".to_owned());
        }
        if self.factor > 1 && self.write == self.factor && self.members == self.factor {
            warnings.push(format!(
                "a write quorum of {} with {} members refuses writes while any member is away; lower it or add a member",
                self.write, self.members
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_a_majority_from_three_up_and_one_below() {
        let resolved: Vec<u32> = (1..=7).map(|n| MemberQuorum::Auto.resolve(n)).collect();
        assert_eq!(resolved, [1, 1, 2, 3, 3, 4, 4]);
        assert_eq!(MemberQuorum::Fixed(2).resolve(5), 2);
    }

    #[test]
    fn the_seeds_three_layouts_have_the_postures_they_claim() {
        assert_eq!(Posture::of(2, 1, 1), Posture::Eventual);
        assert_eq!(Posture::of(3, 2, 2), Posture::Majority);
        assert_eq!(Posture::of(3, 1, 3), Posture::Strong);
        assert_eq!(Posture::of(1, 1, 1), Posture::Majority);
    }

    #[test]
    fn two_members_that_need_both_survive_no_failure() {
        let quorums = Quorums { members: 2, factor: 2, read: 1, write: 1, member_count: MemberQuorum::Fixed(2) };
        assert!(quorums.warnings()[0].contains("survive no failure"));
        let three = Quorums { members: 3, factor: 2, read: 1, write: 1, member_count: MemberQuorum::Auto };
        assert!(three.warnings().is_empty());
    }
}
