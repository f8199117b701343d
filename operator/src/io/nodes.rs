//! Calls to the nodes' admin service: mutual TLS to a pod's address, under the member's own name. Connections are made
//! for each call and kept by nobody (rule O23).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use futures::future::join_all;
use mizuya_wire::admin::{
    ApplySettingsRequest, CordonRequest, DrainRequest, ForgetRequest, StatusReply, StatusRequest, UncordonRequest,
    admin_client::AdminClient,
};
use tokio::sync::Mutex;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

use crate::{
    io::certificates::Files,
    logic::{
        children::secrets::{CA_CERTIFICATE, CERTIFICATE, KEY},
        observed::{Observed, View},
        plan::Step,
    },
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// A change waits for a table in force, which may take an election.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a cluster's client certificate is remembered.
const REMEMBERED_FOR: Duration = Duration::from_mins(10);
/// Members that are tried for one change.
const TRIES: usize = 3;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The client certificate is missing or unusable.
    #[error("the operator's certificate for this cluster is unusable: {0}")]
    Certificate(String),
    /// No connection.
    #[error("no connection to {0}: {1}")]
    Connect(String, String),
    /// The node refused, or did not answer in time.
    #[error("{0}: {1}")]
    Refused(String, String),
    /// There is nobody to ask.
    #[error("no node can be asked")]
    Nobody,
}

/// Where a member is.
#[derive(Clone, Debug)]
struct Target {
    ordinal: u32,
    uri: String,
    name: String,
}

/// What the operator knows to call nodes with.
#[derive(Default)]
pub struct Nodes {
    remembered: Mutex<HashMap<String, (Instant, Files)>>,
}

impl Nodes {
    /// The files of a cluster's operator Secret, if they were remembered lately.
    pub async fn remembered(&self, uid: &str) -> Option<Files> {
        let remembered = self.remembered.lock().await;
        remembered.get(uid).filter(|(since, _)| since.elapsed() < REMEMBERED_FOR).map(|(_, files)| files.clone())
    }

    /// Remembers them, and forgets what is old.
    pub async fn remember(&self, uid: &str, files: Files) {
        let mut remembered = self.remembered.lock().await;
        remembered.retain(|_, (since, _)| since.elapsed() < REMEMBERED_FOR);
        remembered.insert(uid.to_owned(), (Instant::now(), files));
    }

    /// Asks these members for their view, all at once.
    pub async fn ask(&self, observed: &Observed, whom: &BTreeSet<u32>) -> BTreeMap<u32, View> {
        if whom.is_empty() {
            return BTreeMap::new();
        }
        let tls = self.tls(observed).await;
        let tls = &tls;
        let calls = targets(observed, whom).into_iter().map(|target| async move {
            let view = match tls {
                Ok(tls) => status(tls, &target).await.map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            (target.ordinal, view)
        });
        join_all(calls).await.into_iter().collect()
    }

    /// Carries out a change: any member takes it for any other, so those that answered are tried in turn.
    pub async fn change(&self, observed: &Observed, step: &Step) -> Result<(), NodeError> {
        let about = match step {
            Step::Cordon { member }
            | Step::Uncordon { member }
            | Step::Drain { member, .. }
            | Step::Forget { member } => Some(*member),
            _ => None,
        };
        let answered: BTreeSet<u32> = observed.answers().map(|(ordinal, _)| ordinal).collect();
        let able = if answered.is_empty() { observed.can_be_asked() } else { answered };
        let mut targets = targets(observed, &able);
        targets.sort_by_key(|target| Some(target.ordinal) == about);
        let tls = self.tls(observed).await?;
        let mut last = NodeError::Nobody;
        for target in targets.iter().take(TRIES) {
            match change(&tls, target, observed, step).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn tls(&self, observed: &Observed) -> Result<ClientTlsConfig, NodeError> {
        let uid = observed.id().uid;
        let files = self
            .remembered(&uid)
            .await
            .ok_or_else(|| NodeError::Certificate("the Secret was not read yet".to_owned()))?;
        let file =
            |name: &str| files.get(name).cloned().ok_or_else(|| NodeError::Certificate(format!("no file '{name}'")));
        Ok(ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(file(CA_CERTIFICATE)?))
            .identity(TlsIdentity::from_pem(file(CERTIFICATE)?, file(KEY)?)))
    }
}

fn targets(observed: &Observed, whom: &BTreeSet<u32>) -> Vec<Target> {
    let id = observed.id();
    let port = observed.cluster.spec.ports.gossip_port();
    let pods = observed.pods.iter().filter(|(ordinal, _)| whom.contains(ordinal));
    pods.filter_map(|(ordinal, pod)| {
        let address = pod.address.as_ref()?;
        let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
        Some(Target { ordinal: *ordinal, uri: format!("https://{host}:{port}"), name: id.member(*ordinal) })
    })
    .collect()
}

async fn connect(tls: &ClientTlsConfig, target: &Target, timeout: Duration) -> Result<AdminClient<Channel>, NodeError> {
    let failed = |error: &dyn std::error::Error| NodeError::Connect(target.uri.clone(), with_causes(error));
    let endpoint = Endpoint::from_shared(target.uri.clone())
        .and_then(|endpoint| endpoint.tls_config(tls.clone().domain_name(target.name.clone())))
        .map_err(|e| failed(&e))?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout);
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT * 2, endpoint.connect()).await;
    let channel = connecting
        .map_err(|_| NodeError::Connect(target.uri.clone(), "timed out".to_owned()))?
        .map_err(|e| failed(&e))?;
    Ok(AdminClient::new(channel))
}

async fn status(tls: &ClientTlsConfig, target: &Target) -> Result<StatusReply, NodeError> {
    let mut client = connect(tls, target, CALL_TIMEOUT).await?;
    let reply = client.status(StatusRequest {}).await.map_err(|status| refused(target, &status))?;
    Ok(reply.into_inner())
}

async fn change(tls: &ClientTlsConfig, target: &Target, observed: &Observed, step: &Step) -> Result<(), NodeError> {
    let id = observed.id();
    let mut client = connect(tls, target, CHANGE_TIMEOUT).await?;
    let reply = match step {
        Step::Cordon { member } => client.cordon(CordonRequest { member: id.member(*member) }).await,
        Step::Uncordon { member } => client.uncordon(UncordonRequest { member: id.member(*member) }).await,
        Step::Drain { member, intent } => {
            client.drain(DrainRequest { member: id.member(*member), intent: intent.to_wire().into() }).await
        }
        Step::Forget { member } => client.forget(ForgetRequest { member: id.member(*member) }).await,
        Step::ApplySettings(live) => {
            client.apply_settings(ApplySettingsRequest { settings: Some(live.to_wire()) }).await
        }
        _ => return Ok(()),
    };
    reply.map(|_| ()).map_err(|status| refused(target, &status))
}

fn refused(target: &Target, status: &tonic::Status) -> NodeError {
    NodeError::Refused(target.name.clone(), format!("{:?}: {}", status.code(), status.message()))
}

/// An error with what caused it: transport errors say nothing by themselves.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
