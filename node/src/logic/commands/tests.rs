//! Commands against what Redis answered, whatever the number of partitions, and the forms of Olric.

use bytes::BytesMut;

use super::*;
use crate::logic::{
    clock::Millis,
    cluster::table::Version,
    keyspace::{Partition, partition_of},
    resp::{Protocol, inline},
    store::Order,
};

/// As a node does with words of other members.
fn checked<'a>(words: &'a Words<'a>, store: &mut Store, context: &'a Context<'a>) -> (Reply, Done<'a>) {
    let mut done = Done::default();
    let mut execute = |command| execute(command, words, store, context, None, &mut done);
    let reply = table::command(words).map_or_else(|error| error, &mut execute);
    (reply, done)
}

/// Of all stores.
const SEED: u64 = 11;

/// Some partitions, as a client sees them.
struct World {
    stores: Vec<Store>,
    clock: Clock,
}

impl World {
    fn new(partitions: u16) -> Self {
        let clock = Clock { now: Millis(5_000_000), wall: 1_700_000_000_000 };
        Self { stores: (0..partitions).map(|_| Store::new(SEED)).collect(), clock }
    }

    fn pass(&mut self, ms: u64) {
        self.clock.now.0 += ms;
        self.clock.wall += ms;
    }

    fn on(&mut self, partition: Partition, words: &Words<'_>) -> Reply {
        let key = table::command(words).ok().and_then(|command| command.key_of_default_map(words));
        let spot = key.map(|key| Spot::new(Order::new(SEED, b"cc-relay").position(key)));
        let default_map = &Bytes::from_static(b"cc-relay");
        let context = Context { clock: self.clock, random: 1, default_map, spot };
        let store = &mut self.stores[partition.index()];
        let (reply, done) = checked(words, store, &context);
        if table::command(words).is_ok_and(|command| command.access == Access::Read) {
            assert!(done.changes.is_empty(), "{words:?} is a read and changes something");
        }
        for change in &done.changes {
            store.change(change, Version::default());
        }
        reply
    }

    fn run(&mut self, words: &[Bytes]) -> Reply {
        let words = &words_of(words)[..];
        let partitions = self.stores.len() as u16;
        match routed(words, partitions) {
            Err(error) => error,
            Ok(Route::Here) => panic!("{words:?} is not executed by partitions"),
            Ok(Route::One(partition)) => self.on(partition, words),
            Ok(Route::Split(parts, merge)) => {
                let replies = parts.iter().map(|(partition, words)| self.on(*partition, words)).collect();
                merge.merge(replies)
            }
            Ok(Route::Each(merge)) => merge.merge((0..partitions).map(|p| self.on(Partition(p), words)).collect()),
            Ok(Route::Scan(mut walk)) => loop {
                let Some((partition, words)) = walk.step() else { break walk.reply() };
                let reply = self.on(partition, &words_of(&words));
                if let Some(reply) = walk.take(reply) {
                    break reply;
                }
            },
        }
    }

    /// Runs a line and gives the reply in RESP2.
    fn line(&mut self, line: &str) -> String {
        let reply = self.run(&words(line));
        text(&reply, Protocol::Resp2)
    }
}

fn words(line: &str) -> Vec<Bytes> {
    inline::split(line.as_bytes()).unwrap()
}

fn text(reply: &Reply, protocol: Protocol) -> String {
    let mut out = BytesMut::new();
    reply.encode(protocol, &mut out);
    out.iter().map(|byte| if *byte == b'\\' { "\\\\".to_owned() } else { plain(*byte) }).collect()
}

fn plain(byte: u8) -> String {
    match byte {
        b'\r' => "\\r".to_owned(),
        b'\n' => "\\n".to_owned(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    }
}

/// Requests of the recording, each with its line number and its replies in both versions.
fn recording(text: &str) -> Vec<(usize, String, String, String)> {
    let mut all: Vec<(usize, String, String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match (line.get(..2), all.last_mut()) {
            (Some("> "), _) => all.push((number + 1, line[2..].to_owned(), String::new(), String::new())),
            (Some("2 "), Some(last)) => (last.2, last.3) = (line[2..].to_owned(), line[2..].to_owned()),
            (Some("3 "), Some(last)) => last.3 = line[2..].to_owned(),
            _ => {}
        }
    }
    all
}

fn routed<'a>(words: &Words<'a>, partitions: u16) -> Result<Route<'a>, Reply> {
    route(table::command(words)?, words, partitions)
}

