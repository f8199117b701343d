//! A cache whose operator dies.

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use kube::core::DynamicObject;
use mizuya_e2e::load::Retries;
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, Scenario, UnderLoad, operator, scenario, wait};
use serde_json::{Value, json};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(8);

#[test]
fn operator_killed_in_a_scale_down_is_followed_by_one_that_finishes_it() {
    scenario("operator-killed", LIMIT, async |scenario| {
        let cache = scenario.cache("scaled");
        cache.apply(&json!({ "replicas": 4 })).await?;
        cache.ready(READY_LIMIT).await?;
        let load = UnderLoad::begin(&cache, Retries::Off).await?;
        cache.scale(2).await?;
        let drain = |object: &DynamicObject| object.data.pointer("/status/drain/pod").cloned();
        let pod = cache.wait_for("a drain", LIMIT, drain).await?;
        operator::kill(&scenario.bed).await?;
        scenario.say(format!("the operator was killed while {pod} was drained"));
        cache.ready(LIMIT).await?;
        cache.pods_up(2, READY_LIMIT).await?;
        let outcome = load.end(&cache).await?;
        scenario.say(&outcome);
        outcome.require_unfelt()?;
        outcome.require_empty(&[cache.pod(3), cache.pod(2)])
    });
}

#[test]
fn operator_is_not_needed_to_delete_a_cache() {
    scenario("delete", LIMIT, async |scenario| {
        for (name, with_operator) in [("with", true), ("without", false)] {
            let cache = scenario.cache(name);
            cache.apply(&json!({})).await?;
            cache.ready(READY_LIMIT).await?;
            if !with_operator {
                operator::scale(&scenario.bed, 0).await?;
            }
            let gone = deleted(scenario, &cache).await;
            if !with_operator {
                operator::scale(&scenario.bed, 1).await?;
            }
            gone?;
        }
        Ok(())
    });
}

async fn deleted(scenario: &Scenario, cache: &Cache) -> Result<()> {
    scenario.kubectl(&["delete", "cachecluster", &cache.name, "--wait=true", "--timeout=60s"]).await?;
    let sets: Api<StatefulSet> = cache.api();
    wait::for_object("the StatefulSet to be gone", LIMIT, sets, &cache.name, |set| Ok(set.is_none().then_some(())))
        .await?;
    cache.pods_up(0, LIMIT).await?;
    let look = async || {
        let left = children(scenario, &cache.name).await?;
        Ok(left.is_empty().then_some(()))
    };
    let gone = wait::by_asking("all children to be gone", LIMIT, look).await;
    ensure!(gone.is_ok(), "still there: {:?}", children(scenario, &cache.name).await?);
    Ok(())
}

/// What still carries the cache's name in its labels.
async fn children(scenario: &Scenario, name: &str) -> Result<Vec<String>> {
    let kinds = "statefulsets,pods,services,endpointslices,configmaps,secrets,poddisruptionbudgets,networkpolicies,serviceaccounts";
    let selector = format!("--selector=app.kubernetes.io/instance={name}");
    let list: Value = serde_json::from_str(&scenario.kubectl(&["get", kinds, &selector, "-o", "json"]).await?)?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().map(|item| format!("{}/{}", item["kind"], item["metadata"]["name"])).collect())
}
