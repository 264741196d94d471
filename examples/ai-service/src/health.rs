//! `GET /health` (D1) and `GET /metrics` (C5).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use limiter::core::Health;
use serde_json::{Value, json};

use crate::app::App;

/// Always 200 while the service answers: with Redis away it still does, degraded. What is said of the
/// limits stands at the top, what is said of the caches, which may have a Redis of their own, in `cache`.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let (limits, cache) = tokio::join!(app.limiter.health(), app.cache.health());
    let degraded = !(limits.connected && cache.connected);
    Json(json!({
        "status": if degraded { "degraded" } else { "ok" },
        "backend": limits.backend,
        "redis_connected": is_redis(&limits),
        "message": limits.message,
        "ping_latency_ms": millis(&limits),
        "cache": {
            "backend": cache.backend,
            "redis_connected": is_redis(&cache),
            "message": cache.message,
            "ping_latency_ms": millis(&cache),
        },
        "degraded": degraded,
    }))
}

fn is_redis(health: &Health) -> bool {
    health.backend == "redis" && health.connected
}

fn millis(health: &Health) -> Option<f64> {
    health.latency.map(|latency| latency.as_secs_f64() * 1e3)
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    app.metrics.run_upkeep();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        app.metrics.render(),
    )
}
