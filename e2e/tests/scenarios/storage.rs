//! Volumes: what comes back after all pods were gone, and what never does.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use mizuya_e2e::load::connection::{Command, Connection, Reply};
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, nodes, scenario};
use serde_json::json;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_mins(10);
const KEYS: usize = 5_000;
/// One key of so many is deleted.
const DELETED: usize = 5;

#[test]
fn storage_brings_everything_back_after_all_pods_were_deleted_at_once() {
    scenario("all-pods-deleted", LIMIT, async |scenario| {
        let cache = scenario.cache("kept");
        cache.apply(&json!({ "replicas": 3, "storage": { "size": "256Mi" } })).await?;
        cache.ready(READY_LIMIT).await?;
        write(&cache, 0..KEYS).await?;
        delete(&cache, (0..KEYS).step_by(DELETED)).await?;
        let mut before = Vec::new();
        for pod in cache.pod_names().await? {
            before.push((pod.clone(), cache.pod_uid(&pod).await?));
        }
        let start = Instant::now();
        scenario.kubectl(&["delete", "pods", "--wait=false", "--selector", &cache.selector()]).await?;
        for (pod, uid) in before {
            cache.replaced(&pod, &uid, LIMIT).await?;
        }
        cache.ready(LIMIT).await?;
        scenario.say(format!("from the deletion to Ready: {:.1} s", start.elapsed().as_secs_f64()));
        check(&cache, |key| key % DELETED != 0).await?;
        for status in nodes::statuses(&cache).await? {
            ensure!(status.problems.iter().all(|problem| problem.code != "VolumeFailed"), "{:?}", status.problems);
        }
        Ok(())
    });
}

#[test]
fn storage_that_is_retained_brings_nothing_back_that_was_deleted_meanwhile() {
    scenario("retained-volumes", LIMIT, async |scenario| {
        let cache = scenario.cache("retained");
        let storage = json!({ "size": "256Mi", "snapshotInterval": "5s", "retention": { "whenScaled": "Retain" } });
        cache.apply(&json!({ "replicas": 3, "storage": storage, "scaleDown": { "stabilization": "0s" } })).await?;
        cache.ready(READY_LIMIT).await?;
        write(&cache, 0..KEYS).await?;
        // A periodic snapshot has all of it.
        tokio::time::sleep(Duration::from_secs(12)).await;
        cache.scale(2).await?;
        cache.ready(LIMIT).await?;
        cache.pods_up(2, READY_LIMIT).await?;
        let claims: kube::Api<PersistentVolumeClaim> = cache.api();
        let claims = claims.list(&ListParams::default().labels(&cache.selector())).await?.items.len();
        ensure!(claims == 3, "{claims} volumes are there, and all 3 were to be retained");
        delete(&cache, (0..KEYS).step_by(DELETED)).await?;
        cache.scale(3).await?;
        cache.ready(LIMIT).await?;
        cache.pods_up(3, READY_LIMIT).await?;
        check(&cache, |key| key % DELETED != 0).await
    });
}

fn value(key: usize) -> String {
    format!("{key:0500}")
}

async fn write(cache: &Cache, keys: std::ops::Range<usize>) -> Result<()> {
    let set = |key: usize| -> Command { ["SET".to_owned(), format!("kept:{key}"), value(key)].to_vec() };
    acknowledged(cache, keys.map(set).collect()).await
}

async fn delete(cache: &Cache, keys: impl Iterator<Item = usize>) -> Result<()> {
    let del = |key: usize| -> Command { ["DEL".to_owned(), format!("kept:{key}")].to_vec() };
    acknowledged(cache, keys.map(del).collect()).await
}

async fn acknowledged(cache: &Cache, commands: Vec<Command>) -> Result<()> {
    Connection::open(cache.service_address().await?).await?.acknowledged(&commands).await
}

/// Every key is there, or is not, as `lives` says.
async fn check(cache: &Cache, lives: impl Fn(usize) -> bool) -> Result<()> {
    let reads: Vec<Command> = (0..KEYS).map(|key| ["GET".to_owned(), format!("kept:{key}")].to_vec()).collect();
    let (mut missing, mut back) = (0, 0);
    let mut connection = Connection::open(cache.service_address().await?).await?;
    connection
        .exchange(&reads, |key, reply| {
            let found = reply == Reply::BulkString(value(key).into());
            missing += usize::from(lives(key) && !found);
            back += usize::from(!lives(key) && found);
        })
        .await?;
    ensure!(missing == 0 && back == 0, "of {KEYS} keys {missing} are missing and {back} deleted ones are back");
    Ok(())
}
