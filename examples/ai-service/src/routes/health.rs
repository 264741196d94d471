//! `GET /health` (D1) and `GET /metrics` (C5).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use limiter::limiter_core::Health;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::routes::switch;

/// Always 200 while the service answers: with Redis away it still does, degraded. What is said of the
/// limits stands at the top, what is said of the caches, which may have a Redis of their own, in `cache`.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let (limits, cache) = tokio::join!(app.limiter.health(), app.cache.health());
    let since = app.outages.degraded_since();
    let degraded = since.is_some() || !(limits.connected && cache.connected);
    let trail = app.audit.stats();
    let substitutes = app.outages.totals();
    let substitutes: Map<String, Value> = substitutes
        .map(|(what, count)| (what.as_str().to_owned(), count.into()))
        .collect();
    Json(json!({
        "status": if degraded { "degraded" } else { "ok" },
        "backend": limits.backend,
        "redis_connected": is_redis(&limits),
        "message": limits.message,
        "ping_latency_ms": millis(&limits),
        "servers": servers(&limits),
        "cache": {
            "backend": cache.backend,
            "redis_connected": is_redis(&cache),
            "message": cache.message,
            "ping_latency_ms": millis(&cache),
            "servers": servers(&cache),
        },
        "degraded": degraded,
        "switch": switch::status(&app),
        "limits_file_error": app.policies.all.status(),
        "audit": { "written": trail.written, "lost": trail.lost, "waiting": trail.waiting },
        "degraded_for_seconds": since.map(|since| since.as_secs_f64()),
        "answered_without_redis": substitutes,
    }))
}

fn is_redis(health: &Health) -> bool {
    health.backend == "redis" && health.connected
}

fn millis(health: &Health) -> Option<f64> {
    health.latency.map(|latency| latency.as_secs_f64() * 1e3)
}

/// What each Redis told of itself last; a field that it did not tell is null.
fn servers(health: &Health) -> Vec<Value> {
    let servers = health.servers.iter();
    let described = servers.map(|server| {
        json!({
            "host": server.host,
            "version": server.version,
            "memory_used_bytes": server.memory_used,
            "memory_limit_bytes": server.memory_limit,
            "memory_used_percent": server.memory_percent(),
            "eviction": server.eviction,
        })
    });
    described.collect()
}

/// How often the metrics' samples are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// After how long without a word of it a gauge is shown no more.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Makes the process's metrics what `/metrics` shows.
pub(crate) fn install_metrics() -> Result<PrometheusHandle, String> {
    let failed = |error: BuildError| format!("metrics cannot be installed: {error}");
    let mut builder = PrometheusBuilder::new();
    for (name, buckets) in limiter::metrics::BUCKETS {
        let name = Matcher::Full(name.to_owned());
        builder = builder
            .set_buckets_for_metric(name, buckets)
            .map_err(failed)?;
    }
    // A server that is used no more ends with its last numbers; all others are set at each scrape.
    let builder = builder.idle_timeout(MetricKindMask::GAUGE, Some(FORGOTTEN));
    let metrics = builder.install_recorder().map_err(failed)?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        // Histograms keep their samples until somebody asks; nobody may.
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    Ok(metrics)
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    // Policies that a file has brought meanwhile begin at 0, too.
    limiter::metrics::announce(&app.policies.all.current());
    limiter::metrics::report(&app.limiter);
    limiter::metrics::report_cache_store(&*app.cache);
    for (operation, stats) in app.caches.stats() {
        limiter::metrics::report_cache(operation, &stats);
    }
    limiter::metrics::report_outages(&app.outages);
    limiter::metrics::report_audit(&app.audit);
    limiter::metrics::report_switch(app.switch.switch());
    limiter::metrics::report_plan(app.plan);
    app.metrics.run_upkeep();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        app.metrics.render(),
    )
}
