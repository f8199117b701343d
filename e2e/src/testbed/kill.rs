//! Ending a pod's process as a crash does: without a signal that it could answer. Only on the local cluster, whose
//! processes are this machine's.

use super::cache::Cache;
use super::wait;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::Duration;

/// Kills every process of the pod's container with SIGKILL.
pub async fn pod(cache: &Cache, pod: &str) -> Result<()> {
    for process in processes(cache, pod).await? {
        kill(process, Signal::SIGKILL)?;
    }
    Ok(())
}

/// Stops every process of the pod's container for this long: it neither runs nor ends.
pub async fn paused(cache: &Cache, pod: &str, lasting: Duration) -> Result<()> {
    let processes = processes(cache, pod).await?;
    for process in &processes {
        kill(*process, Signal::SIGSTOP)?;
    }
    tokio::time::sleep(lasting).await;
    for process in processes {
        kill(process, Signal::SIGCONT)?;
    }
    Ok(())
}

/// How often the pod's container was started again.
pub async fn restarts(cache: &Cache, pod: &str) -> Result<i32> {
    Ok(container(cache, pod).await?.restart_count)
}

/// Waits until the pod's container was started for the first time after it began, and is ready.
pub async fn restarted(cache: &Cache, pod: &str, limit: Duration) -> Result<()> {
    restarted_after(cache, pod, 0, limit).await
}

/// Waits until the pod's container was started again more than `before` times, and is ready.
pub async fn restarted_after(cache: &Cache, pod: &str, before: i32, limit: Duration) -> Result<()> {
    let pods: Api<Pod> = cache.api();
    wait::for_object(&format!("{pod} to be restarted"), limit, pods, pod, |pod| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        let container = status.and_then(|status| status.container_statuses.as_ref()?.first());
        Ok(container.filter(|container| container.restart_count > before && container.ready).map(drop))
    })
    .await
}

async fn processes(cache: &Cache, pod: &str) -> Result<Vec<Pid>> {
    let container = container(cache, pod).await?;
    let id = container.container_id.with_context(|| format!("{pod} has no container"))?;
    let processes = processes_of(id.rsplit('/').next().unwrap_or_default())?;
    ensure!(!processes.is_empty(), "no process of {pod} was found here: this needs the local cluster");
    Ok(processes)
}

async fn container(cache: &Cache, pod: &str) -> Result<ContainerStatus> {
    let pods: Api<Pod> = cache.api();
    let status = pods.get(pod).await?.status.unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    containers.into_iter().next().with_context(|| format!("{pod} has no container"))
}

/// A container's control group carries its id.
fn processes_of(container: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if groups.lines().any(|line| line.ends_with(&format!("/{container}"))) {
            found.push(Pid::from_raw(id));
        }
    }
    Ok(found)
}
