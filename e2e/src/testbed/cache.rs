//! One CacheCluster, as its user sees it.

use super::bed::Testbed;
use super::wait;
use super::ways::To;
use crate::load::connection::Connection;
use crate::load::{Options, Retries};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Port for clients.
pub const CLIENT_PORT: u16 = 3320;
/// How long a Service may refuse after its pods are ready.
const SERVICE_LIMIT: Duration = Duration::from_secs(15);
/// How long three nodes may take to be ready, on a machine that is busy.
pub const READY_LIMIT: Duration = Duration::from_mins(3);

/// A CacheCluster by its name.
#[derive(Clone)]
pub struct Cache {
    /// The cluster that it is on.
    pub bed: Testbed,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Cache {
    /// A handle; the object need not exist.
    pub fn named(bed: &Testbed, namespace: &str, name: &str) -> Self {
        Self { bed: bed.clone(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// Objects of one kind in the cache's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.bed.client.clone(), &self.namespace)
    }

    /// All `CacheCluster`s in the cache's namespace.
    pub fn clusters(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.bed.client.clone(), &self.namespace, &resource())
    }

    /// The object as it is.
    pub async fn object(&self) -> Result<DynamicObject> {
        self.clusters().get(&self.name).await.with_context(|| format!("can't read CacheCluster {}", self.name))
    }

    /// The label selector of its pods.
    pub fn selector(&self) -> String {
        format!("app.kubernetes.io/instance={},app.kubernetes.io/name=mizuya", self.name)
    }

    /// The selector of its pods for a watch.
    pub fn pods_selected(&self) -> kube::runtime::watcher::Config {
        kube::runtime::watcher::Config::default().labels(&self.selector())
    }

    /// Applies it with this spec, as a user does.
    pub async fn apply(&self, spec: &Value) -> Result<()> {
        let manifest = self.manifest(spec);
        self.bed.kubectl_with(&["apply", "--namespace", &self.namespace, "-f", "-"], &manifest).await.map(drop)
    }

    /// Applies it server-side, as a GitOps agent does: what it does not name it gives up.
    pub async fn apply_as_agent(&self, spec: &Value) -> Result<()> {
        let manifest = self.manifest(spec);
        let apply = ["apply", "--server-side", "--force-conflicts", "--field-manager=agent"];
        let whole = [&apply[..], &["--namespace", &self.namespace, "-f", "-"]].concat();
        self.bed.kubectl_with(&whole, &manifest).await.map(drop)
    }

    /// The YAML that [`Cache::apply`] applies.
    pub fn manifest(&self, spec: &Value) -> String {
        let object = json!({
            "apiVersion": "cache.mizuya.dev/v1alpha1",
            "kind": "CacheCluster",
            "metadata": { "name": self.name },
            "spec": spec,
        });
        format!("{object:#}\n")
    }

    /// Changes fields of the spec.
    pub async fn change(&self, spec: &Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.clusters().patch(&self.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Sets the number of replicas, as `kubectl scale` does.
    pub async fn scale(&self, replicas: u32) -> Result<()> {
        let (count, object) = (format!("--replicas={replicas}"), format!("cachecluster/{}", self.name));
        self.bed.kubectl(&["scale", "--namespace", &self.namespace, &count, &object]).await.map(drop)
    }

    /// Waits until `look` answers for the object.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&DynamicObject) -> Option<T>,
    ) -> Result<T> {
        let what = format!("{}: {what}", self.name);
        wait::for_object(&what, limit, self.clusters(), &self.name, |object| Ok(object.and_then(&mut look))).await
    }

    /// Waits until its spec is reached.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        self.wait_for("Ready", limit, |object| (is_current(object) && has(object, "Ready", "True")).then_some(())).await
    }

    /// Waits until a condition has this status at the newest generation, and returns it.
    pub async fn condition(&self, kind: &str, status: &str, limit: Duration) -> Result<Condition> {
        self.wait_for(&format!("{kind}={status}"), limit, |object| {
            condition(object, kind).filter(|condition| condition.status == status && is_current(object))
        })
        .await
    }

    /// The pods' names in the order of their numbers.
    pub async fn pod_names(&self) -> Result<Vec<String>> {
        let pods: Api<Pod> = self.api();
        let found = pods.list(&ListParams::default().labels(&self.selector())).await?;
        let mut names: Vec<String> = found.iter().map(ResourceExt::name_any).collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        Ok(names)
    }

    /// The pod with this number.
    pub fn pod(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.name)
    }

    /// A pod's address.
    pub async fn pod_address(&self, pod: &str) -> Result<IpAddr> {
        let pods: Api<Pod> = self.api();
        let status = pods.get(pod).await?.status.unwrap_or_default();
        status.pod_ip.with_context(|| format!("{pod} has no address yet"))?.parse().context("a pod's address")
    }

    /// Where a port of a pod is reached from this machine.
    pub async fn way_to(&self, pod: &str, port: u16) -> Result<SocketAddr> {
        if self.bed.has_routes {
            return Ok(SocketAddr::new(self.pod_address(pod).await?, port));
        }
        self.bed.ways.open(self.api(), To::Pod(pod.to_owned()), port).await
    }

    /// Where each pod listens for clients, reached from this machine.
    pub async fn pod_addresses(&self) -> Result<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        for pod in self.pod_names().await? {
            addresses.push(self.way_to(&pod, CLIENT_PORT).await?);
        }
        Ok(addresses)
    }

