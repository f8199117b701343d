//! The cluster's programs, built from Go modules and kept by the hash of what they are made of.

use super::progress::step;
use super::{state, tool};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Clients refuse to parse `/version` without these.
const CORE_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34";
const PLAIN_FLAGS: &str = "-s -w";
/// Hex digits of a hash that name a folder.
const NAME_DIGITS: usize = 16;

/// A folder below `e2e/kubernetes` with a `go.mod`, and the programs it makes. One module for each version of the
/// Kubernetes libraries, because a module can have only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    folder: &'static str,
    link_flags: &'static str,
    /// Name of each program and the Go package it is.
    programs: &'static [(&'static str, &'static str)],
}

/// Kubernetes itself.
pub const CORE: Module = Module {
    folder: "core",
    link_flags: CORE_FLAGS,
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
        ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
};
/// Cluster DNS.
pub const COREDNS: Module = Module { folder: "coredns", link_flags: PLAIN_FLAGS, programs: &[("coredns", ".")] };
/// The process that holds a pod's namespaces.
pub const PAUSE: Module = Module { folder: "pause", link_flags: PLAIN_FLAGS, programs: &[("pause", ".")] };
/// kind, and what its nodes need beside [`CORE`].
pub const KIND: Module = Module {
    folder: "kind",
    link_flags: CORE_FLAGS,
    programs: &[
        ("kind", "sigs.k8s.io/kind"),
        ("kubeadm", "k8s.io/kubernetes/cmd/kubeadm"),
        ("etcd", "go.etcd.io/etcd/server/v3"),
    ],
};

impl Module {
    /// The name of its folder.
    pub fn name(self) -> &'static str {
        self.folder
    }

    /// The folder of the module's sources.
    pub fn sources(self) -> PathBuf {
        state::sources().join(self.folder)
    }

    /// The folder of the module's programs, whether or not they are built.
    pub fn programs(self) -> Result<PathBuf> {
        Ok(self.cached()?.join("bin"))
    }

    /// Builds the programs unless the cache has them, and returns their folder.
    pub fn build(self) -> Result<PathBuf> {
        let cached = self.cached()?;
        if !cached.exists() {
            let parent = cached.parent().context("the cache folder has a parent")?;
            fs::create_dir_all(parent).with_context(|| format!("can't make {}", parent.display()))?;
            // Renamed when it is whole, so that a folder with the right name is always good.
            let unfinished = tempfile::Builder::new().prefix(".building-").tempdir_in(parent)?;
            for (program, package) in self.programs {
                step(&format!("build {program}"), || {
                    self.build_one(package, &unfinished.path().join("bin").join(program))
                })?;
            }
            fs::set_permissions(unfinished.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            fs::rename(unfinished.keep(), &cached)?;
        }
        Ok(cached.join("bin"))
    }

    fn build_one(self, package: &str, program: &Path) -> Result<()> {
        let mut go = Command::new("go");
        go.current_dir(self.sources()).env("CGO_ENABLED", "0");
        tool::run(go.args(["build", "-trimpath", "-ldflags", self.link_flags, "-o"]).arg(program).arg(package))
    }

    fn cached(self) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum", "main.go"] {
            // Not every module has all three.
            hash.update(fs::read(self.sources().join(file)).unwrap_or_default());
            hash.update([0]);
        }
        hash.update(self.link_flags);
        let name = format!("{}-{}", self.folder, &hex(&hash.finalize())[..NAME_DIGITS]);
        Ok(state::cache()?.join("kubernetes").join(name))
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
