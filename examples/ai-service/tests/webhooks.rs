//! Messages of other services: signed, each taken once, limited per provider (C1, C4).
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use integration_tests::RedisServer;
use reqwest::Method;
use support::{Hook, Reply, Service};

const BODY: &str = r#"{"event": "paid"}"#;

async fn send(service: &Service, provider: &str, hook: &Hook, body: &str) -> Reply {
    let path = format!("/webhooks/{provider}");
    service
        .send(Method::POST, &path, &hook.headers(), body)
        .await
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// A provider that nobody listed has no counter: a sender cannot start a limit anew under another name.
#[tokio::test]
async fn providers_are_a_closed_list() {
    let service = Service::start(&[]);
    for provider in ["stripe2", "Stripe", "stripe%20", "%73tripe:", "demo"] {
        let hook = Hook::new("demo-webhook-secret", provider, "1", BODY);
        let refused = send(&service, provider, &hook, BODY).await;
        refused.assert_problem(404);
        assert!(refused.headers.get("x-ratelimit-limit").is_none());
    }
    for provider in ["stripe", "github", "slack", "sendgrid"] {
        let hook = Hook::new("demo-webhook-secret", provider, "1", BODY);
        let received = send(&service, provider, &hook, BODY).await;
        assert_eq!(received.number("x-ratelimit-remaining"), 99, "{provider}");
    }
}

/// C4: the signature is checked before the limiter, under a secret of the provider's own.
#[tokio::test]
async fn only_signed_messages_are_taken_and_counted() {
    let service = Service::start(&[
        ("WEBHOOK_SECRET_STRIPE", "of stripe"),
        ("WEBHOOK_SECRET_GITHUB", "of github"),
    ]);
    for _ in 0..150 {
        let hook = Hook::new("demo-webhook-secret", "stripe", "1", BODY);
        send(&service, "stripe", &hook, BODY)
            .await
            .assert_problem(401);
    }
    let good = Hook::new("of stripe", "stripe", "1", BODY);
    send(&service, "stripe", &good, "{}")
        .await
        .assert_problem(401);
    for hook in [
        Hook::new("of github", "stripe", "1", BODY),
        Hook::new("of stripe", "github", "1", BODY),
        Hook {
            id: "2".to_owned(),
            ..Hook::new("of stripe", "stripe", "1", BODY)
        },
        Hook {
            timestamp: (now() + 60).to_string(),
            ..Hook::at(now(), "of stripe", "stripe", "1", BODY)
        },
        // Known fault: an old message could be sent again for ever.
        Hook::at(now() - 310, "of stripe", "stripe", "1", BODY),
        Hook::at(now() + 310, "of stripe", "stripe", "1", BODY),
        Hook {
            id: String::new(),
            ..Hook::new("of stripe", "stripe", "", BODY)
        },
    ] {
        send(&service, "stripe", &hook, BODY)
            .await
            .assert_problem(401);
    }
    // What was signed, cut at another place: another id, and another body.
    let whole = Hook::new("of stripe", "stripe", "1", r#"{"a": 1.5}"#);
    let cut = Hook {
        id: r#"1.{"a": 1"#.to_owned(),
        ..whole
    };
    send(&service, "stripe", &cut, "5}")
        .await
        .assert_problem(401);
    service
        .send(Method::POST, "/webhooks/stripe", &[], BODY)
        .await
        .assert_problem(401);
    let received = send(&service, "stripe", &good, BODY).await;
    assert_eq!(received.status, 202);
    assert_eq!(
        received.number("x-ratelimit-remaining"),
        99,
        "strangers used nothing up"
    );
}

/// Known fault: a message was taken as often as it was sent. Here on two instances.
#[tokio::test]
async fn a_message_is_taken_once() {
    let redis = RedisServer::start();
    let services = [
        Service::on_redis(&redis.url()),
        Service::on_redis(&redis.url()),
    ];
    let hook = Hook::new("demo-webhook-secret", "stripe", "evt_1", BODY);
    let sent = (0..20).map(|at| send(&services[at % 2], "stripe", &hook, BODY));
    let replies = futures_util::future::join_all(sent).await;
    let fresh = replies
        .iter()
        .filter(|reply| reply.body["duplicate"] == false);
    assert_eq!(fresh.count(), 1);
    assert!(
        replies.iter().all(|reply| reply.status == 202),
        "{replies:?}"
    );

    // Nothing more is charged, and the message is remembered for as long as its time counts.
    let key = "ratelimit:demo:webhook:webhooks:POST:stripe";
    let operations = redis.command::<Vec<String>>(&["KEYS", "ratelimit:%operation:*"]);
    let [operation] = &*operations else {
        panic!("{operations:?}");
    };
    let left = redis.command::<i64>(&["TTL", operation]);
    assert!((590..=601).contains(&left), "{left}");
    let other = Hook::new("demo-webhook-secret", "stripe", "evt_2", BODY);
    let other = send(&services[1], "stripe", &other, BODY).await;
    assert_eq!(other.body["duplicate"], false);
    assert!(other.number("x-ratelimit-remaining") >= 98);
    // Also if its counter is gone.
    redis.command::<u64>(&["DEL", key]);
    let again = send(&services[0], "stripe", &hook, BODY).await;
    assert_eq!(
        (again.status.as_u16(), &again.body["duplicate"]),
        (202, &true.into())
    );
}

/// A message that the limit refuses was not taken: the sender's next try is.
#[tokio::test]
async fn a_message_that_is_refused_is_not_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limits.toml");
    let limits = include_str!("../limits.toml");
    let few = "[policies.webhook]\nalgorithm = \"fixed_window\"\nquota = \"1/5 s\"";
    let many = "[policies.webhook]\nalgorithm = \"token_bucket\"\nquota = \"100/minute\"";
    std::fs::write(&path, limits.replace(many, few)).unwrap();
    let service = Service::start(&[("LIMITS_FILE", path.to_str().unwrap())]);
    let hook = |id| Hook::new("demo-webhook-secret", "stripe", id, BODY);
    assert_eq!(send(&service, "stripe", &hook("1"), BODY).await.status, 202);
    send(&service, "stripe", &hook("2"), BODY)
        .await
        .assert_problem(429);
    let taken = integration_tests::eventually("room for it", async || {
        let reply = send(&service, "stripe", &hook("2"), BODY).await;
        (reply.status == 202).then_some(reply)
    })
    .await;
    assert_eq!(taken.body["duplicate"], false);
}

/// Known fault: a service with users of its own took messages that anybody could sign.
#[tokio::test]
async fn the_demos_secret_is_taken_where_the_demos_users_are() {
    let directory = tempfile::tempdir().unwrap();
    let users = directory.path().join("users.json");
    let text = r#"[{"key": "my own", "user": "alice", "tenant": "demo"}]"#;
    std::fs::write(&users, text).unwrap();
    let service = Service::start(&[
        ("USERS_FILE", users.to_str().unwrap()),
        ("WEBHOOK_SECRET_GITHUB", "of github"),
    ]);
    let demo = |provider| Hook::new("demo-webhook-secret", provider, "1", BODY);
    for (provider, status) in [("stripe", 404), ("slack", 404), ("github", 401)] {
        let refused = send(&service, provider, &demo(provider), BODY).await;
        refused.assert_problem(status);
    }
    let own = Hook::new("of github", "github", "1", BODY);
    assert_eq!(send(&service, "github", &own, BODY).await.status, 202);
    let log = support::failing_start(&[
        ("USERS_FILE", users.to_str().unwrap()),
        ("WEBHOOK_SECRET_SLACK", "demo-webhook-secret"),
    ]);
    assert!(
        log.contains("WEBHOOK_SECRET_SLACK is the demo's secret"),
        "{log}"
    );
    let log = support::failing_start(&[("WEBHOOK_SECRET", "of all")]);
    assert!(log.contains("WEBHOOK_SECRET is not used"), "{log}");
}
