//! Health and metrics of the operator itself.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tokio::net::TcpListener;

use crate::logic::plan::Step;

/// Figures about the operator.
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ResultLabel, Counter>,
    seconds: Histogram,
    steps: Family<StepLabel, Counter>,
    /// Statuses written.
    pub status_writes: Counter,
    /// 1 while this process leads.
    pub leader: Gauge,
    ready: AtomicBool,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mizuya_operator");
        let metrics = Self {
            reconciles: Family::default(),
            seconds: Histogram::new([0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
            steps: Family::default(),
            status_writes: Counter::default(),
            leader: Gauge::default(),
            ready: AtomicBool::new(false),
            registry: Registry::default(),
        };
        registry.register("reconciles", "Reconciles by result", metrics.reconciles.clone());
        registry.register("reconcile_seconds", "Time that a reconcile took", metrics.seconds.clone());
        registry.register("steps", "Steps taken, by kind", metrics.steps.clone());
        registry.register("status_writes", "Statuses written", metrics.status_writes.clone());
        registry.register("leader", "1 while this process leads", metrics.leader.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// A reconcile began.
    pub fn reconcile_started(&self) -> Instant {
        Instant::now()
    }

    /// And ended.
    pub fn reconcile_ended(&self, started: Instant, well: bool) {
        self.seconds.observe(started.elapsed().as_secs_f64());
        self.reconciles.get_or_create(&ResultLabel { result: if well { "ok" } else { "error" } }).inc();
    }

    /// A step is taken.
    pub fn step(&self, step: &Step) {
        let step = match step {
            Step::CreateSecrets { .. } => "create_secrets",
            Step::Apply { .. } => "apply",
            Step::Delete { .. } => "delete",
            Step::Lower { .. } => "lower",
            Step::Cordon { .. } => "cordon",
            Step::Uncordon { .. } => "uncordon",
            Step::Drain { .. } => "drain",
            Step::Forget { .. } => "forget",
            Step::ApplySettings(_) => "apply_settings",
            Step::Evict { .. } => "evict",
            Step::PutBack { .. } => "put_back",
            Step::TellZone { .. } => "tell_zone",
        };
        self.steps.get_or_create(&StepLabel { step }).inc();
    }

    /// The process serves: it leads, or waits to.
    pub fn is_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

/// Serves until the process ends.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state(metrics);
    axum::serve(TcpListener::bind(address).await?, routes).await
}

async fn readyz(State(metrics): State<Arc<Metrics>>) -> (StatusCode, &'static str) {
    if metrics.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

async fn render(
    State(metrics): State<Arc<Metrics>>,
) -> Result<([(&'static str, &'static str); 1], String), StatusCode> {
    let mut text = String::new();
    encode(&mut text, &metrics.registry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}
