//! The Debian packages that nodes are made of.

use super::tool;
use anyhow::{Result, bail};
use std::process::Command;

/// A program that must be there, and the package that has it.
const PROGRAMS: [(&str, &str); 9] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("etcd", "etcd-server"),
    ("iptables-restore", "iptables"),
    ("conntrack", "conntrack"),
    ("ipset", "ipset"),
    ("buildah", "buildah"),
    ("ip", "iproute2"),
];
/// The plugins have no place on the PATH.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";
const CNI_PACKAGE: &str = "containernetworking-plugins";
/// What the packages start by themselves where systemd runs; we start our own.
const SERVICES: [(&str, &str); 2] = [("containerd", "containerd"), ("etcd-server", "etcd")];

/// Installs what is missing, and stops the services that came with it.
pub fn install_missing() -> Result<()> {
    if !tool::exists("go") {
        bail!("the cluster's programs are built from Go modules: install Go 1.25 or newer and put it on the PATH");
    }
    let mut missing = missing(&PROGRAMS);
    if !std::path::Path::new(CNI_PLUGINS).join("bridge").exists() {
        missing.push(CNI_PACKAGE);
    }
    install(&missing)?;
    for (package, service) in SERVICES {
        if missing.contains(&package) && std::path::Path::new("/run/systemd/system").exists() {
            tool::run(Command::new("systemctl").args(["disable", "--now", service]))?;
        }
    }
    Ok(())
}

/// The packages of programs that are not there; a program has a name or a path.
pub fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        programs.iter().filter(|(program, _)| !tool::exists(program)).map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// Installs packages.
pub fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if !tool::exists("apt-get") {
        bail!("install these first (there is no apt-get to do it): {}", missing.join(" "));
    }
    eprintln!("  installing {}", missing.join(" "));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        tool::run(apt.args(["install", "-y", "--no-install-recommends"]).args(missing))
    };
    // A list of packages that is there may be good enough, and a new machine has none.
    if install().is_err() {
        tool::run(Command::new("apt-get").arg("update"))?;
        install()?;
    }
    Ok(())
}
