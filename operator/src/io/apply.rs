//! [`Plan`] → writes: server-side apply, deletes, evictions, calls to nodes, the status, events.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, Resource,
    api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::events::{Event as KubeEvent, EventType},
};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::{
    certificates::{self, CertificateError, Files},
    context::Context,
    nodes::NodeError,
    observe::{FIELD_MANAGER, api_of},
};
use crate::{
    crd::{API_VERSION, CacheCluster, KIND},
    logic::{
        children::{Child, HANDED_OVER, Identity, ZONE, secrets},
        observed::Observed,
        plan::{Plan, Step},
        report::{Event, Failure, Outcome, Report},
    },
};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The API server refused, or did not answer.
    #[error("{0}: {1}")]
    Kubernetes(String, #[source] Box<kube::Error>),
    /// A node refused, or did not answer.
    #[error("{0}: {1}")]
    Node(&'static str, #[source] NodeError),
    /// The spec changed since it was observed.
    #[error("the spec of {0} changed in the meantime")]
    Turned(String),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl StepError {
    /// The object changed since it was observed, or a budget is used up: look again soon, nothing is wrong.
    pub fn is_overtaken(&self) -> bool {
        matches!(self, Self::Turned(_))
            || matches!(self, Self::Kubernetes(_, error) if matches!(&**error, kube::Error::Api(status) if [404, 409, 429].contains(&status.code)))
    }

    /// The namespace is being deleted, and all in it with it: there is nothing left to do or to say.
    pub fn is_end_of_namespace(&self) -> bool {
        let Self::Kubernetes(_, error) = self else { return false };
        let kube::Error::Api(status) = &**error else { return false };
        let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
        causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// The API server found the object itself invalid.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Kubernetes(_, error) if matches!(&**error, kube::Error::Api(status) if [400, 422].contains(&status.code)))
    }
}

/// Carries out a plan's steps in order. Children are independent of each other, so that one which cannot be written does
/// not keep others from it; but nothing else is done after a failure.
pub async fn carry_out(context: &Context, observed: &Observed, plan: &Plan) -> Result<Outcome, StepError> {
    let (cluster, namespace) = (observed.id().name, observed.id().namespace);
    let mut outcome = Outcome::default();
    for step in &plan.steps {
        if outcome.failure.is_some() && !matches!(step, Step::Apply { .. }) {
            break;
        }
        context.metrics.step(step);
        match carry_out_one(context, observed, step).await {
            Ok(()) => outcome.done.push(step.clone()),
            Err(error) if error.is_end_of_namespace() => return Err(error),
            Err(error) if error.is_overtaken() => {
                info!(%cluster, %namespace, %error, "overtaken");
                return Err(error);
            }
            Err(error) => {
                warn!(%cluster, %namespace, %error, "step failed");
                let invalid = error.is_invalid();
                outcome.failure.get_or_insert(Failure { message: error.to_string(), invalid });
            }
        }
    }
    Ok(outcome)
}

async fn carry_out_one(context: &Context, observed: &Observed, step: &Step) -> Result<(), StepError> {
    let id = observed.id();
    let pods = || Api::<Pod>::namespaced(context.client.clone(), &id.namespace);
    log(&id, step);
    match step {
        Step::CreateSecrets { missing } => create_secrets(context, &id, missing).await,
        Step::Apply { child, manifest, because } => apply(context, &id, *child, manifest, because.is_some()).await,
        Step::Lower { manifest, .. } => {
            still_wanted(context, observed).await?;
            apply(context, &id, Child::StatefulSet, manifest, true).await
        }
        Step::Delete { child, uid } => delete(context, &id, *child, uid).await,
        Step::Evict { pod, uid, resource_version } => evict(&pods(), pod, uid, resource_version).await,
        Step::TellZone { pod, uid, zone } => {
            label(&pods(), pod, &json!({ "uid": uid, "annotations": { ZONE: zone } })).await.map(|_| ())
        }
        Step::PutBack { pod, uid } => {
            label(&pods(), pod, &json!({ "uid": uid, "labels": { HANDED_OVER: null } })).await.map(|_| ())
        }
        Step::Cordon { .. } => change(context, observed, step, "cordon").await,
        Step::Uncordon { .. } => change(context, observed, step, "uncordon").await,
        Step::Drain { .. } => change(context, observed, step, "drain").await,
        Step::Forget { .. } => change(context, observed, step, "forget").await,
        Step::ApplySettings(_) => change(context, observed, step, "apply settings").await,
    }
}

fn log(id: &Identity, step: &Step) {
    let (cluster, namespace) = (&id.name, &id.namespace);
    match step {
        Step::Apply { child, because, .. } => {
            info!(%cluster, %namespace, kind = child.kind().2, name = child.name(cluster), because, "apply");
        }
        Step::Lower { to, .. } => info!(%cluster, %namespace, to, "lower replicas"),
        other => info!(%cluster, %namespace, step = ?other, "step"),
    }
}

async fn change(context: &Context, observed: &Observed, step: &Step, what: &'static str) -> Result<(), StepError> {
    context.nodes.change(observed, step).await.map_err(|e| StepError::Node(what, e))
}

fn failed(what: String) -> impl FnOnce(kube::Error) -> StepError {
    move |error| StepError::Kubernetes(what, Box::new(error))
}

/// A child that exists is forced: its rendered fields are ours. A new one is not, so that a stranger's object that came
/// in this moment stays as it is.
///
/// A hand edit of a port leaves an item that the API server takes for somebody else's, and ours beside it then has a name
/// that is taken. Where the merged object is invalid for such a reason, the rendered lists replace the live ones.
async fn apply(
    context: &Context,
    id: &Identity,
    child: Child,
    manifest: &Value,
    exists: bool,
) -> Result<(), StepError> {
    let name = child.name(&id.name);
    let what = format!("apply {} {name}", child.kind().2);
    let params = PatchParams { force: exists, ..PatchParams::apply(FIELD_MANAGER) };
    let api = api_of(context, child, &id.namespace);
    let applied = api.patch(&name, &params, &Patch::Apply(manifest)).await.map(|_| ()).map_err(failed(what.clone()));
    match applied {
        Err(error) if exists && error.is_invalid() => {
            let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            // If that does not help, the first answer is the one that explains it.
            api.patch(&name, &params, &Patch::Merge(manifest)).await.map(|_| ()).map_err(|_| error)
        }
        applied => applied,
    }
}

/// Reads the wish once more before a node goes for good: it may have been turned back while the nodes were asked.
async fn still_wanted(context: &Context, observed: &Observed) -> Result<(), StepError> {
    let id = observed.id();
    let api: Api<CacheCluster> = Api::namespaced(context.client.clone(), &id.namespace);
    let what = format!("read CacheCluster {}", id.name);
    let now = api.get(&id.name).await.map_err(failed(what))?;
    if now.metadata.generation == observed.cluster.metadata.generation {
        return Ok(());
    }
    Err(StepError::Turned(id.name))
}

async fn delete(context: &Context, id: &Identity, child: Child, uid: &str) -> Result<(), StepError> {
    let name = child.name(&id.name);
    let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let api = api_of(context, child, &id.namespace);
    let what = format!("delete {} {name}", child.kind().2);
    api.delete(&name, &DeleteParams::default().preconditions(only)).await.map(|_| ()).map_err(failed(what))
}

async fn label(pods: &Api<Pod>, name: &str, metadata: &Value) -> Result<Pod, StepError> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    pods.patch(name, &params, &Patch::Merge(json!({ "metadata": metadata })))
        .await
        .map_err(failed(format!("label pod {name}")))
}

/// Out of the budget, then away: see [`crate::logic::roll`].
async fn evict(pods: &Api<Pod>, name: &str, uid: &str, resource_version: &str) -> Result<(), StepError> {
    let metadata = json!({ "uid": uid, "resourceVersion": resource_version, "labels": { HANDED_OVER: "true" } });
    let pod = label(pods, name, &metadata).await?;
    let only = Preconditions { uid: Some(uid.to_owned()), resource_version: pod.metadata.resource_version };
    let params =
        EvictParams { delete_options: Some(DeleteParams::default().preconditions(only)), ..EvictParams::default() };
    pods.evict(name, &params).await.map(|_| ()).map_err(failed(format!("evict pod {name}")))
}

async fn create_secrets(context: &Context, id: &Identity, missing: &[Child]) -> Result<(), StepError> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &id.namespace);
    let operator: Files = if missing.contains(&Child::OperatorSecret) {
        let files = certificates::operator_files(&secrets::operator_subject())?;
        create(&api, id, Child::OperatorSecret, files.clone()).await?;
        files
    } else {
        let name = Child::OperatorSecret.name(&id.name);
        let secret = api.get(&name).await.map_err(failed(format!("read Secret {name}")))?;
        secret.data.unwrap_or_default().into_iter().map(|(name, bytes)| (name, bytes.0)).collect::<BTreeMap<_, _>>()
    };
    if missing.contains(&Child::SecuritySecret) {
        let files = certificates::node_files(&operator, &secrets::node_subject(id))?;
        create(&api, id, Child::SecuritySecret, files).await?;
    }
    Ok(())
}

