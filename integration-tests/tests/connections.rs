//! Which connections are used again, and which are not.

#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{RedisServer, eventually, policy, redis_limiter};
use limiter_core::cache::{CacheKey, CacheStore};
use limiter_core::limit::{LimitStore, Limiter, Outcome, Period, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{RedisCache, RedisStore};

/// A caller that gives up early costs nobody a connection, and what it asked for is counted if it was done.
#[tokio::test]
async fn a_dropped_call_costs_no_connection() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config().with_pool_size(1)).unwrap();
    let limiter = Limiter::new(store.clone());
    let policy = policy(Quota::fixed_window(5, Period::HOUR));
    let key = Key::new(["ratelimit", "dropped"]);
    limiter.try_check(&policy, &key).await.unwrap();
    let before = server.connections();
    assert_eq!(before.len(), 1);

    let stalled = server.stall();
    let impatience = Duration::from_millis(20);
    let call = tokio::time::timeout(impatience, limiter.try_check(&policy, &key));
    assert!(call.await.is_err(), "a stalled server does not answer");
    drop(stalled);

    let decision = limiter.try_check(&policy, &key).await.unwrap();
    assert_eq!(decision.outcome, Outcome::Allowed);
    assert_eq!(decision.used, 3, "what was sent was done");
    assert_eq!(store.unheard(), 1);
    assert_eq!(server.connections(), before);
}

/// D3: what the server or the network ended meanwhile is not found out by a charge.
#[tokio::test]
async fn a_connection_that_has_ended_is_replaced_before_the_next_charge() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config().with_pool_size(1));
    let policy = policy(Quota::fixed_window(5, Period::HOUR));
    let key = Key::new(["ratelimit", "idle"]);
    for used in 1..=3 {
        let decision = limiter.try_check(&policy, &key).await.unwrap();
        assert_eq!(decision.used, used);
        assert_eq!(
            server.command::<i64>(&["CLIENT", "KILL", "USER", "limiter"]),
            1
        );
        eventually("another connection", async || {
            (server.connections().len() == 1).then_some(())
        })
        .await;
    }
}

/// A read is one transaction; the error inside it is the one that is told.
#[tokio::test]
async fn a_cached_key_of_another_type_is_foreign() {
    let server = RedisServer::start();
    let cache = RedisCache::new(&server.config()).unwrap();
    let key = CacheKey::new(&Key::new(["cache", "op"]), "list");
    server.command::<i64>(&["RPUSH", key.as_str(), "x"]);
    let foreign = cache.get(&key).await.unwrap_err();
    assert_eq!(
        (foreign.kind(), foreign.effect()),
        (ErrorKind::Foreign, Effect::No),
        "{foreign}"
    );

    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let refused = cache.delete(&key).await.unwrap_err();
    assert_eq!(
        (refused.kind(), refused.effect()),
        (ErrorKind::Server, Effect::No),
        "{refused}"
    );
}

/// SEMANTICS: a shadow step never blocks, also where its key cannot be used.
#[tokio::test]
async fn a_shadow_on_a_foreign_key_does_not_block_its_group() {
    use limiter_core::limit::Charge;
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let enforced = policy(Quota::fixed_window(5, Period::HOUR));
    let shadow = policy(Quota::fixed_window(5, Period::HOUR)).with_shadow(true);
    let (key, list) = (
        Key::new(["ratelimit", "a"]),
        Key::new(["ratelimit", "list"]),
    );
    server.command::<i64>(&["RPUSH", list.as_str(), "x"]);
    let group = [Charge::new(&shadow, &list), Charge::new(&enforced, &key)];
    let decision = limiter.try_check_all(&group).await.unwrap();
    assert!(decision.is_allowed(), "{decision:?}");
    assert_eq!(server.command::<String>(&["GET", key.as_str()]), "1");
    assert_eq!(
        server.command::<Vec<String>>(&["LRANGE", list.as_str(), "0", "-1"]),
        ["x"]
    );
}

/// A server that answers nobody is away: that is no lack of connections in this process, which a breaker must not open for.
#[tokio::test]
async fn a_frozen_server_is_no_lack_of_connections() {
    let server = RedisServer::start();
    let deadline = Duration::from_millis(100);
    let config = server.config().with_check_deadline(deadline);
    let policy = policy(Quota::fixed_window(5_000, Period::HOUR));
    for size in [1, 4] {
        let limiter = redis_limiter(&config.clone().with_pool_size(size));
        let key = Key::new(["ratelimit", "frozen"]);
        eventually("a connection", async || {
            limiter.try_check(&policy, &key).await.ok()
        })
        .await;
        let _stalled = server.stall();
        let mut checks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (limiter, policy, key) = (limiter.clone(), policy.clone(), key.clone());
            checks.spawn(async move { limiter.try_check(&policy, &key).await });
        }
        while let Some(check) = checks.join_next().await {
            let error = check.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{size}: {error}");
        }
    }
}
