//! What `local-kubernetes` understands.

use super::choice::Cluster;
use super::state::State;
use super::topology::Node;
use super::{images, kind_check, node, partition};
use anyhow::Result;
use clap::{Parser, Subcommand};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

/// A real Kubernetes on this machine, for tests and for trying things out
#[derive(Debug, Parser)]
#[command(name = "local-kubernetes", max_term_width = 100)]
struct Arguments {
    #[arg(long, value_enum, global = true, help = "Which cluster to use [default: $CLUSTER, or local]")]
    cluster: Option<Cluster>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the cluster, or check that the one that is there is sound.
    Up,
    /// Remove the cluster and everything it left on this machine.
    Down,
    /// Show the cluster's parts; fails unless all are well.
    Status,
    /// Give images to every node.
    LoadImage {
        /// OCI archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Build the images of the node and the operator from their binaries, and print the archives' paths.
    BuildImages {
        /// The images' tag.
        #[arg(long, default_value = "dev")]
        tag: String,
        /// Give them to every node, too.
        #[arg(long)]
        load: bool,
    },
    /// Print the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Print the path of a kubectl of the cluster's own version.
    KubectlPath,
    /// End a node's kubelet; its pods go on.
    StopKubelet {
        /// As in `kubectl get nodes`.
        node: String,
    },
    /// Start a node's kubelet again.
    StartKubelet {
        /// As in `kubectl get nodes`.
        node: String,
    },
    /// Lose a node, as by a power failure.
    KillNode {
        /// As in `kubectl get nodes`.
        node: String,
    },
    /// Start a lost node again.
    StartNode {
        /// As in `kubectl get nodes`.
        node: String,
    },
    /// Drop all packets between two pods.
    Partition {
        /// A pod's address.
        one: Ipv4Addr,
        /// Another pod's address.
        other: Ipv4Addr,
    },
    /// End all partitions.
    Heal,
    /// Build kind and the image of its nodes, and play the demo on it.
    KindCheck,
}

/// Does what the arguments say.
pub fn run() -> ExitCode {
    carry_out(Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn carry_out(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { cluster, command } = arguments;
    let cluster = match cluster {
        Some(cluster) => cluster,
        None => Cluster::from_environment()?,
    };
    match command {
        Command::Up => cluster.up()?,
        Command::Down => return Ok(report(&cluster.down()?)),
        Command::Status => {
            return Ok(if cluster.status()? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::LoadImage { archives } => cluster.load_images(&archives)?,
        Command::BuildImages { tag, load } => build_images(cluster, &tag, load)?,
        Command::Kubeconfig => println!("{}", cluster.kubeconfig()?.display()),
        Command::KubectlPath => println!("{}", cluster.kubectl()?.display()),
        Command::StopKubelet { node } => to_node(&node, node::stop_kubelet)?,
        Command::StartKubelet { node } => to_node(&node, node::start_kubelet)?,
        Command::KillNode { node } => to_node(&node, node::kill)?,
        Command::StartNode { node } => to_node(&node, node::start)?,
        Command::Partition { one, other } => partition::split(one, other)?,
        Command::Heal => partition::heal()?,
        Command::KindCheck => kind_check::run()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn to_node(name: &str, change: fn(&State, Node) -> Result<()>) -> Result<()> {
    change(&State::of_this_machine()?, node::named(name)?)
}

fn build_images(cluster: Cluster, tag: &str, load: bool) -> Result<()> {
    let archives = images::ours(tag)?;
    if load {
        cluster.load_images(&archives)?;
    }
    for archive in archives {
        println!("{}", archive.display());
    }
    Ok(())
}

fn report(left: &[String]) -> ExitCode {
    if left.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("still there:");
    for one in left {
        eprintln!("  {one}");
    }
    ExitCode::FAILURE
}
