//! With factor 3 and R = W = 2 every key behaves as if there were one copy of it: its operations have one order that
//! explains all answers.

use super::Finding;
use crate::{
    linearizability::{Operation, Verdict, check as search},
    registers::Registers,
};

pub(crate) const NAME: &str = "linearizable";

pub(crate) fn check(registers: &Registers) -> Option<Finding> {
    registers.keys.iter().find_map(|(key, operations)| match search(operations) {
        Verdict::Linearizable => None,
        Verdict::Refuted => {
            let text = format!("no order of operations explains the answers of number:{key}: {}", story(operations));
            Some(Finding::new(NAME, text))
        }
        Verdict::Undecided => Some(Finding::new("undecided", format!("too many orders of number:{key} to try"))),
    })
}

fn story(operations: &[Operation]) -> String {
    let line = |operation: &Operation| match operation.answered {
        Some((at, value)) => format!("{}..{at} {:?} -> {value:?}", operation.asked, operation.command),
        None => format!("{}.. {:?}", operation.asked, operation.command),
    };
    operations.iter().map(line).collect::<Vec<_>>().join(", ")
}
