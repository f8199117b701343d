//! The Kubernetes that `$CLUSTER` names: a client for it, and its kubectl.

use super::ways::Ways;
use crate::kubernetes::choice::Cluster;
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a namespace may take to go, with all that is in it.
const NAMESPACE_LIMIT: Duration = Duration::from_secs(400);
/// How long the API server may take to answer under its Service's address.
const ROUTE_LIMIT: Duration = Duration::from_secs(2);

/// A cluster to test on.
#[derive(Clone)]
pub struct Testbed {
    /// The administrator's client.
    pub client: kube::Client,
    /// Whether addresses of pods and Services are reached from this machine: mostly not where nodes are elsewhere or in
    /// containers.
    pub has_routes: bool,
    /// Ways to pods where there are no routes.
    pub ways: Ways,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

/// What a program printed, and whether it was content.
#[derive(Clone, Debug)]
pub struct Output {
    /// The program ended with 0.
    pub success: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Testbed {
    /// Connects to the cluster that is there.
    pub async fn connect() -> Result<Self> {
        let cluster = Cluster::from_environment()?;
        let kubeconfig = cluster.kubeconfig()?;
        let config = Kubeconfig::read_from(&kubeconfig)
            .with_context(|| format!("there is no {}: `make cluster-up` makes the cluster", kubeconfig.display()))?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let client = kube::Client::try_from(config.clone())?;
        client.apiserver_version().await.context("the cluster does not answer: `make cluster-up` makes it anew")?;
        let has_routes = cluster == Cluster::Local || has_routes(&client, config).await.unwrap_or(false);
        Ok(Self { client, has_routes, ways: Ways::default(), kubectl: cluster.kubectl()?, kubeconfig })
    }

    /// Where the kubeconfig is.
    pub fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// A kubectl for this cluster.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).args(arguments).kill_on_drop(true);
        command
    }

    /// Runs kubectl and returns what it printed; an error when it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        succeeded(arguments, self.try_kubectl(arguments, "").await?)
    }

    /// Removes a namespace, if it is there, and all that is in it.
    pub async fn remove_namespace(&self, name: &str) -> Result<()> {
        let limit = format!("--timeout={}s", NAMESPACE_LIMIT.as_secs());
        self.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--wait", &limit]).await.map(drop)
    }

    /// Runs kubectl with this standard input.
    pub async fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        succeeded(arguments, self.try_kubectl(arguments, input).await?)
    }

    /// Runs kubectl, which may fail.
    pub async fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        run(self.kubectl_command(arguments), input).await
    }
}

/// Whether the API server answers under its Service's address. Its certificate tells it from whatever else may be there.
async fn has_routes(client: &kube::Client, mut config: kube::Config) -> Result<bool> {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let spec = services.get("kubernetes").await?.spec.unwrap_or_default();
    let address = spec.cluster_ip.context("the API server's Service has no address")?;
    config.cluster_url = format!("https://{address}").parse()?;
    config.proxy_url = None;
    let direct = kube::Client::try_from(config)?;
    Ok(tokio::time::timeout(ROUTE_LIMIT, direct.apiserver_version()).await.is_ok_and(|answer| answer.is_ok()))
}

/// Runs a program to its end.
pub async fn run(mut command: Command, input: &str) -> Result<Output> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let stdio = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = stdio.spawn().with_context(|| format!("can't start {name}"))?;
    let mut stdin = child.stdin.take().context("the pipe was just made")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    Ok(Output {
        success: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

fn succeeded(arguments: &[&str], output: Output) -> Result<String> {
    if !output.success {
        bail!("`kubectl {}` failed: {}", arguments.join(" "), output.err.trim());
    }
    Ok(output.out)
}

/// The root of the source tree.
pub fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, PathBuf::from)
}
