//! Commands that are about a connection or the whole node.

use bytes::Bytes;

use super::{client, cluster, command, config, hello, info, session::Session};
use crate::logic::{
    commands::table::Command,
    resp::{Protocol, Reply, integer},
};

/// Answers a command whose words were checked against its arity.
pub(super) fn answer(command: &Command, words: &[Bytes], session: &mut Session) -> Reply {
    match command.name {
        "auth" => hello::auth(words),
        "client" => client::answer(words, session),
        "cluster" => cluster::answer(words, session),
        "command" => command::answer(words),
        "config" => config::answer(words, session),
        "echo" => Reply::Bulk(words[1].clone()),
        "hello" => hello::hello(words, session),
        "info" => info::answer(words, session),
        "ping" => ping(words),
        "quit" => {
            session.finish();
            Reply::OK
        }
        "readonly" | "readwrite" => Reply::OK,
        "reset" => {
            session.speak(Protocol::Resp2);
            session.client().labels.lock().name.clear();
            Reply::Simple("RESET")
        }
        "select" => select(words),
        name => Reply::error(format!("ERR '{name}' is not known here")),
    }
}

/// PING [message]
fn ping(words: &[Bytes]) -> Reply {
    match words {
        [_] => Reply::Simple("PONG"),
        [_, message] => Reply::Bulk(message.clone()),
        _ => Reply::error("ERR wrong number of arguments for 'ping' command"),
    }
}

/// SELECT 0: there is one database. Named maps stand in for others.
fn select(words: &[Bytes]) -> Reply {
    match integer::parse(&words[1]).map(i32::try_from) {
        None => Reply::error("ERR value is not an integer or out of range"),
        Some(Err(_)) => {
            Reply::error(format!("ERR value is out of range, value must between {} and {}", i32::MIN, i32::MAX))
        }
        Some(Ok(0)) => Reply::OK,
        Some(Ok(_)) => Reply::error("ERR DB index is out of range"),
    }
}

/// The second word in lower case: a subcommand.
pub(super) fn subcommand(words: &[Bytes]) -> String {
    words.get(1).map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).unwrap_or_default()
}

/// A list of lines, as `HELP` answers.
pub(super) fn help(command: &str, lines: &[&'static str]) -> Reply {
    let first = format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let last = ["HELP", "    Prints this help."];
    let lines = lines.iter().chain(&last).map(|line| Reply::Simple(line));
    Reply::Array([Reply::Status(first)].into_iter().chain(lines).collect())
}
