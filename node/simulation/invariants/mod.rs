//! What must never happen, one file each.

pub(crate) mod copies_are_equal;
pub(crate) mod copies_come_back;
pub(crate) mod linearizable;
pub(crate) mod no_acknowledged_write_lost;
pub(crate) mod no_miss_by_a_move;
pub(crate) mod no_old_value_returns;
pub(crate) mod no_read_goes_back;
pub(crate) mod one_primary_an_epoch;
pub(crate) mod one_table;
pub(crate) mod only_own_values;
pub(crate) mod planned_moves_are_not_felt;
pub(crate) mod planned_moves_lose_nothing;
pub(crate) mod predecessor_is_silent;
pub(crate) mod within_limits;

use crate::{
    ledger::{Entry, Name, Read, Rules},
    shape::Class,
};

/// An invariant that did not hold.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    /// Name of the invariant: its file.
    pub(crate) invariant: &'static str,
    pub(crate) text: String,
}

/// What the table of figures counts a finding as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lost,
    Wrong,
    Stale,
}

impl Finding {
    pub(crate) fn new(invariant: &'static str, text: String) -> Self {
        Self { invariant, text }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.invariant {
            no_acknowledged_write_lost::NAME | no_miss_by_a_move::NAME | planned_moves_lose_nothing::NAME => Kind::Lost,
            no_old_value_returns::NAME | no_read_goes_back::NAME | linearizable::NAME | predecessor_is_silent::NAME => {
                Kind::Stale
            }
            _ => Kind::Wrong,
        }
    }
}

/// What is wrong with an answer, if anything. `values` tells since when values say anything: a cluster that fell in
/// two, or lost its memory of tables, may be right about nothing but whose a value is, until it is one again.
pub(crate) fn judge(
    name: Name,
    entry: &Entry,
    read: &Read,
    (class, values): (Class, u64),
    rules: &Rules,
) -> Option<Finding> {
    if let Some(finding) = only_own_values::check(name, entry, read) {
        return Some(finding);
    }
    if values > 0 {
        return no_read_goes_back::check(name, entry, read, values, rules);
    }
    let loss = match class {
        Class::Moves if read.last => planned_moves_lose_nothing::check(name, entry, read, rules),
        Class::Moves => no_miss_by_a_move::check(name, entry, read, rules),
        _ => no_acknowledged_write_lost::check(name, entry, read, rules),
    };
    loss.or_else(|| no_old_value_returns::check(name, entry, read, rules))
        .or_else(|| no_read_goes_back::check(name, entry, read, 0, rules))
}
