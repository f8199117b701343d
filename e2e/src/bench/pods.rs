//! A cache of three pods, asked at a fixed rate, and one Redis on the same machine. Kubernetes goes on beside both, and so do
//! the pods, without clients, while Redis is asked. Servers may use two cores, of which the clients keep one busy.

use super::report::Row;
use super::server::Kind;
use super::work::{CLUSTER, Work};
use super::{Options, open_loop};
use crate::testbed::cache::READY_LIMIT;
use crate::testbed::{Cache, Testbed, operator};
use anyhow::{Result, ensure};
use serde_json::json;

const NAMESPACE: &str = "mizuya-bench";
const NAME: &str = "measured";

/// Makes the cache, measures, and removes it.
pub(super) async fn measure(options: &Options, kinds: &[Kind], cores: (usize, usize)) -> Result<Vec<Row>> {
    let bed = Testbed::connect().await?;
    operator::require(&bed).await?;
    ensure!(bed.has_routes, "pods have no addresses that this machine reaches: it must be a node of the cluster");
    bed.remove_namespace(NAMESPACE).await?;
    bed.kubectl(&["create", "namespace", NAMESPACE]).await?;
    let measured = measure_cache(&Cache::named(&bed, NAMESPACE, NAME), options, kinds, cores).await;
    let removed = bed.remove_namespace(NAMESPACE).await;
    let rows = measured?;
    removed.map(|()| rows)
}

async fn measure_cache(cache: &Cache, options: &Options, kinds: &[Kind], cores: (usize, usize)) -> Result<Vec<Row>> {
    // As much as one Redis uses: one core each, and one thread for it.
    let resources = json!({ "requests": { "cpu": "500m" }, "limits": { "cpu": "1", "memory": "256Mi" } });
    let replication = json!({ "factor": Work::open_loop().copies });
    cache.apply(&json!({ "replicas": CLUSTER, "replication": replication, "resources": resources })).await?;
    cache.ready(READY_LIMIT).await?;
    let (pods, mut rows) = (cache.pod_addresses().await?, Vec::new());
    for rate in open_loop::RATES.into_iter().filter(|rate| options.wants(&open_loop::name(*rate))) {
        rows.extend(open_loop::measure(options, kinds, rate, cores, Some(&pods)).await?);
    }
    Ok(rows)
}
