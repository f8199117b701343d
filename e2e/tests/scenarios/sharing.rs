//! How keys are shared out.

use anyhow::{Result, ensure};
use mizuya_e2e::load::connection::{Command, Connection, Reply};
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, nodes, scenario};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

const KEYS: usize = 20_000;
/// How far above its ideal share a pod may be.
const FAIR: f64 = 1.3;

#[test]
fn sharing_is_fair_with_two_copies_of_each_key_and_every_pod_answers() {
    scenario("sharing", Duration::from_mins(5), async |scenario| {
        let cache = scenario.cache("shared");
        cache.apply(&json!({})).await?;
        cache.ready(READY_LIMIT).await?;
        let write = |key: usize| words(&["SET", &name(key), &value(key)]);
        for reply in ask(cache.service_address().await?, (0..KEYS).map(write).collect()).await? {
            ensure!(reply == Reply::SimpleString("OK".into()), "a SET answered {reply:?}");
        }
        for address in cache.pod_addresses().await? {
            let read = |key: usize| words(&["GET", &name(key)]);
            for (key, reply) in ask(address, (0..KEYS).map(read).collect()).await?.into_iter().enumerate() {
                ensure!(reply == Reply::BulkString(value(key).into()), "{address}: {} is {reply:?}", name(key));
            }
        }
        shares_are_fair(&cache).await?;
        copies_are_two(&cache).await
    });
}

async fn shares_are_fair(cache: &Cache) -> Result<()> {
    let statuses = nodes::statuses(cache).await?;
    let ideal = (2 * KEYS) as f64 / statuses.len() as f64;
    let (mut primaries, mut backups) = (0, 0);
    for status in statuses {
        let totals = status.totals.unwrap_or_default();
        primaries += totals.keys;
        backups += totals.backup_keys;
        let share = (totals.keys + totals.backup_keys) as f64 / ideal;
        println!(
            "{}: {} keys and {} copies, {share:.2} of its ideal share",
            status.member, totals.keys, totals.backup_keys
        );
        ensure!(share < FAIR && share > 1.0 / FAIR, "{} holds {share:.2} of its ideal share", status.member);
    }
    ensure!((primaries, backups) == (KEYS as u64, KEYS as u64), "{primaries} keys and {backups} copies");
    Ok(())
}

async fn copies_are_two(cache: &Cache) -> Result<()> {
    let table = nodes::table(cache, &cache.pod(0)).await?;
    for partition in &table.partitions {
        let owners = &partition.in_sync;
        ensure!(
            owners.len() == 2 && owners[0] != owners[1],
            "partition {}: in sync are {owners:?}",
            partition.partition
        );
    }
    Ok(())
}

async fn ask(address: SocketAddr, commands: Vec<Command>) -> Result<Vec<Reply>> {
    let mut replies = Vec::with_capacity(commands.len());
    Connection::open(address).await?.exchange(&commands, |_, reply| replies.push(reply)).await?;
    Ok(replies)
}

fn words(words: &[&str]) -> Command {
    words.iter().map(ToString::to_string).collect()
}

fn name(key: usize) -> String {
    format!("key:{key}")
}

fn value(key: usize) -> String {
    format!("value of {key}")
}
