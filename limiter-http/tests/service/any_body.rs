//! Services and refusals of any body type.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use limiter_http::{ProblemType, RateLimitLayer, Refusal};
use serde_json::json;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::support::{
    World, assert_429, from_client, from_user, header, hourly, read, through, user,
};

/// Known fault: only bodies made of a `String` could stand behind the layer.
#[tokio::test]
async fn a_service_of_any_body_stands_behind_it() {
    let world = World::new();
    let layer = || RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1));
    let request = || from_client("203.0.113.9:1");

    let boxed = service_fn(|_: Request<()>| async {
        let body: BoxBody<Bytes, Infallible> = Full::<Bytes>::from("boxed").boxed();
        Ok::<_, Infallible>(Response::new(body))
    });
    let service = layer().layer(boxed);
    let allowed = read(service.clone().oneshot(request()).await.unwrap()).await;
    assert_eq!(
        (allowed.status(), &**allowed.body()),
        (StatusCode::OK, "boxed")
    );
    assert_429(&read(service.oneshot(request()).await.unwrap()).await);
}

/// Layers inside whose bodies nobody can make, and one outside that makes one of its own.
#[tokio::test]
async fn other_layers_stand_inside_and_outside() {
    let world = World::new();
    let service = ServiceBuilder::new()
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            Duration::from_secs(60),
        ))
        .layer(RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1)).key(user))
        .layer(TraceLayer::new_for_http())
        .layer(CompressionLayer::new())
        .service(service_fn(|_: Request<Empty<Bytes>>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello ".repeat(100))))
        }));
    let mut request = from_user("42").map(|()| Empty::<Bytes>::new());
    let gzip = HeaderValue::from_static("gzip");
    request.headers_mut().insert("accept-encoding", gzip);
    let allowed = service.clone().oneshot(request.clone()).await.unwrap();
    assert_eq!(header(&allowed, "content-encoding"), Some("gzip"));
    assert_eq!(header(&allowed, "x-ratelimit-remaining"), Some("0"));
    let body = allowed.into_body().collect().await.unwrap().to_bytes();
    assert!(body.len() < 100, "{} bytes are not compressed", body.len());
    assert_429(&read(service.oneshot(request).await.unwrap()).await);
}

fn openai(refusal: &Refusal<'_>) -> Response<Full<Bytes>> {
    let code = match refusal.problem.problem_type() {
        ProblemType::RateLimitExceeded => "rate_limit_exceeded",
        _ => "invalid_api_key",
    };
    let error = json!({ "message": refusal.problem.detail(), "type": "requests", "param": null, "code": code });
    let mut response = Response::new(json!({ "error": error }).to_string().into());
    *response.status_mut() = refusal.problem.status();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

#[tokio::test]
async fn a_refusal_is_what_its_function_makes() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .key(user)
        .operation("coverLetter")
        .refuse_with(openai);
    assert_eq!(through(&layer, from_user("42")).await.status(), 200);
    let refused = through(&layer, from_user("42")).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "content-type"), Some("application/json"));
    assert_eq!(header(&refused, "x-ratelimit-remaining"), Some("0"));
    assert!(
        header(&refused, "retry-after").is_some(),
        "the limit's headers are the layer's"
    );
    let body: serde_json::Value = serde_json::from_str(refused.body()).unwrap();
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
    assert_eq!(
        body["error"]["message"],
        "coverLetter is limited to 1 per hour; try again in 60 minutes"
    );
    let nobody = through(&layer, Request::new(())).await;
    assert_eq!(nobody.status(), 400);
    assert!(nobody.body().contains("invalid_api_key"));
}

/// What a function knows, and that it may answer as it likes: here with a page, for browsers.
#[tokio::test]
async fn a_refusal_tells_all_that_is_known() {
    let world = World::new();
    let page = |refusal: &Refusal<'_>| {
        let decision = refusal.decision.expect("the limiter was asked");
        let path = refusal.request.uri.path();
        let wait = refusal.problem.retry_after_secs().expect("waiting helps");
        let policy = refusal.problem.policy().expect("a policy binds");
        let used = decision.decisions[0].used;
        Response::builder()
            .status(StatusCode::SERVICE_UNAVAILABLE)
            .header(CONTENT_TYPE, "text/html")
            .body(format!("<p>{path}: {used} of {policy}, wait {wait} s</p>"))
            .unwrap()
    };
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .key(user)
        .refuse_with(page);
    let mut request = from_user("42");
    *request.uri_mut() = "/letters".parse().unwrap();
    assert_eq!(through(&layer, request.clone()).await.status(), 200);
    let refused = through(&layer, request).await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.body(), "<p>/letters: 1 of letters, wait 3600 s</p>");
}

#[tokio::test]
async fn a_refusal_may_have_no_body() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .key(user)
        .refuse_with(|refusal| {
            refusal
                .to_response::<String>()
                .map(|_| Empty::<Bytes>::new())
        });
    through(&layer, from_user("42")).await;
    let refused = through(&layer, from_user("42")).await;
    assert_eq!(
        (refused.status(), &**refused.body()),
        (StatusCode::TOO_MANY_REQUESTS, "")
    );
}
