//! Kubernetes and the nodes → [`Observed`].
//!
//! At rest everything comes from the stores. While anything runs, the objects that gates depend on are read from the API
//! server itself, so that no step is taken on an old view.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{Pod, Secret},
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, ListParams},
    core::GroupVersionKind,
    discovery::ApiResource,
    runtime::reflector::{Lookup, ObjectRef, Store},
};
use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use crate::{
    crd::CacheCluster,
    logic::{
        children::{Child, Identity, MANAGER, NO_ZONE, ZONE_LABEL},
        observed::{Observed, PodFacts, controller_of},
    },
};

/// Why nothing could be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The API server did not answer as expected.
    #[error("cannot read {0}: {1}")]
    Read(String, #[source] Box<kube::Error>),
    /// An object that is not JSON of the expected form.
    #[error("cannot understand {0}: {1}")]
    Form(String, #[source] serde_json::Error),
}

type Result<T> = std::result::Result<T, ObserveError>;

/// The API of a child's kind.
pub fn api_of(context: &Context, child: Child, namespace: &str) -> Api<DynamicObject> {
    let (group, version, kind, plural) = child.kind();
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(context.client.clone(), namespace, &resource)
}

/// Observes a cluster and asks its nodes: one of them at rest, all otherwise. None: it is gone.
pub async fn observe(context: &Context, cluster: &Arc<CacheCluster>) -> Result<Option<Observed>> {
    let id = Identity::of(cluster);
    let mut observed = Observed {
        cluster: (**cluster).clone(),
        live: BTreeMap::new(),
        stateful_set: None,
        budget: None,
        pods: BTreeMap::new(),
        zones: BTreeMap::new(),
        views: BTreeMap::new(),
        asked_all: false,
        operator: context.facts.clone(),
        now: Timestamp::now(),
        random: rand::random(),
    };
    from_stores(context, &id, &mut observed)?;
    let settled = observed.looks_settled() && !is_behind(context, &observed).await;
    if !settled && !from_api_server(context, &id, &mut observed).await? {
        return Ok(None);
    }
    let missing: Vec<Child> = Child::ALL.into_iter().filter(|child| !observed.live.contains_key(child)).collect();
    for child in missing {
        if let Some(live) = missing_from_stores(context, &id, child).await? {
            observed.live.insert(child, live);
        }
    }
    adopt_typed(&id, &mut observed)?;
    observed.zones = zones(context, &observed);
    let whom = observed.whom_to_ask();
    observed.views = context.nodes.ask(&observed, &whom).await;
    observed.asked_all = whom == observed.can_be_asked();
    Ok(Some(observed))
}

/// Zones of the Kubernetes nodes that the pods run on, as far as the store has them.
fn zones(context: &Context, observed: &Observed) -> BTreeMap<String, String> {
    let Some(nodes) = &context.watched.nodes else { return BTreeMap::new() };
    let zone = |name: &String| {
        let node = nodes.get(&ObjectRef::new(name))?;
        let zone = node.labels().get(ZONE_LABEL).filter(|zone| !zone.is_empty());
        Some((name.clone(), zone.map_or(NO_ZONE, String::as_str).to_owned()))
    };
    observed.pods.values().filter_map(|pod| zone(pod.node.as_ref()?)).collect()
}

/// Asks those who were not asked yet.
pub async fn ask_the_rest(context: &Context, observed: &mut Observed) {
    let rest = observed.can_be_asked().into_iter().filter(|ordinal| !observed.views.contains_key(ordinal)).collect();
    let views = context.nodes.ask(observed, &rest).await;
    observed.views.extend(views);
    observed.asked_all = true;
}

fn from_stores(context: &Context, id: &Identity, observed: &mut Observed) -> Result<()> {
    let watched = &context.watched;
    for child in Child::ALL {
        let name = child.name(&id.name);
        let found = match child {
            Child::ServiceAccount => stored(&watched.service_accounts, id, &name)?,
            Child::Settings => stored(&watched.config_maps, id, &name)?,
            Child::PeersService | Child::ClientService => stored(&watched.services, id, &name)?,
            Child::NetworkPolicy => stored(&watched.network_policies, id, &name)?,
            Child::DisruptionBudget => stored(&watched.budgets, id, &name)?,
            Child::StatefulSet => stored(&watched.stateful_sets, id, &name)?,
            Child::OperatorSecret | Child::SecuritySecret => None,
        };
        if let Some(found) = found {
            observed.live.insert(child, found);
        }
    }
    adopt_typed(id, observed)?;
    let namespace = id.namespace.as_str();
    let pods = watched.pods.state_filter(|pod| pod.metadata.namespace.as_deref() == Some(namespace));
    adopt_pods(id, observed, pods.iter().map(AsRef::as_ref));
    Ok(())
}

fn stored<K>(store: &Store<K>, id: &Identity, name: &str) -> Result<Option<Value>>
where
    K: Lookup<DynamicType = ()> + Clone + Serialize + 'static,
{
    let found = store.get(&ObjectRef::new(name).within(&id.namespace));
    found.map(|object| serde_json::to_value(&*object).map_err(|e| ObserveError::Form(name.to_owned(), e))).transpose()
}

/// Reads again what gates depend on. False: the CacheCluster is gone.
async fn from_api_server(context: &Context, id: &Identity, observed: &mut Observed) -> Result<bool> {
    let namespace = &id.namespace;
    let clusters: Api<CacheCluster> = Api::namespaced(context.client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let selector = ListParams::default().labels(&id.selector());
    let sets = api_of(context, Child::StatefulSet, namespace);
    let budgets = api_of(context, Child::DisruptionBudget, namespace);
    let (cluster, set, budget) =
        tokio::join!(clusters.get_opt(&id.name), sets.get_opt(&id.name), budgets.get_opt(&id.name));
    // After the budget: a pod that was evicted under an earlier budget is then seen to stop.
    let pods = pods.list(&selector).await;
    let failed = |what: &str| {
        let what = format!("{what} of {}/{}", id.namespace, id.name);
        move |e: kube::Error| ObserveError::Read(what, Box::new(e))
    };
    match cluster.map_err(failed("the CacheCluster"))? {
        Some(cluster) if cluster.metadata.uid.as_deref() == Some(&id.uid) => observed.cluster = cluster,
        _ => return Ok(false),
    }
    for (child, found) in [
        (Child::StatefulSet, set.map_err(failed("the StatefulSet"))?),
        (Child::DisruptionBudget, budget.map_err(failed("the PodDisruptionBudget"))?),
    ] {
        observed.live.remove(&child);
        if let Some(found) = found {
            let value = serde_json::to_value(found).map_err(|e| ObserveError::Form(id.name.clone(), e))?;
            observed.live.insert(child, value);
        }
    }
    adopt_typed(id, observed)?;
    let pods = pods.map_err(failed("the pods"))?;
    adopt_pods(id, observed, pods.items.iter());
    Ok(true)
}

/// A child that no store has may be a stranger's without our label, or a Secret, which no store holds.
async fn missing_from_stores(context: &Context, id: &Identity, child: Child) -> Result<Option<Value>> {
    let name = child.name(&id.name);
    let failed =
        |e: kube::Error| ObserveError::Read(format!("{} {}/{name}", child.kind().2, id.namespace), Box::new(e));
    if !child.is_secret() {
        let found = api_of(context, child, &id.namespace).get_opt(&name).await.map_err(failed)?;
        return found
            .map(|found| serde_json::to_value(found).map_err(|e| ObserveError::Form(name.clone(), e)))
            .transpose();
    }
    let key = format!("{}/{name}", id.uid);
    if context.nodes.remembered(&key).await.is_some() {
        return Ok(Some(ours(id, child)));
    }
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &id.namespace);
    let Some(secret) = secrets.get_opt(&name).await.map_err(failed)? else { return Ok(None) };
    if controller_of(&secret.metadata) == Some(&id.uid) {
        let files = secret.data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0)).collect();
        if child == Child::OperatorSecret {
            context.nodes.remember(&id.uid, files).await;
        }
        // That a Secret is there is remembered too; its content only where it is used.
        context.nodes.remember(&key, BTreeMap::new()).await;
    }
    let metadata = serde_json::to_value(&secret.metadata).map_err(|e| ObserveError::Form(name, e))?;
    Ok(Some(serde_json::json!({ "metadata": metadata })))
}

