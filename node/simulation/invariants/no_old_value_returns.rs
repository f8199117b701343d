//! Once a newer write or a removal was acknowledged, the value before it is not read again; nor is one whose time is over.

use super::Finding;
use crate::ledger::{Entry, Found, Name, Read, Rules, Write};

pub(crate) const NAME: &str = "no_old_value_returns";

pub(crate) fn check(name: Name, entry: &Entry, read: &Read, rules: &Rules) -> Option<Finding> {
    let Found::Value(number) = read.found else { return None };
    let there_by = entry.there_by(number);
    let known = |w: &&Write| w.acknowledged().is_some_and(|at| rules.knows(read, at, w.through));
    let newer = entry.writes.iter().filter(known).find(|w| w.asked > there_by);
    if let Some(newer) = newer {
        let what = if newer.value.is_some() { "an old value" } else { "a deleted key" };
        return Some(Finding::new(NAME, format!("{what} of {name:?} returns: {read:?} after {newer:?}")));
    }
    let ttl = entry.write(number).and_then(|write| write.ttl)?;
    let over = there_by.saturating_add(ttl + ttl / 100 + rules.overtime);
    (read.asked > over)
        .then(|| Finding::new(NAME, format!("{name:?} should have expired at {over} at the latest: {read:?}")))
}
