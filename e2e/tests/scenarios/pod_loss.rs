//! A pod that is killed without a chance to hand anything over.

use anyhow::{Context, Result, ensure};
use mizuya_e2e::load::{Options, Retries, ledger};
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, Outcome, UnderLoad, nodes, scenario};
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(400);
const VICTIM: u32 = 1;

#[test]
fn pod_loss_loses_nothing_with_two_copies() {
    scenario("pod-loss", LIMIT, async |scenario| {
        let cache = scenario.cache("killed");
        let replication = json!({ "factor": 2, "writeQuorum": 2 });
        cache.apply(&json!({ "replicas": 3, "replication": replication })).await?;
        let outcome = killed(&cache).await?;
        scenario.say(&outcome.report);
        let gaps = &outcome.report.gaps;
        scenario.say(format!(
            "longest time without a write to the killed pod's keys {}, to the others {}",
            gaps[1], gaps[0]
        ));
        outcome.require_sound()?;
        outcome.require_addresses(2)
    });
}

/// The negative control: a load that finds nothing here would find nothing anywhere.
#[test]
fn pod_loss_with_a_single_copy_is_found_by_the_load() {
    scenario("pod-loss-control", LIMIT, async |scenario| {
        let cache = scenario.cache("single-copy");
        cache.apply(&json!({ "replicas": 3, "replication": { "factor": 1 } })).await?;
        let outcome = killed(&cache).await?;
        scenario.say(&outcome.report);
        ensure!(outcome.report.lost > 1_000, "a third of all keys must be lost: {}", outcome.report);
        ensure!(outcome.report.wrong + outcome.report.came_back == 0, "{:?}", outcome.report.examples);
        Ok(())
    });
}

/// Puts the cache under load, kills one pod, and waits until it is back.
async fn killed(cache: &Cache) -> Result<Outcome> {
    cache.ready(READY_LIMIT).await?;
    let victim = cache.pod(VICTIM);
    let load = UnderLoad::begin_with(cache, grouped(cache, &victim).await?).await?;
    let before = cache.pod_uid(&victim).await?;
    let kill = ["delete", "pod", &victim, "--grace-period=0", "--force", "--namespace", &cache.namespace];
    cache.bed.kubectl(&kill).await?;
    cache.replaced(&victim, &before, READY_LIMIT).await?;
    cache.ready(READY_LIMIT).await?;
    load.end(cache).await
}

/// The shared load, with the keys whose primary is `pod` in group 1 and the others in group 0.
async fn grouped(cache: &Cache, pod: &str) -> Result<Options> {
    let table = nodes::table(cache, &cache.pod(0)).await?;
    let member = nodes::member_index(&table, pod).with_context(|| format!("{pod} is not in the table"))?;
    let mut options = cache.load(Retries::Once).await?;
    let group = |key| {
        usize::from(nodes::owners(&table, &ledger::name(&options.prefix, ledger::Key(key))).first() == Some(&member))
    };
    options.groups = (0..options.keys).map(group).collect();
    Ok(options)
}
