//! The end of a cluster, sound, broken or half made.

use super::before::{self, Before};
use super::daemon::{kill_all, marked};
use super::state::{State, lock};
use super::topology::{NODES, POD_RANGE, SERVICE_RANGE};
use super::{cgroup, containerd, firewall, mounts, network, tool, up};
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;

/// Removes all of the cluster and returns what could not be removed, in words.
pub fn down(state: &State) -> Result<Vec<String>> {
    up::require_root()?;
    let _lock = lock()?;
    let before = Before::recall();
    before.check_place(state)?;
    clean(state)?;
    let left = leftovers(state, &before);
    if left.is_empty() {
        eprintln!("nothing of the cluster is left");
    }
    Ok(left)
}

/// Removes all of the cluster; for `down`, and for `up` after a crash.
pub fn clean(state: &State) -> Result<()> {
    let before = Before::recall();
    // Whoever would start something anew dies first: kubelets, containerds and shims all carry the mark. A few rounds,
    // because one may have been starting another at that moment.
    for _ in 0..3 {
        kill_all(&marked(state))?;
    }
    cgroup::kill_everything()?;
    let rules_are_ours = state.exists() || !network::links().is_empty();
    mounts::remove_below(state.root())?;
    network::remove()?;
    if rules_are_ours {
        firewall::remove(before.chains())?;
    }
    forget_connections();
    before.restore_settings()?;
    remove_shim_sockets(state);
    before.remove_new_places(state)?;
    cgroup::remove(cgroup::ROOT);
    if state.exists() {
        fs::remove_dir_all(state.root()).with_context(|| format!("can't remove {}", state.root().display()))?;
    }
    before::forget()
}

/// What is still there of a cluster that was cleaned, in words.
pub fn leftovers(state: &State, before: &Before) -> Vec<String> {
    let mut left = before.differences();
    left.extend(marked(state).iter().map(|pid| format!("process {pid}")));
    left.extend(cgroup::left().iter().map(|folder| format!("cgroup {}", folder.display())));
    left.extend(mounts::below(state.root()).iter().map(|point| format!("mount {}", point.display())));
    left.extend(network::links().iter().map(|link| format!("link {link}")));
    let chains = firewall::chains().unwrap_or_default();
    left.extend(chains.difference(before.chains()).map(|chain| format!("firewall chain {chain}")));
    if state.exists() {
        left.push(format!("folder {}", state.root().display()));
    }
    left
}

/// The next cluster has the same addresses: a translation that the kernel still remembers would lead to a pod of this one.
fn forget_connections() {
    for (side, range) in [("--orig-src", POD_RANGE), ("--orig-dst", POD_RANGE), ("--orig-dst", SERVICE_RANGE)] {
        // It fails when there is nothing to forget.
        let _ = tool::run(Command::new("conntrack").args(["--delete", side, range]));
    }
}

/// Shims listen in a folder that they share with any other containerd of the machine.
fn remove_shim_sockets(state: &State) {
    for socket in NODES.into_iter().flat_map(|node| containerd::shim_sockets(state, node)) {
        let _ = fs::remove_file(socket);
    }
}
