//! What the API server refuses, and whether it says the way out.

use anyhow::{Result, ensure};
use mizuya_e2e::testbed::{Scenario, scenario};
use serde_json::{Value, json};
use std::time::Duration;

/// A spec that cannot work, and words that its refusal must have: what to do instead.
fn broken() -> Vec<(&'static str, Value, &'static [&'static str])> {
    vec![
        (
            "two nodes that need a quorum of three",
            json!({ "replicas": 2, "replication": { "memberCountQuorum": 3 } }),
            &["memberCountQuorum", "set it to auto", "raise replicas"],
        ),
        (
            "write quorum above the factor",
            json!({ "replication": { "factor": 2, "writeQuorum": 3 } }),
            &["writeQuorum", "lower it or raise"],
        ),
        (
            "read quorum above the factor",
            json!({ "replication": { "factor": 2, "readQuorum": 3 } }),
            &["readQuorum", "lower it or raise"],
        ),
        (
            "client port is the gossip port",
            json!({ "ports": { "client": 3322, "gossip": 3322 } }),
            &["client + 2", "leave it out"],
        ),
        (
            "gossip port somewhere else",
            json!({ "ports": { "client": 3320, "gossip": 4000 } }),
            &["client + 2", "leave it out"],
        ),
        ("http port is the client port", json!({ "ports": { "client": 8080 } }), &["ports.http", "differ"]),
        ("http port is the gossip port", json!({ "ports": { "client": 8078 } }), &["ports.http", "differ"]),
        ("client port is privileged", json!({ "ports": { "client": 80 } }), &["ports.client", "between 1024"]),
        ("no replicas", json!({ "replicas": 0 }), &["at least 1", "delete"]),
        ("fewer than no replicas", json!({ "replicas": -1 }), &["at least 1"]),
        ("too many replicas", json!({ "replicas": 1000 }), &["at most 256", "several"]),
        ("unknown environment", json!({ "environment": "moon" }), &["local", "lan", "wan"]),
        ("unknown mode", json!({ "mode": "cluster" }), &["single", "ha", "disabled"]),
        ("no copies", json!({ "replication": { "factor": 0 } }), &["factor", "between 1 and 16"]),
        ("no write quorum", json!({ "replication": { "writeQuorum": 0 } }), &["writeQuorum", "between 1"]),
        (
            "write quorum above the replicas",
            json!({ "replicas": 1, "replication": { "factor": 2, "writeQuorum": 2 } }),
            &["writeQuorum", "raise replicas"],
        ),
        ("member quorum of none", json!({ "replication": { "memberCountQuorum": 0 } }), &["memberCountQuorum", "auto"]),
        (
            "member quorum in words",
            json!({ "replication": { "memberCountQuorum": "most" } }),
            &["memberCountQuorum", "auto"],
        ),
        ("several single nodes", json!({ "mode": "single", "replicas": 3 }), &["replicas to 1"]),
        ("no partitions", json!({ "partitions": 0 }), &["partitions", "leave it out"]),
        ("an image with a space", json!({ "image": "mizuya node" }), &["image", "without spaces"]),
        ("a leave timeout without a unit", json!({ "leaveTimeout": "5" }), &["leaveTimeout", "5s"]),
        (
            "more memory for entries than there is",
            json!({ "memory": { "maxMemory": "1Gi" } }),
            &["maxMemory", "resources.limits.memory"],
        ),
        (
            "no memory limit",
            json!({ "resources": { "requests": { "cpu": "50m" } } }),
            &["memory limit", "set resources.limits.memory"],
        ),
        (
            "a request above its limit",
            json!({ "resources": { "requests": { "memory": "1Gi" }, "limits": { "memory": "256Mi" } } }),
            &["request", "raise the limit"],
        ),
    ]
}

/// A change of a valid object that cannot be made, and words that its refusal must have.
fn impossible() -> Vec<(&'static str, Value, &'static [&'static str])> {
    vec![
        ("another environment", json!({ "environment": "wan" }), &["environment cannot be changed", "create it anew"]),
        ("another mode", json!({ "mode": "disabled" }), &["mode cannot be changed", "create it anew"]),
        ("other partitions", json!({ "partitions": 512 }), &["partitions cannot be changed", "create it anew"]),
        ("another port", json!({ "ports": { "client": 4000 } }), &["ports cannot be changed", "create it anew"]),
    ]
}

#[test]
fn validation_refuses_what_cannot_work_and_says_the_way_out() {
    scenario("validation", Duration::from_mins(2), async |scenario| {
        let mut wrong = Vec::new();
        let broken = broken();
        assert!(broken.len() >= 15);
        for (what, spec, words) in broken {
            wrong.extend(judge(what, words, &apply(scenario, "broken", spec).await?));
        }
        for name in ["a-name-that-is-much-longer-than-forty-characters", "7-starts-with-a-digit", "has.dots"] {
            wrong.extend(judge(name, &["metadata.name"], &apply(scenario, name, json!({})).await?));
        }
        // Paused, so that no pod starts for a test of words.
        scenario.cache("valid").apply(&json!({ "paused": true })).await?;
        for (what, mut spec, words) in impossible() {
            spec["paused"] = true.into();
            wrong.extend(judge(what, words, &apply(scenario, "valid", spec).await?));
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    });
}

async fn apply(scenario: &Scenario, name: &str, spec: Value) -> Result<mizuya_e2e::testbed::bed::Output> {
    let manifest = scenario.cache(name).manifest(&spec);
    scenario.bed.try_kubectl(&["apply", "--namespace", &scenario.namespace, "-f", "-"], &manifest).await
}

fn judge(what: &str, words: &[&str], answer: &mizuya_e2e::testbed::bed::Output) -> Option<String> {
    println!("{what}: {}", answer.err.trim());
    if answer.success {
        return Some(format!("{what}: accepted"));
    }
    let missing: Vec<_> = words.iter().filter(|word| !answer.err.contains(**word)).collect();
    (!missing.is_empty()).then(|| format!("{what}: {missing:?} not in: {}", answer.err.trim()))
}
