//! An axum service: by API key, 100 requests a minute for each user and 1,000 a minute for each tenant.
//!
//! `cargo run -p programs --bin api-keys`, then `curl -i 127.0.0.1:3000 -H 'x-api-key: key-of-alice'`. With `REDIS_URL` the counts
//! are those of all instances.

use std::error::Error;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Router, routing::get};
use limiter::http::{RateLimitLayer, Target};
use limiter::{Period, Policy, Quota};

#[derive(Clone)]
struct Caller {
    user: &'static str,
    tenant: &'static str,
}

/// Whose key it is; a real service asks its database.
fn caller(key: &str) -> Option<Caller> {
    let (user, tenant) = match key {
        "key-of-alice" => ("alice", "acme"),
        "key-of-bob" => ("bob", "acme"),
        _ => return None,
    };
    Some(Caller { user, tenant })
}

/// Runs before the limits, so that a request without a valid key is charged to nobody.
async fn login(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let key = request.headers().get("x-api-key");
    let caller = key.and_then(|key| caller(key.to_str().ok()?));
    request
        .extensions_mut()
        .insert(caller.ok_or(StatusCode::UNAUTHORIZED)?);
    Ok(next.run(request).await)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limiter = limiter::from_env().await?.limiter; // Redis if REDIS_URL is set, else memory
    let user = Policy::new("user", Quota::sliding_window(100, Period::MINUTE)?)?;
    let tenant = Policy::new("tenant", Quota::sliding_window(1_000, Period::MINUTE)?)?;
    let limits = RateLimitLayer::new(limiter, user)
        .key(|request| request.extensions.get().map(|it: &Caller| Target::new([it.tenant, it.user])))
        .also(tenant) // in the same step: both are charged, or neither
        .key(|request| request.extensions.get().map(|it: &Caller| Target::new([it.tenant])));
    let app = Router::new()
        .route("/", get(|| async { "hello\n" }))
        .layer(limits)
        .layer(middleware::from_fn(login));
    let bind = std::env::var("BIND").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(bind).await?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
