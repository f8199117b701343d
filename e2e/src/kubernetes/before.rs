//! What the machine was like before the cluster, so that `down` can bring it back.

use super::state::{State, boot_id, cache};
use super::{firewall, storage};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Kernel settings that we, kubelet, kube-proxy or a network plugin change.
const SETTINGS: [&str; 12] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/bridge/bridge-nf-call-iptables",
    "net/netfilter/nf_conntrack_max",
    "net/netfilter/nf_conntrack_tcp_timeout_established",
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Places outside the state folder that containerd, kubelet, the network plugins and the controllers insist on.
const PLACES: [&str; 11] = [
    CONTAINER_LOGS,
    "/etc/cni",
    "/opt/cni",
    "/run/containerd",
    "/run/netns",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/pods",
    storage::VOLUMES,
];
/// kubelet makes a link here for every container's log.
const CONTAINER_LOGS: &str = "/var/log/containers";

/// The machine as it was.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Before {
    /// Of the cluster that was made then.
    root: PathBuf,
    boot_id: String,
    settings: BTreeMap<String, String>,
    absent: BTreeSet<PathBuf>,
    chains: BTreeSet<String>,
}

/// Notes what the machine is like now.
pub fn remember(state: &State) -> Result<()> {
    let settings = values(&SETTINGS);
    let absent = PLACES.iter().map(PathBuf::from).filter(|place| !place.exists()).collect();
    let before =
        Before { root: state.root().to_owned(), boot_id: boot_id()?, settings, absent, chains: firewall::chains()? };
    fs::write(note()?, serde_json::to_string_pretty(&before)?).context("can't note what the machine is like")
}

/// Forgets the note, once all is as it was.
pub fn forget() -> Result<()> {
    match fs::remove_file(note()?) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Not in the state folder: what the note says must still be known when that is lost.
fn note() -> Result<PathBuf> {
    Ok(cache()?.join("kubernetes/before.json"))
}

impl Before {
    /// What was noted; nothing when no cluster came that far.
    pub fn recall() -> Self {
        let noted = note().ok().and_then(|note| fs::read_to_string(note).ok());
        noted.and_then(|noted| serde_json::from_str(&noted).ok()).unwrap_or_default()
    }

    /// Fails when the machine has a cluster in another folder: they would share addresses, links and rules.
    pub fn check_place(&self, state: &State) -> Result<()> {
        if self.root != state.root() && self.root.exists() {
            bail!(
                "there is a cluster in {0}, and a machine has room for one: use it, or remove it first, with \
                 MIZUYA_KUBERNETES_DIR={0}",
                self.root.display()
            );
        }
        Ok(())
    }

    /// The firewall's chains that were there already.
    pub fn chains(&self) -> &BTreeSet<String> {
        &self.chains
    }

    /// Gives kernel settings their former values back.
    pub fn restore_settings(&self) -> Result<()> {
        for (name, value) in self.changed_settings() {
            set(name, value)?;
        }
        Ok(())
    }

    /// Removes what appeared outside the state folder.
    pub fn remove_new_places(&self, state: &State) -> Result<()> {
        for place in self.new_places() {
            fs::remove_dir_all(place).with_context(|| format!("can't remove {}", place.display()))?;
        }
        // The folder may have been there for others.
        for link in fs::read_dir(CONTAINER_LOGS).into_iter().flatten().flatten() {
            if fs::read_link(link.path()).is_ok_and(|target| target.starts_with(state.root())) {
                fs::remove_file(link.path())?;
            }
        }
        Ok(())
    }

    /// What is not as it was, in words.
    pub fn differences(&self) -> Vec<String> {
        let settings = self.changed_settings().into_iter().map(|(name, value)| format!("{name} was {value}"));
        let places = self.new_places().into_iter().map(|place| format!("{} was not there", place.display()));
        settings.chain(places).collect()
    }

    fn changed_settings(&self) -> Vec<(&str, &str)> {
        // After a reboot the kernel has its own values again.
        if boot_id().is_ok_and(|now| now != self.boot_id) {
            return Vec::new();
        }
        let changed = |(name, value): &(&String, &String)| setting(name).is_some_and(|now| now != **value);
        self.settings.iter().filter(changed).map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    fn new_places(&self) -> Vec<&Path> {
        self.absent.iter().map(PathBuf::as_path).filter(|place| place.exists()).collect()
    }
}

/// The values of those of these kernel settings that there are.
pub fn values(names: &[&str]) -> BTreeMap<String, String> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), setting(name)?))).collect()
}

/// Sets a kernel setting, named by its path below `/proc/sys`.
pub fn set(name: &str, value: &str) -> Result<()> {
    fs::write(Path::new("/proc/sys").join(name), value).with_context(|| format!("can't set {name} to {value}"))
}

fn setting(name: &str) -> Option<String> {
    Some(fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().to_owned())
}
