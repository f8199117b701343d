//! A cluster of `kind`, for machines with a container engine.

use super::state::cache;
use super::tool;
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "mizuya";
const CLUSTER: &str = "kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
  - role: worker
    labels: { topology.kubernetes.io/zone: a }
  - role: worker
    labels: { topology.kubernetes.io/zone: b }
  - role: worker
    labels: { topology.kubernetes.io/zone: c }
";

/// Makes the cluster when it is missing, and its kubeconfig in any case.
pub fn up() -> Result<()> {
    if !exists()? {
        let create = ["create", "cluster", "--wait=180s", "--config=-", "--name", NAME, "--kubeconfig"];
        let image = std::env::var_os("KIND_IMAGE").map(|image| ["--image".into(), image]);
        tool::output_for(kind().args(create).arg(kubeconfig()?).args(image.into_iter().flatten()), CLUSTER)?;
    }
    tool::run(kind().args(["export", "kubeconfig", "--name", NAME, "--kubeconfig"]).arg(kubeconfig()?))
}

/// Removes the cluster.
pub fn down() -> Result<()> {
    if exists()? {
        tool::run(kind().args(["delete", "cluster", "--name", NAME, "--kubeconfig"]).arg(kubeconfig()?))?;
    }
    match std::fs::remove_file(kubeconfig()?) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether the cluster is there.
pub fn exists() -> Result<bool> {
    if !tool::exists(NAME_OF_TOOL) {
        bail!("CLUSTER=kind needs `kind` on the PATH; unset CLUSTER for a cluster without a container engine");
    }
    Ok(tool::output(kind().args(["get", "clusters"]))?.lines().any(|line| line == NAME))
}

/// Gives an image archive to every node.
pub fn load_image(archive: &Path) -> Result<()> {
    tool::run(kind().args(["load", "image-archive", "--name", NAME]).arg(archive))
}

/// Where the cluster's kubeconfig is.
pub fn kubeconfig() -> Result<PathBuf> {
    Ok(cache()?.join("kind-kubeconfig"))
}

const NAME_OF_TOOL: &str = "kind";

fn kind() -> Command {
    Command::new(NAME_OF_TOOL)
}