async fn create(api: &Api<Secret>, id: &Identity, child: Child, files: Files) -> Result<(), StepError> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let secret = secrets::render(id, child, files);
    api.create(&params, &secret).await.map(|_| ()).map_err(failed(format!("create Secret {}", child.name(&id.name))))
}

/// Writes the status if it changed, and publishes the events.
pub async fn tell(context: &Context, observed: &Observed, report: &Report) -> Result<(), StepError> {
    let id = observed.id();
    if observed.cluster.status.as_ref() != Some(&report.status) {
        let api: Api<CacheCluster> = Api::namespaced(context.client.clone(), &id.namespace);
        let patch = json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": { "name": id.name, "uid": id.uid },
            "status": report.status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = api.patch_status(&id.name, &params, &Patch::Apply(patch)).await;
        let written = written.map_err(failed(format!("write the status of {}", id.name)))?;
        if let Some(version) = written.metadata.resource_version.and_then(|version| version.parse().ok()) {
            context.written.lock().await.insert(id.uid.clone(), version);
        }
        context.metrics.status_writes.inc();
    }
    for event in &report.events {
        publish(context, observed, event).await;
    }
    Ok(())
}

/// Events are for people: one that cannot be published is logged and no reason to stop.
async fn publish(context: &Context, observed: &Observed, event: &Event) {
    let kind = if event.warning { EventType::Warning } else { EventType::Normal };
    let note = Some(event.message.clone()).filter(|message| !message.is_empty());
    let event =
        KubeEvent { type_: kind, reason: event.reason.clone(), note, action: "Reconcile".to_owned(), secondary: None };
    if let Err(error) = context.events.publish(&event, &observed.cluster.object_ref(&())).await {
        warn!(cluster = %observed.id().name, %error, "cannot publish an event");
    }
}
