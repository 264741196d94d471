//! Plain hyper: 100 requests a minute for each client address, and refusals with a body of one's own.
//!
//! `cargo run -p programs --bin with-hyper`, then `curl -i 127.0.0.1:3000`

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use limiter::http::{Peer, RateLimitLayer, Refusal};
use limiter::{Policy, Quota};
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new("hello\n".into()))
}

/// As OpenAI's API refuses. The headers of the limit are added by the layer.
fn refuse(refusal: &Refusal<'_>) -> Response<Full<Bytes>> {
    let error =
        serde_json::json!({ "message": refusal.problem.detail(), "code": "rate_limit_exceeded" });
    let mut response = Response::new(serde_json::json!({ "error": error }).to_string().into());
    *response.status_mut() = refusal.problem.status();
    response
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let limiter = limiter::from_env().await?.limiter;
    let policy = Policy::new("by-address", Quota::per_minute(100)?)?;
    let layer = RateLimitLayer::new(limiter, policy).refuse_with(refuse);
    let service = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(hello));

    let bind = std::env::var("BIND").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(bind).await?;
    eprintln!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        // The layer has to know who is at the other end.
        let service = service
            .clone()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer::Tcp(peer));
                request
            });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::spawn(connection);
    }
}
