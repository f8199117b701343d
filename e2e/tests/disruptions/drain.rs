//! `kubectl drain` of a Kubernetes node.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use mizuya_e2e::load::Retries;
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, Scenario, UnderLoad, scenario};
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(8);

#[test]
fn drain_of_a_node_is_not_felt() {
    scenario("drain", LIMIT, async |scenario| drained(scenario, async |_| Ok(())).await);
}

#[test]
fn drain_of_a_node_during_a_roll_is_not_felt() {
    scenario("drain-and-roll", LIMIT, async |scenario| {
        let roll = async |cache: &Cache| {
            scenario.kubectl(&["rollout", "restart", &format!("statefulset/{}", cache.name)]).await.map(drop)
        };
        drained(scenario, roll).await
    });
}

/// Puts a cache under load, does something to it, and drains the node of one of its pods at the same time.
async fn drained(scenario: &Scenario, also: impl AsyncFnOnce(&Cache) -> Result<()>) -> Result<()> {
    let cache = scenario.cache("drained");
    cache.apply(&json!({ "replicas": 3 })).await?;
    cache.ready(READY_LIMIT).await?;
    let load = UnderLoad::begin(&cache, Retries::Off).await?;
    let pod = cache.pod(1);
    let (node, before) = (node_of(&cache, &pod).await?, cache.pod_uid(&pod).await?);
    also(&cache).await?;
    let timeout = format!("--timeout={}s", LIMIT.as_secs());
    let drain = ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", &timeout];
    let drained = scenario.bed.kubectl(&drain).await;
    let back = match drained {
        Ok(_) => cache.replaced(&pod, &before, LIMIT).await,
        Err(error) => Err(error),
    };
    // Whatever happened: the next test needs the node.
    scenario.bed.kubectl(&["uncordon", &node]).await?;
    back?;
    cache.ready(LIMIT).await?;
    let outcome = load.end(&cache).await?;
    scenario.say(&outcome);
    outcome.require_unfelt()?;
    outcome.require_one_down_at_most(3)?;
    outcome.require_addresses(2)
}

async fn node_of(cache: &Cache, pod: &str) -> Result<String> {
    let pods: Api<Pod> = cache.api();
    let spec = pods.get(pod).await?.spec.unwrap_or_default();
    spec.node_name.with_context(|| format!("{pod} is on no node"))
}
