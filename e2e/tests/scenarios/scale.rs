//! More nodes, fewer nodes, and fewer turned back.

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::core::DynamicObject;
use mizuya_e2e::load::Retries;
use mizuya_e2e::load::connection::{Command, Connection, Reply};
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, Scenario, UnderLoad, nodes, scenario};
use mizuya_wire::admin::MemberState;
use serde_json::json;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(8);
/// Entries beside those of the load, so that a drain takes long enough to be seen: 60 MB, twice.
const BULK: usize = 30_000;
const BULK_BYTES: usize = 2_000;

#[test]
fn scale_from_3_to_2_loses_nothing_and_is_not_felt() {
    scenario("scale-3-2", LIMIT, async |scenario| {
        let cache = cache_of(scenario, 3).await?;
        let load = UnderLoad::begin(&cache, Retries::Off).await?;
        cache.scale(2).await?;
        let progress = cache.wait_for("progress in its status", LIMIT, progress).await?;
        scenario.say(format!("progress: {progress}"));
        ensure!(progress.contains(&cache.pod(2)), "the progress does not name the pod: {progress}");
        scaled(&cache, 2).await?;
        let outcome = load.end(&cache).await?;
        scenario.say(&outcome);
        outcome.require_unfelt()?;
        outcome.require_empty(&[cache.pod(2)])?;
        bulk_is_there(&cache).await
    });
}

#[test]
fn scale_from_2_to_4_loses_nothing_and_is_not_felt() {
    scenario("scale-2-4", LIMIT, async |scenario| {
        let cache = cache_of(scenario, 2).await?;
        let load = UnderLoad::begin(&cache, Retries::Off).await?;
        let start = Instant::now();
        cache.scale(4).await?;
        scaled(&cache, 4).await?;
        scenario.say(format!("from scale to Ready: {:.1} s", start.elapsed().as_secs_f64()));
        let outcome = load.end(&cache).await?;
        scenario.say(&outcome);
        outcome.require_unfelt()?;
        for status in nodes::statuses(&cache).await? {
            let keys = status.totals.unwrap_or_default().keys;
            ensure!(keys > 0, "{} got no keys", status.member);
        }
        bulk_is_there(&cache).await
    });
}

#[test]
fn scale_from_4_to_2_and_back_to_4_in_the_middle_removes_nothing() {
    scenario("scale-4-2-4", LIMIT, async |scenario| {
        let cache = cache_of(scenario, 4).await?;
        let before = cache.pod_uids().await?;
        let load = UnderLoad::begin(&cache, Retries::Off).await?;
        cache.scale(2).await?;
        let drain = |object: &DynamicObject| object.data.pointer("/status/drain/pod").cloned();
        let pod = cache.wait_for("a drain", LIMIT, drain).await?;
        cache.scale(4).await?;
        scenario.say(format!("turned back while {pod} was drained"));
        scaled(&cache, 4).await?;
        let outcome = load.end(&cache).await?;
        scenario.say(&outcome);
        outcome.require_unfelt()?;
        outcome.require_one_down_at_most(5)?;
        ensure!(cache.pod_uids().await? == before, "a pod was replaced");
        for status in nodes::statuses(&cache).await? {
            for member in status.members {
                ensure!(member.state() == MemberState::Active, "{} is left {:?}", member.name, member.state());
            }
        }
        bulk_is_there(&cache).await
    });
}

/// A GitOps agent applies server-side and leaves `replicas` to an autoscaler, which writes through `/scale`. Then the API
/// server notes no owner; and an agent that gives `replicas` up leaves the schema's default behind.
#[test]
fn scale_by_an_autoscaler_is_followed_and_a_number_given_up_is_not() {
    scenario("scale-unowned", LIMIT, async |scenario| {
        let cache = scenario.cache("scaled");
        cache.apply_as_agent(&json!({})).await?;
        cache.ready(READY_LIMIT).await?;
        for replicas in [2, 3] {
            cache.scale(replicas).await?;
            scaled(&cache, replicas as i32).await?;
        }
        cache.apply_as_agent(&json!({ "replicas": 2 })).await?;
        scaled(&cache, 2).await?;
        cache.apply_as_agent(&json!({})).await?;
        let condition = cache.condition("ReplicasUnmanaged", "True", READY_LIMIT).await?;
        scenario.say(condition.message);
        let default = cache.object().await?.data.pointer("/spec/replicas").cloned();
        ensure!(default == Some(json!(3)), "the API server was to put its default back, not {default:?}");
        scaled(&cache, 2).await
    });
}

async fn cache_of(scenario: &Scenario, replicas: u32) -> Result<Cache> {
    let cache = scenario.cache("scaled");
    cache.apply(&json!({ "replicas": replicas })).await?;
    cache.ready(READY_LIMIT).await?;
    let write = |key: usize| -> Command { ["SET".to_owned(), format!("bulk:{key}"), bulk_value(key)].to_vec() };
    let writes: Vec<Command> = (0..BULK).map(write).collect();
    Connection::open(cache.service_address().await?).await?.acknowledged(&writes).await?;
    Ok(cache)
}

async fn bulk_is_there(cache: &Cache) -> Result<()> {
    let reads: Vec<Command> = (0..BULK).map(|key| ["GET".to_owned(), format!("bulk:{key}")].to_vec()).collect();
    let mut missing = 0;
    let mut connection = Connection::open(cache.service_address().await?).await?;
    connection
        .exchange(&reads, |key, reply| missing += usize::from(reply != Reply::BulkString(bulk_value(key).into())))
        .await?;
    ensure!(missing == 0, "{missing} of {BULK} entries at rest are missing or wrong");
    Ok(())
}

fn bulk_value(key: usize) -> String {
    format!("{key:0BULK_BYTES$}")
}

/// Waits until the cache has this size, in every respect.
async fn scaled(cache: &Cache, replicas: i32) -> Result<()> {
    cache.ready(LIMIT).await?;
    cache.pods_up(replicas as usize, READY_LIMIT).await?;
    let sets: kube::Api<StatefulSet> = cache.api();
    let wanted = sets.get(&cache.name).await?.spec.and_then(|spec| spec.replicas);
    ensure!(wanted == Some(replicas), "Ready, but the StatefulSet asks for {wanted:?}");
    Ok(())
}

fn progress(object: &DynamicObject) -> Option<String> {
    object.data.pointer("/status/progress")?.as_str().map(str::to_owned)
}
