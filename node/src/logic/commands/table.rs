//! Every command: how many words it takes, where its keys are, and where it is executed.
//!
//! Arity counts the name; a negative one is a minimum. Names, arities, flags and places of keys of the commands that
//! Redis knows are those that its `COMMAND` answers.

use super::{Access, Words, call::Run, errors, expiry, keys, named_maps, numbers, route::Merge, scan, strings};
use crate::logic::resp::Reply;

/// A command.
#[derive(Debug)]
pub struct Command {
    /// Name in lower case.
    pub name: &'static str,
    /// Number of words.
    pub arity: i8,
    /// As `COMMAND` shows them.
    pub flags: &'static [&'static str],
    /// What it needs.
    pub access: Access,
    /// Where keys are.
    pub keys: Keys,
    /// Category of its kind of data in Redis' access control, without the `@`.
    pub category: &'static str,
    /// What the second word may be; empty: the command has no such.
    pub subcommands: &'static [Subcommand],
    pub(super) place: Place,
}

impl PartialEq for Command {
    /// There is one command of each name.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// Where the keys of a command are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Word of the first key; 0: there is none.
    pub first: usize,
    /// Word of the last key; -1 is the last word.
    pub last: i8,
    /// From one key to the next.
    pub step: usize,
}

/// A second word with an own meaning.
#[derive(Debug)]
pub struct Subcommand {
    /// Name in lower case.
    pub name: &'static str,
    /// Number of words, with both names.
    pub arity: i8,
}

/// Where a command is executed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// At the client port.
    Here,
    /// At the partition of its one key.
    Key(Run),
    /// At the partitions of its keys.
    Keys(Run, Merging),
    /// At every partition.
    Each(Run, Merging),
    /// At one partition after the other.
    Scan(Run),
}

/// Which [`Merge`] a command has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Merging {
    Sum,
    AllOk,
    InOrder,
}

impl Merging {
    pub(super) fn merge(self, places: Vec<Vec<usize>>) -> Merge {
        match self {
            Self::Sum => Merge::Sum,
            Self::AllOk => Merge::AllOk,
            Self::InOrder => Merge::InOrder(places),
        }
    }
}

impl Command {
    /// Whether it answers the values of its keys, and nothing else.
    pub fn lists_values(&self) -> bool {
        matches!(self.place, Place::Keys(_, Merging::InOrder))
    }

    /// Whether it answers the value of one key of the default map, and nothing else.
    pub fn is_get(&self) -> bool {
        std::ptr::eq(self, &raw const ALL[GET])
    }

    /// The keys among its words.
    pub fn keys_in<'w, W>(&self, words: &'w [W]) -> impl Iterator<Item = &'w W> + use<'w, W> {
        let Keys { first, last, step } = self.keys;
        let end = if last < 0 { words.len() } else { last as usize + 1 };
        let keys = if first == 0 { None } else { words.get(first..end) };
        keys.unwrap_or_default().iter().step_by(step.max(1))
    }

    /// The first key, where the default map has it.
    pub fn key_of_default_map<'a>(&self, words: &Words<'a>) -> Option<&'a [u8]> {
        if self.keys.first == 1 { words.get(1).copied() } else { None }
    }

    fn check(&self, words: &Words<'_>) -> Result<(), Reply> {
        if fits(self.arity, words.len()) {
            return Ok(());
        }
        // Olric's form for Olric's words (rule C1).
        Err(if self.name.starts_with("dm.") { errors::arity_of_words(words) } else { errors::arity(self.name) })
    }

    fn check_subcommand(&self, words: &Words<'_>) -> Result<(), Reply> {
        let Some(name) = words.get(1).filter(|_| !self.subcommands.is_empty()) else { return Ok(()) };
        let sub = self.subcommands.iter().find(|sub| name.eq_ignore_ascii_case(sub.name.as_bytes()));
        let sub = sub.ok_or_else(|| errors::unknown_subcommand(self.name, name))?;
        if fits(sub.arity, words.len()) { Ok(()) } else { Err(errors::arity(&format!("{}|{}", self.name, sub.name))) }
    }
}

fn fits(arity: i8, words: usize) -> bool {
    let count = usize::from(arity.unsigned_abs());
    if arity < 0 { words >= count } else { words == count }
}

/// All commands, by name.
pub fn all() -> &'static [Command] {
    ALL
}

