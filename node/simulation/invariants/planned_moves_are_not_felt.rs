//! While members join, leave and are restarted as planned, no command is refused: it waits, and is answered in time.

use super::Finding;
use crate::shape::Class;

pub(crate) const NAME: &str = "planned_moves_are_not_felt";

/// What does not come of a move: a stream that broke under a command, fewer members than a quorum asks for, a node that is
/// no member yet.
const OTHER: [&str; 4] = ["OUTCOMEUNKNOWN", "READQUORUM", "WRITEQUORUM", "LOADING"];

pub(crate) fn check(class: Class, what: &str, refusal: &str) -> Option<Finding> {
    let felt = class == Class::Moves && !OTHER.iter().any(|word| refusal.starts_with(word));
    felt.then(|| Finding::new(NAME, format!("{what} is refused: {refusal}")))
}
