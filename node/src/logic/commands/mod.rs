//! Commands: from the words of a client to a reply and the changes of a partition.
//!
//! [`route`] says where a command goes, [`access`] what it needs there, and [`execute`] runs it on one partition without
//! changing it: the changes are returned for the partition's stream. Commands that are about a connection or
//! the whole server are only named here ([`table`]); the client port answers them.

// All commands have one form, those too that cannot fail.
#![allow(clippy::unnecessary_wraps)]

mod call;
mod errors;
mod expiry;
pub mod glob;
mod keys;
mod long_double;
mod named_maps;
mod numbers;
pub mod route;
pub mod scan;
mod set_options;
mod strings;
pub mod table;

use bytes::Bytes;
use smallvec::SmallVec;

pub use self::route::{MAX_KEY_BYTES, Merge, Route, for_one_key, partition, route};
use self::{
    call::Call,
    table::{Command, Place},
};
use crate::logic::{
    clock::{Clock, Millis},
    resp::{Reply, Straight},
    store::{Change, Key, Spot, Store, Value},
};

/// Longest value, the same as the longest word of a request.
pub const MAX_VALUE_BYTES: usize = 64 << 20;

/// What a command may know beside its words and the partition.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Time of the execution.
    pub clock: Clock,
    /// A random number, fresh for each execution.
    pub random: u64,
    /// Map of the commands that Redis knows (requirement A11).
    pub default_map: &'a Bytes,
    /// Where the second word stands in the default map, if it is a key of it and that was found out.
    pub spot: Option<Spot>,
}

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Changes nothing.
    Read,
    /// May change something.
    Write,
}

/// Words of a command, its name first, where they were read.
pub type Words<'a> = [&'a [u8]];

/// Changes of one command; most make one, which takes no memory of its own.
pub type Changes<'a> = SmallVec<[Change<'a>; 1]>;

/// Words that are kept, as [`execute`] takes them.
pub fn words_of<W: AsRef<[u8]>>(kept: &[W]) -> SmallVec<[&[u8]; 8]> {
    kept.iter().map(AsRef::as_ref).collect()
}

/// Words for themselves, to be kept.
pub fn kept(words: &Words<'_>) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word)).collect()
}

/// The words of a command, to be kept: its name costs nothing.
pub fn kept_with_name(command: &Command, words: &Words<'_>) -> Vec<Bytes> {
    let name = Bytes::from_static(command.name.as_bytes());
    std::iter::once(name).chain(words.iter().skip(1).map(|word| Bytes::copy_from_slice(word))).collect()
}

/// What a command did, beside its reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done<'a> {
    /// To be made in this order; empty: nothing changes.
    pub changes: Changes<'a>,
    /// Keys read that were there.
    pub hits: u32,
    /// Keys read that were not.
    pub misses: u32,
}

/// What a command needs. Words that no command has are a read: their execution only answers an error.
pub fn access(words: &[Bytes]) -> Access {
    words.first().and_then(|name| table::find(name)).map_or(Access::Read, |command| command.access)
}

/// Executes a command, whose words fit it, on one partition, and returns its reply. Changes nothing but the marks of use:
/// the caller makes the changes that are in `done` afterwards; an error leaves none. Commands that only answer values write
/// them `straight` where they may, and their reply says so.
pub fn execute<'a>(
    command: &Command,
    words: &'a Words<'a>,
    store: &mut Store,
    context: &'a Context<'a>,
    straight: Option<Straight<'_>>,
    done: &mut Done<'a>,
) -> Reply {
    let (Place::Key(run) | Place::Keys(run, _) | Place::Each(run, _) | Place::Scan(run)) = command.place else {
        return errors::not_for_a_partition(command.name);
    };
    let map = context.default_map;
    let mut call = Call { name: command.name, words, spot: context.spot, context, store, map, done, straight };
    run(&mut call).unwrap_or_else(|error| {
        *done = Done::default();
        error
    })
}

/// Answers the value of a key, of a map, straight from where it is kept; counts as a use. Whether the key is there.
pub fn answer_value(store: &mut Store, (map, key): (&[u8], Key<'_>), now: Millis, straight: &mut Straight<'_>) -> bool {
    let entry = store.get(map, key, now);
    match entry.map(|entry| entry.value()) {
        Some(Value::Inside(value)) => straight.value(value),
        Some(Value::Outside(value)) => straight.shared(value),
        None => straight.nil(),
    }
    entry.is_some()
}

#[cfg(test)]
mod tests;