/// The command with this name, in any case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let number = number(name);
    let index = usize::from(PLACES[place(number, FACTOR)]);
    let command = ALL.get(index).filter(|command| command.name.len() == name.len())?;
    (NUMBERS[index] == number).then_some(command)
}

/// A name of at most [`LONGEST_NAME`] bytes, in lower case, as numbers that no other one of its length has: comparing them
/// costs less than comparing texts, and each request is looked up.
const fn number(name: &[u8]) -> [u64; 2] {
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return [lower(u64::from_le_bytes(*first)), lower(u64::from_le_bytes(*last))];
    }
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return [lower(u32::from_le_bytes(*first) as u64 | (u32::from_le_bytes(*last) as u64) << 32), 0];
    }
    let [first, middle, last] = match *name {
        [first, middle, last] => [first, middle, last],
        [first, last] => [first, 0, last],
        [only] => [only, 0, 0],
        _ => [0; 3],
    };
    [lower(u32::from_le_bytes([first, middle, last, 0]) as u64), 0]
}

/// Eight bytes in lower case.
const fn lower(bytes: u64) -> u64 {
    const EACH: u64 = u64::MAX / 0xff;
    // Sums of seven bits have the eighth where a letter is at least `A`, or beyond `Z`, and reach no other byte.
    let low = bytes & (EACH * 0x7f);
    let (from_a, beyond_z) = (low + EACH * (0x80 - b'A' as u64), low + EACH * (0x7f - b'Z' as u64));
    bytes | (from_a & !beyond_z & !bytes & (EACH * 0x80)) >> 2
}

/// Where a name stands among [`PLACES`].
const fn place([first, last]: [u64; 2], factor: u64) -> usize {
    ((first ^ last.rotate_left(1)).wrapping_mul(factor) >> (64 - PLACE_BITS)) as usize
}

