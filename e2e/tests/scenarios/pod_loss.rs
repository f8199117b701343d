//! A pod that is killed without a chance to hand anything over.

use anyhow::{Context, Result, ensure};
use mizuya_e2e::load::{Options, Retries, ledger};
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, Outcome, Scenario, UnderLoad, kill, nodes, scenario};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(400);
const VICTIM: u32 = 1;
const OTHER: u32 = 0;

#[test]
fn pod_loss_by_a_crash_loses_nothing_with_two_copies() {
    scenario("crash", LIMIT, async |scenario| {
        let outcome = lost(scenario, 3, json!({ "factor": 2, "writeQuorum": 2 }), crash).await?;
        outcome.require_sound()?;
        outcome.require_addresses(2)
    });
}

#[test]
fn pod_loss_by_a_forced_delete_loses_nothing_with_two_copies() {
    scenario("forced-delete", LIMIT, async |scenario| {
        let outcome = lost(scenario, 3, json!({ "factor": 2, "writeQuorum": 2 }), delete).await?;
        outcome.require_sound()?;
        outcome.require_addresses(2)
    });
}

#[test]
fn pod_loss_by_two_crashes_one_after_the_other_loses_nothing_with_two_copies() {
    scenario("two-crashes", LIMIT, async |scenario| {
        let outcome = lost(scenario, 3, json!({ "factor": 2, "writeQuorum": 2 }), crash_two).await?;
        outcome.require_sound()
    });
}

/// The negative control: a load that finds nothing here would find nothing anywhere.
#[test]
fn pod_loss_by_a_crash_with_a_single_copy_is_found_by_the_load() {
    scenario("crash-control", LIMIT, async |scenario| {
        let outcome = lost(scenario, 3, json!({ "factor": 1 }), crash).await?;
        // A third of all keys is lost; most of them are written again before anyone reads them.
        ensure!(outcome.report.lost > 100, "the loss was not found: {}", outcome.report);
        ensure!(outcome.report.wrong + outcome.report.came_back == 0, "{:?}", outcome.report.examples);
        Ok(())
    });
}

/// The recommended layouts (requirement A18; nodes, then factor, read and write quorum) survive the loss of one node. With
/// two nodes that needs a member quorum of 1, which is what `auto` is there.
#[test]
fn pod_loss_is_survived_by_the_layout_2_nodes_2_1_1() {
    scenario("layout-2-211", LIMIT, async |scenario| survived(scenario, 2, (2, 1, 1)).await);
}

#[test]
fn pod_loss_is_survived_by_the_layout_3_nodes_2_1_1() {
    scenario("layout-3-211", LIMIT, async |scenario| survived(scenario, 3, (2, 1, 1)).await);
}

#[test]
fn pod_loss_is_survived_by_the_layout_3_nodes_3_2_2() {
    scenario("layout-3-322", LIMIT, async |scenario| survived(scenario, 3, (3, 2, 2)).await);
}

async fn survived(scenario: &Scenario, nodes: u32, (factor, read, write): (u32, u32, u32)) -> Result<()> {
    let replication = json!({ "factor": factor, "readQuorum": read, "writeQuorum": write });
    lost(scenario, nodes, replication, crash).await?.require_sound()
}

/// Puts a cache under load, ends one pod without a grace, and waits until it is back.
async fn lost(
    scenario: &Scenario,
    replicas: u32,
    replication: Value,
    end: impl AsyncFnOnce(&Cache, &str) -> Result<()>,
) -> Result<Outcome> {
    let cache = scenario.cache("killed");
    cache.apply(&json!({ "replicas": replicas, "replication": replication })).await?;
    cache.ready(READY_LIMIT).await?;
    let victim = cache.pod(VICTIM);
    let load = UnderLoad::begin_with(&cache, grouped(&cache, &victim).await?).await?;
    end(&cache, &victim).await?;
    cache.pods_up(replicas as usize, READY_LIMIT).await?;
    cache.ready(READY_LIMIT).await?;
    let outcome = load.end(&cache).await?;
    scenario.say(&outcome);
    let gaps = &outcome.report.gaps;
    scenario
        .say(format!("longest time without a write to the ended pod's keys {}, to the others {}", gaps[1], gaps[0]));
    Ok(outcome)
}

async fn crash(cache: &Cache, pod: &str) -> Result<()> {
    kill::pod(cache, pod).await?;
    kill::restarted(cache, pod, READY_LIMIT).await
}

/// Copies are rebuilt without an operator's or a person's help before the second crash.
async fn crash_two(cache: &Cache, pod: &str) -> Result<()> {
    crash(cache, pod).await?;
    cache.ready(READY_LIMIT).await?;
    crash(cache, &cache.pod(OTHER)).await
}

async fn delete(cache: &Cache, pod: &str) -> Result<()> {
    let before = cache.pod_uid(pod).await?;
    let delete = ["delete", "pod", pod, "--grace-period=0", "--force", "--namespace", &cache.namespace];
    cache.bed.kubectl(&delete).await?;
    cache.replaced(pod, &before, READY_LIMIT).await
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
