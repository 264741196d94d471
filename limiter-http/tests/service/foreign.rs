//! Limit headers that another system has written, and what pages of another origin may read.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use limiter_core::ErrorKind;
use limiter_core::limit::{Limiter, Outage};
use limiter_http::{ForeignHeaders, HeaderStyle, RateLimitLayer, Responder};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Away, World, from_user, header, hourly, through, user};

/// What a provider answered, passed on by a proxy.
async fn proxied(responder: Responder) -> Response<()> {
    let world = World::new();
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 5))
        .key(user)
        .responder(responder.clock(world.clock.clone()));
    let proxy = service_fn(|_: Request<()>| async {
        let response = Response::builder()
            .header("x-ratelimit-limit-requests", "60")
            .header("x-ratelimit-remaining-requests", "59")
            .header("x-ratelimit-limit", "1000")
            .header("retry-after", "7")
            .body(Full::<Bytes>::from("an answer"));
        Ok::<_, Infallible>(response.unwrap())
    });
    let response = layer.layer(proxy).oneshot(from_user("42")).await.unwrap();
    response.map(drop)
}

/// Known fault: a provider's headers switched ours off (Kong#14353).
#[tokio::test]
async fn a_providers_headers_do_not_switch_ours_off() {
    let response = proxied(Responder::default()).await;
    assert_eq!(header(&response, "x-ratelimit-limit"), Some("5"));
    assert_eq!(header(&response, "x-ratelimit-remaining"), Some("4"));
    assert_eq!(
        header(&response, "ratelimit-policy"),
        Some(r#""letters";q=5;w=3600"#)
    );
    // Of other names: the provider's own, which its client may wait for.
    assert_eq!(header(&response, "x-ratelimit-limit-requests"), Some("60"));
    assert_eq!(header(&response, "retry-after"), Some("7"));

    let openai = Responder::default().headers(HeaderStyle::default().openai(true));
    let response = proxied(openai).await;
    assert_eq!(header(&response, "x-ratelimit-limit-requests"), Some("5"));
    assert_eq!(
        header(&response, "x-ratelimit-remaining-requests"),
        Some("4")
    );
}

#[tokio::test]
async fn a_response_that_has_some_may_be_left_as_it_is() {
    let leave = Responder::default().foreign_headers(ForeignHeaders::Leave);
    let response = proxied(leave.clone()).await;
    assert_eq!(header(&response, "x-ratelimit-limit"), Some("1000"));
    assert_eq!(header(&response, "x-ratelimit-remaining"), None);
    assert_eq!(header(&response, "ratelimit"), None);

    // None of the names that we would write is there.
    let ietf = HeaderStyle::default().legacy(false);
    let response = proxied(leave.headers(ietf)).await;
    assert!(header(&response, "ratelimit").is_some());
}

/// A limit of ours beside what remains of the provider's would be wrong for both.
#[tokio::test]
async fn two_limits_do_not_mix_in_one_family() {
    let limiter = Limiter::new(Away(ErrorKind::Timeout));
    let open = hourly("letters", 5).with_outage(Outage::Allow);
    let layer = RateLimitLayer::new(limiter, open).key(user);
    let proxy = service_fn(|_: Request<()>| async {
        let response = Response::builder()
            .header("x-ratelimit-limit", "1000")
            .header("x-ratelimit-remaining", "999")
            .header("x-ratelimit-used", "1")
            .header("x-ratelimit-degraded", "local")
            .header("x-ratelimit-remaining-tokens", "77")
            .body(Full::<Bytes>::from("an answer"));
        Ok::<_, Infallible>(response.unwrap())
    });
    let response = layer.layer(proxy).oneshot(from_user("42")).await.unwrap();
    assert_eq!(header(&response, "x-ratelimit-limit"), Some("5"));
    assert_eq!(header(&response, "x-ratelimit-remaining"), None);
    assert_eq!(header(&response, "x-ratelimit-used"), None);
    assert_eq!(header(&response, "x-ratelimit-degraded"), Some("allowed"));
    assert_eq!(
        header(&response, "x-ratelimit-remaining-tokens"),
        Some("77")
    );
}

/// A refusal is ours, whatever its function writes into it.
#[tokio::test]
async fn a_refusal_has_our_headers_also_where_others_are_left() {
    let world = World::new();
    let leave = Responder::default().foreign_headers(ForeignHeaders::Leave);
    let layer = RateLimitLayer::new(world.limiter.clone(), hourly("letters", 1))
        .key(user)
        .responder(leave)
        .refuse_with(|_| {
            let response = Response::builder().status(429).header("retry-after", "1");
            response.body(Full::<Bytes>::default()).unwrap()
        });
    through(&layer, from_user("42")).await;
    let refused = through(&layer, from_user("42")).await;
    assert_eq!(header(&refused, "retry-after"), Some("3600"));
    assert_eq!(header(&refused, "x-ratelimit-remaining"), Some("0"));
}

#[test]
fn all_names_can_be_listed() {
    let names = |style: HeaderStyle| {
        let names = style.names();
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let legacy = [
        "retry-after",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-ratelimit-degraded",
    ];
    assert_eq!(names(HeaderStyle::default().ietf(None)), legacy);
    let all = names(HeaderStyle::default().openai(true));
    for name in [
        "ratelimit",
        "ratelimit-policy",
        "retry-after-ms",
        "x-should-retry",
        "x-ratelimit-reset-tokens",
    ] {
        assert!(all.iter().any(|listed| listed == name), "{name}");
    }
    let distinct: HeaderMap<()> = all.iter().map(|name| (name.parse().unwrap(), ())).collect();
    assert_eq!(distinct.len(), all.len());
}
