use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use limiter_core::limit::{Limiter, Outage, Period, Policy, Quota, wrap::Stack};
use limiter_core::{ErrorKind, Key};
use limiter_http::{ClientAddress, RateLimitLayer, Responder, Target, UnavailableStatus};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{
    Away, World, assert_429, from_client, from_user, header, hourly, read, through, user,
};

fn user_key(request: &Parts) -> Option<Key> {
    let user = request.headers.get("x-user")?.to_str().ok()?;
    Some(Key::new(["ratelimit", "user", user, "coverLetter"]))
}

#[tokio::test]
async fn clients_have_buckets_of_their_own() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .responder(world.responder.clone());
    let first = through(&layer, from_client("203.0.113.9:1")).await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.body(), "hello");
    assert_eq!(header(&first, "x-ratelimit-remaining"), Some("0"));
    assert_eq!(header(&first, "retry-after"), None);

    let denied = through(&layer, from_client("203.0.113.9:2")).await;
    let problem = assert_429(&denied);
    assert_eq!(problem["operation"], "letters");
    // The window is 3,600 s and was opened this moment.
    assert_eq!(header(&denied, "x-ratelimit-reset"), Some("1700003600"));

    let other = through(&layer, from_client("[2001:db8::1]:1")).await;
    assert_eq!(other.status(), 200);
    let same_64 = through(&layer, from_client("[2001:db8::2]:1")).await;
    assert_429(&same_64);
    assert_eq!(
        world.keys(),
        [
            "ratelimit:letters:2001%3Adb8%3A%3A/64",
            "ratelimit:letters:203.0.113.9"
        ]
    );

    world.clock.advance(Duration::from_secs(3_600));
    let later = through(&layer, from_client("203.0.113.9:3")).await;
    assert_eq!(later.status(), 200);
}

#[tokio::test]
async fn keys_costs_and_operations_come_from_the_request() {
    // B1, B3.
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 10))
        .key(|request: &Parts| {
            let cost = request.headers.get("x-cost")?.to_str().ok()?.parse().ok()?;
            Some(Target::exact(user_key(request)?).cost(cost))
        })
        .operation_by(|request| Some(format!("coverLetter {}", request.method)));
    let request = |cost: u64| {
        let mut request = from_user("42");
        request.headers_mut().insert("x-cost", cost.into());
        request
    };
    let seven = through(&layer, request(7)).await;
    assert_eq!(header(&seven, "x-ratelimit-remaining"), Some("3"));
    assert_eq!(world.keys(), ["ratelimit:user:42:coverLetter"]);

    let denied = assert_429(&through(&layer, request(4)).await);
    assert_eq!(
        denied["detail"],
        "coverLetter GET is limited to 10 per hour; try again in 60 minutes"
    );

    let never = through(&layer, request(11)).await;
    assert_eq!(never.status(), 400);
    assert_eq!(header(&never, "retry-after"), None);
    let never: serde_json::Value = serde_json::from_str(never.body()).unwrap();
    assert_eq!(
        never["detail"],
        "coverLetter GET asked for 11, above the limit of 10; ask for less"
    );
}

#[tokio::test]
async fn several_policies_are_charged_together_or_not_at_all() {
    // N1.
    let world = World::new();
    let minute = Quota::fixed_window(1, Period::MINUTE).unwrap();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("hourly", 5))
        .also(Policy::new("burst", minute).unwrap())
        .also(hourly("everyone", 100))
        .key(|_: &Parts| Some(Key::new(["ratelimit", "everyone"])))
        .operation("coverLetter")
        .responder(world.responder.clone());
    let request = || from_client("203.0.113.9:1");
    assert_eq!(through(&layer, request()).await.status(), 200);
    for _ in 0..3 {
        let denied = through(&layer, request()).await;
        let problem = assert_429(&denied);
        assert_eq!(problem["violated"], serde_json::json!(["burst"]));
        assert_eq!(problem["operation"], "coverLetter");
        assert_eq!(
            header(&denied, "ratelimit"),
            Some(r#""hourly";r=4, "burst";r=0;t=60, "everyone";r=99"#)
        );
    }
    world.clock.advance(Duration::from_secs(60));
    let allowed = through(&layer, request()).await;
    assert_eq!(
        header(&allowed, "ratelimit"),
        Some(r#""hourly";r=3;t=3540, "burst";r=0;t=60, "everyone";r=98;t=3540"#)
    );
}

/// A5: what a new user writes first. One function says whom, and each policy counts for itself.
#[tokio::test]
async fn layers_that_share_a_function_share_no_counter() {
    let world = World::new();
    let bucket = Quota::token_bucket(2, 1, Period::HOUR).unwrap();
    let burst = Policy::new("burst", bucket).unwrap();
    // In one layer, and in two.
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 3))
        .key(user)
        .also(burst)
        .key(user);
    let outer = RateLimitLayer::new(world.limiter.clone(), hourly("all", 2)).key(user);
    for expected in [200, 200, 429] {
        let response = through(&layer, from_user("42")).await;
        assert_eq!(response.status(), expected);
    }
    for expected in [200, 200, 429] {
        let response = through(&outer, from_user("42")).await;
        assert_eq!(response.status(), expected);
    }
    assert_eq!(
        world.keys(),
        [
            "ratelimit:all:42",
            "ratelimit:burst:42",
            "ratelimit:letters:42"
        ]
    );
}

