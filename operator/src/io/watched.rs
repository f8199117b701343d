//! What is watched: every CacheCluster, its children and its pods, each in a store that reconciles read from.

use futures::{Stream, StreamExt};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::PartialObjectMeta,
    runtime::{
        Predicate, WatchStreamExt,
        controller::Controller,
        predicates,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;

use crate::{crd::CacheCluster, logic::children::MANAGER};

/// The stores.
#[derive(Clone)]
pub struct Watched {
    /// Pods' controllers.
    pub stateful_sets: Store<StatefulSet>,
    /// Pods.
    pub pods: Store<Pod>,
    /// Services.
    pub services: Store<Service>,
    /// Settings files.
    pub config_maps: Store<ConfigMap>,
    /// Identities of pods.
    pub service_accounts: Store<ServiceAccount>,
    /// Who may reach what.
    pub network_policies: Store<NetworkPolicy>,
    /// Disruption budgets.
    pub budgets: Store<PodDisruptionBudget>,
    /// Kubernetes nodes; none where the operator may not read them.
    pub nodes: Option<Store<Metadata>>,
}

/// A Kubernetes node without its spec and status.
pub type Metadata = PartialObjectMeta<Node>;

/// All objects of a kind that the operator may see.
pub fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Starts all watches: the controller that they wake, and the stores that they fill.
pub fn watch(client: &Client, namespace: Option<&str>) -> (Controller<CacheCluster>, Watched) {
    let (clusters, writer) = reflector::store();
    // Only what a user writes wakes a reconcile; the operator's own status writes do not.
    let wakes = watcher(scoped::<CacheCluster>(client, namespace), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::annotations),
            kube::runtime::PredicateConfig::default(),
        );
    let controller = Controller::for_stream(wakes, clusters);

    let (stateful_sets, stream) = child::<StatefulSet>(client, namespace);
    let controller = controller.owns_stream(stream);
    let (services, stream) = child::<Service>(client, namespace);
    let controller = controller.owns_stream(stream);
    let (config_maps, stream) = child::<ConfigMap>(client, namespace);
    let controller = controller.owns_stream(stream);
    let (service_accounts, stream) = child::<ServiceAccount>(client, namespace);
    let controller = controller.owns_stream(stream);
    let (network_policies, stream) = child::<NetworkPolicy>(client, namespace);
    let controller = controller.owns_stream(stream);
    let (budgets, stream) = child::<PodDisruptionBudget>(client, namespace);
    let controller = controller.owns_stream(stream);
    let (pods, stream) = child::<Pod>(client, namespace);
    let controller = controller.watches_stream(stream, |pod| cluster_of_pod(&pod));

    let (nodes, controller) = match namespace {
        None => {
            let (store, stream) = nodes(client);
            // A node that comes or changes wakes nobody: the pods on it do.
            (Some(store), controller.watches_stream(stream, |_| None::<ObjectRef<CacheCluster>>))
        }
        Some(_) => (None, controller),
    };

    let watched =
        Watched { stateful_sets, pods, services, config_maps, service_accounts, network_policies, budgets, nodes };
    (controller, watched)
}

/// Of a Kubernetes node only the labels are kept: the rest is large and changes all the time.
fn nodes(client: &Client) -> (Store<Metadata>, impl Stream<Item = Result<Metadata, watcher::Error>> + Send + 'static) {
    let (store, writer) = reflector::store();
    let stream = watcher(Api::<Metadata>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .modify(|node| {
            node.meta_mut().managed_fields = None;
            node.meta_mut().annotations = None;
        })
        .reflect(writer)
        .touched_objects()
        .boxed();
    (store, stream)
}

/// A pod belongs to a StatefulSet, not to the CacheCluster: its label says which one.
fn cluster_of_pod(pod: &Pod) -> Option<ObjectRef<CacheCluster>> {
    let name = pod.labels().get("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(name).within(&pod.namespace()?))
}

/// The objects of a kind that carry our label. Who owns each of their fields is not kept: it is most of their size.
fn child<K>(
    client: &Client,
    namespace: Option<&str>,
) -> (Store<K>, impl Stream<Item = Result<K, watcher::Error>> + Send + 'static)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let ours = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
    let stream = watcher(scoped::<K>(client, namespace), ours)
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .touched_objects()
        .boxed();
    (store, stream)
}
