//! Installing the operator, as its users do.

use super::bed::{Testbed, workspace};
use super::wait;
use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use std::time::Duration;

/// Where the operator runs.
pub const NAMESPACE: &str = "mizuya-system";
/// Its Deployment.
pub const DEPLOYMENT: &str = "mizuya-operator";
/// Selects its pods.
pub const PODS: &str = "app.kubernetes.io/name=mizuya-operator";
/// The file that users apply.
pub const INSTALL: &str = "manifests/install.yaml";
/// How long the operator may take to be available.
const AVAILABLE_LIMIT: Duration = Duration::from_mins(2);

/// Applies the install manifest and waits for the operator. One that ran before is restarted, because the images of this
/// tree always have the same tag.
pub async fn install(bed: &Testbed) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let there = deployments.get_opt(DEPLOYMENT).await?.is_some();
    let file = workspace().join(INSTALL);
    let file = file.to_str().context("the source tree's path is no text")?;
    bed.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file]).await?;
    if there {
        bed.kubectl(&["rollout", "restart", "--namespace", NAMESPACE, &format!("deployment/{DEPLOYMENT}")]).await?;
    }
    available(bed).await
}

/// Removes what [`install`] made, the CRD with every `CacheCluster` among it.
pub async fn uninstall(bed: &Testbed) -> Result<()> {
    let file = workspace().join(INSTALL);
    let file = file.to_str().context("the source tree's path is no text")?;
    bed.kubectl(&["delete", "--ignore-not-found", "--wait", "--timeout=120s", "-f", file]).await.map(drop)
}

/// Waits until the newest operator is there and is the only one.
pub async fn available(bed: &Testbed) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(bed.client.clone(), NAMESPACE);
    wait::for_object("the operator to be available", AVAILABLE_LIMIT, deployments, DEPLOYMENT, |deployment| {
        Ok(deployment.is_some_and(is_available).then_some(()))
    })
    .await
}

/// Fails with the way out when no operator is installed.
pub async fn require(bed: &Testbed) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(bed.client.clone(), NAMESPACE);
    deployments.get_opt(DEPLOYMENT).await?.context("the operator is not installed: `make install` does it").map(drop)
}

/// Ends every pod of the operator at once, without a chance to clean up.
pub async fn kill(bed: &Testbed) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let selected = ListParams::default().labels(PODS);
    let found = pods.list(&selected).await?;
    anyhow::ensure!(!found.items.is_empty(), "the operator has no pods to kill");
    for pod in found {
        pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    }
    Ok(())
}

/// Sets how many operators run, and waits until it is so.
pub async fn scale(bed: &Testbed, replicas: i32) -> Result<()> {
    let count = format!("--replicas={replicas}");
    bed.kubectl(&["scale", "--namespace", NAMESPACE, &count, &format!("deployment/{DEPLOYMENT}")]).await?;
    if replicas > 0 {
        return available(bed).await;
    }
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let selection = kube::runtime::watcher::Config::default().labels(PODS);
    wait::for_objects("the operator to be gone", AVAILABLE_LIMIT, pods, selection, |pods| {
        Ok(pods.is_empty().then_some(()))
    })
    .await
}

fn is_available(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else { return false };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == Some(wanted)
        && status.available_replicas == Some(wanted)
        && status.replicas == Some(wanted)
}
