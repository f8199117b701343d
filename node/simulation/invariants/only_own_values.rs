//! A value of another key or map is never returned, nor one of a write that was said not to be executed.

use super::Finding;
use crate::ledger::{Entry, Found, Name, Outcome, Read};

pub(crate) const NAME: &str = "only_own_values";

pub(crate) fn check(name: Name, entry: &Entry, read: &Read) -> Option<Finding> {
    let what = match read.found {
        Found::Nothing => return None,
        Found::Foreign => "a value that is not its own",
        Found::Value(number) => match entry.write(number).map(|write| write.outcome) {
            None => "a value that nobody wrote",
            Some(Outcome::Refused) => "a value whose write was refused",
            Some(_) => return None,
        },
    };
    Some(Finding::new(NAME, format!("{name:?} returns {what}: {read:?}")))
}
