//! The steps of the demo.

use super::narrate::{Narrator, say};
use crate::load::connection::{Command, Connection, Reply};
use crate::load::{Load, Options, Retries};
use crate::testbed::cache::{CLIENT_PORT, resource};
use crate::testbed::{Cache, Testbed, bed, operator};
use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, ListParams};
use kube::{Api, ResourceExt};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "default";
const NAME: &str = "quickstart";
const SAMPLE: &str = "manifests/samples/quickstart.yaml";
const REPLICAS: u32 = 3;
const KEYS: usize = 1_000;
const LIMIT: Duration = Duration::from_mins(4);
/// Writes of the checked load before the scale-down and after it.
const WRITES_AROUND: u64 = 10_000;

const ASK_OPERATOR: &str = "what to do: `kubectl -n mizuya-system logs deployment/mizuya-operator` and `kubectl get pods -A` \
                            tell why; then `make demo` again, it goes on from any state";
const ASK_CACHE: &str = "what to do: `kubectl describe cc quickstart` and `kubectl get pods` tell why; then `make demo` again, \
                         it goes on from any state";
const SOUND: &str = "what to do: this must not happen, please report it with the output of `kubectl describe cc quickstart` and \
                     the logs of its pods";

/// Shows the whole thing on the cluster that is there.
pub async fn show() -> Result<()> {
    let bed = Testbed::connect().await?;
    let cache = Cache::named(&bed, NAMESPACE, NAME);
    let mut narrator = Narrator::new(6);
    narrator
        .step(
            "install the operator: kubectl apply --server-side -f manifests/install.yaml",
            ASK_OPERATOR,
            install(&bed),
        )
        .await?;
    narrator.step(&format!("make a cache: kubectl apply -f {SAMPLE}"), ASK_CACHE, make(&cache)).await?;
    let written = format!("write {KEYS} keys through the Service, read one of them through every pod");
    narrator.step(&written, ASK_CACHE, read_everywhere(&cache)).await?;
    narrator.step("scale 3 → 2 while clients write, delete and read", SOUND, scale_down(&cache)).await?;
    narrator.step(&format!("look for the {KEYS} keys again"), SOUND, still_there(&cache)).await?;
    narrator.step("scale back to 3", ASK_CACHE, back(&cache)).await?;
    tell_how_to_go_on(&bed, &cache, narrator.seconds()).await
}

/// Removes what the demo made.
pub async fn remove() -> Result<()> {
    let bed = Testbed::connect().await?;
    let file = bed::workspace().join(SAMPLE);
    let file = file.to_str().context("the source tree's path is no text")?;
    // Where the operator was never installed, the kind is unknown.
    if crds(&bed).await? {
        bed.kubectl(&["delete", "--namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=60s", "-f", file])
            .await?;
        Cache::named(&bed, NAMESPACE, NAME).pods_up(0, LIMIT).await?;
        println!("removed CacheCluster {NAME}");
        let others: Api<DynamicObject> = Api::all_with(bed.client.clone(), &resource());
        let others = others.list(&ListParams::default()).await?;
        if let Some(other) = others.items.first() {
            let namespace = other.namespace().unwrap_or_default();
            println!("the operator stays: it looks after {namespace}/{} too", other.name_any());
            return Ok(());
        }
    }
    operator::uninstall(&bed).await?;
    println!("removed the operator");
    Ok(())
}

async fn install(bed: &Testbed) -> Result<()> {
    operator::install(bed).await?;
    say("one Deployment, one CRD, and roles for exactly what it does");
    Ok(())
}

async fn make(cache: &Cache) -> Result<()> {
    let file = bed::workspace().join(SAMPLE);
    let manifest = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    say(&manifest);
    let start = Instant::now();
    cache.bed.kubectl_with(&["apply", "--namespace", NAMESPACE, "-f", "-"], &manifest).await?;
    // An earlier demo may have been stopped at two.
    if cache.object().await?.data.pointer("/spec/replicas") != Some(&REPLICAS.into()) {
        cache.scale(REPLICAS).await?;
    }
    cache.ready(LIMIT).await?;
    cache.pods_up(REPLICAS as usize, LIMIT).await?;
    say(format!("from apply to Ready: {:.1} s", start.elapsed().as_secs_f64()));
    say(table(cache).await?);
    Ok(())
}

