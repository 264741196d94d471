//! Instances of the service that share a real Redis.

mod support;

use std::collections::HashMap;

use integration_tests::{RedisServer, eventually, needs};
use support::Service;

const ALICE: &str = "demo-alice";
const ADMIN: &str = "demo-admin";

/// Waits until Redis has an answer, which is handed out earlier.
fn research_is_stored(redis: &RedisServer, service: &Service) {
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while redis.command::<u64>(&["EXISTS", "cache:companyResearch:%index"]) == 0 {
        assert!(std::time::Instant::now() < deadline, "{}", service.log());
    }
}

/// A1, A2, A4, B8: the count is one, and survives a restart of an instance.
#[tokio::test]
async fn two_instances_count_as_one() {
    let redis = RedisServer::start();
    let first = Service::on_redis(&redis.url());
    let mut second = Service::on_redis(&redis.url());
    for (service, before) in [(&first, 0), (&second, 10)] {
        for used in 1..=10 {
            let reply = service.post("/api/coverLetter", ALICE, "{}").await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.number("x-ratelimit-remaining"), 20 - before - used);
        }
    }
    for service in [&first, &second] {
        let refused = service.post("/api/coverLetter", ALICE, "{}").await;
        refused.assert_limited("coverLetter", 20);
    }
    second.terminate();
    assert!(second.wait().success());
    let restarted = Service::on_redis(&redis.url());
    let refused = restarted.post("/api/coverLetter", ALICE, "{}").await;
    refused.assert_limited("coverLetter", 20);
}

/// B4, B8: a cached answer is every instance's, and outlives them. Known fault: another provider's model of the same name had the
/// old one's answers.
#[tokio::test]
async fn a_second_instance_hits_what_the_first_computed() {
    let redis = RedisServer::start();
    let answer = serde_json::json!({ "choices": [{ "message": { "content": "Makes anvils." } }] });
    let complete = move || async move { axum::Json(answer) };
    let router = axum::Router::new().route("/v1/chat/completions", axum::routing::post(complete));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let model = tokio::spawn(async move { axum::serve(listener, router).await });
    let url = redis.url();
    let start = |base: &str| {
        Service::start(&[
            ("REDIS_URL", &url),
            ("AI_BASE_URL", base),
            ("AI_API_KEY", "none"),
            ("AI_MODEL", "a-model"),
        ])
    };
    let first = start(&base);
    let second = start(&base);
    let elsewhere = start("http://127.0.0.1:1/v1");
    let body = r#"{"company": "Acme", "lang": "en"}"#;
    let miss = first.post("/api/companyResearch", ALICE, body).await;
    assert_eq!(miss.header("x-cache"), "miss", "{miss:?}");
    research_is_stored(&redis, &first);
    // The model cannot be reached any more: what the second one answers was stored.
    model.abort();
    drop(first);
    let turned = r#"{"lang": "en", "company": "Acme"}"#;
    let hit = second
        .post("/api/companyResearch", "demo-carol", turned)
        .await;
    assert_eq!(hit.header("x-cache"), "hit");
    assert_eq!(hit.body, miss.body);
    let other = elsewhere.post("/api/companyResearch", ALICE, body).await;
    other.assert_problem(502);
    let health = second.get("/health", ALICE).await;
    assert_eq!(health.body["backend"], "redis");
    assert_eq!(health.body["redis_connected"], true);
    assert!(
        health.body["ping_latency_ms"].is_number(),
        "{}",
        health.body
    );
    assert!(!health.text.contains("limiter-secret"), "{}", health.text);
}

