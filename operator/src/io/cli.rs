//! Arguments → what to run.

use std::{io::IsTerminal, net::SocketAddr, sync::Arc};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::{
    context::Context,
    controller,
    http::{self, Metrics},
    lease::Election,
    watched,
};
use crate::{
    crd,
    logic::{
        children::MANAGER,
        install::{self, Install},
        observed::OperatorFacts,
    },
};

/// Image of the nodes when nothing else says so.
const NODE_IMAGE: &str = concat!("localhost/mizuya/node:", env!("CARGO_PKG_VERSION"));

/// The Kubernetes operator of Mizuya: it turns CacheCluster objects into running caches and keeps them whole while they
/// are scaled, rolled and repaired.
///
/// It finds Kubernetes as kubectl does: inside a pod by its service account, elsewhere by KUBECONFIG.
#[derive(Debug, Parser)]
#[command(name = "mizuya-operator", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator (the default).
    Run(Run),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
    /// Print everything that an installation needs as YAML, for `kubectl apply --server-side -f -`.
    Manifests(Manifests),
}

#[derive(Clone, Debug, Args)]
struct Run {
    /// Only look after CacheClusters in this namespace. Absent: in all.
    #[arg(long, env = "WATCH_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace that the operator runs in: its Lease is there, and nodes let it reach their peer port from there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "mizuya-system")]
    own_namespace: String,
    /// Name of this process in the Lease and in events. Absent: the host's name and a random number.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Image of the nodes of new clusters that name none.
    #[arg(long, env = "MIZUYA_NODE_IMAGE", default_value = NODE_IMAGE)]
    node_image: String,
    /// Address for health and metrics.
    #[arg(long, env = "MIZUYA_HTTP_ADDR", default_value = "0.0.0.0:8080")]
    http_addr: SocketAddr,
    /// What is logged, such as `info` or `mizuya_operator=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info,kube=warn")]
    log: String,
    /// Log as JSON, one object a line.
    #[arg(long, env = "MIZUYA_LOG_JSON")]
    log_json: bool,
}

#[derive(Debug, Args)]
struct Manifests {
    /// Namespace of the operator.
    #[arg(long, default_value = "mizuya-system")]
    namespace: String,
    /// Image of the operator.
    #[arg(long, default_value = "localhost/mizuya/operator:dev")]
    image: String,
    /// Image of the nodes of new clusters that name none.
    #[arg(long, default_value = "localhost/mizuya/node:dev")]
    node_image: String,
    /// Install for this namespace alone: a Role instead of a ClusterRole.
    #[arg(long)]
    watch_namespace: Option<String>,
    /// Leave the CustomResourceDefinition out.
    #[arg(long)]
    without_crd: bool,
}

/// Does what the arguments say.
pub fn main(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        None => run(arguments.run),
        Some(Command::Run(run_arguments)) => run(run_arguments),
        Some(Command::Crd) => {
            print!("{}", install::to_yaml("mizuya-operator crd", &[serde_json::to_value(crd::crd()?)?])?);
            Ok(())
        }
        Some(Command::Manifests(manifests)) => {
            let install = Install {
                namespace: manifests.namespace,
                image: manifests.image,
                node_image: manifests.node_image,
                watch_namespace: manifests.watch_namespace,
            };
            let mut objects = install::objects(&install);
            let mut command = "mizuya-operator manifests --without-crd";
            if !manifests.without_crd {
                objects.insert(1, serde_json::to_value(crd::crd()?)?);
                command = "mizuya-operator manifests";
            }
            print!("{}", install::to_yaml(command, &objects)?);
            Ok(())
        }
    }
}

fn run(arguments: Run) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log).context("--log")?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(std::io::stdout().is_terminal());
    if arguments.log_json {
        log.json().init();
    } else {
        log.init();
    }
    // Both Kubernetes' and the nodes' connections use it; a second call only says that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(operate(arguments))
}

async fn operate(arguments: Run) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let mut served = tokio::spawn(http::serve(arguments.http_addr, metrics.clone()));
    let client = Client::try_default().await.context("cannot find Kubernetes: set KUBECONFIG, or run in a pod")?;
    let me = arguments.identity.clone().unwrap_or_else(|| format!("{MANAGER}-{:08x}", rand::random::<u32>()));
    let leases: Api<Lease> = Api::namespaced(client.clone(), &arguments.own_namespace);
    let mut election = Election::new(leases, MANAGER, me.clone());
    metrics.is_ready();

    let mut stopped = Box::pin(stopped()?);
    tokio::select! {
        () = election.win() => {}
        () = &mut stopped => return Ok(()),
        result = &mut served => bail!("health and metrics on {} ended: {result:?}", arguments.http_addr),
    }
    info!(%me, version = env!("CARGO_PKG_VERSION"), "leading");
    metrics.leader.set(1);

    let facts = OperatorFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node_image: arguments.node_image.clone(),
        namespace: arguments.own_namespace.clone(),
        reads_nodes: arguments.namespace.is_none(),
    };
    let (controller, watched) = watched::watch(&client, arguments.namespace.as_deref());
    let context = Arc::new(Context::new(client, watched, facts, metrics, Some(me)));
    tokio::select! {
        () = controller::run(controller, context, stopped) => {}
        () = election.hold() => {
            // Another may act from now on: nothing that is under way may go on (rule O7).
            error!("lost the lease");
            std::process::exit(1);
        }
        result = &mut served => bail!("health and metrics on {} ended: {result:?}", arguments.http_addr),
    }
    election.give_back().await;
    Ok(())
}

/// SIGTERM or SIGINT.
fn stopped() -> std::io::Result<impl Future<Output = ()> + Send + Sync + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
