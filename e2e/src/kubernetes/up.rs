//! The start of a cluster.

use super::before::{self, Before};
use super::progress::{step, wait_for};
use super::state::{State, lock};
use super::topology::NODES;
use super::{
    binaries, containerd, control_plane, dns, down, etcd, firewall, health, images, kubelet, network, packages,
    service_proxy, storage,
};
use anyhow::{Result, bail};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const NODES_LIMIT: Duration = Duration::from_mins(2);

/// Makes the cluster unless a sound one is there; what is left of a broken one is removed first.
pub fn up(state: &State) -> Result<()> {
    require_root()?;
    let _lock = lock()?;
    Before::recall().check_place(state)?;
    let started = Instant::now();
    if state.exists() {
        match health::check(state) {
            Ok(()) => {
                eprintln!("the cluster is up and sound ({:.1} s)", started.elapsed().as_secs_f64());
                return Ok(());
            }
            Err(reason) => {
                eprintln!("making the cluster in {} anew: {reason:#}", state.root().display());
                step("remove what is left", || down::clean(state))?;
            }
        }
    }
    refuse_another_cluster()?;
    let archives = parts()?;
    // What a crashed run left when its state folder is gone.
    down::clean(state)?;
    if let Err(error) = start(state, &archives) {
        eprintln!("logs are in {}; `up` begins anew, `down` cleans up", state.path("logs").display());
        return Err(error);
    }
    eprintln!("the cluster is up ({:.1} s)", started.elapsed().as_secs_f64());
    eprintln!("export KUBECONFIG={}", state.kubeconfig().display());
    Ok(())
}

/// Fails unless root runs us: containers, mounts and rules need it.
pub fn require_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the local cluster needs root: run this with sudo, or choose CLUSTER=kind or CLUSTER=current");
    }
    Ok(())
}

/// Two kube-proxies on a machine would undo each other's rules, and `down` could not tell them apart.
fn refuse_another_cluster() -> Result<()> {
    if network::links().is_empty() && firewall::chains()?.contains("iptables/nat/KUBE-SERVICES") {
        bail!(
            "this machine is part of another cluster already (the firewall has KUBE-SERVICES): \
             use that one with CLUSTER=current, or another machine"
        );
    }
    Ok(())
}

/// Installs and builds what a cluster is made of, and returns the images that its nodes need.
fn parts() -> Result<Vec<PathBuf>> {
    step("packages", packages::install_missing)?;
    step("programs", || binaries::CORE.build())?;
    step("images", || Ok(vec![images::of_module(binaries::PAUSE)?, images::of_module(binaries::COREDNS)?]))
}

fn start(state: &State, archives: &[PathBuf]) -> Result<()> {
    state.folder("")?;
    before::remember(state)?;
    step("network", network::prepare)?;
    let identities = control_plane::identities(state)?;
    let authority = &identities.authority;
    step("control plane", || {
        etcd::start(state)?;
        control_plane::start_api_server(state, &identities)?;
        for node in NODES {
            containerd::start(state, node)?;
        }
        for node in NODES {
            containerd::wait_until_ready(state, node)?;
        }
        load_images(state, archives)?;
        control_plane::wait_until_ready(state)?;
        control_plane::start_controllers(state, &identities)?;
        control_plane::start_scheduler(state, authority)?;
        service_proxy::start(state, authority)
    })?;
    step("nodes", || {
        for node in NODES {
            kubelet::prepare(state, node, authority)?;
            kubelet::start(state, node)?;
        }
        dns::apply(state)?;
        storage::apply(state)?;
        wait_for("all nodes to be ready", NODES_LIMIT, || {
            health::daemons_run(state)?;
            Ok(health::not_ready_nodes(state)?.is_empty().then_some(()))
        })
    })?;
    step("cluster DNS", || dns::wait_until_ready(state))?;
    health::note_complete(state)
}

/// Imports archives into every node at the same time.
pub fn load_images(state: &State, archives: &[PathBuf]) -> Result<()> {
    std::thread::scope(|scope| {
        let imports = NODES.map(|node| {
            scope.spawn(move || archives.iter().try_for_each(|archive| containerd::import(state, node, archive)))
        });
        imports.into_iter().try_for_each(|import| match import.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}
