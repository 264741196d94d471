//! The service on the embedded default.

mod support;

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::Value;
use sha2::Sha256;
use support::{Reply, Service};

const ALICE: &str = "demo-alice";
const BOB: &str = "demo-bob";
const ADMIN: &str = "demo-admin";

/// A3, B1, B3: 20 an hour for each user and operation.
#[tokio::test]
async fn the_21st_call_of_an_hour_is_refused() {
    let service = Service::start(&[]);
    for used in 1..=20 {
        let reply = service
            .post("/api/coverLetter", ALICE, r#"{"job": "x"}"#)
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.number("x-ratelimit-limit"), 20);
        assert_eq!(reply.number("x-ratelimit-remaining"), 20 - used);
        assert!(
            reply.headers.get("x-cache").is_none(),
            "letters are not cached"
        );
    }
    let refused = service
        .post("/api/coverLetter", ALICE, r#"{"job": "x"}"#)
        .await;
    refused.assert_limited("coverLetter", 20);
    assert_eq!(refused.number("x-ratelimit-remaining"), 0);
    assert!(refused.number("retry-after") <= 3_600);
    assert_eq!(refused.body["policy"], "coverLetter");

    // Another operation and another user have counters of their own.
    for (operation, user) in [("emailDraft", ALICE), ("coverLetter", BOB)] {
        let reply = service.post(&format!("/api/{operation}"), user, "{}").await;
        assert_eq!(
            reply.number("x-ratelimit-remaining"),
            19,
            "{operation} {user}"
        );
    }
}

/// B2: five endpoints, 5 a minute each.
#[tokio::test]
async fn the_6th_admin_call_of_a_minute_is_refused() {
    let service = Service::start(&[]);
    service.post("/api/coverLetter", ALICE, "{}").await;
    type Useful = fn(&Value) -> bool;
    let answers: [(&str, Useful); 5] = [
        ("users", |body| {
            body["users"]
                .as_array()
                .is_some_and(|users| users.len() == 4)
        }),
        ("usage", |body| {
            let usage = body["usage"].as_array().unwrap();
            let letters = usage
                .iter()
                .find(|line| line["user"] == "alice" && line["operation"] == "coverLetter");
            letters.is_some_and(|line| line["used"] == 1)
        }),
        ("caches", |body| {
            body["caches"]
                .as_array()
                .is_some_and(|caches| caches.len() == 4)
        }),
        ("limits", |body| body.to_string().contains("20 per hour")),
        ("audit", |body| {
            body["decisions"]
                .as_array()
                .unwrap()
                .iter()
                .any(|decision| {
                    decision["key"] == "ratelimit:user:alice:coverLetter"
                        && decision["outcome"] == "admit"
                })
        }),
    ];
    for (endpoint, useful) in answers {
        let path = format!("/api/admin/{endpoint}");
        for _ in 0..5 {
            let reply = service.get(&path, ADMIN).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(useful(&reply.body), "{endpoint}: {}", reply.body);
            assert!(
                !reply.text.contains("demo-"),
                "no key leaks: {}",
                reply.text
            );
        }
        let refused = service.get(&path, ADMIN).await;
        refused.assert_limited(endpoint, 5);
        assert!(refused.number("retry-after") <= 60);
    }
}

/// B4, B8: the second call is a hit, in any order of the parameters, and fast.
#[tokio::test]
async fn shared_answers_are_cached_for_everybody() {
    let service = Service::start(&[]);
    for operation in ["companyResearch", "jobExtraction"] {
        let path = format!("/api/{operation}");
        let miss = service
            .post(&path, ALICE, r#"{"a": 1, "b": {"c": 2, "d": 3}}"#)
            .await;
        assert_eq!(miss.header("x-cache"), "miss");
        assert!(
            miss.elapsed >= Duration::from_millis(300),
            "the model takes its time"
        );
        for (user, body) in [
            (ALICE, r#"{"a": 1, "b": {"c": 2, "d": 3}}"#),
            (BOB, r#"{ "b": {"d": 3, "c": 2}, "a": 1 }"#),
        ] {
            let hit = service.post(&path, user, body).await;
            assert_eq!(hit.header("x-cache"), "hit", "{user} {body}");
            assert!(
                hit.elapsed < Duration::from_millis(100),
                "{:?}",
                hit.elapsed
            );
            assert_eq!(hit.body, miss.body);
            assert!(
                hit.number("x-ratelimit-remaining") < 20,
                "hits are limited too"
            );
        }
        let other = service
            .post(&path, ALICE, r#"{"a": 2, "b": {"c": 2, "d": 3}}"#)
            .await;
        assert_eq!(other.header("x-cache"), "miss");
    }
}

/// I-K1: one user's answer never comes back to another.
#[tokio::test]
async fn personal_answers_are_their_users_own() {
    let service = Service::start(&[]);
    for operation in ["resumeAnalysis", "interviewPrep"] {
        let path = format!("/api/{operation}");
        for (user, expected) in [(ALICE, "miss"), (ALICE, "hit"), (BOB, "miss"), (BOB, "hit")] {
            let reply = service
                .post(&path, user, r#"{"resume": "same words"}"#)
                .await;
            assert_eq!(reply.header("x-cache"), expected, "{operation} {user}");
        }
        // A parameter cannot pass for the user.
        let forged = r#"{"resume": "same words", "scope": "alice", "user": "alice"}"#;
        assert_eq!(
            service.post(&path, BOB, forged).await.header("x-cache"),
            "miss"
        );
    }
}

/// LESSONS: canonical JSON that rounds gives two ids one key.
#[tokio::test]
async fn ids_above_2_to_53_do_not_share_an_answer() {
    let service = Service::start(&[]);
    for id in [
        "9007199254740992",
        "9007199254740993",
        "340282366920938463463374607431768211455",
    ] {
        let reply = service
            .post("/api/jobExtraction", ALICE, format!(r#"{{"id": {id}}}"#))
            .await;
        assert_eq!(reply.header("x-cache"), "miss", "{id}");
    }
    let too_long = service
        .post("/api/jobExtraction", ALICE, r#"{"id": 1e999}"#)
        .await;
    too_long.assert_problem(400);
}

#[tokio::test]
async fn bad_input_gets_a_problem_and_costs_nothing() {
    let service = Service::start(&[]);
    let big = format!(r#"{{"a": "{}"}}"#, "x".repeat(64 * 1024));
    for (path, key, body, status) in [
        ("/api/nope", ALICE, "{}", 404),
        ("/api/coverLetter", ALICE, "{", 400),
        ("/api/coverLetter", ALICE, "[1]", 400),
        ("/api/coverLetter", ALICE, "", 400),
        ("/api/coverLetter", ALICE, big.as_str(), 413),
        ("/api/coverLetter", "wrong", "{}", 401),
        ("/agent/s/turns/1/tools/t", ALICE, r#"{"cost": 0}"#, 400),
        ("/agent/s/turns/1/tools/t", ALICE, r#"{"cost": -1}"#, 400),
        ("/agent/s/turns/1/tools/t", ALICE, r#"{"cost": 1.5}"#, 400),
        ("/agent/s/turns/1/tools/t", ALICE, r#"{"cost": 1e30}"#, 400),
        ("/agent/s/turns/1/tools/t", ALICE, "{}", 400),
        ("/nothing", ALICE, "{}", 404),
        ("/api/%FF", ALICE, "{}", 400),
        ("/webhooks/%FF", ALICE, "{}", 400),
        ("/agent/%FF/turns/1/tools/t", ALICE, "{}", 400),
        ("/health", ALICE, "{}", 405),
    ] {
        let reply = service.post(path, key, body).await;
        reply.assert_problem(status);
    }
    let missing = service
        .send(Method::POST, "/api/coverLetter", &[], "{}")
        .await;
    missing.assert_problem(401);
    for (path, status) in [("/api/admin/nope", 404), ("/api/admin/%FF", 400)] {
        service.get(path, ADMIN).await.assert_problem(status);
    }
    service
        .get("/api/admin/users", ALICE)
        .await
        .assert_problem(403);
    let first = service.post("/api/coverLetter", ALICE, "{}").await;
    assert_eq!(first.number("x-ratelimit-remaining"), 19);
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

/// E1, E3: a new turn starts at zero, the session goes on; users' sessions are their own.
#[tokio::test]
async fn an_agents_turn_and_session_are_charged_together() {
    let service = Service::start(&[]);
    let call = async |user: &str, turn: u32, cost: u32| -> Reply {
        let path = format!("/agent/s1/turns/{turn}/tools/search");
        service
            .post(&path, user, format!(r#"{{"cost": {cost}}}"#))
            .await
    };
    let used = |reply: &Reply| {
        let limits = reply.body["limits"].as_array().unwrap();
        limits
            .iter()
            .map(|limit| limit["used"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(used(&call(ALICE, 1, 7).await), [7, 7]);
    call(ALICE, 1, 4).await.assert_limited("search", 10);
    assert_eq!(
        used(&call(ALICE, 1, 3).await),
        [10, 10],
        "the refused call cost nothing"
    );
    for turn in 2..=10 {
        assert_eq!(
            used(&call(ALICE, turn, 10).await),
            [10, 10 * u64::from(turn)]
        );
    }
    call(ALICE, 11, 1).await.assert_limited("search", 100);
    assert_eq!(used(&call(BOB, 1, 1).await), [1, 1]);
}

fn sign(secret: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

/// A provider that nobody listed has no counter: a sender cannot start a limit anew under another name.
#[tokio::test]
async fn providers_are_a_closed_list() {
    let service = Service::start(&[("WEBHOOK_SECRET", "a secret")]);
    let signature = sign("a secret", "{}");
    let headers = [("x-signature", &*signature)];
    for provider in ["stripe2", "Stripe", "stripe%20", "%73tripe:", "demo"] {
        let path = format!("/webhooks/{provider}");
        let refused = service.send(Method::POST, &path, &headers, "{}").await;
        refused.assert_problem(404);
        assert!(refused.headers.get("x-ratelimit-limit").is_none());
    }
    for provider in ["stripe", "github"] {
        let path = format!("/webhooks/{provider}");
        let received = service.send(Method::POST, &path, &headers, "{}").await;
        assert_eq!(received.number("x-ratelimit-remaining"), 99, "{provider}");
    }
}

/// C4: the signature is checked before the limiter.
#[tokio::test]
async fn only_signed_webhooks_are_received_and_counted() {
    let service = Service::start(&[("WEBHOOK_SECRET", "another secret")]);
    let send = async |signature: &str, body: &str| {
        let headers = [("x-signature", signature)];
        service
            .send(Method::POST, "/webhooks/stripe", &headers, body)
            .await
    };
    let body = r#"{"event": "paid"}"#;
    for _ in 0..150 {
        send(&sign("demo-webhook-secret", body), body)
            .await
            .assert_problem(401);
    }
    send(&sign("another secret", body), "{}")
        .await
        .assert_problem(401);
    service
        .send(Method::POST, "/webhooks/stripe", &[], body)
        .await
        .assert_problem(401);
    let received = send(&sign("another secret", body), body).await;
    assert_eq!(received.status, 202);
    assert_eq!(
        received.number("x-ratelimit-remaining"),
        99,
        "strangers used nothing up"
    );
}

#[tokio::test]
async fn health_metrics_and_the_front_page_read_well() {
    let service = Service::start(&[]);
    service.post("/api/coverLetter", ALICE, "{}").await;
    let health = service.send(Method::GET, "/health", &[], "").await;
    assert_eq!(health.status, 200);
    assert_eq!(health.body["backend"], "memory");
    assert_eq!(health.body["redis_connected"], false);
    assert_eq!(health.body["degraded"], false);
    let metrics = service.send(Method::GET, "/metrics", &[], "").await;
    let line = r#"limiter_checks_total{policy="coverLetter",scope="api",outcome="allowed",source="memory"} 1"#;
    assert!(metrics.text.contains(line), "{}", metrics.text);
    let page = service.send(Method::GET, "/", &[], "").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("curl -i 127.0.0.1:8080/api/coverLetter"));
}
