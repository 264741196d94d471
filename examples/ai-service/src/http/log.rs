//! One line at info for each request: what was asked, by whom, and what came of it. A caller is named by a hash, as in the audit
//! trail; paths are shown as routes, because they may name sessions.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// Logs a request when it is answered.
pub(crate) async fn requests(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("none", MatchedPath::as_str).to_owned();
    let span = tracing::info_span!(
        "request",
        method = %request.method(),
        route,
        caller = Empty,
        policy = Empty,
    );
    let start = Instant::now();
    async {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        let millis = start.elapsed().as_secs_f64() * 1e3;
        let millis = (millis * 10.0).round() / 10.0;
        match status {
            429 => tracing::info!(status, millis, "denied"),
            _ => tracing::info!(status, millis, "answered"),
        }
        response
    }
    .instrument(span)
    .await
}

/// Says in the request's line who asks, by the hash of the id.
pub(crate) fn caller(hash: &str) {
    Span::current().record("caller", hash);
}

/// Says in the request's line which policy denied it.
pub(crate) fn denied_by(policy: &str) {
    Span::current().record("policy", policy);
}
