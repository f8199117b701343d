//! Which cluster the user wants: ours, one of kind, or whatever the current context names.

use super::state::State;
use super::{down, kind, kubectl, status, tool, up};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::path::PathBuf;
use std::process::Command;

/// The kinds of clusters that tests can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cluster {
    /// Made on this machine from packages and Go modules; needs root.
    Local,
    /// Whatever the current context of kubectl names; never changed.
    Current,
    /// Made by `kind`, which needs a container engine; its nodes are of the image `$KIND_IMAGE`, if that is set.
    Kind,
}

impl Cluster {
    /// What `$CLUSTER` names; the local one when it is not set.
    pub fn from_environment() -> Result<Self> {
        match std::env::var("CLUSTER").unwrap_or_default().as_str() {
            "" => Ok(Self::Local),
            name => match Self::from_str(name, false) {
                Ok(cluster) => Ok(cluster),
                Err(_) => bail!("CLUSTER is {name:?}: use local, current or kind"),
            },
        }
    }

    /// Makes sure that it is there and answers.
    pub fn up(self) -> Result<()> {
        match self {
            Self::Local => up::up(&State::of_this_machine()?),
            Self::Current => current_answers(),
            Self::Kind => kind::up(),
        }
    }

    /// Removes it, unless it is the user's own; returns what could not be removed.
    pub fn down(self) -> Result<Vec<String>> {
        match self {
            Self::Local => return down::down(&State::of_this_machine()?),
            Self::Current => eprintln!("CLUSTER=current: your cluster stays as it is"),
            Self::Kind => kind::down()?,
        }
        Ok(Vec::new())
    }

    /// Prints how it is and returns whether all is well.
    pub fn status(self) -> Result<bool> {
        match self {
            Self::Local => return status::print(&State::of_this_machine()?),
            Self::Current => current_answers()?,
            Self::Kind if !kind::exists()? => {
                println!("no cluster (`up` makes one)");
                return Ok(false);
            }
            Self::Kind => {}
        }
        let arguments = ["get", "nodes", "--output=wide", "--kubeconfig"];
        println!("{}", tool::output(users_kubectl()?.args(arguments).arg(self.kubeconfig()?))?);
        Ok(true)
    }

    /// Gives images to its nodes, as far as it has a way to.
    pub fn load_images(self, archives: &[PathBuf]) -> Result<()> {
        match self {
            Self::Local => up::load_images(&State::of_this_machine()?, archives),
            Self::Kind => archives.iter().try_for_each(|archive| kind::load_image(archive)),
            Self::Current => {
                eprintln!(
                    "CLUSTER=current: images can't be put on your nodes from here. Push them to a registry that the nodes \
                     can pull from and set IMAGE_PREFIX to it, as in IMAGE_PREFIX=registry.example/mizuya"
                );
                Ok(())
            }
        }
    }

    /// The path of its kubeconfig.
    pub fn kubeconfig(self) -> Result<PathBuf> {
        match self {
            Self::Local => Ok(State::of_this_machine()?.kubeconfig()),
            Self::Kind => kind::kubeconfig(),
            Self::Current => match std::env::var_os("KUBECONFIG") {
                Some(path) => Ok(path.into()),
                None => Ok(PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".kube/config")),
            },
        }
    }

    /// A kubectl for it.
    pub fn kubectl(self) -> Result<PathBuf> {
        match self {
            Self::Local => kubectl::path(),
            Self::Current | Self::Kind => Ok("kubectl".into()),
        }
    }
}

fn current_answers() -> Result<()> {
    let context = tool::output(users_kubectl()?.args(["config", "current-context"]))
        .context("CLUSTER=current: kubectl has no current context; `kubectl config use-context` sets one")?;
    tool::output(users_kubectl()?.args(["get", "--raw", "/readyz", "--request-timeout=10s"]))
        .with_context(|| format!("CLUSTER=current: {} does not answer", context.trim()))?;
    eprintln!("CLUSTER=current: {} answers", context.trim());
    Ok(())
}

fn users_kubectl() -> Result<Command> {
    if !tool::exists("kubectl") {
        bail!("this needs kubectl on the PATH");
    }
    Ok(Command::new("kubectl"))
}