#[test]
fn replies_are_those_of_redis() {
    let recording = recording(include_str!("redis_7.txt"));
    assert!(recording.len() > 250);
    let mut wrong = Vec::new();
    for partitions in [1, 7, 64] {
        let mut world = World::new(partitions);
        for (number, line, resp2, resp3) in &recording {
            let reply = world.run(&words(line));
            let got = (text(&reply, Protocol::Resp2), text(&reply, Protocol::Resp3));
            if got != (resp2.clone(), resp3.clone()) {
                wrong.push(format!("line {number}, {partitions} partitions: {line}\n  {got:?}\n  {resp2}\n  {resp3}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn time_left_is_rounded_and_runs_out() {
    let mut world = World::new(4);
    for (line, expected) in [("SET k v PX 1500", "+OK\\r\\n"), ("TTL k", ":2\\r\\n"), ("PTTL k", ":1500\\r\\n")] {
        assert_eq!(world.line(line), expected);
    }
    world.pass(1001);
    assert_eq!(world.line("TTL k"), ":0\\r\\n");
    assert_eq!(world.line("PTTL k"), ":499\\r\\n");
    assert_eq!(world.line("PEXPIRETIME k"), ":1700000001500\\r\\n");
    world.pass(499);
    assert_eq!(world.line("GET k"), "$1\\r\\nv\\r\\n");
    world.pass(1);
    assert_eq!(world.line("GET k"), "$-1\\r\\n");
    assert_eq!(world.line("DEL k"), ":0\\r\\n");
    assert_eq!(world.line("EXPIRE k 10"), ":0\\r\\n");
    assert_eq!(world.line("SET k w XX"), "$-1\\r\\n");
    assert_eq!(world.line("INCR k"), ":1\\r\\n");
    assert_eq!(world.line("TTL k"), ":-1\\r\\n");
}

#[test]
fn an_absolute_time_follows_the_wall_clock_of_the_moment_only() {
    let mut world = World::new(1);
    world.line("SET k v PXAT 1700000010000");
    // The wall clock jumps; the deadline stays ten seconds of machine time away (rule W9).
    world.clock.wall += 3_600_000;
    assert_eq!(world.line("PTTL k"), ":10000\\r\\n");
}

#[test]
fn scan_meets_every_key_once_over_all_partitions() {
    for (partitions, keys, options) in
        [(1, 500, ""), (64, 500, "COUNT 7"), (256, 3, ""), (1000, 5, "COUNT 100 MATCH k*")]
    {
        let mut world = World::new(partitions);
        for i in 0..keys {
            world.line(&format!("SET k{i} v"));
            world.line(&format!("DM.PUT other o{i} v"));
        }
        let (mut cursor, mut met, mut steps) = ("0".to_owned(), Vec::new(), 0);
        loop {
            let reply = world.run(&words(&format!("SCAN {cursor} {options}")));
            let Reply::Array(items) = reply else { panic!("{reply:?}") };
            let [Reply::Bulk(next), Reply::Array(page)] = &items[..] else { panic!("{items:?}") };
            met.extend(page.iter().map(|key| text(key, Protocol::Resp2)));
            cursor = String::from_utf8(next.to_vec()).unwrap();
            assert!(cursor.parse::<i64>().unwrap() >= 0);
            steps += 1;
            if cursor == "0" {
                break;
            }
        }
        met.sort();
        let count = met.len();
        met.dedup();
        assert_eq!((count, met.len()), (keys, keys), "{partitions} partitions");
        assert!(steps <= usize::from(partitions) / 16 + keys);
    }
}

#[test]
fn named_maps_answer_as_olric_does() {
    let table = [
        ("dm.put m k v", "+OK\\r\\n"),
        ("dm.get m k", "$1\\r\\nv\\r\\n"),
        ("dm.get other k", "-KEYNOTFOUND key not found\\r\\n"),
        ("GET k", "$-1\\r\\n"),
        ("dm.get cc-relay k", "-KEYNOTFOUND key not found\\r\\n"),
        ("DM.PUT cc-relay k w", "+OK\\r\\n"),
        ("GET k", "$1\\r\\nw\\r\\n"),
        ("DM.GET m k", "$1\\r\\nv\\r\\n"),
        ("dm.put m k w NX", "-KEYFOUND key found\\r\\n"),
        ("dm.put m none w XX", "-KEYNOTFOUND key not found\\r\\n"),
        ("dm.put m none w NX XX", "+OK\\r\\n"),
        ("dm.put m k x xx ex 1.5", "+OK\\r\\n"),
        (
            "dm.get m k RW",
            "$31\\r\\n\\x01k\\x00\\x00\\x01\\x8b\\xcf\\xe5m\\xdc\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x01x\\r\\n",
        ),
        ("dm.get m k rw", "-INVALIDARGUMENT invalid argument: rw\\r\\n"),
        ("dm.put m k x FOO", "-ERR syntax error\\r\\n"),
        ("dm.put m k x EX", "-ERR syntax error\\r\\n"),
        ("dm.put m k x EX abc", "-ERR value is not a valid float\\r\\n"),
        ("dm.put m k x PX 1.5", "-ERR value is not an integer or out of range\\r\\n"),
        ("dm.put m k", "-ERR wrong number of arguments for 'dm.put m k' command\\r\\n"),
        ("DM.GET M", "-ERR wrong number of arguments for 'dm.get m' command\\r\\n"),
        ("dm.put m e v EX 0", "+OK\\r\\n"),
        ("dm.get m e", "$1\\r\\nv\\r\\n"),
        ("dm.put m e v PX -1", "+OK\\r\\n"),
        ("dm.get m e", "-KEYNOTFOUND key not found\\r\\n"),
        ("dm.put m p v PX 5000 EX 1", "+OK\\r\\n"),
        ("dm.put m a v PXAT 1700000001000", "+OK\\r\\n"),
        ("dm.del m k none x", ":3\\r\\n"),
        ("dm.get m k", "-KEYNOTFOUND key not found\\r\\n"),
        ("dm.del m", "-ERR wrong number of arguments for 'dm.del m' command\\r\\n"),
        ("dm.put \"\" \"\" \"\"", "+OK\\r\\n"),
        ("dm.get \"\" \"\"", "$0\\r\\n\\r\\n"),
        ("DBSIZE", ":1\\r\\n"),
        ("FLUSHDB", "+OK\\r\\n"),
        ("DBSIZE", ":0\\r\\n"),
        ("dm.get m p", "$1\\r\\nv\\r\\n"),
        ("FLUSHALL", "+OK\\r\\n"),
        ("dm.get m p", "-KEYNOTFOUND key not found\\r\\n"),
    ];
    let mut world = World::new(8);
    for (line, expected) in table {
        assert_eq!(world.line(line), expected, "{line}");
    }
    assert_eq!(world.line("dm.put m t v PX 5000 EX 1"), "+OK\\r\\n");
    world.pass(1001);
    assert_eq!(world.line("dm.get m t"), "-KEYNOTFOUND key not found\\r\\n");
    let long = "k".repeat(256);
    assert_eq!(world.line(&format!("dm.put m {long} v")), "-KEYTOOLARGE key too large\\r\\n");
    assert_eq!(world.line(&format!("dm.put m {} v", &long[1..])), "+OK\\r\\n");
}

#[test]
fn sizes_have_limits() {
    let mut world = World::new(2);
    let (long, longer) = ("k".repeat(MAX_KEY_BYTES), "k".repeat(MAX_KEY_BYTES + 1));
    assert_eq!(world.line(&format!("SET {long} v")), "+OK\\r\\n");
    assert_eq!(world.line(&format!("SET {longer} v")), "-KEYTOOLARGE key is longer than 65535 bytes\\r\\n");
    assert_eq!(world.line(&format!("MGET a {longer}")), "-KEYTOOLARGE key is longer than 65535 bytes\\r\\n");
    let half = Bytes::from(vec![b'x'; MAX_VALUE_BYTES / 2]);
    let append = [Bytes::from_static(b"APPEND"), Bytes::from_static(b"k"), half];
    assert_eq!(world.run(&append), Reply::Integer(MAX_VALUE_BYTES as i64 / 2));
    assert_eq!(world.run(&append), Reply::Integer(MAX_VALUE_BYTES as i64));
    let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\\r\\n";
    assert_eq!(world.line("APPEND k x"), too_long);
}

#[test]
fn the_first_error_of_a_split_command_is_its_reply() {
    let error = |text: &str| Reply::error(text);
    let parts = || vec![Reply::Integer(1), error("ERR a"), error("ERR b")];
    for merge in [Merge::Sum, Merge::AllOk, Merge::InOrder(vec![vec![0], vec![1], vec![2]])] {
        assert_eq!(merge.merge(parts()), error("ERR a"));
    }
    let list = |n| Reply::Array(vec![Reply::Integer(n)]);
    let both = Reply::Array(vec![Reply::Integer(2), Reply::Integer(1)]);
    assert_eq!(Merge::InOrder(vec![vec![1], vec![0]]).merge(vec![list(1), list(2)]), both);
    assert!(Merge::InOrder(vec![vec![0]]).merge(vec![Reply::OK]).is_error());
    assert!(Merge::Sum.merge(vec![Reply::OK]).is_error());
}

#[test]
fn one_key_or_one_hash_tag_is_not_split() {
    let tag = partition_of(b"{t}", 64);
    for line in ["GET {t}1", "MGET {t}1 {t}2", "MSET {t}a 1 {t}b 2", "DEL {t}x", "DM.DEL m {t}1 {t}2", "DM.GET m {t}"] {
        assert_eq!(routed(&words_of(&words(line)), 64), Ok(Route::One(tag)), "{line}");
    }
    assert!(matches!(routed(&words_of(&words("MGET a b c d e f")), 64), Ok(Route::Split(..))));
    assert!(matches!(routed(&words_of(&words("PING")), 64), Ok(Route::Here)));
}

#[test]
fn reads_are_counted() {
    let mut store = Store::new(1);
    let context = Context { clock: Clock::default(), random: 0, default_map: &Bytes::from_static(b"m"), spot: None };
    let (set, mget) = (words("SET a 1"), words("MGET a b c"));
    let (set, mget) = (words_of(&set), words_of(&mget));
    let put = checked(&set, &mut store, &context).1;
    assert_eq!((put.hits, put.misses, put.changes.len()), (0, 0, 1));
    store.change(&put.changes[0], Version::default());
    let read = checked(&mget, &mut store, &context).1;
    assert_eq!((read.hits, read.misses, read.changes.len()), (1, 2, 0));
}

#[test]
fn values_that_go_straight_are_what_the_reply_would_have_been() {
    let mut store = Store::new(1);
    let context = Context { clock: Clock::default(), random: 0, default_map: &Bytes::from_static(b"m"), spot: None };
    let long = "x".repeat(20_000);
    for line in ["SET a 1".to_owned(), format!("SET long {long}"), "SET empty \"\"".to_owned()] {
        let line = words(&line);
        let line = words_of(&line);
        let put = checked(&line, &mut store, &context).1;
        store.change(&put.changes[0], Version::default());
    }
    for line in ["GET a", "GET none", "GET long", "GET empty", "MGET a none long", "MGET none"] {
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let line = words(line);
            let line = words_of(&line);
            let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
            let (reply, kept) = checked(&line, &mut store, &context);
            reply.encode(protocol, &mut expected);
            let straight = Some(Straight { sink: &mut out, protocol });
            let command = table::command(&line).unwrap();
            let mut done = Done::default();
            assert_eq!(execute(command, &line, &mut store, &context, straight, &mut done), Reply::Written);
            assert_eq!((done.hits, done.misses), (kept.hits, kept.misses));
            assert_eq!(out, expected, "{line:?}");
        }
    }
}

proptest::proptest! {
    /// Words of other members are not trusted: whatever comes is answered.
    #[test]
    fn any_words_are_answered(
        index in 0..table::all().len(),
        rest in proptest::collection::vec("[a-zA-Z0-9 *-]{0,6}|EX|PX|NX|0|1|COUNT", 0..6))
    {
        let mut words = vec![Bytes::from_static(table::all()[index].name.as_bytes())];
        words.extend(rest.into_iter().map(Bytes::from));
        let context = Context { clock: Clock::default(), random: 0, default_map: &Bytes::new(), spot: None };
        let slices = words_of(&words);
        let _ = (checked(&slices, &mut Store::new(0), &context), routed(&slices, 16), access(&words));
    }
}
