//! A tonic service: 100 calls a minute for each API key (`x-api-key`); a refusal is RESOURCE_EXHAUSTED with RetryInfo.
//!
//! `cargo run -p programs --bin with-tonic`. The service is gRPC's own health check; any other one stands in its place.

use std::error::Error;

use http::StatusCode;
use http::request::Parts;
use limiter::http::{RateLimitLayer, Target, grpc};
use limiter::{Policy, Quota};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// Whom a call is charged to; without a key that is known it is refused as UNAUTHENTICATED.
fn by_key(request: &Parts) -> Result<Target, StatusCode> {
    let key = request.headers.get("x-api-key");
    let key = key.filter(|key| is_known(key.as_bytes()));
    Ok(Target::token(key.ok_or(StatusCode::UNAUTHORIZED)?)) // the counter's name has its digest
}

/// A real service asks its database.
fn is_known(key: &[u8]) -> bool {
    [b"of-alice".as_slice(), b"of-bob"].contains(&key)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limiter = limiter::from_env().await?.limiter;
    let policy = Policy::new("api-key", Quota::per_minute(100)?)?;
    let layer = RateLimitLayer::new(limiter, policy)
        .key(by_key)
        .refuse_with(grpc::refusal);

    let (_, health) = tonic_health::server::health_reporter();
    let bind = std::env::var("BIND").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = TcpIncoming::bind(bind.parse()?)?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    Server::builder()
        .layer(layer)
        .add_service(health)
        .serve_with_incoming(listener)
        .await?;
    Ok(())
}
