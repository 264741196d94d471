//! The breaker in front of a real Redis: what is sent while it is open, who opens it, and what it costs.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{Proxy, RedisServer, eventually, policy, redis_limiter};
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{Charge, Limiter, OperationId, Outage, Period, Policy, Quota, Share};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_memory::{MemoryConfig, MemoryStore};
use limiter_redis::{RedisConfig, RedisStore};
use tokio::time::{Instant, sleep};

/// The backoffs of five seconds, the first four of them short, each at least half as long as it may be.
const KNOCKS: u64 = 4 + 10 + 1;

fn monthly() -> Policy {
    policy(Quota::fixed_window(1_000_000, Period::MONTH))
}

fn key() -> Key {
    Key::new(["ratelimit", "user", "42"])
}

/// 200 checks a second for a while; how many were answered by a breaker, and how many not in its name.
async fn ask(limiter: &Limiter, length: Duration) -> (u64, u64) {
    let end = Instant::now() + length;
    let (mut refused, mut others) = (0, 0);
    while Instant::now() < end {
        let answer = limiter.try_check(&monthly(), &key()).await;
        match answer.map_err(|error| error.kind()) {
            Err(ErrorKind::BreakerOpen) => refused += 1,
            _ => others += 1,
        }
        // A rate needs time.
        sleep(Duration::from_millis(5)).await;
    }
    (refused, others)
}

/// I-B3: an open breaker sends no checks, and a handshake or a PING a backoff: a second, or half of it.
#[tokio::test]
async fn an_open_breaker_knocks_and_nothing_else() {
    const LENGTH: Duration = Duration::from_secs(5);
    let mut server = RedisServer::start_tcp();
    let proxy = Proxy::start(server.port()).await;
    let config = RedisConfig::new(&server.url_at(proxy.port())).unwrap();
    let limiter = redis_limiter(&config);
    eventually("a check", async || {
        limiter.try_check(&monthly(), &key()).await.ok()
    })
    .await;
    // Stopped: the connections stay, and are asked.
    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    let stalled = server.stall();
    let before = proxy.connected();
    let (refused, others) = ask(&limiter, LENGTH).await;
    assert!(refused > 100 && others <= 10, "{refused} {others}");
    let handshakes = proxy.connected() - before;
    assert!(handshakes <= KNOCKS, "{handshakes} handshakes");
    server_commands(&limiter, stalled, &server, others).await;
    // Gone: each knock is a handshake.
    server.stop();
    ask(&limiter, Duration::from_millis(500)).await;
    let before = proxy.connected();
    let (refused, others) = ask(&limiter, LENGTH).await;
    assert!(refused > 100 && others <= 10, "{refused} {others}");
    let handshakes = proxy.connected() - before;
    assert!(
        (3..=KNOCKS).contains(&handshakes),
        "{handshakes} handshakes"
    );
}

/// What the server reads when it goes on: the checks that were under way, and the knocks.
async fn server_commands(
    limiter: &Limiter,
    stalled: integration_tests::Stalled<'_>,
    server: &RedisServer,
    others: u64,
) {
    drop(stalled);
    let sent = server.calls("evalsha");
    assert!(sent <= others + 4, "{sent} of {others}");
    let pings = server.calls("ping");
    assert!((1..=KNOCKS + others).contains(&pings), "{pings}");
    eventually("a check again", async || {
        limiter.try_check(&monthly(), &key()).await.ok()
    })
    .await;
}

/// I-R2, I-R3, N3: the request arrives, its reply does not. Under an operation's id a retry charges nothing more.
#[tokio::test]
async fn a_lost_reply_is_asked_for_again_by_its_id() {
    let server = RedisServer::start_tcp();
    let proxy = Proxy::start(server.port()).await;
    let config = RedisConfig::new(&server.url_at(proxy.port())).unwrap();
    let limiter = redis_limiter(&config.with_check_deadline(Duration::from_millis(300)));
    let (policy, key) = (monthly(), key());
    let counted = || server.command::<u64>(&["GET", key.as_str()]);
    let charge = [Charge::new(&policy, &key).with_cost(7)];
    // The server knows the script from now on: without it, a request is sent once more, behind a reply.
    let first = OperationId::new("payment-0");
    eventually("a charge", async || {
        limiter.charge_once(&first, &charge).await.ok()
    })
    .await;
    let before = counted();
    proxy.lose_replies(true);
    let id = OperationId::new("payment-1");
    let lost = limiter.charge_once(&id, &charge).await.unwrap_err();
    assert_eq!(
        (lost.kind(), lost.effect()),
        (ErrorKind::Timeout, Effect::Unknown)
    );
    eventually("it has arrived", async || {
        (counted() == before + 7).then_some(())
    })
    .await;
    proxy.lose_replies(false);
    proxy.cut();
    let again = async || limiter.charge_once(&id, &charge).await.ok();
    let (decision, _) = eventually("an answer", again).await;
    assert!(
        decision.is_allowed() && decision.is_replay(),
        "{decision:?}"
    );
    assert_eq!(counted(), before + 7);
}

