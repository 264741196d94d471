//! `GET /`: a console to try the service in a browser. Its files are in the program; they ask nobody but this service.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse};

/// Nothing but the console's own files and this service's answers.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What every file of the console has.
fn headers() -> [(HeaderName, HeaderValue); 3] {
    [
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        // Another version of the program has another console.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ]
}

pub(crate) async fn page() -> impl IntoResponse {
    (headers(), Html(include_str!("../console/console.html")))
}

pub(crate) async fn style() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    (headers(), kind, include_str!("../console/console.css"))
}

pub(crate) async fn script() -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/javascript; charset=utf-8")];
    (headers(), kind, include_str!("../console/console.js"))
}
