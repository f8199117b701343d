//! What all reconciles share.

use std::{collections::HashMap, sync::Arc};

use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use tokio::sync::Mutex;

use super::{http::Metrics, nodes::Nodes, watched::Watched};
use crate::logic::{children::MANAGER, observed::OperatorFacts};

/// What all reconciles share. Nothing here is needed to go on after a restart.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// The stores.
    pub watched: Watched,
    /// The nodes.
    pub nodes: Nodes,
    /// Publishes events.
    pub events: Recorder,
    /// The operator itself.
    pub facts: OperatorFacts,
    /// Figures about the operator.
    pub metrics: Arc<Metrics>,
    /// Resource versions of the statuses written last, by UID: a store that is behind is not believed.
    pub written: Mutex<HashMap<String, u64>>,
}

impl Context {
    /// Puts it together.
    pub fn new(
        client: Client,
        watched: Watched,
        facts: OperatorFacts,
        metrics: Arc<Metrics>,
        pod: Option<String>,
    ) -> Self {
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: pod };
        Self {
            events: Recorder::new(client.clone(), reporter),
            nodes: Nodes::default(),
            written: Mutex::default(),
            client,
            watched,
            facts,
            metrics,
        }
    }
}
