//! All containers are below one cgroup, one below it for each node. So they are found whatever happened to their shims.

use super::daemon::kill_all;
use super::topology::Node;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";
const ROOT: &str = "mizuya";
/// New processes may appear while others are killed, but not for long once those that make them are gone.
const KILL_ROUNDS: usize = 20;

/// The cgroup of a node's containers.
pub fn of_node(node: Node) -> String {
    format!("/{ROOT}/{}", node.name())
}

/// Kills every process of a node's containers.
pub fn kill_node(node: Node) -> Result<()> {
    kill_below(&of_node(node)[1..])
}

/// Kills every process of every container.
pub fn kill_everything() -> Result<()> {
    kill_below(ROOT)
}

/// Removes the cgroups once they are empty.
pub fn remove() {
    for folder in folders(ROOT) {
        remove_folder(&folder);
    }
}

/// The cgroups that are there, in any hierarchy.
pub fn left() -> Vec<PathBuf> {
    folders(ROOT)
}

fn kill_below(name: &str) -> Result<()> {
    for _ in 0..KILL_ROUNDS {
        let mut pids: Vec<i32> = folders(name).iter().flat_map(|folder| processes(folder)).collect();
        pids.sort_unstable();
        pids.dedup();
        if pids.is_empty() {
            break;
        }
        kill_all(&pids)?;
    }
    Ok(())
}

/// One folder in each hierarchy of cgroup v1, or the only one of v2.
fn folders(name: &str) -> Vec<PathBuf> {
    let hierarchies = fs::read_dir(MOUNT).into_iter().flatten().flatten().map(|entry| entry.path());
    let candidates = hierarchies.chain([PathBuf::from(MOUNT)]).map(|hierarchy| hierarchy.join(name));
    candidates.filter(|folder| folder.join("cgroup.procs").exists()).collect()
}

fn processes(folder: &Path) -> Vec<i32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| line.parse().ok());
    own.chain(children(folder).iter().flat_map(|child| processes(child))).collect()
}

fn remove_folder(folder: &Path) {
    for child in children(folder) {
        remove_folder(&child);
    }
    // What can't be removed is reported by `left`.
    let _ = fs::remove_dir(folder);
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
