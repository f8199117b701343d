//! A read that begins after another one ended does not find something older. Where both sides of a divided network went
//! on, that holds again once the cluster is one.

use super::Finding;
use crate::ledger::{Entry, Found, Name, Read, Rules, Write};

pub(crate) const NAME: &str = "no_read_goes_back";

/// With a read quorum of 1 a value may be read before it is acknowledged, and then be lost.
fn may_be_taken_back(write: &Write, rules: &Rules) -> bool {
    rules.read_quorum <= 1 && write.acknowledged().is_none()
}

/// `since`: reads before that say nothing.
pub(crate) fn check(name: Name, entry: &Entry, read: &Read, since: u64, rules: &Rules) -> Option<Finding> {
    let earlier = entry.reads.iter().filter(|earlier| earlier.asked >= since);
    let knows = |earlier: &&Read| rules.knows(read, earlier.answered, earlier.through);
    let earlier = earlier.filter(|earlier| earlier.found != read.found).filter(knows);
    for seen in earlier {
        let Found::Value(number) = seen.found else { continue };
        let Some(write) = entry.write(number).filter(|write| !may_be_taken_back(write, rules)) else { continue };
        let back = match read.found {
            Found::Nothing => !entry.may_be_gone(write, read.answered, rules),
            Found::Value(found) => entry.there_by(found) < write.asked || alternates(entry, found, seen, rules),
            Found::Foreign => false,
        };
        if back {
            return Some(Finding::new(NAME, format!("{name:?} goes back: {read:?} after {seen:?}")));
        }
    }
    None
}

/// Whether `found` had already been read before `seen` was: it cannot come after it once more.
fn alternates(entry: &Entry, found: u64, seen: &Read, rules: &Rules) -> bool {
    let before = |first: &&Read| rules.knows(seen, first.answered, first.through);
    entry.reads.iter().filter(before).any(|first| first.found == Found::Value(found))
}
