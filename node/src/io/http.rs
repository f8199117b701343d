//! Health, metrics and statistics for kubelets, Prometheus and people.

mod metrics;
mod page;
mod stats;

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::runtime::Runtime;

type Shared = State<Arc<Runtime>>;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, runtime: Arc<Runtime>, stop: CancellationToken) -> io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/_stats", get(stats))
        .route("/", get(page))
        .with_state(runtime);
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Looks at the node's own loop only: a restart heals nothing else (rule O10).
async fn healthz(State(runtime): Shared) -> impl IntoResponse {
    if runtime.healthy() {
        (StatusCode::OK, "healthy\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the node's own loop has not run for 5 s\n")
    }
}

async fn readyz(State(runtime): Shared) -> impl IntoResponse {
    match runtime.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

async fn metrics(State(runtime): Shared) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics::text(&metrics::Figures::of(&runtime)))
}

async fn stats(State(runtime): Shared) -> impl IntoResponse {
    Json(stats::json(&runtime.status(), &runtime.node().table()))
}

async fn page(State(runtime): Shared) -> impl IntoResponse {
    Html(page::html(&runtime.status()))
}
