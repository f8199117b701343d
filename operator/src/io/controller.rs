//! Watches and timers → one reconcile: observe → plan → carry out → report.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use kube::runtime::controller::{Action, Config};
use tracing::{debug, warn};

use super::{
    apply::{self, StepError},
    context::Context,
    observe::{self, ObserveError},
};
use crate::{
    crd::CacheCluster,
    logic::{plan::plan, report::report},
};

/// Reconciles at the same time, of different clusters.
const CONCURRENCY: u16 = 32;
/// Before looking again after something was overtaken by another write.
const OVERTAKEN: Duration = Duration::from_millis(700);
/// Before trying again after an error.
const AFTER_ERROR: Duration = Duration::from_secs(3);

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Nothing could be observed.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// A step could not be taken.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Runs until `stop` resolves.
pub async fn run(
    controller: kube::runtime::Controller<CacheCluster>,
    context: Arc<Context>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    controller
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop)
        .run(reconcile, after_error, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                debug!(%error, "reconcile");
            }
        })
        .await;
}

async fn reconcile(cluster: Arc<CacheCluster>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let timer = context.metrics.reconcile_started();
    let result = Box::pin(reconcile_once(&cluster, &context)).await;
    context.metrics.reconcile_ended(timer, result.is_ok());
    result
}

async fn reconcile_once(cluster: &Arc<CacheCluster>, context: &Context) -> Result<Action, ReconcileError> {
    let Some(mut observed) = observe::observe(context, cluster).await? else {
        return Ok(Action::await_change());
    };
    let mut decided = plan(&observed);
    if decided.ask_all {
        observe::ask_the_rest(context, &mut observed).await;
        decided = plan(&observed);
    }
    let outcome = match apply::carry_out(context, &observed, &decided).await {
        Ok(outcome) => outcome,
        Err(error) if error.is_overtaken() => return Ok(Action::requeue(OVERTAKEN)),
        Err(error) if error.is_end_of_namespace() => return Ok(Action::requeue(AFTER_ERROR)),
        Err(error) => return Err(error.into()),
    };
    let deleting = observed.cluster.metadata.deletion_timestamp.is_some();
    if !deleting {
        apply::tell(context, &observed, &report(&observed, &decided, &outcome)).await?;
    }
    Ok(Action::requeue(Duration::from_millis(decided.look_again_millis)))
}

#[allow(clippy::needless_pass_by_value)] // kube's signature
fn after_error(cluster: Arc<CacheCluster>, error: &ReconcileError, _context: Arc<Context>) -> Action {
    warn!(cluster = ?cluster.metadata.name, namespace = ?cluster.metadata.namespace, %error, "reconcile failed");
    Action::requeue(AFTER_ERROR)
}
