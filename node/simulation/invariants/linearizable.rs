//! With factor 3 and R = W = 2 every key behaves as if there were one copy of it: its operations have one order that
//! explains all answers.

use std::{fs::OpenOptions, io::Write};

use serde_json::{Value, json};

use super::Finding;
use crate::{
    linearizability::{Command, Operation, Verdict, check as search},
    registers::Registers,
};

/// Names a file to which every key's history is added for another checker (`porcupine/main.go`).
const RECORD: &str = "MIZUYA_RECORD";

pub(crate) const NAME: &str = "linearizable";

pub(crate) fn check(registers: &Registers) -> Option<Finding> {
    if let Some(path) = std::env::var_os(RECORD) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file for histories");
        for operations in registers.keys.values() {
            let both = [Some(recorded(operations, false)), spoiled(operations).map(|wrong| recorded(&wrong, true))];
            for line in both.into_iter().flatten() {
                file.write_all(format!("{line}\n").as_bytes()).expect("room for histories");
            }
        }
    }
    registers.keys.iter().find_map(|(key, operations)| match search(operations) {
        Verdict::Linearizable => None,
        Verdict::Refuted => {
            let text = format!("no order of operations explains the answers of number:{key}: {}", story(operations));
            Some(Finding::new(NAME, text))
        }
        Verdict::Undecided => Some(Finding::new("undecided", format!("too many orders of number:{key} to try"))),
    })
}

fn recorded(operations: &[Operation], spoiled: bool) -> Value {
    let line = |operation: &Operation| {
        let (command, value) = match operation.command {
            Command::Get => ("get", 0),
            Command::Set(value) => ("set", value),
            Command::Delete => ("delete", 0),
            Command::Increment => ("increment", 0),
            Command::SetIfAbsent(value) => ("set if absent", value),
            Command::Exchange(value) => ("exchange", value),
        };
        let (answered, answer) = operation.answered.unzip();
        json!({
            "command": command,
            "value": value,
            "asked": operation.asked,
            "answered": answered,
            "answer": answer.flatten(),
        })
    };
    let verdict = format!("{:?}", search(operations));
    let operations: Vec<Value> = operations.iter().map(line).collect();
    json!({ "verdict": verdict, "spoiled": spoiled, "operations": operations })
}

/// The same history with one answer that is wrong: both checkers must say so of most of them.
fn spoiled(operations: &[Operation]) -> Option<Vec<Operation>> {
    let mut operations = operations.to_vec();
    let told = operations.iter_mut().rev().filter_map(|operation| operation.answered.as_mut());
    let (_, value) = told.into_iter().find(|(_, value)| value.is_some())?;
    *value = value.map(|value| value + 1);
    Some(operations)
}

fn story(operations: &[Operation]) -> String {
    let line = |operation: &Operation| match operation.answered {
        Some((at, value)) => format!("{}..{at} {:?} -> {value:?}", operation.asked, operation.command),
        None => format!("{}.. {:?}", operation.asked, operation.command),
    };
    operations.iter().map(line).collect::<Vec<_>>().join(", ")
}
