//! Walking all keys.
//!
//! A cursor is a partition and a position in the hash order of its entries (rule C2), so it is good on any member, at
//! any time. One `SCAN` goes over as many partitions as it takes to find some keys, within a bound.

use bytes::Bytes;

use super::{
    Words,
    call::{Call, Outcome},
    errors, glob, kept,
};
use crate::logic::{
    keyspace::Partition,
    resp::{Reply, integer},
    store::HASH_BITS,
};

/// Keys that are looked at where `COUNT` says nothing.
const DEFAULT_COUNT: usize = 10;
/// Most entries that one step looks at, whatever `COUNT` says.
const MAX_COUNT: usize = 10_000;
/// Most partitions that one `SCAN` asks.
const MAX_STEPS: usize = 256;

/// The words after the cursor.
struct Options<'a> {
    count: usize,
    pattern: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    fn parse(words: &Words<'a>) -> Result<Self, Reply> {
        let mut options = Self { count: DEFAULT_COUNT, pattern: None, kind: None };
        let (pairs, rest) = words.as_chunks();
        for [name, value] in pairs {
            match &name.to_ascii_uppercase()[..] {
                b"COUNT" => {
                    let count = integer::parse(value).ok_or_else(errors::not_an_integer)?;
                    let count = usize::try_from(count).ok().filter(|count| *count > 0).ok_or_else(errors::syntax)?;
                    options.count = count.min(MAX_COUNT);
                }
                b"MATCH" => options.pattern = Some(value),
                b"TYPE" => options.kind = Some(value),
                _ => return Err(errors::syntax()),
            }
        }
        if rest.is_empty() { Ok(options) } else { Err(errors::syntax()) }
    }

    /// Every value is a string.
    fn takes(&self, key: &[u8]) -> bool {
        self.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(b"string"))
            && self.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, key))
    }
}

/// One `SCAN` of a client, from partition to partition. Ask [`Walk::step`], execute it, give the reply to
/// [`Walk::take`], until that returns the client's reply.
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    partition: u16,
    partitions: u16,
    position: u64,
    /// The words after the cursor.
    options: Vec<Bytes>,
    count: usize,
    keys: Vec<Reply>,
    steps: usize,
}

impl Walk {
    /// Begins a `SCAN`; `words` are the client's.
    pub(super) fn begin(words: &Words<'_>, partitions: u16) -> Result<Self, Reply> {
        let cursor = words.get(1).and_then(|word| cursor(word)).ok_or_else(|| Reply::error("ERR invalid cursor"))?;
        let count = Options::parse(&words[2..])?.count;
        Ok(Self {
            partition: (cursor >> HASH_BITS) as u16,
            partitions,
            position: cursor & ((1 << HASH_BITS) - 1),
            options: kept(&words[2..]),
            count,
            keys: Vec::new(),
            steps: 0,
        })
    }

    /// The partition to ask next, and the words for it; none: the cursor is beyond the end.
    pub fn step(&self) -> Option<(Partition, Vec<Bytes>)> {
        (self.partition < self.partitions).then(|| {
            let mut words = vec![Bytes::from_static(b"SCAN"), Bytes::from(self.position.to_string())];
            words.extend_from_slice(&self.options);
            (Partition(self.partition), words)
        })
    }

    /// Takes a partition's reply. Some: it is over, and this is the reply.
    pub fn take(&mut self, reply: Reply) -> Option<Reply> {
        let (next, mut keys) = match parts(reply) {
            Ok(parts) => parts,
            Err(error) => return Some(error),
        };
        self.keys.append(&mut keys);
        self.steps += 1;
        self.partition += u16::from(next.is_none());
        self.position = next.unwrap_or(0);
        let end = self.partition >= self.partitions;
        (end || self.keys.len() >= self.count || self.steps >= MAX_STEPS).then(|| self.reply())
    }

    /// The keys so far and the cursor to go on with.
    pub fn reply(&mut self) -> Reply {
        let end = self.partition >= self.partitions;
        let cursor = if end { 0 } else { u64::from(self.partition) << HASH_BITS | self.position };
        Reply::Array(vec![Reply::text(&cursor.to_string()), Reply::Array(std::mem::take(&mut self.keys))])
    }
}

/// Redis reads cursors as the C library reads unsigned numbers: nothing is 0, and negative ones wrap.
fn cursor(word: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(word).ok()?;
    let wrapped = || text.parse::<i64>().ok().map(|n| n as u64);
    if text.is_empty() { Some(0) } else { text.parse().ok().or_else(wrapped) }
}

/// A partition's reply: where to go on in it, if anywhere, and keys.
fn parts(reply: Reply) -> Result<(Option<u64>, Vec<Reply>), Reply> {
    let unreadable = || Reply::error("ERR a partition answered SCAN in a form that is not known");
    let items = match reply {
        Reply::Error(_) => return Err(reply),
        Reply::Array(items) => items,
        _ => return Err(unreadable()),
    };
    let Ok([Reply::Bulk(next), Reply::Array(keys)]) = <[Reply; 2]>::try_from(items) else { return Err(unreadable()) };
    let next = integer::parse(&next).and_then(|next| u64::try_from(next).ok()).ok_or_else(unreadable)?;
    Ok(((next > 0).then_some(next), keys))
}

/// SCAN position [MATCH pattern] [COUNT n] [TYPE type], in one partition. The next position 0 is the end.
pub(super) fn scan(call: &mut Call<'_, '_>) -> Outcome {
    let position = integer::parse(call.word(1)).and_then(|position| u64::try_from(position).ok());
    let position = position.ok_or_else(|| Reply::error("ERR invalid cursor"))?;
    let options = Options::parse(&call.words[2..])?;
    let (mut keys, next) = call.store.scan(call.map(), position, options.count, call.now());
    keys.retain(|key| options.takes(key));
    let next = Reply::text(itoa::Buffer::new().format(next.unwrap_or(0)));
    Ok(Reply::Array(vec![next, Reply::Array(keys.into_iter().map(Reply::Bulk).collect())]))
}
