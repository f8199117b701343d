//! The cluster's own kubectl.

use super::binaries::CORE;
use super::state::State;
use super::tool;
use anyhow::Result;
use std::path::PathBuf;
use std::process::Command;

/// Where the built kubectl is.
pub fn path() -> Result<PathBuf> {
    Ok(CORE.programs()?.join("kubectl"))
}

/// Runs kubectl as administrator and returns what it printed.
pub fn output(state: &State, arguments: &[&str]) -> Result<String> {
    tool::output(&mut command(state, arguments)?)
}

/// Applies objects; the control plane is theirs alone.
pub fn apply(state: &State, objects: &str) -> Result<()> {
    let arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=local-kubernetes", "-f", "-"];
    tool::output_for(&mut command(state, &arguments)?, objects).map(drop)
}

fn command(state: &State, arguments: &[&str]) -> Result<Command> {
    let mut kubectl = Command::new(path()?);
    kubectl.arg("--request-timeout=10s").arg("--kubeconfig").arg(state.kubeconfig()).args(arguments);
    Ok(kubectl)
}
