use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use limiter_http::{Peer, RateLimitLayer, Target};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::support::{World, assert_429, get, header, hourly};

/// Serves a greeting behind a layer. `tell_peer`: whether requests get a [`Peer`].
async fn serve(layer: RateLimitLayer, tell_peer: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service =
        ServiceBuilder::new()
            .layer(layer)
            .service(service_fn(|_: Request<Incoming>| async {
                // As a file is sent: the length is announced, and the body does not know its end.
                let parts =
                    ["hel", "lo"].map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from(part))));
                let mut response = Response::new(StreamBody::new(stream::iter(parts)));
                let length = http::HeaderValue::from_static("5");
                response.headers_mut().insert("content-length", length);
                Ok::<_, Infallible>(response)
            }));
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let service = service
                .clone()
                .map_request(move |mut request: Request<Incoming>| {
                    if tell_peer {
                        request.extensions_mut().insert(Peer::Tcp(peer));
                    }
                    request
                });
            let service = TowerToHyperService::new(service);
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

#[tokio::test]
async fn plain_hyper_is_limited() {
    // A3.
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .responder(world.responder.clone());
    let server = serve(layer, true).await;
    let allowed = get(server, "/", HeaderMap::new()).await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(allowed.body(), "hello");
    assert_eq!(header(&allowed, "x-ratelimit-limit"), Some("1"));
    assert_429(&get(server, "/", HeaderMap::new()).await);
    assert_eq!(world.keys(), ["ratelimit:letters:127.0.0.1"]);
}

#[tokio::test]
async fn a_server_that_hides_its_peers_gets_500() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1));
    let server = serve(layer, false).await;
    assert_eq!(get(server, "/", HeaderMap::new()).await.status(), 500);
    assert_eq!(world.keys(), [""; 0]);
}

/// Known fault: a server that has sent the length that it announced asks for no end of the body.
#[tokio::test]
async fn a_body_of_a_known_length_is_complete_when_it_was_sent() {
    let world = World::new();
    let egress = hourly("egress", 1_000_000);
    let layer = RateLimitLayer::new(world.limiter.clone(), egress.clone())
        .key(|_| Target::new(["everybody"]).cost(100))
        .settle(|finished| finished.is_complete.then_some(finished.body_bytes));
    let server = serve(layer, true).await;
    for (count, total) in [(1, 5), (2, 10)] {
        let response = get(server, "/", HeaderMap::new()).await;
        assert_eq!(response.body(), "hello", "{count}");
        assert_eq!(header(&response, "content-length"), Some("5"));
        for _ in 0..1_000 {
            let used = world
                .limiter
                .peek(&egress, &egress.key(["everybody"]))
                .await;
            if used.unwrap().used == total {
                break;
            }
            tokio::task::yield_now().await;
        }
        let used = world
            .limiter
            .peek(&egress, &egress.key(["everybody"]))
            .await;
        assert_eq!(used.unwrap().used, total);
    }
}
