//! A test's own namespace, and what happened when it fails.

use super::bed::{Testbed, run, workspace};
use super::cache::Cache;
use super::{operator, wait};
use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::watcher;
use serde_json::json;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Marks namespaces that tests made, so that a killed run's can be found.
pub const LABEL: &str = "e2e.mizuya.dev/scenario";
/// Lines of each pod's log that are kept when a test fails.
const LOG_LINES: &str = "--tail=400";

/// A test that runs.
pub struct Scenario {
    /// The cluster.
    pub bed: Testbed,
    /// The test's own namespace.
    pub namespace: String,
    start: Instant,
}

/// Runs a test in a namespace of its own. On a failure it keeps what tells why, and fails with it.
///
/// # Panics
/// When the test fails: that is how the test runner learns of it.
pub fn scenario(name: &str, limit: Duration, body: impl AsyncFnOnce(&Scenario) -> Result<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run_scenario(name, limit, body)),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = result {
        panic!("{name}: {error:#}");
    }
}

async fn run_scenario(name: &str, limit: Duration, body: impl AsyncFnOnce(&Scenario) -> Result<()>) -> Result<()> {
    let bed = Testbed::connect().await?;
    operator::require(&bed).await?;
    let namespace = make_namespace(&bed, name).await?;
    let scenario = Scenario { bed, namespace, start: Instant::now() };
    let ended = tokio::time::timeout(limit, body(&scenario)).await;
    let result = ended.unwrap_or_else(|_| Err(anyhow!("not finished in {} s", limit.as_secs())));
    scenario.say(if result.is_ok() { "passed" } else { "FAILED" });
    let result = match result {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(scenario.keep_diagnostics(name).await)),
    };
    // The namespace goes in the background: the next test need not wait for it.
    let namespaces: Api<Namespace> = Api::all(scenario.bed.client.clone());
    let removed = namespaces.delete(&scenario.namespace, &DeleteParams::background()).await;
    result.and(removed.map(drop).context("can't remove the test's namespace"))
}

async fn make_namespace(bed: &Testbed, name: &str) -> Result<String> {
    let namespace: Namespace = serde_json::from_value(json!({
        "metadata": {
            "generateName": format!("{name}-"),
            "labels": { LABEL: name, "pod-security.kubernetes.io/enforce": "restricted" },
        },
    }))?;
    let namespaces: Api<Namespace> = Api::all(bed.client.clone());
    let made = namespaces.create(&PostParams::default(), &namespace).await?;
    made.metadata.name.context("a made namespace has a name")
}

impl Scenario {
    /// A CacheCluster in the test's namespace.
    pub fn cache(&self, name: &str) -> Cache {
        Cache::named(&self.bed, &self.namespace, name)
    }

    /// Applies YAML in the test's namespace, as a user does.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        self.bed.kubectl_with(&["apply", "--namespace", &self.namespace, "-f", "-"], manifest).await
    }

    /// Runs kubectl in the test's namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespaced: Vec<&str> = [&["--namespace", self.namespace.as_str()], arguments].concat();
        self.bed.kubectl(&namespaced).await
    }

    /// Prints a line with the test's namespace and time.
    pub fn say(&self, text: impl std::fmt::Display) {
        println!("[{} {:.1} s] {text}", self.namespace, self.start.elapsed().as_secs_f64());
    }

    /// Waits for an event of a cache, as `reason: message`.
    pub async fn event(&self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<()> {
        let events: Api<Event> = Api::namespaced(self.bed.client.clone(), &self.namespace);
        let found = wait::for_objects("an event", limit, events, watcher::Config::default(), |events| {
            let ours = events
                .values()
                .filter(|event| event.regarding.as_ref().and_then(|of| of.kind.as_deref()) == Some("CacheCluster"));
            let texts = ours.map(|event| {
                format!("{}: {}", event.reason.clone().unwrap_or_default(), event.note.clone().unwrap_or_default())
            });
            Ok(texts.into_iter().find(|text| wanted(text)))
        })
        .await?;
        self.say(format!("event: {found}"));
        Ok(())
    }

    /// Writes objects, events and logs to a file and returns its name in a sentence.
    async fn keep_diagnostics(&self, name: &str) -> String {
        let mut text = String::new();
        let namespace = ["--namespace", self.namespace.as_str()];
        self.keep(&mut text, &[&["get", "cacheclusters", "-o", "yaml"], &namespace[..]].concat()).await;
        let kinds = "all,configmaps,poddisruptionbudgets,endpointslices";
        self.keep(&mut text, &[&["get", kinds, "-o", "wide"], &namespace[..]].concat()).await;
        self.keep(&mut text, &[&["get", "events", "--sort-by=.lastTimestamp"], &namespace[..]].concat()).await;
        self.keep(&mut text, &[&["describe", "pods"], &namespace[..]].concat()).await;
        for pod in self.cache_pods().await {
            for previous in ["--previous=false", "--previous=true"] {
                self.keep(&mut text, &[&["logs", pod.as_str(), previous, LOG_LINES], &namespace[..]].concat()).await;
            }
        }
        let selector = format!("--selector={}", operator::PODS);
        let operator = ["logs", &selector, "--prefix", LOG_LINES];
        self.keep(&mut text, &[&operator[..], &["--namespace", operator::NAMESPACE]].concat()).await;
        let folder = workspace().join("target/e2e");
        let file = folder.join(format!("{name}.txt"));
        match std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, text)) {
            Ok(()) => format!("objects, events and logs are in {}", file.display()),
            Err(error) => format!("can't write {}: {error}", file.display()),
        }
    }

    async fn cache_pods(&self) -> Vec<String> {
        let names = self.kubectl(&["get", "pods", "-o", "name"]).await.unwrap_or_default();
        names.lines().map(str::to_owned).collect()
    }

    async fn keep(&self, text: &mut String, arguments: &[&str]) {
        let _ = writeln!(text, "\n=== kubectl {}", arguments.join(" "));
        match run(self.bed.kubectl_command(arguments), "").await {
            Ok(output) => text.extend([output.out, output.err]),
            Err(error) => drop(writeln!(text, "{error:#}")),
        }
    }
}
