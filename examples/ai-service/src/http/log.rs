//! One line at info for each request: what was asked, by whom, and what came of it. A caller is named by a hash, which
//! `/api/admin/users` explains; paths are shown as routes, because they may name sessions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// Logs a request when it is answered, or when its client has left before.
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
    let mut line = Line {
        span: span.clone(),
        start: Instant::now(),
        status: None,
    };
    let response = next.run(request).instrument(span).await;
    line.status = Some(response.status().as_u16());
    response
}

/// The line of a request, which is written when this is dropped.
struct Line {
    span: Span,
    start: Instant,
    status: Option<u16>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        let millis = self.start.elapsed().as_secs_f64() * 1e3;
        let millis = (millis * 10.0).round() / 10.0;
        match self.status {
            Some(status @ 429) => tracing::info!(status, millis, "denied"),
            Some(status) => tracing::info!(status, millis, "answered"),
            None => tracing::info!(millis, "left by its client before an answer"),
        }
    }
}

/// Says in the request's line who asks, by the hash of the id.
pub(crate) fn caller(hash: &str) {
    Span::current().record("caller", hash);
}

/// Says in the request's line which policy denied it.
pub(crate) fn denied_by(policy: &str) {
    Span::current().record("policy", policy);
}

/// Warns once of a header that a proxy writes, where the service is told of no proxy: then all of its clients are one.
pub(crate) async fn unheeded_proxy(request: Request, next: Next) -> Response {
    static WARNED: AtomicBool = AtomicBool::new(false);
    const WRITTEN: [&str; 2] = ["x-forwarded-for", "forwarded"];
    let is_written = WRITTEN
        .iter()
        .any(|name| request.headers().contains_key(*name));
    if is_written && !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "a request has X-Forwarded-For or Forwarded, which is not believed: if a proxy stands in front, all of its clients count as one; set TRUSTED_PROXIES or PROXY_HOPS"
        );
    }
    next.run(request).await
}
