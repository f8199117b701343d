//! How many entries moved between the nodes of a cache while something was done to it.

use super::cache::Cache;
use super::nodes::{self, Caller, Node};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Time between two looks at each node. A node that goes has handed over all it had well before its end.
const BETWEEN: Duration = Duration::from_millis(250);

/// Counts from its start until it is stopped.
#[derive(Debug)]
pub struct Moved {
    counts: Arc<Mutex<Counts>>,
    task: JoinHandle<()>,
}

impl Moved {
    /// Begins to count. What had moved before does not count.
    pub async fn of(cache: &Cache) -> Self {
        let mut clients = BTreeMap::new();
        let mut first = Counts::default();
        for (pod, sent) in look(cache, &mut clients).await {
            first.last.insert(pod, sent);
        }
        let counts = Arc::new(Mutex::new(first));
        let (kept, cache) = (Arc::clone(&counts), cache.clone());
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(BETWEEN).await;
                let seen = look(&cache, &mut clients).await;
                let mut counts = kept.lock().unwrap_or_else(PoisonError::into_inner);
                for (pod, sent) in seen {
                    counts.saw(pod, sent);
                }
            }
        });
        Self { counts, task }
    }

    /// Ends the count: entries sent from node to node, each copy for itself.
    pub fn stop(self) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).sum
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What each pod has sent since it started. Pods that give no answer are left out.
async fn look(cache: &Cache, clients: &mut BTreeMap<String, Node>) -> Vec<(String, u64)> {
    let mut seen = Vec::new();
    for pod in cache.pod_names().await.unwrap_or_default() {
        if !clients.contains_key(&pod) {
            let Ok(node) = nodes::connect(cache, &pod, Caller::Operator).await else { continue };
            clients.insert(pod.clone(), node);
        }
        let Some(node) = clients.get_mut(&pod) else { continue };
        match node.status(mizuya_wire::admin::StatusRequest {}).await {
            Ok(reply) => seen.push((pod, reply.into_inner().totals.unwrap_or_default().moved_keys)),
            // Its next start may be elsewhere.
            Err(_) => drop(clients.remove(&pod)),
        }
    }
    seen
}

/// Sums counters that begin at zero again when their process does.
#[derive(Debug, Default)]
struct Counts {
    last: BTreeMap<String, u64>,
    sum: u64,
}

impl Counts {
    fn saw(&mut self, pod: String, sent: u64) {
        let last = self.last.insert(pod, sent).unwrap_or_default();
        self.sum += sent.checked_sub(last).unwrap_or(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_start_counts_from_zero() {
        let mut counts = Counts { last: [("a".to_owned(), 100)].into(), sum: 0 };
        for (pod, sent) in [("a", 130), ("b", 5), ("a", 20), ("a", 20), ("b", 6)] {
            counts.saw(pod.to_owned(), sent);
        }
        assert_eq!(counts.sum, 30 + 5 + 20 + 1);
    }
}
