//! The checked load against a cache that is known to be right: it finds nothing there, and finds what is done to it
//! behind its back.

use anyhow::{Context, Result, bail};
use mizuya_e2e::load::connection::{Connection, Reply};
use mizuya_e2e::load::{Load, Options, Report, Retries};
use mizuya_e2e::testbed::wait;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A Redis server of the test's own.
struct Redis {
    server: Child,
    address: SocketAddr,
}

impl Redis {
    async fn start() -> Result<Self> {
        // Another test may get the same port before this one's server has bound it: that server ends, and the next
        // port is tried.
        for _ in 0..10 {
            if let Some(redis) = Self::try_start().await? {
                return Ok(redis);
            }
        }
        bail!("redis-server found no free port")
    }

    async fn try_start() -> Result<Option<Self>> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let server = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .stdout(Stdio::null())
            .spawn()
            .context("can't start redis-server: `apt-get install redis-server` has it")?;
        let redis = Self { server, address: (Ipv4Addr::LOCALHOST, port).into() };
        let look = async || Ok(Connection::open(redis.address).await.ok());
        let mut connection = wait::by_asking("redis-server", Duration::from_secs(10), look).await?;
        // The other test's server may also end just now.
        let answer = connection.ask(&["INFO", "server"]).await;
        let own = format!("process_id:{}\r", redis.server.id());
        Ok(matches!(answer, Ok(Reply::BulkString(text)) if String::from_utf8_lossy(&text).contains(&own))
            .then_some(redis))
    }

    async fn load(&self) -> Result<Load> {
        let options = Options { keys: 2_000, ..Options::new(self.address, Retries::Off) };
        Load::start(options).await
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Loads, does something to the server in the middle, and goes on.
async fn disturbed(disturb: impl AsyncFnOnce(&mut Connection) -> Result<()>) -> Result<Report> {
    let redis = Redis::start().await?;
    let mut load = redis.load().await?;
    load.go_on_for(8_000).await?;
    disturb(&mut Connection::open(redis.address).await?).await?;
    load.go_on_for(500).await?;
    let report = load.finish(&[redis.address]).await?;
    println!("{report}");
    Ok(report)
}

#[tokio::test]
async fn nothing_is_found_on_a_sound_cache() -> Result<()> {
    let report = disturbed(async |_| Ok(())).await?;
    assert!(report.is_sound() && report.errors == 0, "{report}: {:?}", report.examples);
    assert!(report.reads > 100 && report.verified == 2_000, "{report}");
    Ok(())
}

#[tokio::test]
async fn keys_that_vanish_are_found_as_lost() -> Result<()> {
    let report = disturbed(async |redis| redis.ask(&["FLUSHALL"]).await.map(drop)).await?;
    assert!(report.lost > 500, "{report}");
    assert_eq!((report.wrong, report.stale, report.errors), (0, 0, 0), "{report}");
    Ok(())
}

#[tokio::test]
async fn values_that_nobody_wrote_are_found_as_wrong() -> Result<()> {
    let report = disturbed(async |redis| {
        for key in 0..2_000 {
            redis.ask(&["SET", &format!("load:{key}"), "load:7#1#other"]).await?;
        }
        Ok(())
    })
    .await?;
    assert!(report.wrong > 500, "{report}");
    Ok(())
}

#[tokio::test]
async fn older_values_are_found_as_stale_and_deleted_ones_as_back() -> Result<()> {
    let redis = Redis::start().await?;
    let mut load = redis.load().await?;
    load.go_on_for(8_000).await?;
    let mut admin = Connection::open(redis.address).await?;
    let mut old = Vec::new();
    for key in (0..2_000).map(|key| format!("load:{key}")) {
        old.extend(admin.get(&key).await?.map(|value| (key, value)));
    }
    load.go_on_for(8_000).await?;
    for (key, value) in old {
        admin.ask(&["SET", &key, &value]).await?;
    }
    let report = load.finish(&[redis.address]).await?;
    assert!(report.stale > 500 && report.came_back > 20, "{report}");
    assert_eq!((report.wrong, report.errors), (0, 0), "{report}");
    Ok(())
}

#[tokio::test]
async fn refused_commands_are_errors() -> Result<()> {
    let redis = Redis::start().await?;
    let mut load = redis.load().await?;
    load.go_on_for(2_000).await?;
    let mut admin = Connection::open(redis.address).await?;
    admin.ask(&["CONFIG", "SET", "maxmemory", "1"]).await?;
    let refused = async || Ok((load.errors() > 0).then_some(()));
    mizuya_e2e::testbed::wait::by_asking("an error", Duration::from_secs(10), refused).await?;
    admin.ask(&["CONFIG", "SET", "maxmemory", "0"]).await?;
    let report = load.finish(&[redis.address]).await?;
    assert!(report.is_sound() && report.errors > 0, "{report}: {:?}", report.examples);
    assert!(report.examples[0].contains("OOM"), "{:?}", report.examples);
    Ok(())
}

#[tokio::test]
async fn a_broken_connection_costs_one_reconnect() -> Result<()> {
    let redis = Redis::start().await?;
    let mut load = Load::start(Options { keys: 2_000, ..Options::new(redis.address, Retries::Once) }).await?;
    load.go_on_for(2_000).await?;
    let mut admin = Connection::open(redis.address).await?;
    for _ in 0..20 {
        admin.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
        load.go_on_for(100).await?;
    }
    let report = load.finish(&[redis.address]).await?;
    assert!(report.is_sound() && report.errors == 0, "{report}: {:?}", report.examples);
    Ok(())
}
