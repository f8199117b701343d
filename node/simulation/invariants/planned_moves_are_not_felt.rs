//! While members join, leave and are restarted as planned, no command is refused: it waits, and is answered in time.

use super::Finding;
use crate::{cluster::Cluster, faults::BROKEN_STREAM, shape::Class};

pub(crate) const NAME: &str = "planned_moves_are_not_felt";

/// What else a refusal may come of: a stream that broke (whoever waits for its answer waits long), fewer members than a
/// quorum asks for, a node that is no member yet.
pub(crate) fn check(cluster: &Cluster, what: &str, refusal: &str) -> Option<Finding> {
    let other = ["OUTCOMEUNKNOWN", "READQUORUM", "WRITEQUORUM", "LOADING"];
    let planned = cluster.class == Class::Moves && !cluster.figures.faults.contains_key(BROKEN_STREAM);
    let felt = planned && !other.iter().any(|word| refusal.starts_with(word));
    felt.then(|| Finding::new(NAME, format!("{what} is refused: {refusal}")))
}
