//! Who belongs to a cache and who does not.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use mizuya_e2e::testbed::cache::{READY_LIMIT, condition};
use mizuya_e2e::testbed::nodes::{self, Caller};
use mizuya_e2e::testbed::{Cache, scenario};
use mizuya_wire::admin::StatusRequest;
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(5);

#[test]
fn identity_of_a_strangers_service_or_stateful_set_is_respected() {
    scenario("name-taken", LIMIT, async |scenario| {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "taken-service" },
            "spec": { "selector": { "app": "other" }, "ports": [{ "port": 80 }] },
        });
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "taken-set" },
            "spec": {
                "replicas": 0, "serviceName": "other", "selector": { "matchLabels": { "app": "other" } },
                "template": { "metadata": { "labels": { "app": "other" } }, "spec": { "containers": [{ "name": "other", "image": "other" }] } },
            },
        });
        for (stranger, name) in [(service, "taken-service"), (set, "taken-set")] {
            scenario.apply(&stranger.to_string()).await?;
            let kind = stranger["kind"].as_str().context("a kind")?;
            // Without its status: its own controller writes that.
            let object = [
                "get",
                kind,
                name,
                "-o",
                "jsonpath={.metadata.uid} {.metadata.generation} {.metadata.labels} {.metadata.ownerReferences} {.spec}",
            ];
            let before = scenario.kubectl(&object).await?;
            let cache = scenario.cache(name);
            cache.apply(&json!({})).await?;
            let stalled = cache.condition("Stalled", "True", LIMIT).await?;
            ensure!(stalled.reason == "NameTaken", "Stalled for {}: {}", stalled.reason, stalled.message);
            ensure!(stalled.message.contains(name) && stalled.message.contains(kind), "{}", stalled.message);
            scenario.say(&stalled.message);
            let after = scenario.kubectl(&object).await?;
            ensure!(before == after, "the stranger's {kind} was changed from {before} to {after}");
            let pods: Api<Pod> = cache.api();
            ensure!(pods.list(&ListParams::default()).await?.items.is_empty(), "pods were started beside it");
        }
        Ok(())
    });
}

#[test]
fn identity_is_asked_for_at_the_admin_port() {
    scenario("no-certificate", LIMIT, async |scenario| {
        let cache = scenario.cache("guarded");
        cache.apply(&json!({})).await?;
        cache.ready(READY_LIMIT).await?;
        let pod = cache.pod(0);
        let status = nodes::connect(&cache, &pod, Caller::Operator).await?.status(StatusRequest {}).await;
        ensure!(status.is_ok(), "the operator's own certificate is refused: {status:?}");
        let mut stranger = nodes::connect(&cache, &pod, Caller::Stranger).await?;
        let refused = stranger.status(StatusRequest {}).await.err().context("a stranger got an answer")?;
        ensure!(refused.code() == tonic::Code::PermissionDenied, "a stranger got {refused:?}");
        scenario.say(format!("a caller without a certificate: {}", refused.message()));
        scenario.event(LIMIT, |event| event.contains("certificate")).await
    });
}

#[test]
fn identity_of_a_pod_with_another_environment_is_told() {
    misfit("other-environment", "EnvironmentMismatch", |settings| settings["environment"] = "wan".into());
}

#[test]
fn identity_of_a_pod_with_a_wrong_gossip_port_is_told() {
    // The gossip port is the client port + 2.
    misfit("wrong-port", "PortMismatch", |settings| settings["bind_addr"] = "0.0.0.0:4320".into());
}

/// Starts one of a cache's nodes with the cache's own settings but for one, and waits until a condition and an event name
/// the cause. The cache is paused, so that the operator lets the settings be.
fn misfit(name: &str, cause: &str, spoil: impl FnOnce(&mut serde_yaml_ng::Value)) {
    scenario(name, LIMIT, async |scenario| {
        let cache = scenario.cache("joined");
        cache.apply(&json!({})).await?;
        cache.ready(READY_LIMIT).await?;
        cache.change(&json!({ "paused": true })).await?;
        cache.condition("Paused", "True", LIMIT).await?;
        restart_with(&cache, &cache.pod(2), spoil).await?;
        let message = cache
            .wait_for(cause, LIMIT, |object| {
                let found = condition(object, "Degraded").filter(|found| found.status == "True")?;
                found.message.contains(cause).then(|| format!("Degraded {}: {}", found.reason, found.message))
            })
            .await?;
        scenario.say(message);
        scenario.event(LIMIT, |event| event.contains(cause)).await
    });
}

async fn restart_with(cache: &Cache, pod: &str, spoil: impl FnOnce(&mut serde_yaml_ng::Value)) -> Result<()> {
    let maps: Api<ConfigMap> = cache.api();
    let name = format!("{}-settings", cache.name);
    let data = maps.get(&name).await?.data.unwrap_or_default();
    let (file, text) = data.first_key_value().context("the cache has no settings")?;
    let mut settings: serde_yaml_ng::Value = serde_yaml_ng::from_str(text)?;
    spoil(&mut settings);
    let edit = json!({ "data": { file: serde_yaml_ng::to_string(&settings)? } });
    maps.patch(&name, &PatchParams::default(), &Patch::Merge(edit)).await?;
    let pods: Api<Pod> = cache.api();
    pods.delete(pod, &DeleteParams::default()).await?;
    Ok(())
}
