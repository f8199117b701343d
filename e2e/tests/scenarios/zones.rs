//! Copies of a key in different zones. The local Kubernetes has one zone for each of its nodes.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, nodes, scenario};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(6);
const LABEL: &str = "topology.kubernetes.io/zone";

#[test]
fn zones_keep_the_copies_of_each_key_apart() {
    scenario("zones", LIMIT, async |scenario| {
        let cache = scenario.cache("zoned");
        let spread = json!([{
            "maxSkew": 1,
            "topologyKey": LABEL,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": { "matchLabels": { "app.kubernetes.io/instance": cache.name } },
        }]);
        // One zone has two pods: without zones a sixth of the partitions would have both copies there.
        cache.apply(&json!({ "replicas": 4, "placement": { "topologySpreadConstraints": spread } })).await?;
        cache.ready(READY_LIMIT).await?;
        cache.condition("ZonesKnown", "True", READY_LIMIT).await?;
        let zones = zones_of_pods(&cache).await?;
        scenario.say(format!("pods by zone: {zones:?}"));
        let distinct: BTreeSet<&String> = zones.values().collect();
        ensure!((2..4).contains(&distinct.len()), "the test needs two or three zones with label {LABEL}");
        let status = nodes::status(&cache, &cache.pod(0)).await?;
        for member in &status.members {
            let zone = zones.get(first_label(&member.name));
            ensure!(zone == Some(&member.zone), "{} says zone {:?}, its machine {zone:?}", member.name, member.zone);
        }
        let table = nodes::table(&cache, &cache.pod(0)).await?;
        let zone = |member: &u32| table.members.get(*member as usize).and_then(|name| zones.get(first_label(name)));
        for owners in &table.partitions {
            let used: BTreeSet<_> = owners.in_sync.iter().map(zone).collect();
            ensure!(owners.in_sync.len() == 2 && used.len() == 2, "partition {} is in {used:?}", owners.partition);
        }
        Ok(())
    });
}

/// Zones of the machines that the pods run on.
async fn zones_of_pods(cache: &Cache) -> Result<BTreeMap<String, String>> {
    let machines: Api<Node> = Api::all(cache.bed.client.clone());
    let (pods, mut zones): (Api<Pod>, _) = (cache.api(), BTreeMap::new());
    for pod in pods.list(&ListParams::default().labels(&cache.selector())).await? {
        let machine = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).context("a pod without a node")?;
        let zone = machines.get(machine).await?.labels().get(LABEL).cloned();
        zones.insert(pod.name_any(), zone.with_context(|| format!("{machine} has no label {LABEL}"))?);
    }
    Ok(zones)
}

fn first_label(name: &str) -> &str {
    name.split('.').next().unwrap_or_default()
}
