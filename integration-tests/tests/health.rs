//! D1: health never fails, and says in words what is.

use std::time::Instant;

use integration_tests::{RedisServer, eventually, policy, redis_limiter};
use limiter_core::cache::CacheStore;
use limiter_core::limit::{Limiter, Period, Quota};
use limiter_core::{Health, Key};
use limiter_redis::{RedisCache, RedisConfig, RedisStore};

#[tokio::test]
async fn health_tells_what_is() {
    let mut server = RedisServer::start_tcp();
    let config: RedisConfig = server.config();
    let store = RedisStore::new(&config).unwrap();
    let limiter = Limiter::new(store.clone());
    let cache = RedisCache::new(&config).unwrap();
    let up = limiter.health().await;
    assert!(up.connected && up.backend == "redis", "{up:?}");
    assert!(
        up.latency.is_some_and(|latency| !latency.is_zero()),
        "{up:?}"
    );
    assert_eq!(
        up.message,
        format!("limits are shared through Redis at {}", config.host())
    );
    let up = cache.health().await;
    assert_eq!(up.message, format!("cached in Redis at {}", config.host()));
    assert!(limiter.is_healthy().await && up.connected);

    eventually("both are warm", async || {
        cache.warm_up().await.and(store.warm_up().await).ok()
    })
    .await;
    let told = |health: &Health| {
        assert_eq!(health.servers.len(), 1, "{health:?}");
        let server = &health.servers[0];
        assert_eq!(server.host, config.host());
        assert!(server.version.is_some() && server.memory_used > Some(0));
    };
    told(&limiter.health().await);
    told(&cache.health().await);

    server.stop();
    eventually("an end of health", async || {
        (!limiter.is_healthy().await && !cache.health().await.connected).then_some(())
    })
    .await;
    for down in [limiter.health().await, cache.health().await] {
        // What it told last.
        told(&down);
        assert!(!down.connected && down.latency.is_none(), "{down:?}");
        assert!(down.message.contains(&config.host()), "{down:?}");
    }
    server.restart();
    eventually("health after the outage", async || {
        limiter.is_healthy().await.then_some(())
    })
    .await;
}

/// `/health` is open to everybody, so asking for it must not take the checks' connections, nor cost a command each time.
#[tokio::test]
async fn health_takes_nothing_from_the_checks() {
    const ASKING: usize = 64;
    let server = RedisServer::start();
    let config = server.config().with_pool_size(1);
    let limiter = redis_limiter(&config);
    let policy = policy(Quota::fixed_window(1_000, Period::HOUR));
    let key = Key::new(["ratelimit", "health"]);
    limiter.try_check(&policy, &key).await.unwrap();
    let start = Instant::now();
    let asking: Vec<_> = (0..ASKING)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move {
                let mut healthy = 0;
                for _ in 0..100 {
                    healthy += usize::from(limiter.is_healthy().await);
                }
                healthy
            })
        })
        .collect();
    for used in 2..=100 {
        assert_eq!(limiter.try_check(&policy, &key).await.unwrap().used, used);
    }
    for asking in asking {
        assert_eq!(asking.await.unwrap(), 100);
    }
    let pings = server.calls("ping");
    assert!(
        (1..=1 + start.elapsed().as_secs()).contains(&pings),
        "{pings}"
    );
}
