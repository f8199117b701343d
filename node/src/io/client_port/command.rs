//! `COMMAND`: what this node understands.

use bytes::Bytes;

use super::here::{help, subcommand};
use crate::logic::{
    commands::{
        glob,
        table::{self, Command, Subcommand},
        words_of,
    },
    resp::Reply,
};

const HELP: &[&str] = &[
    "(no subcommand)",
    "    Return details about all commands.",
    "COUNT",
    "    Return the total number of commands in this server.",
    "LIST",
    "    Return a list of all commands in this server.",
    "INFO [<command-name> ...]",
    "    Return details about multiple commands.",
    "DOCS [<command-name> ...]",
    "    Return documentation details about multiple commands; there are none.",
    "GETKEYS <full-command>",
    "    Return the keys from a full command.",
];

/// COMMAND [subcommand [argument ...]]
pub(super) fn answer(words: &[Bytes]) -> Reply {
    match &subcommand(words)[..] {
        "" => Reply::Array(table::all().iter().map(details).collect()),
        "count" => Reply::Integer(table::all().len() as i64),
        "docs" => Reply::Map(Vec::new()),
        "getkeys" => keys(&words[2..]),
        "info" if words.len() == 2 => Reply::Array(table::all().iter().map(details).collect()),
        "info" => {
            let one = |name: &Bytes| table::find(name).map_or(Reply::Nil, details);
            Reply::Array(words[2..].iter().map(one).collect())
        }
        "list" => list(&words[2..]),
        _ => help("COMMAND", HELP),
    }
}

fn names(which: impl Fn(&Command) -> bool) -> Reply {
    Reply::Array(
        table::all().iter().filter(|command| which(command)).map(|command| Reply::text(command.name)).collect(),
    )
}

/// COMMAND LIST [FILTERBY (MODULE name | ACLCAT category | PATTERN pattern)]
fn list(options: &[Bytes]) -> Reply {
    let [by, kind, value] = options else {
        return if options.is_empty() { names(|_| true) } else { Reply::error("ERR syntax error") };
    };
    if !by.eq_ignore_ascii_case(b"filterby") {
        return Reply::error("ERR syntax error");
    }
    match &kind.to_ascii_lowercase()[..] {
        b"module" => names(|_| false),
        b"pattern" => names(|command| glob::matches(&value.to_ascii_lowercase(), command.name.as_bytes())),
        b"aclcat" => names(|command| categories(command).iter().any(|category| category.as_bytes()[1..] == value[..])),
        _ => Reply::error("ERR syntax error"),
    }
}

/// COMMAND GETKEYS command [argument ...]
fn keys(words: &[Bytes]) -> Reply {
    let Some(found) = table::find(&words[0]) else { return Reply::error("ERR Invalid command specified") };
    if table::command(&words_of(words)).is_err() {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    if found.keys.first == 0 {
        return Reply::error("ERR The command has no key arguments");
    }
    Reply::Array(found.keys_in(words).cloned().map(Reply::Bulk).collect())
}

/// In the form of Redis 7: name, arity, flags, first key, last key, step, access categories, hints, ways to find keys
/// and subcommands. Hints and ways to find keys are left empty.
fn details(command: &Command) -> Reply {
    let status = |texts: &mut dyn Iterator<Item = String>| Reply::Set(texts.map(Reply::Status).collect());
    Reply::Array(vec![
        Reply::text(command.name),
        Reply::Integer(command.arity.into()),
        status(&mut command.flags.iter().map(|flag| (*flag).to_owned())),
        Reply::Integer(command.keys.first as i64),
        Reply::Integer(command.keys.last.into()),
        Reply::Integer(command.keys.step as i64),
        status(&mut categories(command).into_iter()),
        Reply::Set(Vec::new()),
        Reply::Set(Vec::new()),
        Reply::Set(command.subcommands.iter().map(|sub| subcommand_details(command, sub)).collect()),
    ])
}

fn subcommand_details(command: &Command, sub: &Subcommand) -> Reply {
    let empty = || Reply::Set(Vec::new());
    Reply::Array(vec![
        Reply::text(&format!("{}|{}", command.name, sub.name)),
        Reply::Integer(sub.arity.into()),
        empty(),
        Reply::Integer(0),
        Reply::Integer(0),
        Reply::Integer(0),
        Reply::Set(categories(command).into_iter().map(Reply::Status).collect()),
        empty(),
        empty(),
        empty(),
    ])
}

fn categories(command: &Command) -> Vec<String> {
    let has = |flag: &&str| command.flags.contains(flag);
    let access = [("readonly", "@read"), ("write", "@write")].into_iter().filter(|(flag, _)| has(flag));
    let speed = if has(&"fast") { "@fast" } else { "@slow" };
    let access = access.map(|(_, category)| category.to_owned());
    access.chain([format!("@{}", command.category), speed.to_owned()]).collect()
}
