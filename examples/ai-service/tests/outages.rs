//! Outages over HTTP: each scope answers by its rule, within the deadline, says so, and comes back by itself.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod support;

use std::time::{Duration, Instant};

use integration_tests::{RedisServer, eventually, needs};
use support::{Hook, Reply, Service, limits_of_many};

const ALICE: &str = "demo-alice";
const ADMIN: &str = "demo-admin";

/// The service's own deadlines.
const DEADLINES: [(&str, &str); 2] = [
    ("REDIS_DEADLINE_MILLIS", "100"),
    ("CACHE_REDIS_DEADLINE_MILLIS", "500"),
];

fn started(url: &str, more: &[(&str, &str)]) -> Service {
    Service::start(&[&[("REDIS_URL", url)], &DEADLINES[..], more].concat())
}

fn degraded(reply: &Reply) -> Option<&str> {
    let rule = reply.headers.get("x-ratelimit-degraded")?;
    Some(rule.to_str().unwrap())
}

async fn is_back(service: &Service) {
    eventually("Redis is used again", async || {
        let reply = service.post("/api/careerAdvice", ALICE, "{}").await;
        (reply.status == 200 && degraded(&reply).is_none()).then_some(())
    })
    .await;
}

/// C2, E2, I-B2, N5: `webhook` and `admin` fail closed, `api` fails open, agents go on with this instance's share.
#[tokio::test]
async fn each_scope_answers_by_its_rule() {
    let mut redis = RedisServer::start_tcp();
    let service = started(&redis.url(), &[]);
    redis.stop();
    let open = service.post("/api/emailDraft", ALICE, "{}").await;
    assert_eq!(open.status, 200, "{open:?}");
    assert_eq!(degraded(&open), Some("allowed"));
    assert_eq!(open.number("x-ratelimit-limit"), 20);
    for unknown in ["x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit"] {
        assert!(!open.headers.contains_key(unknown), "{open:?}");
    }
    let admin = service.get("/api/admin/users", ADMIN).await;
    let body = "{}";
    let hook = Hook::new("demo-webhook-secret", "stripe", "1", body);
    let path = "/webhooks/stripe";
    let hook = service
        .send(reqwest::Method::POST, path, &hook.headers(), body)
        .await;
    for (closed, limit) in [(admin, 5), (hook, 100)] {
        closed.assert_problem(429);
        assert_eq!(degraded(&closed), Some("denied"));
        assert_eq!(closed.number("retry-after"), 1);
        assert_eq!(closed.number("x-ratelimit-limit"), limit);
        assert_eq!(closed.number("x-ratelimit-remaining"), 0);
        closed.number("x-ratelimit-reset");
        let kind = closed.body["type"].as_str().unwrap();
        assert!(kind.ends_with("limiter-unavailable"), "{kind}");
    }
    let tool = async |cost: u64| {
        let body = format!(r#"{{"cost": {cost}}}"#);
        let path = "/agent/s1/turns/7/tools/search";
        service.post(path, ALICE, body).await
    };
    // Half of 10 a turn.
    for left in (0..5).rev() {
        let local = tool(1).await;
        assert_eq!(local.status, 200, "{local:?}");
        assert_eq!(degraded(&local), Some("local"));
        assert_eq!(local.number("x-ratelimit-limit"), 5);
        assert_eq!(local.number("x-ratelimit-remaining"), left);
    }
    tool(1).await.assert_limited("search", 5);
    // More than this instance may ever admit, and less than the limit: later, and not never.
    let dear = tool(6).await;
    dear.assert_problem(429);
    assert_eq!(degraded(&dear), Some("denied"));
    let health = service.get("/health", ALICE).await;
    assert_eq!(health.body["status"], "degraded", "{}", health.text);
    assert!(health.body["degraded_for_seconds"].is_number());
    // The operation's own limit, and the group of those of the model.
    assert_eq!(health.body["answered_without_redis"]["allowed"], 2);
    assert_eq!(health.body["answered_without_redis"]["local"], 6);
    let metrics = service.get("/metrics", ALICE).await.text;
    let counted = metrics
        .contains(r#"limiter_degraded_total{policy="emailDraft",scope="api",rule="allowed"} 1"#);
    assert!(counted, "{metrics}");

    redis.restart();
    is_back(&service).await;
    let closed = service.get("/api/admin/users", ADMIN).await;
    assert_eq!(closed.status, 200, "{closed:?}");
    // What was counted here does not count there.
    let shared = tool(1).await;
    assert_eq!(shared.number("x-ratelimit-remaining"), 9, "{shared:?}");
    assert!(!service.log().contains("limiter-secret"));
}

/// The limits of B6 and D3: in this process, while Redis is away.
fn in_memory() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limits.toml");
    let text = limits_of_many();
    let local = r#"outage = { local = "1/1" }"#;
    std::fs::write(&path, text.replace(r#"outage = "allow""#, local)).unwrap();
    let path = path.display().to_string();
    (directory, path)
}

/// B6, D3: a wrong password, a Redis that is down at the start, and one whose certificate nobody vouches for: the service starts
/// with limits in memory and cache misses, says once what is wrong, and joins when Redis is right.
#[tokio::test]
async fn a_service_starts_without_redis_and_joins() {
    needs!(TLS);
    let (_directory, limits) = in_memory();
    let limits = [("LIMITS_FILE", &*limits)];
    let mut down = RedisServer::start_tcp();
    down.stop();
    let right = RedisServer::start_tcp();
    let wrong = right.url_of("limiter", "wrong-secret");
    let untrusted = RedisServer::start_tls();
    for (url, what) in [
        (down.url(), "onnection refused"),
        (wrong, "check the user and the password"),
        (untrusted.url(), "REDIS_TLS_CA_FILE"),
    ] {
        let service = started(&url, &limits);
        let warnings = service.start_log.lines();
        let warnings: Vec<&str> = warnings.filter(|line| line.contains(what)).collect();
        // One of the limits, one of the caches.
        assert_eq!(warnings.len(), 2, "{}", service.start_log);
        for left in (0..20).rev() {
            let reply = service.post("/api/companyResearch", ALICE, "{}").await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.number("x-ratelimit-remaining"), left);
            assert_eq!(degraded(&reply), Some("local"));
        }
        let denied = service.post("/api/companyResearch", ALICE, "{}").await;
        denied.assert_limited("companyResearch", 20);
        let health = service.get("/health", ALICE).await;
        assert_eq!(health.body["redis_connected"], false, "{}", health.text);
        let all = format!("{}{}{}", service.start_log, service.log(), health.text);
        assert!(!all.contains("-secret"), "{all}");
        if what.starts_with("onnection") {
            down.restart();
            is_back(&service).await;
        } else if what.starts_with("check") {
            right.command::<()>(&["ACL", "SETUSER", "limiter", ">wrong-secret"]);
            is_back(&service).await;
            let health = service.get("/health", ALICE).await;
            assert_eq!(health.body["redis_connected"], true, "{}", health.text);
        }
    }
}

/// I-R5, D3: killed, stalled and restarted ten times under load, nothing but answers; the shared limits hold again within 2 s.
#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_and_goes() {
    let mut redis = RedisServer::start_tcp();
    let service = started(&redis.url(), &[]);
    for round in 0..10 {
        let outage = async {
            for call in 0..20 {
                let path = format!("/agent/s{round}/turns/7/tools/search");
                let local = service.post(&path, ALICE, r#"{"cost": 1}"#).await;
                // This instance's share of a turn, from the first one on.
                let expected = if call < 5 { 200 } else { 429 };
                assert_eq!(local.status, expected, "{local:?}");
                let closed = service.get("/api/admin/limits", ADMIN).await;
                closed.assert_problem(429);
                // The deadline of a check, and what a busy machine takes.
                for reply in [local, closed] {
                    assert!(degraded(&reply).is_some(), "{reply:?}");
                    assert!(reply.elapsed < Duration::from_secs(1), "{reply:?}");
                }
            }
            let open = service.post("/api/emailDraft", ALICE, "{}").await;
            assert_eq!(open.status, 200, "{open:?}");
        };
        if round % 2 == 0 {
            redis.stop();
            outage.await;
            redis.restart();
        } else {
            let stalled = redis.stall();
            outage.await;
            drop(stalled);
        }
        let back = Instant::now();
        is_back(&service).await;
        assert!(
            back.elapsed() < Duration::from_secs(2),
            "{:?}",
            back.elapsed()
        );
        // Its counters are its own again: a restarted one has none.
        redis.command::<()>(&["FLUSHALL"]);
        let closed = service.get("/api/admin/limits", ADMIN).await;
        assert_eq!(closed.status, 200, "{closed:?}");
        assert_eq!(closed.number("x-ratelimit-remaining"), 4);
    }
}

/// A stopped Redis costs ten lines of log in the first second and one a second after, whatever is asked; and no request its
/// deadline, once the breakers are open.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_redis_costs_few_lines_and_no_time() {
    let redis = RedisServer::start_tcp();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limits.toml");
    std::fs::write(&path, limits_of_many()).unwrap();
    let limits = [("LIMITS_FILE", path.to_str().unwrap())];
    let service = started(&redis.url(), &limits);
    is_back(&service).await;
    service.log();
    let _stalled = redis.stall();
    let start = Instant::now();
    let mut lines = Vec::new();
    let mut slow = 0;
    for second in 0..5_u32 {
        let mut requests = Vec::new();
        for request in 0..200 {
            let at = start + Duration::from_secs(1) * second + Duration::from_millis(5) * request;
            tokio::time::sleep_until(at.into()).await;
            let service = service.caller.clone();
            requests.push(tokio::spawn(async move {
                if request % 2 == 0 {
                    // Each of another question, so that the cache is asked.
                    let body = format!(r#"{{"company": "{second}-{request}"}}"#);
                    let reply = service.post("/api/companyResearch", ALICE, body).await;
                    assert_eq!(reply.status, 200, "{reply:?}");
                    return false;
                }
                let path = "/agent/s/turns/t/tools/search";
                let reply = service.post(path, ALICE, r#"{"cost": 1}"#).await;
                assert!([200, 429].contains(&reply.status.as_u16()), "{reply:?}");
                second > 0 && reply.elapsed > Duration::from_millis(90)
            }));
        }
        for request in requests {
            slow += usize::from(request.await.unwrap());
        }
        // Besides the line that each request has.
        let log = service.log();
        let log = log
            .lines()
            .filter(|line| !line.contains("ai_service::http::log:"));
        lines.push(log.map(str::to_owned).collect::<Vec<_>>());
    }
    // Whether Redis is there is asked in the background.
    assert!(slow <= 8, "{slow} of 400 waited");
    assert!((1..=10).contains(&lines[0].len()), "{:#?}", lines[0]);
    let later: usize = lines[1..].iter().map(Vec::len).sum();
    assert!((1..=4).contains(&later), "{:#?}", &lines[1..]);
}

/// What the three limits of a tool call take in memory, at the 99th percentile.
async fn limits_in_memory() -> Duration {
    let limiter = limiter::Limiter::new(limiter::memory::MemoryStore::new());
    let policies = ["turn", "session", "user"].map(|name| {
        let quota = limiter::Quota::fixed_window(1_000_000, limiter::Period::HOUR);
        limiter::Policy::new(name, quota.unwrap()).unwrap()
    });
    let mut took = Vec::new();
    for _ in 0..10_000 {
        let start = Instant::now();
        let keys = policies.each_ref().map(|policy| policy.key(["alice"]));
        let charges = policies.iter().zip(&keys);
        let charges: Vec<_> = charges
            .map(|(policy, key)| limiter::Charge::new(policy, key))
            .collect();
        assert!(limiter.check_all(&charges).await.is_allowed());
        took.push(start.elapsed());
    }
    took.sort_unstable();
    took[9_900]
}

/// With the breaker open a request takes what it takes without limits: beside an instance in memory, in turns, less what the limits
/// take there.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_costs_no_time() {
    const REQUESTS: usize = 400;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("limits.toml");
    let text = limits_of_many();
    let names = text.lines().filter(|line| line.starts_with('['));
    let policy = |name: &str| {
        let unit = if name.contains("tokens") {
            "tokens"
        } else {
            "requests"
        };
        format!("{name}\nquota = '1_000_000/day'\nunit = '{unit}'\noutage = {{ local = '1/1' }}\n")
    };
    std::fs::write(&path, names.map(policy).collect::<String>()).unwrap();
    let limits = [("LIMITS_FILE", path.to_str().unwrap())];
    let redis = RedisServer::start_tcp();
    let services = [started(&redis.url(), &limits), Service::start(&limits)];
    let _stalled = redis.stall();
    let ask = async |service: &Service| {
        let path = "/agent/s1/turns/7/tools/search";
        service.post(path, ALICE, r#"{"cost": 1}"#).await
    };
    eventually("the breaker is open", async || {
        let reply = ask(&services[0]).await;
        (reply.elapsed < Duration::from_millis(50)).then_some(())
    })
    .await;
    let limits = limits_in_memory().await;
    let mut rounds = Vec::new();
    for _ in 0..5 {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..REQUESTS {
            for (service, took) in services.iter().zip(&mut took) {
                let reply = ask(service).await;
                assert_eq!(reply.status, 200, "{reply:?}");
                took.push(reply.elapsed);
            }
        }
        let p99 = took.map(|mut took| {
            took.sort_unstable();
            took[REQUESTS * 99 / 100]
        });
        rounds.push(
            (p99[0]
                .saturating_sub(Duration::from_millis(1))
                .as_secs_f64())
                / p99[1]
                    .saturating_sub(limits)
                    .max(Duration::from_micros(1))
                    .as_secs_f64(),
        );
    }
    rounds.sort_by(f64::total_cmp);
    // What a request may take more is a millisecond and a fifth.
    assert!(rounds[rounds.len() / 2] <= 1.2, "{rounds:?}");
}
