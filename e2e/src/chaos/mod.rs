//! Faults one after another, and sometimes two at once, while clients write, delete and read.
//!
//! At most one copy of a key is lost at a time, which is what `factor: 2, writeQuorum: 2` promises to survive: the next
//! fault comes when the cache is whole again.

pub mod fault;
pub mod tally;

use crate::load::{Load, Retries};
use crate::testbed::cache::READY_LIMIT;
use crate::testbed::{Cache, Testbed, operator};
use anyhow::{Context, Result, bail, ensure};
use fault::{Fault, Scene};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use std::time::{Duration, Instant};
use tally::Tally;

const NAMESPACE: &str = "mizuya-chaos";
const NAME: &str = "attacked";
/// How long a cache may take to be whole after a fault; a lost Kubernetes node takes longest.
const WHOLE_LIMIT: Duration = Duration::from_mins(6);
/// Writes between two faults.
const WRITES_BETWEEN: u64 = 6_000;

/// Attacks a cache for this long with faults whose name contains `only`, and prints what came of it. An error when a
/// promise was broken.
pub async fn run(lasting: Duration, seed: u64, only: &str) -> Result<()> {
    let kinds: Vec<Fault> = Fault::ALL.into_iter().filter(|kind| kind.name().contains(only)).collect();
    ensure!(!kinds.is_empty(), "no fault is named so; there are: {}", Fault::ALL.map(Fault::name).join(", "));
    let bed = Testbed::connect().await?;
    operator::require(&bed).await?;
    println!("chaos for {} s with seed {seed}", lasting.as_secs());
    bed.remove_namespace(NAMESPACE).await?;
    bed.kubectl(&["create", "namespace", NAMESPACE]).await?;
    let done = attack(&bed, lasting, seed, kinds).await;
    crate::kubernetes::partition::heal()?;
    if done.is_ok() {
        bed.remove_namespace(NAMESPACE).await?;
    } else {
        println!("the cache stays, to be looked at: kubectl -n {NAMESPACE} describe cc {NAME}");
    }
    done
}

async fn attack(bed: &Testbed, lasting: Duration, seed: u64, kinds: Vec<Fault>) -> Result<()> {
    let cache = Cache::named(bed, NAMESPACE, NAME);
    cache.apply(&json!({ "replicas": 3, "replication": { "factor": 2, "writeQuorum": 2 } })).await?;
    cache.ready(READY_LIMIT).await?;
    let mut load = Load::start(cache.load(Retries::Once).await?).await?;
    let start = Instant::now();
    load.go_on_for(WRITES_BETWEEN).await?;
    let mut scene = Scene::new(&cache, kinds, StdRng::seed_from_u64(seed));
    let mut tally = Tally::default();
    while start.elapsed() < lasting {
        let fault = scene.choose(tally.turn());
        let (begin, errors) = (Instant::now(), load.errors());
        load.take_error_texts();
        let done = withstand(&cache, &mut scene, fault, &mut load).await;
        let texts = load.take_error_texts();
        let words = done.with_context(|| texts.join("\n"))?;
        let errors = load.errors() - errors;
        println!(
            "[{:>4.0} s] {words}: whole after {:.1} s, {errors} errors",
            start.elapsed().as_secs_f64(),
            begin.elapsed().as_secs_f64()
        );
        for text in texts {
            println!("    {text}");
        }
        tally.add(fault, begin.elapsed(), errors);
    }
    let report = load.finish(&cache.pod_addresses().await?).await?;
    cache.nothing_was_evicted().await?;
    println!("\n{tally}\n{report}");
    if !report.is_sound() {
        bail!("a promise was broken:\n{}", report.examples.join("\n"));
    }
    Ok(())
}

/// One fault, until the cache is whole again and more was written. In words.
async fn withstand(cache: &Cache, scene: &mut Scene<'_>, fault: Fault, load: &mut Load) -> Result<String> {
    let words = scene.inflict(fault).await.with_context(|| format!("can't inflict: {}", fault.name()))?;
    whole(cache, scene.replicas).await.with_context(|| format!("the cache was not whole again after: {words}"))?;
    load.go_on_for(WRITES_BETWEEN).await?;
    Ok(words)
}

/// Ready, with every pod up, and every member says that no copy is missing.
async fn whole(cache: &Cache, replicas: u32) -> Result<()> {
    cache.pods_up(replicas as usize, WHOLE_LIMIT).await?;
    cache.ready(WHOLE_LIMIT).await?;
    crate::testbed::wait::by_asking("every copy to be there", WHOLE_LIMIT, async || {
        let Ok(statuses) = crate::testbed::nodes::statuses(cache).await else { return Ok(None) };
        let whole = statuses.iter().all(|status| {
            status.partitions_short_of_copies == 0
                && status.partitions_unavailable == 0
                && status.members.len() == replicas as usize
        });
        Ok((whole && statuses.len() == replicas as usize).then_some(()))
    })
    .await
}

/// A seed that was not given.
pub fn any_seed() -> u64 {
    rand::rng().random_range(1..1_000_000)
}
