//! Settings that change while the cache runs (rules O1, T3): no pod is restarted for them.

use anyhow::{Result, ensure};
use mizuya_e2e::load::Retries;
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Cache, UnderLoad, nodes, scenario, wait};
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(6);
/// How long a change may take to be in every pod.
const CHANGE_LIMIT: Duration = Duration::from_mins(2);

#[test]
fn live_changes_of_factor_and_quorums_are_not_felt_and_restart_nothing() {
    scenario("live-changes", LIMIT, async |scenario| {
        let cache = scenario.cache("changing");
        cache.apply(&json!({ "replication": { "factor": 2 } })).await?;
        cache.ready(READY_LIMIT).await?;
        let pods = cache.pod_uids().await?;
        let load = UnderLoad::begin(&cache, Retries::Off).await?;
        for (factor, write, members) in [(3, 2, 3), (2, 2, 2), (1, 1, 2), (3, 3, 2)] {
            let replication = json!({ "factor": factor, "writeQuorum": write, "memberCountQuorum": members });
            cache.change(&json!({ "replication": replication })).await?;
            in_force(&cache, factor, write, members).await?;
            cache.ready(READY_LIMIT).await?;
            scenario.say(format!("factor {factor}, write quorum {write}, member quorum {members}"));
        }
        let outcome = load.end(&cache).await?;
        scenario.say(&outcome);
        outcome.require_unfelt()?;
        ensure!(cache.pod_uids().await? == pods, "a pod was replaced");
        for pod in cache.pod_names().await? {
            let restarts = mizuya_e2e::testbed::kill::restarts(&cache, &pod).await?;
            ensure!(restarts == 0, "{pod} was restarted");
        }
        Ok(())
    });
}

/// Waits until every pod works by the settings, and each partition has that many copies in sync.
async fn in_force(cache: &Cache, factor: u32, write: u32, members: u32) -> Result<()> {
    let look = async || {
        for status in nodes::statuses(cache).await? {
            let settings = status.settings.unwrap_or_default();
            if (settings.factor, settings.write_quorum, settings.member_count_quorum) != (factor, write, members) {
                return Ok(None);
            }
        }
        let table = nodes::table(cache, &cache.pod(0)).await?;
        let whole = table.partitions.iter().all(|owners| owners.in_sync.len() == factor as usize);
        Ok(whole.then_some(()))
    };
    wait::by_asking("the settings to be in force", CHANGE_LIMIT, look).await
}
