//! Policies that change or are chosen by request, and costs that are known afterwards.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, StreamBody};
use limiter_core::limit::{LivePolicy, Period, Policy, Quota, Unit};
use limiter_core::{ErrorKind, Key};
use limiter_http::{RateLimitLayer, Target};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Away, World, assert_429, from_user, header, hourly, read, through, user};

fn per_hour(limit: u64) -> Quota {
    Quota::fixed_window(limit, Period::HOUR).unwrap()
}

#[tokio::test]
async fn a_live_policy_changes_under_the_layer() {
    let world = World::new();
    let live = LivePolicy::new(hourly("letters", 2));
    let layer = RateLimitLayer::new(world.limiter.clone(), live.clone()).key(user);
    let limit = async |who: &str| {
        let response = through(&layer, from_user(who)).await;
        header(&response, "x-ratelimit-limit").map(str::to_owned)
    };
    assert_eq!(limit("42").await.as_deref(), Some("2"));
    live.set_quota(per_hour(5)).unwrap();
    assert_eq!(limit("42").await.as_deref(), Some("5"));
    live.set_override(Key::new(["ratelimit", "letters", "acme"]), per_hour(50))
        .unwrap();
    assert_eq!(limit("acme").await.as_deref(), Some("50"));
    assert_eq!(limit("42").await.as_deref(), Some("5"));
}

/// A tenant's plan.
#[tokio::test]
async fn a_policy_is_chosen_by_request() {
    let world = World::new();
    let paid = LivePolicy::new(hourly("paid", 100));
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("free", 1))
        .policy_by(move |request| {
            let plan = request.headers.get("x-plan")?;
            (plan == "paid").then(|| paid.clone())
        })
        .key(user);
    let with_plan = |plan: &'static str| {
        let mut request = from_user("42");
        request
            .headers_mut()
            .insert("x-plan", plan.parse().unwrap());
        request
    };
    let paid = through(&layer, with_plan("paid")).await;
    assert_eq!(
        header(&paid, "ratelimit-policy"),
        Some(r#""paid";q=100;w=3600"#)
    );
    for status in [200, 429] {
        assert_eq!(through(&layer, with_plan("none")).await.status(), status);
    }
    assert_eq!(world.keys(), ["ratelimit:free:42", "ratelimit:paid:42"]);
}

/// What is used of a policy by now.
async fn used(world: &World, policy: &Policy, who: &str) -> u64 {
    let peek = world.limiter.peek(policy, &policy.key([who])).await;
    peek.unwrap().used
}

/// Waits for a settlement, which nobody else does.
async fn settled(world: &World, policy: &Policy, who: &str, expected: u64) {
    for _ in 0..1_000 {
        if used(world, policy, who).await == expected {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("{} used, not {expected}", used(world, policy, who).await);
}

#[tokio::test]
async fn bytes_are_charged_when_they_were_sent() {
    let world = World::new();
    let egress = hourly("egress", 1_000).with_unit(Unit::named("content-bytes").unwrap());
    let layer = RateLimitLayer::new(world.limiter.clone(), egress.clone())
        .key(|request| user(request).map(|target| target.cost(100)))
        .settle(|finished| finished.is_complete.then_some(finished.body_bytes));
    let chunks = service_fn(|_: Request<()>| async {
        let frame =
            |text: &'static str| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(text)));
        let body = futures_util::stream::iter([frame("hello"), frame(" "), frame("world")]);
        Ok::<_, Infallible>(Response::new(StreamBody::new(body)))
    });
    let service = layer.layer(chunks);
    let response = service.clone().oneshot(from_user("42")).await.unwrap();
    assert_eq!(used(&world, &egress, "42").await, 100, "the estimate");
    assert_eq!(header(&response, "x-ratelimit-remaining"), Some("900"));
    assert_eq!(read(response).await.body(), "hello world");
    settled(&world, &egress, "42", 11).await;

    // A client that leaves has not had all of it: the function says so, and the estimate stands.
    let mut body = service
        .clone()
        .oneshot(from_user("43"))
        .await
        .unwrap()
        .into_body();
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "hello"
    );
    drop(body);
    settled(&world, &egress, "43", 100).await;

    // A body that is empty from the start is never read by a server.
    let empty = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    }));
    let response = empty.oneshot(from_user("44")).await.unwrap();
    assert!(response.body().is_end_stream());
    drop(response);
    settled(&world, &egress, "44", 0).await;
}

