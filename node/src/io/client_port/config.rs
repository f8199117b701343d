//! `CONFIG GET`: settings under the names that Redis has for them. They are set in the settings file only.

use bytes::Bytes;
use mizuya_wire::settings::Eviction;

use super::{
    here::{help, subcommand},
    listener::MAX_CLIENTS,
    session::Session,
};
use crate::{
    io::runtime::Runtime,
    logic::{
        commands::{MAX_VALUE_BYTES, glob},
        resp::Reply,
    },
};

const HELP: &[&str] = &["GET <pattern>", "    Return parameters matching the glob-like <pattern> and their values."];

/// CONFIG subcommand [argument ...]
pub(super) fn answer(words: &[Bytes], session: &Session) -> Reply {
    match &subcommand(words)[..] {
        "get" => get(&words[2..], session.runtime()),
        _ => help("CONFIG", HELP),
    }
}

/// CONFIG GET pattern [pattern ...]
///
/// A name that is no pattern is answered as it was written.
fn get(patterns: &[Bytes], runtime: &Runtime) -> Reply {
    let wanted = |name: &'static str| {
        let matches = |pattern: &&Bytes| glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes());
        let pattern = patterns.iter().find(matches)?;
        let written = pattern.eq_ignore_ascii_case(name.as_bytes());
        Some(if written { Reply::Bulk(pattern.clone()) } else { Reply::text(name) })
    };
    let pairs = parameters(runtime).into_iter().filter_map(|(name, value)| Some((wanted(name)?, Reply::text(&value))));
    Reply::Map(pairs.collect())
}

/// Redis' name of a choice; it has none for [`Eviction::Auto`].
pub(super) fn policy(eviction: Eviction) -> &'static str {
    match eviction {
        Eviction::Auto | Eviction::Lru => "allkeys-lru",
        Eviction::Lfu => "allkeys-lfu",
    }
}

/// Sorted by name.
fn parameters(runtime: &Runtime) -> Vec<(&'static str, String)> {
    let settings = runtime.settings();
    let text = |value: &str| value.to_owned();
    vec![
        ("appendonly", text("no")),
        ("bind", settings.bind_addr.ip().to_string()),
        ("cluster-enabled", text(if super::cluster::redis_mode(runtime) == "cluster" { "yes" } else { "no" })),
        ("databases", text("1")),
        ("maxclients", MAX_CLIENTS.to_string()),
        ("maxmemory", runtime.node().config().max_bytes.to_string()),
        ("maxmemory-policy", text(policy(settings.eviction))),
        ("maxmemory-samples", text("10")),
        ("port", settings.bind_addr.port().to_string()),
        ("proto-max-bulk-len", MAX_VALUE_BYTES.to_string()),
        ("requirepass", String::new()),
        ("save", String::new()),
        ("tcp-keepalive", text("300")),
        ("timeout", text("0")),
    ]
}
