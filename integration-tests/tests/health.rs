//! D1: health never fails, and says in words what is.

use integration_tests::{RedisServer, eventually, redis_limiter};
use limiter_core::cache::CacheStore;
use limiter_redis::{RedisCache, RedisConfig};

#[tokio::test]
async fn health_tells_what_is() {
    let mut server = RedisServer::start_tcp();
    let config: RedisConfig = server.config();
    let limiter = redis_limiter(&config);
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

    server.stop();
    for down in [limiter.health().await, cache.health().await] {
        assert!(!down.connected && down.latency.is_none(), "{down:?}");
        assert!(down.message.contains(&config.host()), "{down:?}");
    }
    server.restart();
    eventually("health after the outage", async || {
        limiter.is_healthy().await.then_some(())
    })
    .await;
}
