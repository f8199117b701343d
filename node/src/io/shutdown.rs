//! Leaving: what a node does between SIGTERM and its end (rules L1 to L3).

use std::{env, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    gossip,
    runtime::{Running, Runtime},
};
use crate::logic::cluster::member::Intent;

/// How long a pod still gets new connections after it left the endpoints (rule L3).
const ENDPOINTS_SETTLE: Duration = Duration::from_secs(5);
/// How long connections get to end between two commands.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last word to the cluster may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It left after a signal.
    Left,
    /// A second signal came while it was leaving.
    Hurried,
    /// The cluster went on without it: the process must start anew.
    MustRestart(String),
}

/// Runs until SIGTERM or SIGINT, then leaves; a second signal ends it at once.
pub async fn until_signal(running: Running) -> std::io::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let runtime = running.runtime().clone();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        reason = runtime.fatal() => {
            running.stop().await;
            return Ok(End::MustRestart(reason));
        }
    }
    // A pod that ends is still sent connections for a moment.
    let settle = if env::var_os("KUBERNETES_SERVICE_HOST").is_some() { ENDPOINTS_SETTLE } else { Duration::ZERO };
    tokio::select! {
        () = leave(running, settle) => Ok(End::Left),
        _ = terminate.recv() => Ok(End::Hurried),
        _ = interrupt.recv() => Ok(End::Hurried),
    }
}

/// Hands over what this member owns, closes connections between commands, tells the others, and ends. Commands are
/// answered or forwarded until `settle` has passed.
pub async fn leave(running: Running, settle: Duration) {
    let began = Instant::now();
    let runtime = running.runtime().clone();
    tracing::info!(connections = runtime.connection_count(), "leaving");
    runtime.node().begin_leave(Intent::Restart, runtime.clock());
    let limit = runtime.settings().leave_timeout;
    let handed_over = until(began + limit, || runtime.node().leave_progress().drained).await;
    let progress = runtime.node().leave_progress();
    if !handed_over {
        tracing::error!(
            primaries = progress.primaries,
            "the time to leave is over before everything was handed over; keys without another copy are lost"
        );
    }
    sleep_until(began + settle).await;
    runtime.closing().cancel();
    until(Instant::now() + CLOSE_TIMEOUT, || runtime.connection_count() == 0).await;
    say_goodbye(&runtime).await;
    if let Some(volume) = runtime.volume() {
        volume.write_final().await;
    }
    running.stop().await;
    tracing::info!(after_ms = began.elapsed().as_millis() as u64, "left");
}

async fn say_goodbye(runtime: &Runtime) {
    runtime.node().finish_leave(runtime.clock());
    until(Instant::now() + GOODBYE_TIMEOUT, || runtime.node().leave_progress().gone).await;
    let (said, heard) = oneshot::channel();
    runtime.gossip(gossip::Event::Leave(said));
    let _ = timeout(GOODBYE_TIMEOUT, heard).await;
}

async fn until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
}
