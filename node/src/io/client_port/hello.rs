//! `HELLO` and `AUTH`. No password can be configured yet, so the default user's is whatever is given, as in Redis.

use bytes::Bytes;

use super::{REDIS_VERSION, client, session::Session};
use crate::logic::resp::{Protocol, Reply, integer};

/// The one user.
const DEFAULT_USER: &[u8] = b"default";

fn check(user: &[u8]) -> Result<(), Reply> {
    if user == DEFAULT_USER {
        return Ok(());
    }
    Err(Reply::error("WRONGPASS invalid username-password pair or user is disabled."))
}

/// AUTH [user] password
pub(super) fn auth(words: &[Bytes]) -> Reply {
    match words {
        [_, _] => Reply::error(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        ),
        [_, user, _] => check(user).err().unwrap_or(Reply::OK),
        _ => Reply::error("ERR syntax error"),
    }
}

/// HELLO [version [AUTH user password] [SETNAME name]]
pub(super) fn hello(words: &[Bytes], session: &mut Session) -> Reply {
    match options(&words[1..]) {
        Err(error) => error,
        Ok((protocol, name)) => {
            if let Some(name) = name {
                session.client().labels.lock().name = name;
            }
            session.speak(protocol.unwrap_or_else(|| session.protocol()));
            greeting(session)
        }
    }
}

fn options(words: &[Bytes]) -> Result<(Option<Protocol>, Option<String>), Reply> {
    let Some((version, mut rest)) = words.split_first() else { return Ok((None, None)) };
    let protocol = match integer::parse(version) {
        None => return Err(Reply::error("ERR Protocol version is not an integer or out of range")),
        Some(2) => Protocol::Resp2,
        Some(3) => Protocol::Resp3,
        Some(_) => return Err(Reply::error("NOPROTO unsupported protocol version")),
    };
    let mut name = None;
    while let Some((option, after)) = rest.split_first() {
        rest = match (&option.to_ascii_uppercase()[..], after) {
            (b"AUTH", [user, _, after @ ..]) => {
                check(user)?;
                after
            }
            (b"SETNAME", [word, after @ ..]) => {
                name = Some(client::label(word, client::BAD_NAME)?);
                after
            }
            _ => {
                let option = String::from_utf8_lossy(option);
                return Err(Reply::error(format!("ERR Syntax error in HELLO option '{option}'")));
            }
        };
    }
    Ok((Some(protocol), name))
}

fn greeting(session: &Session) -> Reply {
    let version = if session.protocol() == Protocol::Resp3 { 3 } else { 2 };
    let pair = |name: &str, value: Reply| (Reply::text(name), value);
    Reply::Map(vec![
        pair("server", Reply::text("redis")),
        pair("version", Reply::text(REDIS_VERSION)),
        pair("proto", Reply::Integer(version)),
        pair("id", Reply::Integer(session.client().id as i64)),
        pair("mode", Reply::text(super::cluster::redis_mode(session.runtime()))),
        pair("role", Reply::text("master")),
        pair("modules", Reply::Array(Vec::new())),
    ])
}