/// D2: a private authority needs no system's store; and one broken certificate in that is no reason to trust none.
#[tokio::test]
async fn tls_trusts_the_authorities_that_it_can_read() {
    needs!(TLS);
    let redis = RedisServer::start_tls();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let own = file("own.pem", &redis.ca_pem());
    let store = file("store.pem", &[&broken[..], &redis.ca_pem()].concat());
    let (url, none) = (redis.url(), "/nonexistent");
    for variables in [
        [("SSL_CERT_FILE", none), ("REDIS_TLS_CA_FILE", &own)],
        [("SSL_CERT_FILE", &store), ("REDIS_TLS_CA_FILE", "")],
    ] {
        let others = [("REDIS_URL", &*url), ("SSL_CERT_DIR", none)];
        let service = Service::start(&[&variables[..], &others].concat());
        let health = service.get("/health", ALICE).await;
        assert_eq!(health.body["redis_connected"], true, "{}", health.text);
        let reply = service.post("/api/coverLetter", ALICE, "{}").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

/// A5, B1, B2, C1, E1, W4, I-H8: the keys of the requirements, each with a time to live.
#[tokio::test]
async fn the_keys_are_the_required_ones() {
    let redis = RedisServer::start();
    let service = Service::on_redis(&redis.url());
    // A counter that an existing service wrote is continued.
    let letters = "ratelimit:user:alice:coverLetter";
    assert_eq!(redis.command::<i64>(&["INCRBY", letters, "15"]), 15);
    redis.command::<()>(&["EXPIRE", letters, "1000"]);
    let reply = service.post("/api/coverLetter", ALICE, "{}").await;
    assert_eq!(reply.number("x-ratelimit-remaining"), 4, "{reply:?}");
    assert_eq!(redis.command::<String>(&["GET", letters]), "16");
    let ttl = redis.command::<i64>(&["TTL", letters]);
    assert!((900..=1_000).contains(&ttl), "{ttl}");

    service.post("/api/companyResearch", ALICE, "{}").await;
    research_is_stored(&redis, &service);
    service.get("/api/admin/usage", ADMIN).await;
    service
        .post("/agent/s1/turns/7/tools/search", ALICE, r#"{"cost": 2}"#)
        .await;
    // `printf demo-admin | sha256sum`
    let admin = "cce7a2cf1ae045989cfc914fb95a41526f167a838b3c7d33745143614abace7c";
    let expected: HashMap<String, Option<&str>> = [
        (letters.to_owned(), Some("16")),
        ("ratelimit:user:alice:companyResearch".to_owned(), Some("1")),
        (format!("ratelimit:admin:{admin}:usage"), Some("1")),
        ("ratelimit:{demo}:model-calls:alice".to_owned(), Some("2")),
        ("ratelimit:{demo}:model-tokens".to_owned(), None),
        ("ratelimit:agent:{alice}".to_owned(), Some("2")),
        ("rate:{alice}:s1:search".to_owned(), Some("2")),
        ("rate:{alice}:s1:7:search".to_owned(), Some("2")),
        ("cache:companyResearch:%index".to_owned(), None),
    ]
    .into();
    let mut answers = 0;
    for key in redis.command::<Vec<String>>(&["KEYS", "*"]) {
        // Gone within a second.
        if key.contains("%probe") {
            continue;
        }
        let ttl = redis.command::<i64>(&["PTTL", &key]);
        assert!((1..=86_400_000).contains(&ttl), "{key} lives {ttl} ms");
        // What is remembered of a reservation, and of what was given back.
        if key.starts_with("ratelimit:%") {
            continue;
        }
        if let Some(hash) = key
            .strip_prefix("cache:companyResearch:")
            .filter(|hash| *hash != "%index")
        {
            assert!(
                hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{key}"
            );
            answers += 1;
            continue;
        }
        let value = expected
            .get(&key)
            .unwrap_or_else(|| panic!("no key {key} was expected"));
        if let Some(value) = value {
            assert_eq!(redis.command::<String>(&["GET", &key]), *value, "{key}");
        }
    }
    assert_eq!(answers, 1);
    for key in expected.keys() {
        assert!(redis.command::<bool>(&["EXISTS", key]), "{key}");
    }
}

/// D1: a Redis of the caches' own is connected to at the start and has its own place in `/health`.
#[tokio::test]
async fn a_redis_of_the_caches_own_is_watched_too() {
    let (limits, mut caches) = (RedisServer::start(), RedisServer::start());
    let urls = [limits.url(), caches.url()];
    let variables = [("REDIS_URL", &*urls[0]), ("CACHE_REDIS_URL", &*urls[1])];
    let service = Service::start(&variables);
    let clients: String = caches.command(&["CLIENT", "LIST"]);
    assert!(clients.contains("user=limiter"), "not connected: {clients}");
    let health = service.get("/health", ALICE).await;
    assert_eq!(health.body["status"], "ok", "{}", health.text);
    assert_eq!(health.body["cache"]["redis_connected"], true);
    assert!(health.body["cache"]["ping_latency_ms"].is_number());

    caches.stop();
    let health = eventually("health without the caches", async || {
        let health = service.get("/health", ALICE).await;
        assert_eq!(health.status, 200);
        (health.body["status"] == "degraded").then_some(health)
    })
    .await;
    assert_eq!(health.body["degraded"], true);
    assert_eq!(health.body["redis_connected"], true);
    assert_eq!(health.body["cache"]["redis_connected"], false);
    assert!(!health.text.contains("limiter-secret"));

    let started = Service::start(&variables);
    assert!(
        started.start_log.contains("caches miss until it can"),
        "{}",
        started.start_log
    );
}

/// C2, D1, D3: without Redis every scope answers by its rule, caches miss, and all comes back.
#[tokio::test]
async fn an_outage_is_answered_and_ends_by_itself() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis.url());
    assert_eq!(
        service.post("/api/emailDraft", ALICE, "{}").await.status,
        200
    );
    redis.stop();
    let health = service.get("/health", ALICE).await;
    assert_eq!(health.status, 200, "{health:?}");
    assert_eq!(health.body["degraded"], true);
    assert_eq!(health.body["redis_connected"], false);
    // I-B2: scope api fails open, admin closed.
    assert_eq!(
        service.post("/api/emailDraft", ALICE, "{}").await.status,
        200
    );
    let closed = service.get("/api/admin/users", ADMIN).await;
    closed.assert_problem(429);
    let kind = closed.body["type"].as_str().unwrap();
    assert!(kind.ends_with("limiter-unavailable"), "{kind}");
    assert_eq!(closed.number("retry-after"), 1);
    assert!(!service.log().contains("limiter-secret"));

    redis.restart();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while service.get("/api/admin/users", ADMIN).await.status != 200 {
        assert!(std::time::Instant::now() < deadline, "{}", service.log());
    }
}