#[tokio::test]
async fn a_group_that_can_never_pass_names_the_cost_that_is_too_high() {
    // N1, N8.
    let world = World::new();
    let tokens =
        |cost| move |_: &Parts| Some(Target::exact(Key::new(["ratelimit", "tokens"])).cost(cost));
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("requests", 5))
        .key(user_key)
        .also(hourly("tokens", 100))
        .key(tokens(60));
    let detail = async |layer: &RateLimitLayer| {
        let response = through(layer, from_user("42")).await;
        assert_eq!(response.status(), 400);
        let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        problem["detail"].as_str().unwrap().to_owned()
    };
    // A key that is charged twice is asked for the sum.
    let twice = layer.clone().also(hourly("tokens", 100)).key(tokens(41));
    assert_eq!(
        detail(&twice).await,
        "tokens asked for 101, above the limit of 100; ask for less"
    );
    let once = layer.key(tokens(101));
    assert_eq!(
        detail(&once).await,
        "tokens asked for 101, above the limit of 100; ask for less"
    );
    assert_eq!(world.keys(), [""; 0]);
}

/// Known fault: a key function that found nothing meant "unlimited", as `headers.get("x-api-key")?` does.
#[tokio::test]
async fn a_request_that_names_nobody_is_refused() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("by-client", 9))
        .also(hourly("letters", 1))
        .key(user);
    let nobody = through(&layer, from_client("203.0.113.9:1")).await;
    assert_eq!(nobody.status(), 400);
    let problem: serde_json::Value = serde_json::from_str(nobody.body()).unwrap();
    assert_eq!(problem["type"], "urn:limiter:problem:unknown-client");
    assert_eq!(world.keys(), [""; 0], "no other policy is charged");

    let named = layer.key(|request: &Parts| user(request).ok_or(StatusCode::UNAUTHORIZED));
    let nobody = through(&named, from_client("203.0.113.9:1")).await;
    assert_eq!(nobody.status(), 401);
    assert!(nobody.headers().get("x-ratelimit-limit").is_none());
}

#[tokio::test]
async fn a_policy_may_skip_a_request() {
    let world = World::new();
    let unless_health = |request: &Parts| match request.uri.path() {
        "/health" => Target::skip(),
        _ => user(request).into(),
    };
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1)).key(unless_health);
    let mut health = Request::new(());
    *health.uri_mut() = "/health".parse().unwrap();
    for _ in 0..3 {
        let response = through(&layer, health.clone()).await;
        assert_eq!(response.status(), 200);
        assert!(response.headers().is_empty(), "{response:?}");
    }
    // One policy that skips leaves the others.
    let layer = layer.also(hourly("by-client", 1));
    let mut request = from_client("203.0.113.9:1");
    *request.uri_mut() = "/health".parse().unwrap();
    let response = through(&layer, request).await;
    assert_eq!(
        header(&response, "ratelimit-policy"),
        Some(r#""by-client";q=1;w=3600"#)
    );
}

#[tokio::test]
async fn methods_may_be_exempt() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .key(user)
        .exempt([Method::OPTIONS]);
    let mut preflight = Request::new(());
    *preflight.method_mut() = Method::OPTIONS;
    for _ in 0..3 {
        assert_eq!(through(&layer, preflight.clone()).await.status(), 200);
    }
    assert_eq!(through(&layer, Request::new(())).await.status(), 400);
    assert_eq!(world.keys(), [""; 0]);
}

#[tokio::test]
async fn an_unknown_peer_is_an_error_and_no_shared_bucket() {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1));
    let response = through(&layer, Request::new(())).await;
    assert_eq!(response.status(), 500);
    assert_eq!(
        header(&response, "content-type"),
        Some("application/problem+json")
    );
    assert!(
        response
            .body()
            .contains("urn:limiter:problem:limiter-error")
    );
    assert_eq!(world.keys(), [""; 0]);
}

