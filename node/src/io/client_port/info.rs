//! `INFO`: figures of this node, in the sections and words of Redis.

use std::{fmt::Write, process};

use bytes::Bytes;
use mizuya_wire::admin::Totals;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};

use super::{REDIS_VERSION, cluster::redis_mode, config, listener::MAX_CLIENTS, session::Session};
use crate::{
    io::{memory, runtime::Runtime},
    logic::resp::Reply,
};

const SECTIONS: [&str; 8] = ["server", "clients", "memory", "stats", "replication", "cpu", "cluster", "keyspace"];

/// INFO [section ...]
pub(super) fn answer(words: &[Bytes], session: &Session) -> Reply {
    let asked: Vec<String> = words[1..].iter().map(|word| String::from_utf8_lossy(word).to_ascii_lowercase()).collect();
    let all = asked.is_empty() || asked.iter().any(|name| ["all", "default", "everything"].contains(&&name[..]));
    let runtime = session.runtime();
    let totals = runtime.node().status(runtime.clock()).totals.unwrap_or_default();
    let mut text = String::new();
    for section in SECTIONS.into_iter().filter(|section| all || asked.iter().any(|name| name == section)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let (title, lines) = (section[..1].to_uppercase() + &section[1..], lines(section, session, &totals));
        // Writing to a string does not fail.
        let _ = write!(text, "# {}\r\n", if section == "cpu" { "CPU" } else { &title });
        for (name, value) in lines {
            let _ = write!(text, "{name}:{value}\r\n");
        }
    }
    Reply::Verbatim(text)
}

type Lines = Vec<(&'static str, String)>;

fn lines(section: &str, session: &Session, totals: &Totals) -> Lines {
    let runtime = session.runtime();
    match section {
        "server" => server(runtime),
        "clients" => {
            let open = session.clients().traffic().open.to_string();
            let none = || "0".to_owned();
            vec![("connected_clients", open), ("maxclients", MAX_CLIENTS.to_string()), ("blocked_clients", none())]
        }
        "memory" => memory_lines(runtime, totals),
        "stats" => stats(session, totals),
        "replication" => vec![
            ("role", "master".to_owned()),
            ("connected_slaves", "0".to_owned()),
            ("master_repl_offset", "0".to_owned()),
        ],
        "cpu" => cpu(),
        "cluster" => vec![("cluster_enabled", u8::from(redis_mode(runtime) == "cluster").to_string())],
        _ if totals.keys == 0 => Vec::new(),
        _ => vec![("db0", format!("keys={},expires=0,avg_ttl=0", totals.keys))],
    }
}

fn server(runtime: &Runtime) -> Lines {
    let up = runtime.clock().now.since(runtime.started()) / 1000;
    let identity = runtime.identity();
    vec![
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_mode", redis_mode(runtime).to_owned()),
        ("os", std::env::consts::OS.to_owned()),
        ("arch_bits", usize::BITS.to_string()),
        ("process_id", process::id().to_string()),
        ("run_id", format!("{:024}{:016x}", 0, identity.generation.0)),
        ("tcp_port", identity.client_port.to_string()),
        ("server_time_usec", (runtime.clock().wall * 1000).to_string()),
        ("uptime_in_seconds", up.to_string()),
        ("uptime_in_days", (up / 86_400).to_string()),
        ("mizuya_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("mizuya_mode", runtime.mode().to_owned()),
        ("mizuya_member", identity.name.to_string()),
    ]
}

fn memory_lines(runtime: &Runtime, totals: &Totals) -> Lines {
    let resident = memory::resident();
    vec![
        ("used_memory", totals.bytes.to_string()),
        ("used_memory_human", human(totals.bytes)),
        ("used_memory_rss", resident.to_string()),
        ("used_memory_rss_human", human(resident)),
        ("maxmemory", totals.max_bytes.to_string()),
        ("maxmemory_human", human(totals.max_bytes)),
        ("maxmemory_policy", config::policy(runtime.settings().eviction).to_owned()),
        ("mem_fragmentation_ratio", format!("{:.2}", resident as f64 / (totals.bytes.max(1)) as f64)),
        ("mem_allocator", "mimalloc".to_owned()),
        ("mizuya_memory_budget", runtime.node().budget().to_string()),
    ]
}

fn stats(session: &Session, totals: &Totals) -> Lines {
    let traffic = session.clients().traffic();
    [
        ("total_connections_received", traffic.accepted),
        ("total_commands_processed", traffic.commands),
        ("total_net_input_bytes", traffic.read),
        ("total_net_output_bytes", traffic.written),
        ("rejected_connections", traffic.rejected),
        ("expired_keys", totals.expirations),
        ("evicted_keys", totals.evictions),
        ("keyspace_hits", totals.hits),
        ("keyspace_misses", totals.misses),
    ]
    .into_iter()
    .map(|(name, figure)| (name, figure.to_string()))
    .collect()
}

fn cpu() -> Lines {
    let seconds = |time: TimeVal| format!("{}.{:06}", time.tv_sec(), time.tv_usec());
    match getrusage(UsageWho::RUSAGE_SELF) {
        Ok(usage) => {
            vec![("used_cpu_sys", seconds(usage.system_time())), ("used_cpu_user", seconds(usage.user_time()))]
        }
        Err(_) => Vec::new(),
    }
}

/// As Redis shortens figures.
fn human(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    match units.into_iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.2}{unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shortened_as_redis_does() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1_480_400, "1.41M"), (25_276_510_208, "23.54G")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