    /// Where the client Service is reached from this machine. For a moment, until every Kubernetes node knows that its
    /// pods are ready, a Service refuses, or its address leads to wherever the network takes it: so it must answer as a
    /// cache does.
    pub async fn service_address(&self) -> Result<SocketAddr> {
        let address = if self.bed.has_routes {
            let services: Api<Service> = self.api();
            let spec = services.get(&self.name).await?.spec.unwrap_or_default();
            let address = spec.cluster_ip.with_context(|| format!("Service {} has no address", self.name))?;
            SocketAddr::new(address.parse().context("a Service's address")?, CLIENT_PORT)
        } else {
            self.bed.ways.open(self.api(), To::Ready(self.selector()), CLIENT_PORT).await?
        };
        let answers = async || {
            let Ok(mut connection) = Connection::open(address).await else { return Ok(None) };
            Ok(connection.ask(&["PING"]).await.ok())
        };
        wait::by_asking(&format!("{address} to answer"), SERVICE_LIMIT, answers).await?;
        Ok(address)
    }

    /// The load that all scenarios share, against the Service.
    pub async fn load(&self, retries: Retries) -> Result<Options> {
        Ok(Options::new(self.service_address().await?, retries))
    }

    /// Waits until the pod of this number is ready as another one than `before`.
    pub async fn replaced(&self, pod: &str, before: &str, limit: Duration) -> Result<()> {
        let pods: Api<Pod> = self.api();
        wait::for_object(&format!("{pod} to be back"), limit, pods, pod, |pod| {
            Ok(pod.filter(|pod| pod.uid().as_deref() != Some(before) && super::record::is_up(pod)).map(drop))
        })
        .await
    }

    /// The unique id of a pod.
    pub async fn pod_uid(&self, pod: &str) -> Result<String> {
        let pods: Api<Pod> = self.api();
        pods.get(pod).await?.uid().with_context(|| format!("{pod} has no uid"))
    }

    /// Which pods there are, in the order of their names: another one under the same name differs.
    pub async fn pod_uids(&self) -> Result<Vec<String>> {
        let mut uids = Vec::new();
        for pod in self.pod_names().await? {
            uids.push(self.pod_uid(&pod).await?);
        }
        Ok(uids)
    }

    /// Waits until as many pods are up as the spec asks for and no other one exists.
    pub async fn pods_up(&self, count: usize, limit: Duration) -> Result<()> {
        let pods: Api<Pod> = self.api();
        wait::for_objects(&format!("{count} pods of {}", self.name), limit, pods, self.pods_selected(), |pods| {
            Ok((pods.len() == count && pods.values().all(super::record::is_up)).then_some(()))
        })
        .await
    }

    /// Fails when a node has evicted entries: then what is absent would not be lost.
    pub async fn nothing_was_evicted(&self) -> Result<()> {
        for status in super::nodes::statuses(self).await? {
            let evictions = status.totals.unwrap_or_default().evictions;
            if evictions > 0 {
                bail!("{} evicted {evictions} entries: the test's caches must be large enough for none", status.member);
            }
        }
        Ok(())
    }
}

/// Where `CacheCluster`s are in the API.
pub fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("cache.mizuya.dev", "v1alpha1", "CacheCluster"),
        "cacheclusters",
    )
}

/// A condition of the object, if it has it.
pub fn condition(object: &DynamicObject, kind: &str) -> Option<Condition> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    serde_json::from_value(found.clone()).ok()
}

/// Whether a condition of the object has this status.
pub fn has(object: &DynamicObject, kind: &str, status: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition.status == status)
}

/// Whether the status is about the newest spec.
pub fn is_current(object: &DynamicObject) -> bool {
    let observed = object.data.pointer("/status/observedGeneration").and_then(Value::as_i64);
    observed.is_some() && observed == object.metadata.generation
}
