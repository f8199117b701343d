//! All containers are below one cgroup, one below it for each node. So they are found whatever happened to their shims.

use super::daemon::kill_all;
use super::topology::Node;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";
/// The name of the cgroup that all others are below.
pub const ROOT: &str = "mizuya";
/// New processes may appear while others are killed, but not for long once those that make them are gone.
const KILL_ROUNDS: usize = 20;

/// The cgroup of a node's containers.
pub fn of_node(node: Node) -> String {
    format!("/{ROOT}/{}", node.name())
}

/// Makes a node's cgroup, in which its kubelet makes one for each pod.
pub fn prepare(node: Node) -> Result<()> {
    let mut folders: Vec<PathBuf> = hierarchies().collect();
    for name in [ROOT.to_owned(), node.name()] {
        for folder in &mut folders {
            enable_controllers(folder);
            folder.push(&name);
            fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
            copy_processors(folder)?;
        }
    }
    Ok(())
}

/// Kills every process of a node's containers.
pub fn kill_node(node: Node) -> Result<()> {
    kill_below(&of_node(node)[1..])
}

/// Kills every process of every container.
pub fn kill_everything() -> Result<()> {
    kill_below(ROOT)
}

/// Removes the cgroups of this name, and those below them, once they are empty.
pub fn remove(name: &str) {
    for folder in folders(name) {
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

/// The cgroup of that name in each hierarchy.
fn folders(name: &str) -> Vec<PathBuf> {
    hierarchies().map(|hierarchy| hierarchy.join(name)).filter(|folder| is_cgroup(folder)).collect()
}

/// The hierarchies of cgroup v1, or the only one of v2.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    let mount = PathBuf::from(MOUNT);
    let mounted = if is_cgroup(&mount) { vec![mount] } else { children(&mount) };
    // Some names are links to others.
    mounted.into_iter().filter(|folder| is_cgroup(folder) && !folder.is_symlink())
}

fn is_cgroup(folder: &Path) -> bool {
    folder.join("cgroup.procs").exists()
}

/// In v2 a cgroup's children have only the controllers that it hands down.
fn enable_controllers(folder: &Path) {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that can't be handed down is not needed, or kubelet says so.
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// In v1 a new cgroup has no processor and no memory node, and no process can enter it.
fn copy_processors(folder: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let parents = folder.parent().and_then(|parent| fs::read_to_string(parent.join(file)).ok());
        let own = fs::read_to_string(folder.join(file)).unwrap_or_default();
        if let Some(parents) = parents.filter(|_| own.trim().is_empty()) {
            fs::write(folder.join(file), parents)
                .with_context(|| format!("can't set {file} of {}", folder.display()))?;
        }
    }
    Ok(())
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
