//! Waiting for what a watch shows.

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

/// Objects by name.
pub type Objects<K> = BTreeMap<String, K>;

/// Keeps all objects of a selection up to date and gives them to `look` after each change, until it answers.
pub async fn for_objects<K, T>(
    what: &str,
    limit: Duration,
    api: Api<K>,
    selection: watcher::Config,
    mut look: impl FnMut(&Objects<K>) -> Result<Option<T>>,
) -> Result<T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let follow = async {
        let mut events = std::pin::pin!(watch(api, selection).default_backoff());
        let mut objects = Objects::new();
        let mut complete = false;
        while let Some(event) = events.try_next().await? {
            complete |= matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_));
            take(&mut objects, event);
            if complete && let Some(found) = look(&objects)? {
                return Ok(found);
            }
        }
        bail!("the watch ended")
    };
    let found = tokio::time::timeout(limit, follow).await;
    found
        .with_context(|| format!("waited {} s for {what}", limit.as_secs()))?
        .with_context(|| format!("while waiting for {what}"))
}

/// Waits until `look` answers for one object; it is given none while the object does not exist.
pub async fn for_object<K, T>(
    what: &str,
    limit: Duration,
    api: Api<K>,
    name: &str,
    mut look: impl FnMut(Option<&K>) -> Result<Option<T>>,
) -> Result<T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let selection = watcher::Config::default().fields(&format!("metadata.name={name}"));
    for_objects(what, limit, api, selection, |objects| look(objects.get(name))).await
}

/// Looks again and again, where nothing can be watched: at something outside of Kubernetes.
pub async fn by_asking<T>(what: &str, limit: Duration, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    const BETWEEN: Duration = Duration::from_millis(100);
    let ask = async {
        let mut ticks = tokio::time::interval(BETWEEN);
        loop {
            ticks.tick().await;
            if let Some(found) = look().await? {
                return anyhow::Ok(found);
            }
        }
    };
    tokio::time::timeout(limit, ask).await.with_context(|| format!("waited {} s for {what}", limit.as_secs()))?
}

/// Keeps `objects` as the events tell.
pub fn take<K: Resource>(objects: &mut Objects<K>, event: Event<K>) {
    match event {
        Event::Init => objects.clear(),
        Event::InitApply(object) | Event::Apply(object) => {
            objects.insert(object.name_any(), object);
        }
        Event::Delete(object) => {
            objects.remove(&object.name_any());
        }
        Event::InitDone => {}
    }
}

/// All events of a selection, from its first list on.
pub fn events<K>(api: Api<K>, selection: watcher::Config) -> impl futures::Stream<Item = Event<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watch(api, selection).default_backoff().filter_map(|event| std::future::ready(event.ok()))
}
