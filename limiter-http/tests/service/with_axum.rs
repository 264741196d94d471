use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get as on_get;
use limiter_core::Key;
use limiter_core::limit::{Limiter, Policy};
use limiter_http::{ClientAddress, RateLimitLayer, Refusal, Responder};
use tokio::net::TcpListener;

use crate::support::{World, assert_429, get, header, hourly};

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

/// An `X-Forwarded-For`.
fn forwarded_for(text: &'static str) -> HeaderMap {
    HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), text.parse().unwrap())])
}

#[tokio::test]
async fn the_peer_is_found_in_connect_info() {
    // A3.
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 2))
        .responder(world.responder.clone());
    let server = serve(
        Router::new()
            .route("/", on_get(|| async { "hello" }))
            .layer(layer),
    )
    .await;
    for remaining in ["1", "0"] {
        let response = get(server, "/", forwarded_for("1.1.1.1")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.body(), "hello");
        assert_eq!(header(&response, "x-ratelimit-remaining"), Some(remaining));
    }
    // A stranger's X-Forwarded-For opens no new bucket.
    let denied = get(server, "/", forwarded_for("2.2.2.2")).await;
    assert_429(&denied);
    assert_eq!(header(&denied, "x-ratelimit-reset"), Some("1700003600"));
    assert_eq!(world.keys(), ["ratelimit:letters:127.0.0.1"]);
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_are_told_apart() {
    let world = World::new();
    let client = ClientAddress::default()
        .trusted_proxies(["127.0.0.0/8"])
        .unwrap();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1)).client(client);
    let server = serve(
        Router::new()
            .route("/", on_get(|| async { "hello" }))
            .layer(layer),
    )
    .await;
    for (forwarded, status) in [
        ("203.0.113.9", 200),
        ("203.0.113.10", 200),
        ("1.1.1.1, 203.0.113.9", 429),
    ] {
        let response = get(server, "/", forwarded_for(forwarded)).await;
        assert_eq!(response.status(), status, "{forwarded}");
    }
}

#[tokio::test]
async fn an_outer_layer_runs_before_the_limit() {
    // C4: a stranger who cannot sign does not use up the limit.
    async fn signed(request: Request, next: Next) -> Response {
        if request.headers().contains_key("x-signature") {
            next.run(request).await
        } else {
            StatusCode::UNAUTHORIZED.into_response()
        }
    }
    let world = World::new();
    let limit = RateLimitLayer::new(world.limiter.clone(), hourly("webhook", 1));
    let router = Router::new()
        .route("/", on_get(|| async { "taken" }))
        .layer(limit)
        .layer(middleware::from_fn(signed));
    let server = serve(router).await;
    for _ in 0..3 {
        assert_eq!(get(server, "/", HeaderMap::new()).await.status(), 401);
    }
    let signature = HeaderMap::from_iter([("x-signature".parse().unwrap(), "ok".parse().unwrap())]);
    assert_eq!(get(server, "/", signature.clone()).await.status(), 200);
    assert_429(&get(server, "/", signature).await);
}

#[derive(Clone)]
struct App {
    limiter: Limiter,
    letters: Policy,
    responder: Responder,
}

/// A handler that checks a limit itself answers as the layer does.
async fn letter(State(app): State<App>) -> Response {
    let key = Key::new(["ratelimit", "user", "42", "coverLetter"]);
    let decision = app.limiter.check(&app.letters, &key).await;
    if let Some(refusal) = app.responder.refusal(&decision, "coverLetter") {
        return refusal;
    }
    let mut response = "Dear Sir or Madam".into_response();
    app.responder.write_headers(&decision, &mut response);
    response
}

#[tokio::test]
async fn a_handler_answers_as_the_layer_does() {
    // A3, B3.
    let world = World::new();
    let app = App {
        limiter: world.limiter.clone(),
        letters: hourly("letters", 1),
        responder: world.responder.clone(),
    };
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("by-client", 100));
    let router = Router::new()
        .route("/letter", on_get(letter))
        .with_state(app)
        .layer(layer);
    let server = serve(router).await;
    let allowed = get(server, "/letter", HeaderMap::new()).await;
    assert_eq!(allowed.status(), 200);
    assert_eq!(
        header(&allowed, "ratelimit-policy"),
        Some(r#""letters";q=1;w=3600"#)
    );
    let denied = get(server, "/letter", HeaderMap::new()).await;
    let problem = assert_429(&denied);
    assert_eq!(problem["operation"], "coverLetter");
    assert_eq!(header(&denied, "x-ratelimit-limit"), Some("1"));
}

/// Known fault: a refusal that is axum's own response made a layer that no router took.
#[tokio::test]
async fn a_refusal_may_be_axums_own_response() {
    let world = World::new();
    let refuse = |refusal: &Refusal<'_>| {
        let error = serde_json::json!({ "error": refusal.problem.detail() });
        (refusal.problem.status(), axum::Json(error)).into_response()
    };
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .exempt([axum::http::Method::HEAD])
        .refuse_with(refuse);
    let router = Router::new()
        .route("/", on_get(|| async { "hello" }))
        .route_layer(layer.clone())
        .route("/other", on_get(|| async { "other" }).layer(layer));
    let server = serve(router).await;
    assert_eq!(get(server, "/", HeaderMap::new()).await.status(), 200);
    let refused = get(server, "/other", HeaderMap::new()).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "content-type"), Some("application/json"));
    assert!(refused.body().contains("letters is limited to 1 per hour"));
    // axum answers HEAD by the handler of GET; here without a charge.
    let head = status_of_head(server).await;
    assert_eq!(head, 200);
}

/// The status of a HEAD request.
async fn status_of_head(server: SocketAddr) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
    let request = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply[9..12].parse().unwrap()
}
