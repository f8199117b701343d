//! Ways to pods from a machine that has no route to them: ports of this machine whose connections the API server carries,
//! as `kubectl port-forward` does.

use super::record::is_up;
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use rand::seq::IndexedRandom;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum To {
    /// To the pod of this name.
    Pod(String),
    /// To any pod with these labels that is ready, as through a Service.
    Ready(String),
}

/// A namespace, pods in it, and a port of theirs.
type Way = (String, To, u16);

/// The ways that are open; they are as long as the runtime that they were opened on.
#[derive(Clone, Debug, Default)]
pub struct Ways(Arc<Mutex<BTreeMap<Way, SocketAddr>>>);

impl Ways {
    /// The port of this machine that leads to a port of these pods.
    pub async fn open(&self, pods: Api<Pod>, to: To, port: u16) -> Result<SocketAddr> {
        let mut ways = self.0.lock().await;
        let way = (pods.namespace().unwrap_or_default().to_owned(), to.clone(), port);
        if let Some(address) = ways.get(&way) {
            return Ok(*address);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("can't listen on this machine")?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (pods, to) = (pods.clone(), to.clone());
                // Where it can't be carried, the client sees what it sees of a pod that is gone: its end.
                tokio::spawn(async move { carry(client, &pods, &to, port).await });
            }
        });
        ways.insert(way, address);
        Ok(address)
    }
}

async fn carry(mut client: TcpStream, pods: &Api<Pod>, to: &To, port: u16) -> Result<()> {
    client.set_nodelay(true)?;
    let name = match to {
        To::Pod(name) => name.clone(),
        To::Ready(labels) => {
            let found = pods.list(&ListParams::default().labels(labels)).await?;
            let ready: Vec<_> = found.iter().filter(|pod| is_up(pod)).collect();
            ready.choose(&mut rand::rng()).context("no pod is ready")?.name_any()
        }
    };
    let mut forwarder = pods.portforward(&name, &[port]).await?;
    let mut pod = forwarder.take_stream(port).context("the port was just asked for")?;
    tokio::io::copy_bidirectional(&mut client, &mut pod).await?;
    Ok(())
}
