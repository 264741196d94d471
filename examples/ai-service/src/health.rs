//! `GET /health` (D1) and `GET /metrics` (C5).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::app::App;

/// Always 200 while the service answers: with Redis away it still does, degraded.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let health = app.limiter.health().await;
    let millis = health.latency.map(|latency| latency.as_secs_f64() * 1e3);
    Json(json!({
        "status": if health.connected { "ok" } else { "degraded" },
        "backend": health.backend,
        "redis_connected": health.backend == "redis" && health.connected,
        "message": health.message,
        "ping_latency_ms": millis,
        "degraded": !health.connected,
    }))
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.metrics.run_upkeep();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        app.metrics.render(),
    )
}
