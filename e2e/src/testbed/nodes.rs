//! Asking the nodes over their admin service, with the operator's certificate.

use super::cache::Cache;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use mizuya_wire::admin::admin_client::AdminClient;
use mizuya_wire::admin::{StatusReply, StatusRequest, TableReply, TableRequest};
use redis_protocol::redis_keyslot;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Where nodes answer each other and the operator.
const ADMIN_PORT: u16 = 3322;
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Slots of the Redis Cluster specification.
const SLOTS: usize = 16_384;

/// An admin client of one node.
pub type Node = AdminClient<Channel>;

/// Who may call the admin service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// With the cluster's operator certificate.
    Operator,
    /// With none.
    Stranger,
}

/// Connects to the admin service of a cache's pod.
pub async fn connect(cache: &Cache, pod: &str, caller: Caller) -> Result<Node> {
    let secrets: Api<Secret> = cache.api();
    let name = format!("{}-operator", cache.name);
    let secret = secrets.get(&name).await.with_context(|| format!("can't read Secret {name}"))?;
    let part = |key: &str| -> Result<Vec<u8>> {
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        Ok(data.with_context(|| format!("Secret {name} has no {key}"))?.0.clone())
    };
    let server = format!("{pod}.{}-peers.{}.svc", cache.name, cache.namespace);
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(part("ca.crt")?)).domain_name(server);
    if caller == Caller::Operator {
        tls = tls.identity(Identity::from_pem(part("tls.crt")?, part("tls.key")?));
    }
    let address = cache.way_to(pod, ADMIN_PORT).await?;
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .connect_timeout(CALL_LIMIT)
        .timeout(CALL_LIMIT)
        .tls_config(tls)?;
    Ok(AdminClient::new(endpoint.connect_lazy()))
}

/// One node's view.
pub async fn status(cache: &Cache, pod: &str) -> Result<StatusReply> {
    let mut node = connect(cache, pod, Caller::Operator).await?;
    let reply = node.status(StatusRequest {}).await.with_context(|| format!("{pod} gives no status"))?;
    Ok(reply.into_inner())
}

/// The views of all nodes, in the order of their names.
pub async fn statuses(cache: &Cache) -> Result<Vec<StatusReply>> {
    let mut statuses = Vec::new();
    for pod in cache.pod_names().await? {
        statuses.push(status(cache, &pod).await?);
    }
    Ok(statuses)
}

/// The table that is in force at one node.
pub async fn table(cache: &Cache, pod: &str) -> Result<TableReply> {
    let mut node = connect(cache, pod, Caller::Operator).await?;
    Ok(node.table(TableRequest {}).await.with_context(|| format!("{pod} gives no table"))?.into_inner())
}

/// The member's index in the table, for the pod of this name.
pub fn member_index(table: &TableReply, pod: &str) -> Option<u32> {
    let first_label = |member: &String| member.split('.').next().unwrap_or_default().to_owned();
    table.members.iter().position(|member| first_label(member) == pod).map(|index| index as u32)
}

/// The members that hold in-sync copies of a key, the primary first.
pub fn owners<'a>(table: &'a TableReply, key: &str) -> &'a [u32] {
    let partition = usize::from(redis_keyslot(key.as_bytes())) * table.partitions.len() / SLOTS;
    &table.partitions[partition].in_sync
}