fn ours(id: &Identity, child: Child) -> Value {
    serde_json::json!({ "metadata": id.metadata(child) })
}

fn adopt_typed(id: &Identity, observed: &mut Observed) -> Result<()> {
    observed.stateful_set = typed::<StatefulSet>(id, observed, Child::StatefulSet)?
        .filter(|set| controller_of(&set.metadata) == Some(&id.uid));
    observed.budget = typed::<PodDisruptionBudget>(id, observed, Child::DisruptionBudget)?
        .filter(|budget| controller_of(&budget.metadata) == Some(&id.uid));
    Ok(())
}

fn typed<K: serde::de::DeserializeOwned>(id: &Identity, observed: &Observed, child: Child) -> Result<Option<K>> {
    let value = observed.live.get(&child).cloned();
    value
        .map(|value| serde_json::from_value(value).map_err(|e| ObserveError::Form(child.name(&id.name), e)))
        .transpose()
}

fn adopt_pods<'a>(id: &Identity, observed: &mut Observed, pods: impl Iterator<Item = &'a Pod>) {
    let owner = observed.stateful_set.as_ref().and_then(|set| set.metadata.uid.clone());
    let ours = pods.filter(|pod| owner.is_some() && controller_of(&pod.metadata) == owner.as_deref());
    let by_ordinal = ours.filter_map(|pod| Some((id.ordinal_of_pod(&pod.name_any())?, PodFacts::of(pod))));
    observed.pods = by_ordinal.collect();
}

/// Whether the store has not seen our own last write of the status yet.
async fn is_behind(context: &Context, observed: &Observed) -> bool {
    let version = observed.cluster.metadata.resource_version.as_ref().and_then(|version| version.parse::<u64>().ok());
    let written = context.written.lock().await.get(&observed.id().uid).copied();
    matches!((version, written), (Some(version), Some(written)) if version < written)
}

/// The field manager of every write.
pub const FIELD_MANAGER: &str = MANAGER;
