//! What the service refuses, on the embedded default.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use reqwest::Method;
use support::{Hook, Service};

const ALICE: &str = "demo-alice";
const ADMIN: &str = "demo-admin";

#[tokio::test]
async fn bad_input_gets_a_problem_and_costs_nothing() {
    let service = Service::start(&[]);
    let deep = |levels| format!(r#"{{"a": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
    // The deepest that the cache takes, and one more.
    let (deepest, too_deep) = (deep(126), deep(127));
    let taken = service.post("/api/jobExtraction", ALICE, deepest).await;
    assert_eq!(taken.status, 200, "{taken:?}");
    let long = format!(r#"{{"id": {}}}"#, "9".repeat(40));
    let big = format!(r#"{{"a": "{}"}}"#, "x".repeat(64 * 1024));
    for (path, key, body, status) in [
        ("/api/nope", ALICE, "{}", 404),
        ("/api/coverLetter", ALICE, "{", 400),
        ("/api/coverLetter", ALICE, "[1]", 400),
        ("/api/coverLetter", ALICE, "", 400),
        ("/api/coverLetter", ALICE, big.as_str(), 413),
        ("/api/coverLetter", ALICE, r#"{"id": 1e999}"#, 400),
        ("/api/jobExtraction", ALICE, r#"{"id": 1e999}"#, 400),
        ("/api/jobExtraction", ALICE, long.as_str(), 400),
        ("/api/jobExtraction", ALICE, too_deep.as_str(), 400),
        ("/api/coverLetter", "wrong", "{}", 401),
        ("/agent/s/turns/1/tools/t", ALICE, r#"{"cost": 0}"#, 400),
        ("/agent/s/turns/1/tools/t", ALICE, r#"{"cost": -1}"#, 400),
        ("/agent/s/turns/1/tools/t", ALICE, r#"{"cost": 1.5}"#, 400),
        ("/agent/s/turns/1/tools/t", ALICE, r#"{"cost": 1e30}"#, 400),
        ("/agent/s/turns/1/tools/t", ALICE, "{}", 400),
        ("/agent/s/turns/1/tools/t", ALICE, "[1]", 400),
        ("/agent/s/turns/1/tools/t", ALICE, " [1]", 400),
        (
            "/agent/s/turns/1/tools/t",
            ALICE,
            r#"{"cost": 1, "cost": 2}"#,
            400,
        ),
        (
            "/agent/s/turns/1/tools/t",
            ALICE,
            r#"{"cost": 1, "by": "a"}"#,
            400,
        ),
        ("/nothing", ALICE, "{}", 404),
        ("/api/%FF", ALICE, "{}", 400),
        ("/webhooks/%FF", ALICE, "{}", 400),
        ("/agent/%FF/turns/1/tools/t", ALICE, "{}", 400),
        ("/health", ALICE, "{}", 405),
    ] {
        let reply = service.post(path, key, body).await;
        reply.assert_problem(status);
        let limited = reply.headers.get("x-ratelimit-limit");
        assert!(limited.is_none(), "charged: {path} {reply:?}");
    }
    let (longest, too_long) = ("s".repeat(64), "s".repeat(65));
    for odd in [too_long.as_str(), "a%20b", "a:b", "a%2Fb", "%C3%A9", "a%0A"] {
        for path in [
            format!("/agent/{odd}/turns/1/tools/t"),
            format!("/agent/s/turns/{odd}/tools/t"),
            format!("/agent/s/turns/1/tools/{odd}"),
        ] {
            let reply = service.post(&path, ALICE, r#"{"cost": 1}"#).await;
            reply.assert_problem(400);
        }
    }
    let path = format!("/agent/{longest}/turns/1/tools/t");
    let taken = service.post(&path, ALICE, r#"{"cost": 1}"#).await;
    let of_user = &taken.body["limits"][2];
    assert_eq!(
        (of_user["used"].as_u64(), taken.status.as_u16()),
        (Some(1), 200)
    );
    let missing = service
        .send(Method::POST, "/api/coverLetter", &[], "{}")
        .await;
    missing.assert_problem(401);
    assert!(!missing.text.contains("demo"), "{}", missing.text);
    for (path, status) in [("/api/admin/nope", 404), ("/api/admin/%FF", 400)] {
        service.get(path, ADMIN).await.assert_problem(status);
    }
    service
        .get("/api/admin/users", ALICE)
        .await
        .assert_problem(403);
    let first = service.post("/api/coverLetter", ALICE, "{}").await;
    assert_eq!(first.number("x-ratelimit-remaining"), 19);
    let second = service.post("/api/jobExtraction", ALICE, "{}").await;
    assert_eq!(second.number("x-ratelimit-remaining"), 18);
}

/// Of two headers, what stands in front of the service may have judged the other one.
#[tokio::test]
async fn a_header_sent_twice_is_refused() {
    let service = Service::start(&[("WEBHOOK_SECRET_STRIPE", "a secret")]);
    let hook = Hook::new("a secret", "stripe", "1", "{}");
    let signed = hook.headers();
    let alice = [("authorization", "Bearer demo-alice")];
    for (path, headers) in [
        ("/api/coverLetter", &alice[..]),
        ("/agent/s/turns/1/tools/t", &alice),
        ("/webhooks/stripe", &signed),
    ] {
        for (name, value) in headers {
            for other in [value, "Bearer x", ""] {
                let mut sent = headers.to_vec();
                sent.push((name, other));
                let reply = service.send(Method::POST, path, &sent, "{}").await;
                reply.assert_problem(400);
                let detail = reply.body["detail"].as_str().unwrap();
                assert!(detail.contains(name), "{detail}");
            }
        }
    }
}

/// A cost above the limit can never pass: a 400 of its own type, without a time to wait.
#[tokio::test]
async fn a_cost_above_the_limit_is_never() {
    let service = Service::start(&[]);
    for cost in ["11", "18446744073709551615"] {
        let body = format!(r#"{{"cost": {cost}}}"#);
        let never = service
            .post("/agent/s/turns/1/tools/search", ALICE, body)
            .await;
        never.assert_problem(400);
        assert!(never.headers.get("retry-after").is_none());
        let kind = never.body["type"].as_str().unwrap();
        assert!(kind.ends_with("cost-above-limit"), "{kind}");
    }
}
