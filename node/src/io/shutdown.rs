//! Leaving: what a node does between SIGTERM and its end (rules L1 to L3).

use std::{env, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
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

/// SIGTERM and SIGINT. To be listened to before anything else: for the first process of a container a signal that nobody
/// listens to does nothing, and its pod would end only with the grace period.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Runs until a signal, then leaves; a second signal ends it at once.
pub async fn until_signal(running: Running, signals: &mut Signals) -> End {
    let runtime = running.runtime().clone();
    tokio::select! {
        () = signals.next() => {}
        reason = runtime.fatal() => {
            running.stop().await;
            return End::MustRestart(reason);
        }
    }
    // A pod that ends is still sent connections for a moment.
    let settle = if env::var_os("KUBERNETES_SERVICE_HOST").is_some() { ENDPOINTS_SETTLE } else { Duration::ZERO };
    tokio::select! {
        _ = leave(running, settle) => End::Left,
        () = signals.next() => End::Hurried,
    }
}

/// Hands over what this member owns, closes connections between commands, tells the others, and ends. Commands are
/// answered or forwarded until `settle` has passed. Returns how many keys end with it (or stay on its volume alone), because no
/// member that stays has a copy of them: after `leave_timeout`, or where nobody stays.
pub async fn leave(running: Running, settle: Duration) -> u64 {
    let began = Instant::now();
    let runtime = running.runtime().clone();
    tracing::info!(connections = runtime.connection_count(), "leaving");
    runtime.node().begin_leave(Intent::Restart, runtime.clock());
    let limit = runtime.settings().leave_timeout;
    let handed_over = until(began + limit, || runtime.node().leave_progress().drained).await;
    let left_behind = runtime.node().left_behind();
    if !handed_over {
        let primaries = runtime.node().leave_progress().primaries;
        tracing::error!(primaries, "the time to leave is over before everything was handed over");
    }
    if left_behind > 0 && runtime.volume().is_some() {
        tracing::info!(
            keys = left_behind,
            "keys stay on this node's volume alone: no node that stays has a copy of them"
        );
    } else if left_behind > 0 {
        tracing::warn!(keys = left_behind, "keys end with this node: no node that stays has a copy of them");
    }
    sleep_until(began + settle).await;
    runtime.close_clients();
    until(Instant::now() + CLOSE_TIMEOUT, || runtime.connection_count() == 0).await;
    say_goodbye(&runtime).await;
    if let Some(volume) = runtime.volume() {
        volume.write_final().await;
    }
    running.stop().await;
    tracing::info!(after_ms = began.elapsed().as_millis() as u64, left_behind, "left");
    left_behind
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
