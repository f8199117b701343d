//! `CLIENT`: what is known of connections.

use bytes::Bytes;

use super::{
    here::{help, subcommand},
    session::Session,
};
use crate::logic::resp::{Reply, integer};

pub(super) const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

const HELP: &[&str] = &[
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "LIST [options ...]",
    "    Return information about client connections. Options:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Return clients of specified type.",
    "    * ID <id> [<id> ...]",
    "      Return clients with these ids.",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "    Say which library this connection uses.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
];

/// CLIENT subcommand [argument ...]
pub(super) fn answer(words: &[Bytes], session: &Session) -> Reply {
    let client = session.client();
    match &subcommand(words)[..] {
        "getname" => {
            let name = client.labels.lock().name.clone();
            if name.is_empty() { Reply::Nil } else { Reply::text(&name) }
        }
        "id" => Reply::Integer(client.id as i64),
        "info" => Reply::Verbatim(client.line(session.runtime().clock().now)),
        "list" => list(&words[2..], session).unwrap_or_else(|error| error),
        "setinfo" => set_info(words, session),
        "setname" => match label(&words[2], BAD_NAME) {
            Ok(name) => {
                client.labels.lock().name = name;
                Reply::OK
            }
            Err(error) => error,
        },
        _ => help("CLIENT", HELP),
    }
}

/// A word of printable characters without spaces.
pub(super) fn label(word: &[u8], error: &str) -> Result<String, Reply> {
    let plain = word.iter().all(u8::is_ascii_graphic);
    if plain { Ok(String::from_utf8_lossy(word).into_owned()) } else { Err(Reply::error(error)) }
}

/// CLIENT SETINFO (LIB-NAME | LIB-VER) value
fn set_info(words: &[Bytes], session: &Session) -> Reply {
    let option = String::from_utf8_lossy(&words[2]).to_ascii_lowercase();
    if option != "lib-name" && option != "lib-ver" {
        let option = String::from_utf8_lossy(&words[2]);
        return Reply::error(format!("ERR Unrecognized option '{option}'"));
    }
    match label(&words[3], &format!("ERR {option} cannot contain spaces, newlines or special characters.")) {
        Err(error) => error,
        Ok(value) => {
            let library = &mut session.client().labels.lock().library;
            *(if option == "lib-name" { &mut library.0 } else { &mut library.1 }) = value;
            Reply::OK
        }
    }
}

/// CLIENT LIST [TYPE type | ID id ...]
fn list(options: &[Bytes], session: &Session) -> Result<Reply, Reply> {
    let now = session.runtime().clock().now;
    let all = |which: &dyn Fn(u64) -> bool| Ok(Reply::Verbatim(session.clients().list(now, which)));
    let Some((option, rest)) = options.split_first() else { return all(&|_| true) };
    match (&option.to_ascii_lowercase()[..], rest) {
        (b"type", [kind]) => match &kind.to_ascii_lowercase()[..] {
            b"normal" => all(&|_| true),
            b"master" | b"replica" | b"slave" | b"pubsub" => all(&|_| false),
            _ => Err(Reply::error(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(kind)))),
        },
        (b"id", [_, ..]) => {
            let ids: Option<Vec<u64>> =
                rest.iter().map(|id| integer::parse(id).and_then(|id| id.try_into().ok())).collect();
            let ids = ids.ok_or_else(|| Reply::error("ERR Invalid client ID"))?;
            all(&|id| ids.contains(&id))
        }
        _ => Err(Reply::error("ERR syntax error")),
    }
}