async fn read_everywhere(cache: &Cache) -> Result<()> {
    let service = cache.service_address().await?;
    let commands: Vec<Command> = (0..KEYS).map(|key| vec!["SET".to_owned(), name(key), value(key)]).collect();
    let mut answers = 0;
    Connection::open(service).await?.exchange(&commands, |_, reply| answers += usize::from(reply == ok())).await?;
    ensure!(answers == KEYS, "{} of {KEYS} writes failed", KEYS - answers);
    say(format!("{KEYS} keys written through {service}"));
    for (pod, address) in cache.pod_names().await?.iter().zip(cache.pod_addresses().await?) {
        let found = Connection::open(address).await?.get(&name(7)).await?;
        ensure!(found == Some(value(7)), "{pod} answers {found:?}");
        say(format!("{pod}: GET {} → {}", name(7), value(7)));
    }
    Ok(())
}

async fn scale_down(cache: &Cache) -> Result<()> {
    // On its way through the API server a connection's end comes after the last answer, and a client that has sent more
    // meanwhile opens another one. On a direct way the two arrive together, and nothing fails.
    let retries = if cache.bed.has_routes { Retries::Off } else { Retries::Once };
    let options = Options { prefix: "demo:load:".to_owned(), ..cache.load(retries).await? };
    let mut load = Load::start(options).await?;
    load.go_on_for(WRITES_AROUND).await?;
    say("clients are at work: 8 connections write, delete and expire; one reads");
    cache.scale(REPLICAS - 1).await?;
    let progress = |object: &DynamicObject| object.data.pointer("/status/progress")?.as_str().map(str::to_owned);
    if let Ok(progress) = cache.wait_for("progress", Duration::from_secs(30), progress).await {
        say(format!("status: {progress}"));
    }
    cache.ready(LIMIT).await?;
    cache.pods_up(REPLICAS as usize - 1, LIMIT).await?;
    load.go_on_for(WRITES_AROUND).await?;
    let report = load.finish(&cache.pod_addresses().await?).await?;
    say(&report);
    ensure!(report.is_sound() && report.errors == 0, "{}", report.examples.join("\n"));
    say(table(cache).await?);
    Ok(())
}

async fn still_there(cache: &Cache) -> Result<()> {
    let commands: Vec<Command> = (0..KEYS).map(|key| vec!["GET".to_owned(), name(key)]).collect();
    for (pod, address) in cache.pod_names().await?.iter().zip(cache.pod_addresses().await?) {
        let mut right = 0;
        let judge = |key: usize, reply| right += usize::from(reply == Reply::BulkString(value(key).into()));
        Connection::open(address).await?.exchange(&commands, judge).await?;
        say(format!("{pod}: {right} of {KEYS} keys have their value"));
        ensure!(right == KEYS, "{} keys are missing or wrong", KEYS - right);
    }
    Ok(())
}

async fn back(cache: &Cache) -> Result<()> {
    cache.scale(REPLICAS).await?;
    cache.ready(LIMIT).await?;
    cache.pods_up(REPLICAS as usize, LIMIT).await?;
    say(table(cache).await?);
    Ok(())
}

async fn tell_how_to_go_on(bed: &Testbed, cache: &Cache, seconds: f64) -> Result<()> {
    println!("\nAll steps passed in {seconds:.0} s. The cache goes on running:");
    println!("  export KUBECONFIG={}", bed.kubeconfig().display());
    if bed.has_routes {
        let address = cache.service_address().await?.ip();
        println!("  redis-cli -h {address} -p {CLIENT_PORT} get {}", name(7));
    } else {
        println!("  kubectl port-forward service/{NAME} {CLIENT_PORT} &");
        println!("  redis-cli -p {CLIENT_PORT} get {}", name(7));
    }
    println!("  in a pod: {NAME}.{NAMESPACE}.svc:{CLIENT_PORT}");
    println!("  kubectl get cc {NAME} -w");
    println!("  make demo-down   # removes all of it");
    Ok(())
}

async fn table(cache: &Cache) -> Result<String> {
    cache.bed.kubectl(&["get", "cc", NAME, "--namespace", NAMESPACE]).await
}

async fn crds(bed: &Testbed) -> Result<bool> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    let crds: Api<CustomResourceDefinition> = Api::all(bed.client.clone());
    Ok(crds.get_opt("cacheclusters.cache.mizuya.dev").await?.is_some())
}

fn ok() -> Reply {
    Reply::SimpleString("OK".into())
}

fn name(key: usize) -> String {
    format!("demo:{key}")
}

fn value(key: usize) -> String {
    format!("value-{key}")
}
