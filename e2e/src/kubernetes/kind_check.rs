//! Shows that the demo runs on a cluster of kind, also where there is no container engine and no registry: builds kind and
//! the image of its nodes from packages and Go modules, and plays `CLUSTER=kind make demo` in namespaces of its own.

use super::binaries::{CORE, COREDNS, KIND, PAUSE};
use super::progress::step;
use super::{before, cgroup, images, packages, state, tool, up};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that must be there, and the package that has it.
const PROGRAMS: [(&str, &str); 4] = [
    ("podman", "podman"),
    ("mmdebstrap", "mmdebstrap"),
    ("/usr/lib/podman/netavark", "netavark"),
    ("/usr/lib/podman/aardvark-dns", "aardvark-dns"),
];
/// What a node is made of.
const NODE_PACKAGES: &str = "systemd-sysv,containerd,runc,containernetworking-plugins,conntrack,iptables,iproute2,kmod,\
                             procps,jq,ca-certificates";
/// What kube-proxy runs.
const PROXY_PACKAGES: &str = "iptables,conntrack";
/// Nobody reads these in a node.
const EXCLUDED: [&str; 3] = ["/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*"];
/// Kernel settings that the nodes' systemd and kubelet change for the whole machine.
const SETTINGS: [&str; 13] = [
    "fs/file-max",
    "fs/nr_open",
    "fs/protected_fifos",
    "fs/protected_hardlinks",
    "fs/protected_regular",
    "fs/protected_symlinks",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/pid_max",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];
/// Folders that podman insists on, and one that kind gives to its nodes.
const PLACES: [&str; 3] = ["/etc/containers/networks", "/lib/modules", "/var/lib/containers"];
/// The cgroup that podman puts its containers into.
const CGROUP: &str = "libpod_parent";

/// Does all of it, and removes what it made.
pub fn run() -> Result<()> {
    up::require_root()?;
    step("packages", || {
        packages::install_missing()?;
        packages::install(&packages::missing(&PROGRAMS))
    })?;
    step("programs", || CORE.build().and_then(|_| KIND.build()))?;
    let folder = state::cache()?.join("kind-check");
    // What a run that was killed has left.
    remove(&folder)?;
    let settings = before::values(&SETTINGS);
    let absent: Vec<_> = PLACES.iter().map(Path::new).filter(|place| !place.exists()).collect();
    let checked = check(&folder);
    step("remove what is left", || {
        cgroup::remove(CGROUP);
        settings.iter().try_for_each(|(name, value)| before::set(name, value))?;
        absent.iter().chain([&folder.as_path()]).try_for_each(|place| remove(place))
    })?;
    checked
}

fn check(folder: &Path) -> Result<()> {
    step("parts of a node", || make_context(&folder.join("node")))?;
    let programs = [KIND.programs()?, CORE.programs()?];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(programs.into_iter().chain(std::env::split_paths(&path)))?;
    let mut check = Command::new("unshare");
    check.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    check.arg(KIND.sources().join("check")).arg(folder);
    // Not the user's: there may be a cluster of kind already.
    check.env("PATH", path).env("XDG_CACHE_HOME", folder.join("cache"));
    let status = check.status().context("can't start unshare")?;
    if !status.success() {
        bail!("the demo does not run on kind ({status})");
    }
    Ok(())
}

/// Makes the folder that `podman build` makes the image of nodes from.
fn make_context(context: &Path) -> Result<()> {
    fs::create_dir_all(context.join("bin"))?;
    fs::create_dir_all(context.join("images"))?;
    let sources = KIND.sources();
    fs::copy(sources.join("Containerfile"), context.join("Containerfile"))?;
    copy(&sources.join("node"), &context.join("node"))?;
    let folder_of_kind = ["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kind"];
    let kind = tool::output(Command::new("go").current_dir(&sources).args(folder_of_kind))?;
    copy(&Path::new(kind.trim()).join("images/base/files"), &context.join("kind"))?;
    // Go keeps them from being changed; in a node they are files like others.
    tool::run(Command::new("chmod").args(["--recursive", "u+w"]).arg(context.join("kind")))?;
    let (core, kubeadm) = (CORE.programs()?, KIND.programs()?.join("kubeadm"));
    for program in [core.join("kubelet"), core.join("kubectl"), kubeadm.clone()] {
        copy(&program, &context.join("bin"))?;
    }
    let mut debian = debian("essential", NODE_PACKAGES);
    debian.arg("--dpkgopt=force-unsafe-io");
    debian.args(EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}")));
    install_debian(&mut debian, &context.join("rootfs.tar"))?;
    let version = tool::output(Command::new(&kubeadm).args(["version", "--output=short"]))?;
    let list = ["config", "images", "list", "--kubernetes-version", version.trim()];
    for reference in tool::output(Command::new(&kubeadm).args(list))?.lines() {
        copy(&image(reference, context)?, &context.join("images"))?;
    }
    Ok(())
}

/// The archive of an image that kubeadm asks for.
fn image(reference: &str, scratch: &Path) -> Result<PathBuf> {
    let name = reference.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or_default();
    let (folder, content) = match name {
        "coredns" => (COREDNS, COREDNS.build()?.join(name)),
        "pause" => (PAUSE, PAUSE.build()?.join(name)),
        "etcd" => (KIND, KIND.programs()?.join(name)),
        "kube-proxy" => (KIND, proxy(scratch)?),
        _ => (KIND, CORE.programs()?.join(name)),
    };
    let recipe = folder.sources().join(if folder == KIND { "programs.Containerfile" } else { "Containerfile" });
    images::build(&recipe, &content, reference)
}

/// An archive of kube-proxy and the programs that it runs.
fn proxy(scratch: &Path) -> Result<PathBuf> {
    let archive = scratch.join("kube-proxy.tar");
    let mut debian = debian("extract", PROXY_PACKAGES);
    debian.arg(format!(
        "--extract-hook=install -D '{}' \"$1/usr/local/bin/kube-proxy\"",
        CORE.programs()?.join("kube-proxy").display()
    ));
    // These names are Debian's alternatives, which are not made where packages are only unpacked.
    debian.arg(
        "--extract-hook=for name in iptables ip6tables; do for verb in '' -save -restore; do \
         ln -s xtables-nft-multi \"$1/usr/sbin/$name$verb\"; done; done",
    );
    install_debian(&mut debian, &archive)?;
    Ok(archive)
}

fn debian(variant: &str, packages: &str) -> Command {
    let mut debian = Command::new("mmdebstrap");
    debian.env("SOURCE_DATE_EPOCH", "0").arg(format!("--variant={variant}")).arg(format!("--include={packages}"));
    debian
}

/// Writes an archive of the packages, from where this machine has its own.
fn install_debian(debian: &mut Command, archive: &Path) -> Result<()> {
    let format =
        ["indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)", "Created-By: Packages"];
    let targets = tool::output(Command::new("apt-get").args(format))?;
    let sources: Vec<_> = targets.lines().filter_map(|line| line.strip_suffix(" Debian")).collect();
    if sources.is_empty() {
        bail!("apt has no lists of Debian's packages: nodes are made of them; `apt-get update` gets the lists");
    }
    tool::output_for(debian.arg("").arg(archive).arg("-"), &sources.join("\n")).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    tool::run(Command::new("cp").arg("--recursive").arg(from).arg(to))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