#[tokio::test]
async fn an_outage_is_answered_by_the_rule_of_the_policy() {
    // A3, C2.
    for kind in [ErrorKind::Timeout, ErrorKind::Connection] {
        let limiter = Limiter::new(Stack::new(Away(kind)).build());
        let request = || from_client("203.0.113.9:1");

        let closed = RateLimitLayer::new(limiter.clone(), hourly("admin", 5));
        let problem = assert_429(&through(&closed, request()).await);
        assert_eq!(problem["type"], "urn:limiter:problem:limiter-unavailable");

        let responder =
            Responder::default().unavailable_status(UnavailableStatus::ServiceUnavailable);
        let response = through(&closed.responder(responder), request()).await;
        assert_eq!(response.status(), 503);
        assert_eq!(header(&response, "retry-after"), Some("1"));

        let open = hourly("api", 5).with_outage(Outage::Allow);
        let open = RateLimitLayer::new(limiter, open);
        assert_eq!(through(&open, request()).await.status(), 200);
    }
}

#[tokio::test]
async fn misuse_is_a_500_that_tells_strangers_nothing() {
    let limiter = Limiter::new(Away(ErrorKind::Unauthorized));
    let layer = RateLimitLayer::new(limiter, hourly("admin", 5));
    assert_429(&through(&layer, from_client("203.0.113.9:1")).await);

    let limiter = Limiter::new(Away(ErrorKind::Foreign));
    let layer = RateLimitLayer::new(limiter, hourly("admin", 5));
    let response = through(&layer, from_client("203.0.113.9:1")).await;
    assert_eq!(response.status(), 500);
    assert!(!response.body().contains("10.0.0.5"), "{}", response.body());
    assert!(!response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn the_inner_limit_is_the_one_that_is_shown() {
    let world = World::new();
    let layer = |policy| {
        RateLimitLayer::new(world.limiter.clone(), policy).responder(world.responder.clone())
    };
    let service = ServiceBuilder::new()
        .layer(layer(hourly("outer", 100)))
        .layer(layer(hourly("inner", 1)))
        .service(service_fn(|_: Request<()>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }));
    let request = || from_client("203.0.113.9:1");
    let allowed = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(header(&allowed, "x-ratelimit-limit"), Some("1"));
    assert_eq!(
        header(&allowed, "ratelimit-policy"),
        Some(r#""inner";q=1;w=3600"#)
    );

    let denied = read(service.oneshot(request()).await.unwrap()).await;
    let problem = assert_429(&denied);
    assert_eq!(problem["policy"], "inner");
    assert_eq!(header(&denied, "x-ratelimit-limit"), Some("1"));
    assert_eq!(denied.headers().get_all("ratelimit").iter().count(), 1);
}

#[tokio::test]
async fn the_client_is_found_behind_trusted_proxies() {
    let world = World::new();
    let client = ClientAddress::default()
        .trusted_proxies(["10.0.0.0/8"])
        .unwrap();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1)).client(client);
    for (forged, status) in [("1.1.1.1", 200), ("2.2.2.2", 429)] {
        let mut request = from_client("10.0.0.2:1");
        let value = format!("{forged}, 203.0.113.9, 10.0.0.3").parse().unwrap();
        request.headers_mut().insert("x-forwarded-for", value);
        assert_eq!(through(&layer, request).await.status(), status);
    }
    assert_eq!(world.keys(), ["ratelimit:letters:203.0.113.9"]);
}

/// A service that must be made ready before each call, and whose clones are not ready.
struct Strict {
    ready: bool,
    calls: Arc<AtomicU64>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            calls: Arc::clone(&self.calls),
        }
    }
}

impl Service<Request<()>> for Strict {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without poll_ready");
        self.calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Response::new(String::new())))
    }
}

#[tokio::test]
async fn the_service_that_was_made_ready_is_called_and_only_if_allowed() {
    let world = World::new();
    let calls = Arc::new(AtomicU64::new(0));
    let strict = Strict {
        ready: false,
        calls: Arc::clone(&calls),
    };
    let mut service =
        RateLimitLayer::new(world.limiter.clone(), hourly("letters", 2)).layer(strict);
    for status in [200, 200, 429, 429] {
        let ready = service.ready().await.unwrap();
        let response = ready.call(from_client("203.0.113.9:1")).await.unwrap();
        assert_eq!(response.status(), status);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}
