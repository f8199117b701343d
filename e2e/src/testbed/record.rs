//! What a watch showed over time: how many were ready, and never fewer than how many.

use super::wait::{self, Objects};
use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::task::JoinHandle;

/// How it stood after one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When the event came.
    pub at: Instant,
    /// Who was in the state that is recorded, by name or address.
    pub who: Vec<String>,
}

/// Records from its start until it is stopped.
#[derive(Debug)]
pub struct Record {
    moments: Arc<Mutex<Vec<Moment>>>,
    task: JoinHandle<()>,
}

impl Record {
    /// Records which of the selected pods are ready and not being deleted.
    pub fn of_pods(api: Api<Pod>, labels: &str) -> Self {
        Self::start(api, watcher::Config::default().labels(labels), |pods| {
            pods.values().filter(|pod| is_up(pod)).map(ResourceExt::name_any).collect()
        })
    }

    /// Records which addresses the Service gives out, by its `EndpointSlice`s.
    pub fn of_service(api: Api<EndpointSlice>, service: &str) -> Self {
        let selection = watcher::Config::default().labels(&slices_of(service));
        Self::start(api, selection, |slices| slices.values().flat_map(ready_addresses).collect())
    }

    /// Records which of the selected pods are being deleted.
    pub fn of_deletions(api: Api<Pod>, labels: &str) -> Self {
        Self::start(api, watcher::Config::default().labels(labels), |pods| {
            pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_some()).map(ResourceExt::name_any).collect()
        })
    }

    fn start<K>(
        api: Api<K>,
        selection: watcher::Config,
        who: impl Fn(&Objects<K>) -> Vec<String> + Send + 'static,
    ) -> Self
    where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let moments = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&moments);
        let task = tokio::spawn(async move {
            let mut events = std::pin::pin!(wait::events(api, selection));
            let mut objects = Objects::new();
            let mut complete = false;
            while let Some(event) = events.next().await {
                // Between the start and the end of a list the picture is not whole.
                complete = match event {
                    watcher::Event::Init | watcher::Event::InitApply(_) => false,
                    watcher::Event::InitDone => true,
                    watcher::Event::Apply(_) | watcher::Event::Delete(_) => complete,
                };
                wait::take(&mut objects, event);
                if complete {
                    let moment = Moment { at: Instant::now(), who: who(&objects) };
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
                }
            }
        });
        Self { moments, task }
    }

    /// Ends the recording.
    pub fn stop(self) -> Result<Vec<Moment>> {
        self.task.abort();
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner).clone();
        anyhow::ensure!(!moments.is_empty(), "the recording is empty: the watch showed nothing");
        Ok(moments)
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The addresses that the Service gives out now.
pub async fn addresses(api: Api<EndpointSlice>, service: &str) -> Result<Vec<String>> {
    let slices = api.list(&ListParams::default().labels(&slices_of(service))).await?;
    Ok(slices.iter().flat_map(ready_addresses).collect())
}

fn slices_of(service: &str) -> String {
    format!("kubernetes.io/service-name={service}")
}

/// The fewest that were ready at one time.
pub fn fewest_ready(moments: &[Moment]) -> usize {
    moments.iter().map(|moment| moment.who.len()).min().unwrap_or(0)
}

/// When each one first came up in a record.
pub fn first_seen(moments: &[Moment]) -> BTreeMap<String, Instant> {
    let mut seen = BTreeMap::new();
    for moment in moments {
        for one in &moment.who {
            seen.entry(one.clone()).or_insert(moment.at);
        }
    }
    seen
}

/// A pod that is ready and not being deleted.
pub fn is_up(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn ready_addresses(slice: &EndpointSlice) -> Vec<String> {
    let ready = slice.endpoints.iter().filter(|endpoint| {
        // Absent means ready, by the API's own words.
        endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    ready.flat_map(|endpoint| endpoint.addresses.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: &str, deleting: bool) -> Pod {
        let mut pod = serde_json::json!({
            "metadata": { "name": "a" },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_that_is_being_deleted_is_down_although_it_is_ready() {
        assert!(is_up(&pod("True", false)));
        assert!(!is_up(&pod("True", true)));
        assert!(!is_up(&pod("False", false)));
    }

    #[test]
    fn the_fewest_ready_count() {
        let at = Instant::now();
        let moment = |ready: &[&str]| Moment { at, who: ready.iter().map(ToString::to_string).collect() };
        assert_eq!(fewest_ready(&[moment(&["a", "b"]), moment(&["b"]), moment(&["a", "b", "c"])]), 1);
    }

    #[test]
    fn an_endpoint_without_a_word_on_readiness_is_ready() {
        let slice: EndpointSlice = serde_json::from_value(serde_json::json!({
            "addressType": "IPv4",
            "endpoints": [
                { "addresses": ["10.0.0.1"] },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
                { "addresses": ["10.0.0.3"], "conditions": { "ready": true } },
            ],
        }))
        .unwrap();
        assert_eq!(ready_addresses(&slice), ["10.0.0.1", "10.0.0.3"]);
    }
}
