//! Clients of the strong posture: numbers, of which each key's history must be linearizable.

use std::collections::BTreeMap;

use bytes::Bytes;
use mizuya_node::logic::resp::Reply;
use rand::{RngExt, rngs::StdRng};

use crate::linearizability::{Command, Operation, Value};

/// Keys that hold numbers: few, so that operations meet.
const KEYS: u32 = 4;
/// Values that are set lie so far apart that increments do not reach the next one.
const APART: i64 = 1_000_000;

/// Every key's operations.
#[derive(Default)]
pub(crate) struct Registers {
    pub(crate) keys: BTreeMap<u32, Vec<Operation>>,
    next_value: i64,
}

/// Where an operation is kept: its key and its place.
pub(crate) type Place = (u32, usize);

impl Registers {
    /// A client asks for something.
    pub(crate) fn asks(&mut self, now: u64, rng: &mut StdRng) -> (Place, Command) {
        self.next_value += APART;
        let value = self.next_value;
        let command = match rng.random_range(0..20) {
            0..8 => Command::Get,
            8..11 => Command::Set(value),
            11..13 => Command::Delete,
            13..16 => Command::Increment,
            16..18 => Command::SetIfAbsent(value),
            _ => Command::Exchange(value),
        };
        let key = rng.random_range(0..KEYS);
        (self.ask(key, command, now), command)
    }

    pub(crate) fn ask(&mut self, key: u32, command: Command, asked: u64) -> Place {
        let operations = self.keys.entry(key).or_default();
        operations.push(Operation { command, asked, answered: None });
        (key, operations.len() - 1)
    }

    fn at(&mut self, (key, place): Place) -> &mut Operation {
        &mut self.keys.get_mut(&key).expect("a key that was asked for")[place]
    }

    pub(crate) fn answered(&mut self, place: Place, now: u64, reply: &Reply) {
        let operation = self.at(place);
        operation.answered = Some((now, value(operation.command, reply)));
    }

    /// It was not executed: as if a read of no interest had been made.
    pub(crate) fn refused(&mut self, place: Place) {
        self.at(place).command = Command::Get;
    }
}

pub(crate) fn words(key: u32, command: Command) -> Vec<Bytes> {
    let word = |text: &'static str| Bytes::from_static(text.as_bytes());
    let (key, number) = (Bytes::from(format!("number:{key}")), |value: i64| Bytes::from(value.to_string()));
    match command {
        Command::Get => vec![word("GET"), key],
        Command::Set(value) => vec![word("SET"), key, number(value)],
        Command::Delete => vec![word("DEL"), key],
        Command::Increment => vec![word("INCR"), key],
        Command::SetIfAbsent(value) => vec![word("SETNX"), key, number(value)],
        Command::Exchange(value) => vec![word("GETSET"), key, number(value)],
    }
}

fn value(command: Command, reply: &Reply) -> Value {
    match (command, reply) {
        (Command::Set(_), Reply::Simple("OK")) => None,
        // An answer that fits no command refutes the history.
        (Command::Set(_), _) => Some(i64::MIN),
        (_, Reply::Integer(number)) => Some(*number),
        (_, Reply::Bulk(bytes)) => {
            Some(std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(i64::MIN))
        }
        (_, Reply::Nil) => None,
        _ => Some(i64::MIN),
    }
}
