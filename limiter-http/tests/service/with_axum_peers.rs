//! Where the peer comes from in axum, and browsers of another origin.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::MockConnectInfo;
use axum::http::{HeaderName, Method, Request, header};
use axum::routing::get;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use limiter_http::{ClientAddress, Peer, RateLimitLayer, Responder};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tower::ServiceExt;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::support::{World, hourly};

fn router(layer: RateLimitLayer) -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(layer)
}

/// Known fault: axum's own way to test a router gave 500.
#[tokio::test]
async fn a_mocked_peer_is_found() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1));
    let address: SocketAddr = "203.0.113.9:1".parse().unwrap();
    let router = router(layer).layer(MockConnectInfo(address));
    for status in [200, 429] {
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(world.keys(), ["ratelimit:letters:203.0.113.9"]);
}

#[tokio::test]
async fn a_peer_is_connect_info_of_tcp() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router(layer).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let response = crate::support::get(address, "/", http::HeaderMap::new()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(world.keys(), ["ratelimit:letters:127.0.0.1"]);
}

/// Known fault: a proxy over a Unix socket had no address, so no client behind it had one.
#[tokio::test]
async fn a_peer_is_connect_info_of_a_unix_socket() {
    let world = World::new();
    let client = ClientAddress::default().trusted_proxies(["unix:"]).unwrap();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1)).client(client);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let service = router(layer).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    let stream = UnixStream::connect(&path).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    for (client, status) in [
        ("203.0.113.9", 200),
        ("203.0.113.10", 200),
        ("203.0.113.9", 429),
    ] {
        let request = Request::get("/")
            .header("host", "local")
            .header("x-forwarded-for", client)
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{client}");
    }
}

/// Known fault: preflights were charged, and a browser hid refusals from its page (agentgateway#926).
#[tokio::test]
async fn cors_stands_around_the_limit() {
    const ORIGIN: &str = "https://app.example";
    let world = World::new();
    let responder = Responder::default();
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::exact(ORIGIN.parse().unwrap()))
        .allow_methods([Method::GET])
        .expose_headers(responder.header_names());
    let layer =
        RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1)).responder(responder);
    let address: SocketAddr = "203.0.113.9:1".parse().unwrap();
    let router = router(layer).layer(MockConnectInfo(address)).layer(cors);
    let send = async |method: Method| {
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header(header::ORIGIN, ORIGIN)
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
            .body(Body::empty());
        router.clone().oneshot(request.unwrap()).await.unwrap()
    };
    for _ in 0..3 {
        assert_eq!(send(Method::OPTIONS).await.status(), 200, "a preflight");
    }
    assert_eq!(world.keys(), [""; 0], "preflights are not charged");
    assert_eq!(send(Method::GET).await.status(), 200);
    let refused = send(Method::GET).await;
    assert_eq!(refused.status(), 429);
    let text = |name: HeaderName| refused.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(text(header::ACCESS_CONTROL_ALLOW_ORIGIN), ORIGIN);
    let exposed = text(header::ACCESS_CONTROL_EXPOSE_HEADERS);
    for name in ["retry-after", "x-ratelimit-remaining", "ratelimit"] {
        assert!(refused.headers().contains_key(name), "{name}");
        assert!(
            exposed.split(',').any(|listed| listed.trim() == name),
            "{name}: {exposed}"
        );
    }
}
