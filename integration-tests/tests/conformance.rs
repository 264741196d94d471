//! The suite of limiter-core over a real Redis, as the least-privilege user of the setup guide.

use std::sync::Arc;
use std::time::Duration;

use integration_tests::{Bench, RedisServer};
use limiter_core::cache::CacheStore;
use limiter_core::conformance::{CacheHarness, caches, limits};
use limiter_redis::RedisCache;

#[tokio::test(flavor = "multi_thread")]
async fn redis_limits_conform() {
    limits(&Bench::new().await).await;
}

struct Cache {
    cache: RedisCache,
    _server: RedisServer,
}

#[async_trait::async_trait]
impl CacheHarness for Cache {
    fn store(&self) -> Arc<dyn CacheStore> {
        Arc::new(self.cache.clone())
    }

    /// Redis's clock cannot be moved, and values here expire by it: the pause of a poll, which the suite
    /// bounds.
    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_caches_conform() {
    let server = RedisServer::start();
    let cache = RedisCache::new(&server.config()).unwrap();
    let cache = Cache {
        cache,
        _server: server,
    };
    caches(&cache).await;
}
