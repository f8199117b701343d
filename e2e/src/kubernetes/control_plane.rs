//! The API server, the controllers and the scheduler.

use super::binaries::CORE;
use super::certificates::{Authority, Pair, User, service_account_key};
use super::daemon::Daemon;
use super::progress::wait_for;
use super::state::State;
use super::topology::{CLUSTER_DOMAIN, CONTROL_PLANE, POD_RANGE, SERVICE_RANGE};
use super::{etcd, kubeconfig, kubectl};
use anyhow::{Context, Result};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The daemons' names.
pub const API_SERVER: &str = "kube-apiserver";
/// See [`API_SERVER`].
pub const CONTROLLERS: &str = "kube-controller-manager";
/// See [`API_SERVER`].
pub const SCHEDULER: &str = "kube-scheduler";

const READY_LIMIT: Duration = Duration::from_secs(90);
/// The user of our images. The controllers run as this user, because they make the volumes' folders, which only their
/// maker may write to.
const VOLUME_OWNER: u32 = 65_532;
/// MiB that the audit log may reach before a new one is begun.
const AUDIT_LOG_SIZE: u32 = 1024;

/// The certificates that every other part needs.
#[derive(Debug)]
pub struct Identities<'a> {
    /// Signs clients and the API server.
    pub authority: Authority<'a>,
    service_accounts: Pair,
}

/// Makes the cluster's authority and the administrator's kubeconfig.
pub fn identities(state: &State) -> Result<Identities<'_>> {
    let authority = Authority::new(state, "kubernetes-ca")?;
    let admin = authority.client("admin", User { name: "admin", group: Some("system:masters") })?;
    kubeconfig::write(state, "kubeconfig", &authority.files.certificate, &admin)?;
    Ok(Identities { service_accounts: service_account_key(state)?, authority })
}

/// Starts the API server.
pub fn start_api_server(state: &State, identities: &Identities<'_>) -> Result<()> {
    let authority = &identities.authority;
    let serving = authority.api_server()?;
    let to_kubelets =
        authority.client("kubelet-client", User { name: "kube-apiserver", group: Some("system:masters") })?;
    let mut server = Command::new(CORE.programs()?.join(API_SERVER));
    server.args([
        &format!("--etcd-servers={}", etcd::CLIENT_URL),
        &format!("--bind-address={CONTROL_PLANE}"),
        &format!("--advertise-address={CONTROL_PLANE}"),
        "--secure-port=6443",
        &format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        &format!("--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}"),
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction,PodSecurity,ValidatingAdmissionPolicy",
        "--allow-privileged=true",
        // Else logs and exec look up node names in DNS, which knows none.
        "--kubelet-preferred-address-types=InternalIP",
    ]);
    server.args(file_flags(&[
        ("tls-cert-file", &serving.certificate),
        ("tls-private-key-file", &serving.key),
        ("client-ca-file", &authority.files.certificate),
        ("kubelet-client-certificate", &to_kubelets.certificate),
        ("kubelet-client-key", &to_kubelets.key),
        ("service-account-signing-key-file", &identities.service_accounts.key),
        ("service-account-key-file", &identities.service_accounts.certificate),
    ]));
    server.args(aggregation_flags(state)?).args(audit_flags(state)?);
    Daemon::new(state, API_SERVER).start(&server)
}

/// Waits until the API server serves.
pub fn wait_until_ready(state: &State) -> Result<()> {
    let server = Daemon::new(state, API_SERVER);
    wait_for("the API server to be ready", READY_LIMIT, || {
        server.check()?;
        Ok(kubectl::output(state, &["get", "--raw", "/readyz"]).ok())
    })
    .map(drop)
}

/// Starts the controllers.
pub fn start_controllers(state: &State, identities: &Identities<'_>) -> Result<()> {
    let authority = &identities.authority;
    let config = user(state, authority, CONTROLLERS, "system:kube-controller-manager")?;
    let own = [&config, &authority.files.key, &identities.service_accounts.key];
    for file in own {
        std::os::unix::fs::chown(file, Some(VOLUME_OWNER), None)?;
    }
    // The cache is below the home of root, where no other user may look.
    let program = state.folder("bin")?.join(CONTROLLERS);
    std::fs::copy(CORE.programs()?.join(CONTROLLERS), &program).context("can't copy the controllers' program")?;
    let mut controllers = Command::new(program);
    controllers.args(companion_flags(&config)).args([
        &format!("--cluster-cidr={POD_RANGE}"),
        &format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--use-service-account-credentials=true",
        "--enable-hostpath-provisioner=true",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]);
    controllers.args(file_flags(&[
        ("root-ca-file", &authority.files.certificate),
        ("cluster-signing-cert-file", &authority.files.certificate),
        ("cluster-signing-key-file", &authority.files.key),
        ("service-account-private-key-file", &identities.service_accounts.key),
    ]));
    Daemon::new(state, CONTROLLERS).start_with(&controllers, |command| {
        command.uid(VOLUME_OWNER).gid(VOLUME_OWNER);
    })
}

/// Starts the scheduler.
pub fn start_scheduler(state: &State, authority: &Authority<'_>) -> Result<()> {
    let config = user(state, authority, SCHEDULER, "system:kube-scheduler")?;
    let mut scheduler = Command::new(CORE.programs()?.join(SCHEDULER));
    scheduler.args(companion_flags(&config)).args(["--kube-api-qps=200", "--kube-api-burst=400"]);
    Daemon::new(state, SCHEDULER).start(&scheduler)
}

/// A kubeconfig for a part of the cluster.
pub fn user(state: &State, authority: &Authority<'_>, file: &str, name: &str) -> Result<PathBuf> {
    let identity = authority.client(file, User { name, group: None })?;
    kubeconfig::write(state, &format!("kubeconfigs/{file}"), &authority.files.certificate, &identity)
}

fn companion_flags(config: &Path) -> Vec<String> {
    let mut flags = file_flags(&[
        ("kubeconfig", config),
        ("authentication-kubeconfig", config),
        ("authorization-kubeconfig", config),
    ]);
    // There is one of each, so nobody needs to lead.
    flags.extend([format!("--bind-address={CONTROL_PLANE}"), "--leader-elect=false".to_owned()]);
    flags
}

/// Extension API servers know the API server by a certificate of another authority than clients have.
fn aggregation_flags(state: &State) -> Result<Vec<String>> {
    let authority = Authority::new(state, "front-proxy-ca")?;
    let client = authority.client("front-proxy", User { name: "front-proxy", group: None })?;
    let mut flags = file_flags(&[
        ("requestheader-client-ca-file", &authority.files.certificate),
        ("proxy-client-cert-file", &client.certificate),
        ("proxy-client-key-file", &client.key),
    ]);
    flags.extend(
        [
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            "--enable-aggregator-routing=true",
        ]
        .map(str::to_owned),
    );
    Ok(flags)
}

/// Every write by anyone is logged before it is answered: tests count them.
fn audit_flags(state: &State) -> Result<Vec<String>> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"] },
            { "level": "None" },
        ],
    });
    let policy = state.write_json("audit/policy.json", &policy)?;
    let mut flags = file_flags(&[("audit-policy-file", &policy), ("audit-log-path", &state.audit_log())]);
    flags.extend([format!("--audit-log-maxsize={AUDIT_LOG_SIZE}"), "--audit-log-maxbackup=1".to_owned()]);
    Ok(flags)
}

fn file_flags(flags: &[(&str, &Path)]) -> Vec<String> {
    flags.iter().map(|(name, path)| format!("--{name}={}", path.display())).collect()
}