/// Tokens that are counted while the answer is streamed, beside a policy that is not settled.
#[tokio::test]
async fn tokens_are_told_by_the_response() {
    let world = World::new();
    let tokens = hourly("tokens", 1_000).with_unit(Unit::Tokens);
    let requests = hourly("requests", 9);
    let layer = RateLimitLayer::new(world.limiter.clone(), requests.clone())
        .key(user)
        .also(tokens.clone())
        .key(|request| user(request).map(|target| target.cost(500)))
        .settle(|finished| {
            let counted = finished.response.extensions.get::<Arc<AtomicU64>>()?;
            Some(counted.load(Ordering::Relaxed))
        });
    let model = service_fn(|_: Request<()>| async {
        let counted = Arc::new(AtomicU64::new(0));
        let counter = counted.clone();
        let words = ["one ", "two ", "three"].into_iter().map(move |word| {
            counter.fetch_add(7, Ordering::Relaxed);
            Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(word)))
        });
        let mut response = Response::new(StreamBody::new(futures_util::stream::iter(words)));
        response.extensions_mut().insert(counted);
        Ok::<_, Infallible>(response)
    });
    let service = layer.layer(model);
    let response = service.clone().oneshot(from_user("42")).await.unwrap();
    assert_eq!(read(response).await.body(), "one two three");
    settled(&world, &tokens, "42", 21).await;
    assert_eq!(used(&world, &requests, "42").await, 1);

    // An estimate above what is left is refused, and nothing of the group is charged.
    world
        .limiter
        .check_n(&tokens, &tokens.key(["42"]), 600)
        .await;
    let refused = read(service.oneshot(from_user("42")).await.unwrap()).await;
    assert_eq!(assert_429(&refused)["policy"], "tokens");
    assert_eq!(used(&world, &requests, "42").await, 1);
}

#[tokio::test]
async fn a_service_that_fails_leaves_the_estimate() {
    let world = World::new();
    let tokens = hourly("tokens", 1_000);
    let layer = RateLimitLayer::new(world.limiter.clone(), tokens.clone())
        .key(|request| user(request).map(|target| target.cost(0)))
        .settle(|_| Some(0));
    let fails = service_fn(|_: Request<()>| async { Err::<Response<Full<Bytes>>, _>("broken") });
    let failed = layer.layer(fails).oneshot(from_user("42")).await;
    assert_eq!(failed.unwrap_err(), "broken");
    assert_eq!(
        used(&world, &tokens, "42").await,
        1,
        "at least 1 is reserved"
    );
}

#[tokio::test]
async fn an_outage_is_answered_by_the_rule_where_costs_are_settled_too() {
    let limiter = limiter_core::limit::Limiter::new(Away(ErrorKind::Timeout));
    let layer = RateLimitLayer::new(limiter, hourly("tokens", 5))
        .key(|request| user(request).map(|target: Target| target.cost(2)))
        .settle(|finished| Some(finished.body_bytes));
    let refused = through(&layer, from_user("42")).await;
    assert_eq!(
        assert_429(&refused)["type"],
        "urn:limiter:problem:limiter-unavailable"
    );

    let limiter = limiter_core::limit::Limiter::new(Away(ErrorKind::Foreign));
    let layer = RateLimitLayer::new(limiter, hourly("tokens", 5))
        .key(user)
        .settle(|_| None);
    assert_eq!(
        through(&layer, from_user("42")).await.status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
}

/// A cost of 0 looks, also beside a policy that settles.
#[tokio::test]
async fn a_policy_that_only_looks_is_charged_nothing() {
    let world = World::new();
    let (looked, tokens) = (hourly("looked", 1), hourly("tokens", 10));
    let layer = RateLimitLayer::new(world.limiter.clone(), looked.clone())
        .key(|request| user(request).map(|target| target.cost(0)))
        .also(tokens.clone())
        .key(user)
        .settle(|_| Some(3));
    for settled_to in [3, 6] {
        assert_eq!(through(&layer, from_user("42")).await.status(), 200);
        settled(&world, &tokens, "42", settled_to).await;
    }
    assert_eq!(used(&world, &looked, "42").await, 0);
}

/// "A shadow step never blocks": also where it finds nobody to charge.
#[tokio::test]
async fn a_shadow_policy_refuses_nobody() {
    let world = World::new();
    let shadow = || hourly("watched", 1).with_shadow(true);
    let by_user = RateLimitLayer::new(world.limiter.clone(), shadow()).key(user);
    let by_peer = RateLimitLayer::new(world.limiter.clone(), shadow());
    for layer in [by_user, by_peer] {
        for _ in 0..3 {
            assert_eq!(through(&layer, Request::new(())).await.status(), 200);
        }
    }
}

/// A function that panics leaves the estimate, and the others are told their costs.
#[tokio::test]
async fn a_function_that_panics_leaves_the_estimate() {
    let world = World::new();
    let (broken, tokens) = (hourly("broken", 10), hourly("tokens", 1_000));
    let layer = RateLimitLayer::new(world.limiter.clone(), broken.clone())
        .key(user)
        .settle(|finished| Some(1 / (finished.body_bytes - 5)))
        .also(tokens.clone())
        .key(user)
        .settle(|_| Some(u64::MAX));
    through(&layer, from_user("42")).await;
    settled(&world, &broken, "42", 1).await;
    // More than can ever be charged is as much as the window takes.
    assert!(used(&world, &tokens, "42").await >= 1_000);
}
