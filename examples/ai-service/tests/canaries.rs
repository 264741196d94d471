//! What nobody may read in the service's logs, metrics, `/health`, refusals and Redis's keys: passwords, API keys, what is sent to
//! the model and what it answers; and in logs, metrics and `/health` no user's id.
//!
//! Everything is logged (`RUST_LOG=trace`, all crates), and everything goes wrong once.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use std::fmt::Write as _;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use integration_tests::{RedisServer, eventually};
use serde_json::{Value, json};
use support::{Hook, Reply, Service};

/// What is secret, each under a word that stands nowhere else.
const SECRETS: [&str; 7] = [
    "canary-password",
    "canary-user-key",
    "canary-admin-key",
    "canary-unknown-key",
    "canary-webhook-secret",
    "canary-model-key",
    "canary-question",
];
/// What only those who ask for it are told.
const ANSWER: &str = "canary-answer";
const USER: &str = "canary-alice";
const ADMIN: &str = "canary-admin";

fn users() -> Value {
    json!([
        { "key": "canary-user-key", "user": USER, "tenant": "canary-tenant" },
        { "key": "canary-admin-key", "user": ADMIN, "tenant": "canary-tenant", "admin": true },
    ])
}

/// A model that answers, or fails and says what it was asked.
async fn complete(headers: HeaderMap, Json(request): Json<Value>) -> (StatusCode, String) {
    let asked = request.to_string();
    if asked.contains("fail") {
        return (StatusCode::BAD_REQUEST, format!("{headers:?} {asked}"));
    }
    if asked.contains("garbled") {
        return (StatusCode::OK, format!("{{{asked}"));
    }
    let message = json!({ "content": ANSWER });
    let answer = json!({ "choices": [{ "message": message, "finish_reason": "stop" }] });
    (StatusCode::OK, answer.to_string())
}

/// Asks for everything; the refusals.
async fn ask_for_everything(service: &Service) -> Vec<Reply> {
    let mut replies = Vec::new();
    for (key, question) in [
        ("canary-user-key", "canary-question"),
        ("canary-user-key", "canary-question fail"),
        ("canary-user-key", "canary-question garbled"),
        ("canary-unknown-key", "canary-question"),
    ] {
        for operation in [
            "companyResearch",
            "resumeAnalysis",
            "emailDraft",
            "canary-question",
        ] {
            let body = json!({ "question": question }).to_string();
            let path = format!("/api/{operation}");
            replies.push(service.post(&path, key, body).await);
        }
        let path = "/agent/canary-session/turns/t/tools/search";
        replies.push(service.post(path, key, r#"{"cost": 1}"#).await);
        let path = "/agent/canary-session/turns/t/tools/search";
        replies.push(service.post(path, key, r#"{"cost": 1000}"#).await);
        replies.push(
            service
                .post("/api/emailDraft", key, "canary-question")
                .await,
        );
        replies.push(service.get("/api/admin/users", key).await);
    }
    for endpoint in ["usage", "caches", "limits"] {
        let path = format!("/api/admin/{endpoint}");
        service.get(&path, "canary-admin-key").await;
    }
    let body = r#"{"a": "canary-question"}"#;
    for secret in ["canary-webhook-secret", "canary-unknown-key"] {
        let hook = Hook::new(secret, "stripe", "canary-message", body);
        let path = "/webhooks/stripe";
        let hook = service
            .send(reqwest::Method::POST, path, &hook.headers(), body)
            .await;
        replies.push(hook);
    }
    replies.retain(|reply| !reply.status.is_success());
    replies
}

/// C5, D1, D2.
#[tokio::test]
async fn nobody_reads_them() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let model = Router::new().route("/v1/chat/completions", post(complete));
    tokio::spawn(async move { axum::serve(listener, model).await.unwrap() });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users.json");
    std::fs::write(&file, users().to_string()).unwrap();

    let mut redis = RedisServer::start_tcp();
    let user = ["ACL", "SETUSER", "limiter", "resetpass", ">canary-password"];
    redis.command::<()>(&user);
    let service = Service::start(&[
        ("REDIS_URL", &redis.url_of("limiter", "canary-password")),
        ("REDIS_DEADLINE_MILLIS", "1000"),
        ("USERS_FILE", file.to_str().unwrap()),
        ("WEBHOOK_SECRET_STRIPE", "canary-webhook-secret"),
        ("AI_BASE_URL", &base),
        ("AI_API_KEY", "canary-model-key"),
        ("AI_MODEL", "test-model"),
        ("RUST_LOG", "trace"),
    ]);
    let is_used = async || {
        let reply = service
            .post("/api/careerAdvice", "canary-user-key", "{}")
            .await;
        (reply.status == 200 && !reply.headers.contains_key("x-ratelimit-degraded")).then_some(())
    };
    eventually("Redis is used", is_used).await;

    let mut log = service.start_log.clone();
    let mut told = String::new();
    let mut refusals = Vec::new();
    for what in ["well", "foreign", "away", "another password"] {
        match what {
            "foreign" => {
                let keys: Vec<String> = redis.command(&["KEYS", "*"]);
                assert!(keys.len() > 5, "{keys:?}");
                for key in &keys {
                    let secret = SECRETS.iter().find(|secret| key.contains(**secret));
                    assert!(secret.is_none() && !key.contains(ANSWER), "{key}");
                    redis.command::<()>(&["DEL", key]);
                    redis.command::<()>(&["LPUSH", key, "canary-question"]);
                }
            }
            "away" => redis.stop(),
            "another password" => redis.restart(),
            _ => {}
        }
        refusals.extend(ask_for_everything(&service).await);
        for path in ["/health", "/metrics", "/"] {
            told += &service.get(path, "canary-user-key").await.text;
        }
        let _ = write!(log, "\n{}", service.log());
    }
    // There is something to search.
    assert!(
        log.contains("cannot connect to Redis") && log.contains("TRACE"),
        "{log}"
    );
    assert!(told.contains("limiter_checks_total") && refusals.len() > 40);
    for line in log.lines().chain(told.lines()) {
        assert!(!line.contains("canary"), "{line}");
    }
    for refusal in refusals {
        let found = SECRETS
            .iter()
            .find(|secret| refusal.text.contains(**secret));
        assert!(
            found.is_none() && !refusal.text.contains(ANSWER),
            "{refusal:?}"
        );
    }
}
