//! The folder that holds everything of a running cluster.

use super::topology::Node;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

const DEFAULT_ROOT: &str = "/var/lib/mizuya-kubernetes";
/// Bytes. A Unix socket's path has at most 107; the longest one below the folder takes the rest.
const LONGEST_ROOT: usize = 60;

/// The state folder. It need not exist.
#[derive(Clone, Debug)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// The folder of this machine's cluster: `$MIZUYA_KUBERNETES_DIR`, or its default.
    pub fn of_this_machine() -> Result<Self> {
        let root = std::env::var_os("MIZUYA_KUBERNETES_DIR").map_or_else(|| DEFAULT_ROOT.into(), PathBuf::from);
        if !root.is_absolute() || root.as_os_str().len() > LONGEST_ROOT {
            bail!(
                "MIZUYA_KUBERNETES_DIR is {}: give an absolute path of at most {LONGEST_ROOT} bytes, because sockets are below it",
                root.display()
            );
        }
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether there is anything of a cluster, sound or not.
    pub fn exists(&self) -> bool {
        self.root.exists()
    }

    /// The path of a file or folder below the root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A folder below the root, made when it is missing.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path).with_context(|| format!("can't make {}", path.display()))?;
        Ok(path)
    }

    /// A node's folder below the root, made when it is missing.
    pub fn node_folder(&self, node: Node, name: &str) -> Result<PathBuf> {
        self.folder(&format!("{}/{name}", node.name()))
    }

    /// Writes a file below the root and returns its path.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
        }
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
        Ok(path)
    }

    /// Writes a JSON file below the root and returns its path. Kubernetes reads JSON wherever it reads YAML.
    pub fn write_json(&self, name: &str, content: &serde_json::Value) -> Result<PathBuf> {
        self.write(name, &format!("{content:#}\n"))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// The API server's log of writes: one JSON event a line, with the user, the verb and the object.
    pub fn audit_log(&self) -> PathBuf {
        self.path("audit/audit.log")
    }
}

/// This boot's own id: what was remembered under another one died with it.
pub fn boot_id() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("can't read the kernel's boot id")?;
    Ok(id.trim().to_owned())
}

/// The folder that outlives clusters: binaries and images.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set: the cache folder is below it")?)
            .join(".cache"),
    };
    Ok(base.join("mizuya"))
}

/// The folder of the sources that the cluster's own binaries and images are made from.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes")
}

/// Keeps others from making or removing a cluster at the same time, until it is dropped.
pub fn lock() -> Result<File> {
    let folder = cache()?.join("kubernetes");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let file = File::create(folder.join("lock"))?;
    if file.try_lock().is_err() {
        eprintln!("  waiting for another command that makes or removes the cluster");
        file.lock()?;
    }
    Ok(file)
}