/// The command of a request, if its name is known and the number of its words is right.
pub fn command(words: &Words<'_>) -> Result<&'static Command, Reply> {
    let command = words.first().and_then(|name| find(name)).ok_or_else(|| errors::unknown_command(words))?;
    command.check(words)?;
    command.check_subcommand(words)?;
    Ok(command)
}

const LONGEST_NAME: usize = 16;
const _: () =
    assert!(LONGEST_NAME <= 2 * size_of::<u64>(), "bytes between the first and the last eight would not count");
const NO_KEYS: Keys = Keys { first: 0, last: 0, step: 0 };
const ONE_KEY: Keys = Keys { first: 1, last: 1, step: 1 };
const ALL_KEYS: Keys = Keys { first: 1, last: -1, step: 1 };
const PAIRS: Keys = Keys { first: 1, last: -1, step: 2 };
const MAP_AND_KEY: Keys = Keys { first: 2, last: 2, step: 1 };
const MAP_AND_KEYS: Keys = Keys { first: 2, last: -1, step: 1 };

const READ_FAST: &[&str] = &["readonly", "fast"];
const WRITE: &[&str] = &["write"];
const WRITE_FAST: &[&str] = &["write", "fast"];
const WRITE_MEMORY: &[&str] = &["write", "denyoom"];
const WRITE_MEMORY_FAST: &[&str] = &["write", "denyoom", "fast"];
const HANDSHAKE: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth", "allow_busy"];
const INFORMATION: &[&str] = &["loading", "stale"];

/// A command that may write says so in its first flag.
const fn access(flags: &[&str]) -> Access {
    if matches!(flags[0].as_bytes(), [b'w', b'r', b'i', b't', b'e']) { Access::Write } else { Access::Read }
}

const fn here(name: &'static str, arity: i8, flags: &'static [&'static str], category: &'static str) -> Command {
    Command { name, arity, flags, access: access(flags), keys: NO_KEYS, category, subcommands: &[], place: Place::Here }
}

const fn parent(name: &'static str, arity: i8, category: &'static str, subcommands: &'static [Subcommand]) -> Command {
    Command { subcommands, ..here(name, arity, INFORMATION, category) }
}

const fn string(name: &'static str, arity: i8, flags: &'static [&'static str], keys: Keys, place: Place) -> Command {
    Command { keys, place, ..here(name, arity, flags, "string") }
}

const fn key(name: &'static str, arity: i8, flags: &'static [&'static str], keys: Keys, place: Place) -> Command {
    Command { keys, place, ..here(name, arity, flags, "keyspace") }
}

const fn sub(name: &'static str, arity: i8) -> Subcommand {
    Subcommand { name, arity }
}

const CLIENT: &[Subcommand] = &[
    sub("getname", 2),
    sub("help", 2),
    sub("id", 2),
    sub("info", 2),
    sub("list", -2),
    sub("setinfo", 4),
    sub("setname", 3),
];
const CLUSTER: &[Subcommand] = &[
    sub("help", 2),
    sub("info", 2),
    sub("keyslot", 3),
    sub("myid", 2),
    sub("nodes", 2),
    sub("shards", 2),
    sub("slots", 2),
];
const COMMAND: &[Subcommand] =
    &[sub("count", 2), sub("docs", -2), sub("getkeys", -4), sub("help", 2), sub("info", -2), sub("list", -2)];
const CONFIG: &[Subcommand] = &[sub("get", -3), sub("help", 2)];

/// Names as numbers, in the same order.
static NUMBERS: [[u64; 2]; COMMANDS.len()] = {
    let (mut numbers, mut at) = ([[0; 2]; COMMANDS.len()], 0);
    while at < numbers.len() {
        numbers[at] = number(COMMANDS[at].name.as_bytes());
        at += 1;
    }
    numbers
};

const PLACE_BITS: u32 = 10;
const NOBODY: u8 = u8::MAX;
/// The command at each place, and the factor with which no two stand at one.
const TABLE: ([u8; 1 << PLACE_BITS], u64) = {
    let mut factor = 0x9e37_79b9_7f4a_7c15;
    loop {
        let (mut places, mut at) = ([NOBODY; 1 << PLACE_BITS], 0);
        while at < COMMANDS.len() {
            let place = place(number(COMMANDS[at].name.as_bytes()), factor);
            if places[place] != NOBODY {
                break;
            }
            places[place] = at as u8;
            at += 1;
        }
        if at == COMMANDS.len() {
            break (places, factor);
        }
        factor = factor.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) | 1;
    }
};
/// In one place, whoever uses it: who holds a command compares where it stands.
static ALL: &[Command] = COMMANDS;
static PLACES: [u8; 1 << PLACE_BITS] = TABLE.0;
const FACTOR: u64 = TABLE.1;
const _: () = assert!(COMMANDS.len() < NOBODY as usize);
const GET: usize = TABLE.0[place(number(b"get"), FACTOR)] as usize;

/// Sorted by name.
const COMMANDS: &[Command] = &[
    string("append", 3, WRITE_MEMORY_FAST, ONE_KEY, Place::Key(strings::append)),
    here("auth", -2, HANDSHAKE, "connection"),
    parent("client", -2, "connection", CLIENT),
    parent("cluster", -2, "keyspace", CLUSTER),
    parent("command", -1, "connection", COMMAND),
    parent("config", -2, "admin", CONFIG),
    key("dbsize", 1, READ_FAST, NO_KEYS, Place::Each(keys::db_size, Merging::Sum)),
    string("decr", 2, WRITE_MEMORY_FAST, ONE_KEY, Place::Key(numbers::decr)),
    string("decrby", 3, WRITE_MEMORY_FAST, ONE_KEY, Place::Key(numbers::decr_by)),
    key("del", -2, WRITE, ALL_KEYS, Place::Keys(keys::del, Merging::Sum)),
    string("dm.del", -3, WRITE, MAP_AND_KEYS, Place::Keys(named_maps::del, Merging::Sum)),
    string("dm.get", -3, READ_FAST, MAP_AND_KEY, Place::Key(named_maps::get)),
    string("dm.put", -4, WRITE_MEMORY, MAP_AND_KEY, Place::Key(named_maps::put)),
    here("echo", 2, &["fast"], "connection"),
    key("exists", -2, READ_FAST, ALL_KEYS, Place::Keys(keys::exists, Merging::Sum)),
    key("expire", -3, WRITE_FAST, ONE_KEY, Place::Key(expiry::expire)),
    key("expireat", -3, WRITE_FAST, ONE_KEY, Place::Key(expiry::expire_at)),
    key("expiretime", 2, READ_FAST, ONE_KEY, Place::Key(expiry::expire_time)),
    key("flushall", -1, WRITE, NO_KEYS, Place::Each(keys::flush_all, Merging::AllOk)),
    key("flushdb", -1, WRITE, NO_KEYS, Place::Each(keys::flush_db, Merging::AllOk)),
    string("get", 2, READ_FAST, ONE_KEY, Place::Key(strings::get)),
    string("getdel", 2, WRITE_FAST, ONE_KEY, Place::Key(strings::get_del)),
    string("getex", -2, WRITE_FAST, ONE_KEY, Place::Key(strings::get_ex)),
    string("getset", 3, WRITE_MEMORY_FAST, ONE_KEY, Place::Key(strings::get_set)),
    here("hello", -1, HANDSHAKE, "connection"),
    string("incr", 2, WRITE_MEMORY_FAST, ONE_KEY, Place::Key(numbers::incr)),
    string("incrby", 3, WRITE_MEMORY_FAST, ONE_KEY, Place::Key(numbers::incr_by)),
    string("incrbyfloat", 3, WRITE_MEMORY_FAST, ONE_KEY, Place::Key(numbers::incr_by_float)),
    here("info", -1, INFORMATION, "dangerous"),
    string("mget", -2, READ_FAST, ALL_KEYS, Place::Keys(strings::m_get, Merging::InOrder)),
    string("mset", -3, WRITE_MEMORY, PAIRS, Place::Keys(strings::m_set, Merging::AllOk)),
    key("persist", 2, WRITE_FAST, ONE_KEY, Place::Key(expiry::persist)),
    key("pexpire", -3, WRITE_FAST, ONE_KEY, Place::Key(expiry::p_expire)),
    key("pexpireat", -3, WRITE_FAST, ONE_KEY, Place::Key(expiry::p_expire_at)),
    key("pexpiretime", 2, READ_FAST, ONE_KEY, Place::Key(expiry::p_expire_time)),
    here("ping", -1, &["fast"], "connection"),
    string("psetex", 4, WRITE_MEMORY, ONE_KEY, Place::Key(strings::p_set_ex)),
    key("pttl", 2, READ_FAST, ONE_KEY, Place::Key(expiry::p_ttl)),
    here("quit", -1, HANDSHAKE, "connection"),
    here("readonly", 1, &["loading", "stale", "fast"], "connection"),
    here("readwrite", 1, &["loading", "stale", "fast"], "connection"),
    here("reset", 1, HANDSHAKE, "connection"),
    key("scan", -2, &["readonly"], NO_KEYS, Place::Scan(scan::scan)),
    here("select", 2, &["loading", "stale", "fast"], "connection"),
    string("set", -3, WRITE_MEMORY, ONE_KEY, Place::Key(strings::set)),
    string("setex", 4, WRITE_MEMORY, ONE_KEY, Place::Key(strings::set_ex)),
    string("setnx", 3, WRITE_MEMORY_FAST, ONE_KEY, Place::Key(strings::set_nx)),
    string("strlen", 2, READ_FAST, ONE_KEY, Place::Key(strings::str_len)),
    key("touch", -2, READ_FAST, ALL_KEYS, Place::Keys(keys::touch, Merging::Sum)),
    key("ttl", 2, READ_FAST, ONE_KEY, Place::Key(expiry::ttl)),
    key("type", 2, READ_FAST, ONE_KEY, Place::Key(keys::r#type)),
    key("unlink", -2, WRITE_FAST, ALL_KEYS, Place::Keys(keys::del, Merging::Sum)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_made_small_whatever_stands_around_it() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                let mut bytes = [0xda; 8];
                bytes[at] = byte;
                assert_eq!(lower(u64::from_le_bytes(bytes)).to_le_bytes(), bytes.map(|byte| byte.to_ascii_lowercase()));
            }
        }
    }

    #[test]
    fn commands_are_sorted_and_found() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        for command in all() {
            assert!(command.name.len() <= LONGEST_NAME);
            assert_eq!(find(command.name.to_ascii_uppercase().as_bytes()).map(|found| found.name), Some(command.name));
            assert_eq!(command.access == Access::Write, command.flags.contains(&"write"), "{}", command.name);
            assert!(command.keys.first == 0 || usize::from(command.arity.unsigned_abs()) > command.keys.first);
        }
        for other in [&b"nothing"[..], &[b'x'; 300], b"\0get", b"get\0", b"", b"dm\x0eget", b"g\xc5t", b"g%t"] {
            assert!(find(other).is_none(), "{other:?}");
        }
        assert!(find(b"gEt").is_some_and(Command::is_get) && !find(b"set").unwrap().is_get());
    }
}
