//! What the operator does when there is nothing to do: nothing.

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use mizuya_e2e::testbed::audit::Audit;
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, Scenario, scenario, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a cache is watched for writes.
const AT_REST: Duration = Duration::from_mins(5);
/// How long its children are watched after the same YAML was applied again.
const AFTER_REAPPLY: Duration = Duration::from_secs(30);
/// How long a hand edit may stand (rule O14).
const UNDONE_LIMIT: Duration = Duration::from_secs(5);
/// Kinds that a CacheCluster's children are of.
const CHILDREN: &str = "statefulsets,services,configmaps,secrets,poddisruptionbudgets,networkpolicies,serviceaccounts";

#[test]
fn a_cache_at_rest_is_not_written_to_for_five_minutes() {
    scenario("at-rest", Duration::from_secs(700), async |scenario| {
        let cache = settled(scenario).await?;
        let audit = Audit::begin()?;
        watch_for(AT_REST, &cache).await?;
        let writes = audit.operator_writes(&scenario.namespace)?;
        let lines: Vec<String> = writes.iter().map(mizuya_e2e::testbed::audit::Write::line).collect();
        ensure!(lines.is_empty(), "{} writes in {} s:\n{}", lines.len(), AT_REST.as_secs(), lines.join("\n"));
        scenario.say(format!("writes of the operator in {} s: 0", AT_REST.as_secs()));
        Ok(())
    });
}

#[test]
fn a_cache_that_is_applied_again_changes_no_child() {
    scenario("reapply", Duration::from_secs(400), async |scenario| {
        let cache = settled(scenario).await?;
        let before = versions(scenario).await?;
        ensure!(before.len() >= 8, "only these children: {:?}", before.keys());
        cache.apply(&json!({})).await?;
        watch_for(AFTER_REAPPLY, &cache).await?;
        let after = versions(scenario).await?;
        let changed: Vec<_> = after.iter().filter(|(name, version)| before.get(*name) != Some(version)).collect();
        ensure!(changed.is_empty() && after.len() == before.len(), "changed: {changed:?}");
        Ok(())
    });
}

#[test]
fn a_cache_whose_children_are_edited_gets_its_own_fields_back_and_leaves_the_others() {
    scenario("hand-edit", Duration::from_secs(400), async |scenario| {
        let cache = settled(scenario).await?;
        let services: Api<Service> = cache.api();
        let note = json!({ "metadata": { "annotations": { "example.com/note": "mine" } } });
        services.patch(&cache.name, &PatchParams::default(), &Patch::Merge(note)).await?;
        let port = r#"[{ "op": "replace", "path": "/spec/ports/0/targetPort", "value": 9 }]"#;
        scenario.kubectl(&["patch", "service", &cache.name, "--type=json", "-p", port]).await?;
        wait::for_object("the port to be right again", UNDONE_LIMIT, services.clone(), &cache.name, |service| {
            Ok(service.filter(|service| target_port(service) != Some(json!(9))).map(drop))
        })
        .await?;

        let settings: Api<ConfigMap> = cache.api();
        let name = format!("{}-settings", cache.name);
        let rendered = settings.get(&name).await?.data;
        let edit = json!({ "data": { rendered.iter().flatten().next().context("no settings")?.0: "edited: by hand" } });
        settings.patch(&name, &PatchParams::default(), &Patch::Merge(edit)).await?;
        wait::for_object("the settings to be right again", UNDONE_LIMIT, settings, &name, |settings| {
            Ok(settings.filter(|settings| settings.data == rendered).map(drop))
        })
        .await?;

        watch_for(AFTER_REAPPLY, &cache).await?;
        let note = services.get(&cache.name).await?.annotations().get("example.com/note").cloned();
        ensure!(note.as_deref() == Some("mine"), "the note is {note:?}");
        Ok(())
    });
}

/// A cache that is ready, whose status has its figures and whose last event was said, so that nothing is left to say.
async fn settled(scenario: &Scenario) -> Result<Cache> {
    let cache = scenario.cache("resting");
    cache.apply(&json!({})).await?;
    cache.ready(READY_LIMIT).await?;
    let figures = |object: &DynamicObject| object.data.pointer("/status/figures").map(drop);
    cache.wait_for("figures in its status", Duration::from_secs(90), figures).await?;
    // The operator says it after the status that it tells of.
    scenario.event(READY_LIMIT, |event| event.starts_with("Ready: ")).await?;
    Ok(cache)
}

/// Follows the object for this long and fails when it is not ready meanwhile.
async fn watch_for(time: Duration, cache: &Cache) -> Result<()> {
    let selection = kube::runtime::watcher::Config::default().fields(&format!("metadata.name={}", cache.name));
    let events = wait::events(cache.clusters(), selection);
    let follow = events.for_each(|event| {
        if let kube::runtime::watcher::Event::Apply(object) = event {
            println!("{} at rest: {}", cache.name, object.data["status"]);
        }
        std::future::ready(())
    });
    // The time is what is tested here: nothing must happen in it.
    let _ = tokio::time::timeout(time, follow).await;
    let object = cache.object().await?;
    ensure!(mizuya_e2e::testbed::cache::has(&object, "Ready", "True"), "not ready: {}", object.data["status"]);
    Ok(())
}

/// The resource version of every child.
async fn versions(scenario: &Scenario) -> Result<BTreeMap<String, String>> {
    let list: Value = serde_json::from_str(&scenario.kubectl(&["get", CHILDREN, "-o", "json"]).await?)?;
    let mut versions = BTreeMap::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let owned = item.pointer("/metadata/ownerReferences/0/kind").is_some_and(|kind| kind == "CacheCluster");
        if owned {
            let name = format!("{}/{}", item["kind"], item["metadata"]["name"]);
            versions.insert(name, item["metadata"]["resourceVersion"].to_string());
        }
    }
    Ok(versions)
}

fn target_port(service: &Service) -> Option<Value> {
    let port = service.spec.as_ref()?.ports.as_ref()?.first()?.target_port.clone()?;
    serde_json::to_value(port).ok()
}