/// Misuse and a caller's own haste open no breaker: neither that of a deadline before anything is sent, nor that of one before the
/// answer.
#[tokio::test]
async fn who_is_at_fault_opens_no_breaker() {
    let server = RedisServer::start_tcp();
    let proxy = Proxy::start(server.port()).await;
    let config = RedisConfig::new(&server.url_at(proxy.port())).unwrap();
    let limiter = redis_limiter(&config.with_check_deadline(Duration::from_secs(10)));
    server.command::<()>(&["LPUSH", "ratelimit:foreign", "1"]);
    let foreign = Key::new(["ratelimit", "foreign"]);
    limiter.try_check(&monthly(), &key()).await.unwrap();
    proxy.delay(Duration::from_millis(20));
    for _ in 0..20 {
        let error = limiter.try_check(&monthly(), &foreign).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
        // Of all calls more than half, which is too many if they were failures; and fewer in a row than speak against a server.
        for millis in [0, 20, 20, 20, 20] {
            let haste = Duration::from_millis(millis).max(Duration::from_micros(1));
            let hasty = limiter.clone().with_deadline(haste);
            let late = hasty.try_check(&monthly(), &key()).await;
            assert!(late.is_err_and(|error| error.kind() == ErrorKind::Timeout));
        }
        assert!(limiter.try_check(&monthly(), &key()).await.is_ok());
    }
}

/// Known fault: "in-process stores that grow without bound, or that a full cache empties": a flood of ids while Redis is away.
#[tokio::test]
async fn a_flood_of_ids_in_an_outage_is_bounded() {
    const KEYS: usize = 20_000;
    let mut server = RedisServer::start_tcp();
    let config = server.config();
    server.stop();
    let local = MemoryStore::with_config(&MemoryConfig::default().with_keys(KEYS).unwrap());
    let stack = Stack::new(RedisStore::new(&config).unwrap()).local(local.clone());
    let limiter = Limiter::raw(stack.build());
    let share = Share::WHOLE;
    let policy = policy(Quota::fixed_window(3, Period::DAY)).with_outage(Outage::Local { share });
    let known = policy.key(["known"]);
    for expected in [true, true, true, false] {
        let decision = limiter.check(&policy, &known).await;
        assert_eq!((decision.is_allowed(), decision.degraded), (expected, true));
    }
    let mut admitted = 0;
    for id in 0..1_000_000 {
        let decision = limiter.check(&policy, &policy.key([id.to_string()])).await;
        admitted += usize::from(decision.is_allowed());
    }
    assert_eq!(admitted, KEYS - 1, "one place was taken");
    assert!(local.len() <= KEYS);
    assert!(limiter.check(&policy, &known).await.retry_after().is_some());
}

/// Where nobody calls any more, whoever looks at the numbers has the server asked whether it is back.
#[tokio::test]
async fn a_breaker_that_nobody_calls_is_not_open_for_ever() {
    let mut server = RedisServer::start_tcp();
    let store = RedisStore::new(&server.config()).unwrap();
    let limiter = Limiter::new(store);
    let stands = || {
        let figures = limiter.figures();
        let state = figures.iter().find(|it| it.name == "limiter_breaker_state");
        state.map(|it| it.value)
    };
    limiter.try_check(&monthly(), &key()).await.unwrap();
    assert_eq!(stands(), Some(0.0), "closed");
    server.stop();
    eventually("it opens", async || {
        let _ = limiter.try_check(&monthly(), &key()).await;
        (stands() == Some(2.0)).then_some(())
    })
    .await;
    server.restart();
    // No call: only looks.
    eventually("half open", async || {
        let is_back = stands() == Some(1.0);
        // The pause of a poll: the server's process needs the core that polling without one would take.
        sleep(Duration::from_millis(10)).await;
        is_back.then_some(())
    })
    .await;
    limiter.try_check(&monthly(), &key()).await.unwrap();
    assert_eq!(stands(), Some(0.0));
}
