//! The first thing that a new user does.

use anyhow::{Context, Result, ensure};
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::{Scenario, bed, scenario};
use std::time::{Duration, Instant};

#[test]
fn quickstart_is_ready_after_one_apply() {
    scenario("quickstart", Duration::from_mins(5), async |scenario| {
        let file = bed::workspace().join("manifests/samples/quickstart.yaml");
        let manifest = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
        let lines = manifest.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
        ensure!(lines <= 10, "the quickstart has {lines} lines");

        // The file names the namespace that a new user is in; the test has its own.
        let own = manifest.replace("namespace: default", &format!("namespace: {}", scenario.namespace));
        let start = Instant::now();
        scenario.apply(&own).await?;
        let cache = scenario.cache("quickstart");
        cache.ready(READY_LIMIT).await?;
        scenario.say(format!("from apply to Ready: {:.1} s", start.elapsed().as_secs_f64()));
        kubectl_tells_how_it_is(scenario).await
    });
}

async fn kubectl_tells_how_it_is(scenario: &Scenario) -> Result<()> {
    let cache = scenario.cache("quickstart");
    let figures = |object: &kube::core::DynamicObject| object.data.pointer("/status/figures/keys").map(drop);
    cache.wait_for("figures in its status", Duration::from_secs(90), figures).await?;
    let table = scenario.kubectl(&["get", "cc"]).await?;
    println!("{table}");
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    for column in ["NAME", "NODES", "KEYS", "MEMORY", "POSTURE"] {
        ensure!(header.contains(column), "no column {column} in: {header}");
    }
    let row = lines.next().context("`kubectl get cc` shows no cache")?;
    for part in ["quickstart", "3/3", "eventual", " of "] {
        ensure!(row.contains(part), "'{part}' is not in: {row}");
    }
    Ok(())
}
