//! The limit by the client's address, which stands before everything else; and the line that each request has in the log.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use reqwest::Method;
use support::{Reply, Service, limits_of_many};

/// A file of the demo's limits with another one for addresses.
fn limits(directory: &tempfile::TempDir, quota: &str) -> String {
    let path = directory.path().join("limits.toml");
    let limits = limits_of_many().replacen("1_000_000/second", quota, 1);
    let limits = limits.replacen("burst = 300", "burst = 5", 1);
    std::fs::write(&path, limits).unwrap();
    path.display().to_string()
}

async fn ask(service: &Service, headers: &[(&str, &str)]) -> Reply {
    let path = "/api/emailDraft";
    service.send(Method::POST, path, headers, "{}").await
}

/// An unauthenticated request is charged to its address and to nobody else.
#[tokio::test]
async fn strangers_are_limited_before_they_are_asked_who_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let limits = limits(&directory, "5/hour");
    let service = Service::start(&[("LIMITS_FILE", &limits), ("TRUSTED_PROXIES", "127.0.0.0/8")]);
    let from = async |address: &str, key: &str| {
        let headers = [("x-forwarded-for", address), ("authorization", key)];
        ask(&service, &headers).await
    };
    for _ in 0..5 {
        let stranger = from("203.0.113.9", "Bearer guess").await;
        stranger.assert_problem(401);
        assert!(
            !stranger.headers.contains_key("x-ratelimit-limit"),
            "{stranger:?}"
        );
    }
    for key in ["Bearer guess", "Bearer demo-alice"] {
        let refused = from("203.0.113.9", key).await;
        refused.assert_problem(429);
        assert_eq!(refused.body["policy"], "address");
        assert_eq!(refused.number("x-ratelimit-limit"), 5);
        assert!(refused.number("retry-after") <= 720);
    }
    // Another address is another client; a forged one in front of it is not.
    let alice = from("203.0.113.9, 198.51.100.7", "Bearer demo-alice").await;
    assert_eq!(alice.status, 200, "{alice:?}");
    assert_eq!(alice.number("x-ratelimit-limit"), 20);
    assert_eq!(alice.number("x-ratelimit-remaining"), 19);
    // Operators look at it whatever happens.
    for path in ["/health", "/metrics", "/"] {
        let headers = [("x-forwarded-for", "203.0.113.9")];
        let reply = service.send(Method::GET, path, &headers, "").await;
        assert_eq!(reply.status, 200, "{path}");
    }
}

#[tokio::test]
async fn where_the_address_stands_is_a_setting() {
    let directory = tempfile::tempdir().unwrap();
    let limits = limits(&directory, "5/hour");
    for (variables, header) in [
        (&[("PROXY_HOPS", "1")][..], "x-forwarded-for"),
        (
            &[
                ("TRUSTED_PROXIES", "127.0.0.1, ::1"),
                ("CLIENT_ADDRESS_HEADER", "X-Real-IP"),
            ],
            "x-real-ip",
        ),
        (
            &[
                ("PROXY_HOPS", "1"),
                ("CLIENT_ADDRESS_HEADER", "CF-Connecting-IP"),
            ],
            "cf-connecting-ip",
        ),
    ] {
        let service = Service::start(&[&[("LIMITS_FILE", &*limits)], variables].concat());
        for address in ["203.0.113.9", "203.0.113.10"] {
            for expected in [401, 401, 401, 401, 401, 429] {
                let reply = ask(&service, &[(header, address)]).await;
                assert_eq!(reply.status, expected, "{header} {address}");
            }
        }
    }
    let service = Service::start(&[
        ("LIMITS_FILE", &*limits),
        ("PROXY_HOPS", "1"),
        ("CLIENT_ADDRESS_HEADER", "forwarded"),
        ("CLIENT_IPV6_PREFIX", "56"),
    ]);
    // One subscriber with 256 networks.
    for (network, expected) in [
        (0, 401),
        (1, 401),
        (2, 401),
        (0xfe, 401),
        (0xff, 401),
        (3, 429),
    ] {
        let forwarded = format!("for=\"[2001:db8:0:{network:x}::1]\"");
        let reply = ask(&service, &[("forwarded", &forwarded)]).await;
        assert_eq!(reply.status, expected, "{forwarded}");
    }
}

/// Each request and each denial has a line, in which nobody is named.
#[tokio::test]
async fn requests_and_denials_are_logged_under_hashes() {
    let service = Service::start(&[("AUDIT_SECRET", "of the log")]);
    for _ in 0..21 {
        service
            .post("/api/companyResearch", "demo-alice", "{}")
            .await;
    }
    service
        .post(
            "/agent/secret-session/turns/1/tools/t",
            "demo-alice",
            r#"{"cost": 1}"#,
        )
        .await;
    ask(&service, &[]).await;
    let mut log = String::new();
    integration_tests::eventually("the lines", async || {
        log.push_str(&service.log());
        (log.matches("ai_service::http::log:").count() >= 23).then_some(())
    })
    .await;
    let lines: Vec<&str> = log.lines().collect();
    let with = |words: &[&str]| {
        let has = |line: &&&str| words.iter().all(|word| line.contains(word));
        lines.iter().filter(has).count()
    };
    let route = "method=POST route=\"/api/{operation}\" caller=\"";
    assert_eq!(
        with(&["INFO", route, "answered status=200 millis="]),
        20,
        "{log}"
    );
    assert_eq!(
        with(&[
            "INFO",
            route,
            "policy=\"companyResearch\"",
            "denied status=429"
        ]),
        1,
        "{log}"
    );
    assert_eq!(
        with(&[
            "route=\"/agent/{session}/turns/{turn}/tools/{tool}\"",
            "status=200"
        ]),
        1,
        "{log}"
    );
    assert_eq!(with(&["answered status=401"]), 1, "{log}");
    for word in ["alice", "demo-", "secret-session"] {
        assert!(!log.contains(word), "{word}: {log}");
    }
}
