//! Rolling restarts and new images.

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Api;
use mizuya_e2e::load::Retries;
use mizuya_e2e::testbed::audit::Audit;
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, Scenario, UnderLoad, scenario};
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(8);
/// The same node under another name: `make images` makes both.
const OTHER_IMAGE: &str = "localhost/mizuya/node:next";

#[test]
fn roll_by_kubectl_rollout_restart_is_not_felt() {
    scenario("roll-restart", LIMIT, async |scenario| {
        let restart = async |cache: &Cache| {
            scenario.kubectl(&["rollout", "restart", &format!("statefulset/{}", cache.name)]).await.map(drop)
        };
        rolled(scenario, restart).await.map(drop)
    });
}

#[test]
fn roll_to_another_image_is_not_felt() {
    scenario("roll-image", LIMIT, async |scenario| {
        let cache = rolled(scenario, async |cache| cache.change(&json!({ "image": OTHER_IMAGE })).await).await?;
        let sets: Api<StatefulSet> = cache.api();
        let template = sets.get(&cache.name).await?.spec.map(|spec| spec.template).unwrap_or_default();
        let images: Vec<_> = template.spec.into_iter().flat_map(|spec| spec.containers).map(|one| one.image).collect();
        ensure!(images == [Some(OTHER_IMAGE.to_owned())], "the StatefulSet runs {images:?}");
        let shown = cache.object().await?.data.pointer("/status/image").cloned();
        ensure!(shown == Some(json!(OTHER_IMAGE)), "status.image is {shown:?}");
        Ok(())
    });
}

/// Puts a cache under load, starts a roll, and checks it when every pod is another one.
async fn rolled(scenario: &Scenario, start: impl AsyncFnOnce(&Cache) -> Result<()>) -> Result<Cache> {
    let cache = scenario.cache("rolled");
    cache.apply(&json!({ "replicas": 3 })).await?;
    cache.ready(READY_LIMIT).await?;
    let pods = cache.pod_names().await?;
    let mut before = Vec::new();
    for pod in &pods {
        before.push(cache.pod_uid(pod).await?);
    }
    let audit = Audit::begin()?;
    let load = UnderLoad::begin(&cache, Retries::Off).await?;
    start(&cache).await?;
    for (pod, uid) in pods.iter().zip(&before) {
        cache.replaced(pod, uid, LIMIT).await?;
    }
    cache.ready(READY_LIMIT).await?;
    let outcome = load.end(&cache).await?;
    scenario.say(&outcome);
    outcome.require_unfelt()?;
    outcome.require_one_down_at_most(3)?;
    outcome.require_addresses(2)?;
    outcome.require_handover(&pods)?;
    removed_by_the_operator(&audit, &cache, &pods)?;
    Ok(cache)
}

/// Each pod was evicted once, by the operator, and nobody else removed one.
fn removed_by_the_operator(audit: &Audit, cache: &Cache, pods: &[String]) -> Result<()> {
    let writes = audit.writes()?.into_iter().filter(|write| {
        let object = &write.object_ref;
        object.namespace == cache.namespace && object.resource == "pods" && write.response_status.code < 300
    });
    let (evictions, others): (Vec<_>, Vec<_>) = writes.partition(|write| write.object_ref.subresource == "eviction");
    let mut evicted: Vec<_> =
        evictions.iter().filter(|write| write.is_operators()).map(|write| &write.object_ref.name).collect();
    evicted.sort();
    ensure!(evictions.len() == pods.len() && evicted == pods.iter().collect::<Vec<_>>(), "evictions: {evictions:?}");
    // The kubelet's delete ends a removal that has begun; anybody else's would begin one.
    let strange =
        others.iter().find(|write| write.verb == "delete" && !write.user.username.starts_with("system:node:"));
    ensure!(strange.is_none(), "a pod was removed without an eviction: {strange:?}");
    Ok(())
}
