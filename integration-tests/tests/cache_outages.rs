//! A cache whose Redis is away: it is left alone, its counters go on in this process, and its values are misses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use integration_tests::{RedisServer, eventually};
use limiter_core::breaker::{Breaker, BreakerConfig};
use limiter_core::cache::{Breaking, CacheKey, CacheStore, Fallback, NewEntry};
use limiter_core::clock::{ManualClock, Timestamp};
use limiter_core::conformance::{CacheHarness, caches};
use limiter_core::{ErrorKind, Key, OutageLog, Substitute};
use limiter_memory::{MemoryCache, MemoryConfig};
use limiter_redis::RedisCache;

const HOUR: Duration = Duration::from_secs(3_600);

fn key(name: &str) -> CacheKey {
    CacheKey::new(&Key::new(["rate", "session"]), name)
}

/// E2: from 0, with its own time to live, and on from there in the next outage.
#[tokio::test]
async fn increments_go_on_in_this_process() {
    let mut server = RedisServer::start_tcp();
    let log = OutageLog::new();
    let cache = RedisCache::new(&server.config()).unwrap();
    let cache = Fallback::new(cache, MemoryCache::new(), log.clone());
    let (tool, other) = (key("tool"), key("other"));
    for expected in [2, 4] {
        assert_eq!(cache.increment(&tool, 2, HOUR).await.unwrap(), expected);
    }
    let value = NewEntry::new("value", HOUR);
    cache.set(&other, value.clone()).await.unwrap();
    server.stop();
    for expected in [1, 2] {
        assert_eq!(cache.increment(&tool, 1, HOUR).await.unwrap(), expected);
    }
    let counted = cache.get(&tool).await.unwrap().unwrap();
    assert_eq!((&*counted.value, counted.ttl <= HOUR), (&b"2"[..], true));
    let both = cache
        .get_many(&[other.clone(), tool.clone()])
        .await
        .unwrap();
    assert!(both[0].is_none());
    assert_eq!(both[1].as_ref().unwrap().value, counted.value);
    // A value is a miss, and what cannot be written says so.
    assert!(cache.get(&other).await.unwrap_err().kind().is_outage());
    assert!(
        cache
            .set(&other, value)
            .await
            .unwrap_err()
            .kind()
            .is_outage()
    );
    server.restart();
    // It is empty.
    let back = async || {
        let sum = cache.increment(&tool, 1, HOUR).await.unwrap();
        server
            .try_command::<Option<i64>>(&["GET", tool.as_str()])
            .flatten()
            .map(|at| (sum, at))
    };
    let (sum, at_redis) = eventually("the counter is at Redis", back).await;
    assert_eq!(sum, at_redis);
    let counted = |what: Substitute| log.totals().find(|(kind, _)| *kind == what).unwrap().1;
    assert!(counted(Substitute::Counted) >= 4 && counted(Substitute::Missed) >= 2);
    server.stop();
    let sum = cache.increment(&tool, 1, HOUR).await.unwrap();
    assert!(sum >= 3, "where it was: {sum}");
    assert_eq!(cache.increment(&tool, 1, HOUR).await.unwrap(), sum + 1);
    // What is removed is removed here too, though Redis cannot be told.
    for clears in [false, true] {
        cache.increment(&tool, 1, HOUR).await.unwrap();
        let removed = match clears {
            true => cache.clear(tool.namespace()).await.map(drop),
            false => cache.delete(&tool).await.map(drop),
        };
        assert!(removed.unwrap_err().kind().is_outage());
        assert!(cache.get(&tool).await.unwrap_err().kind().is_outage());
    }
    // Misuse is no outage.
    let never = cache.increment(&tool, 1, Duration::ZERO).await.unwrap_err();
    assert_eq!(never.kind(), ErrorKind::InvalidInput);
}

/// I-B3: a frozen Redis costs a few calls their deadline, and then nobody.
#[tokio::test]
async fn a_frozen_redis_is_left_alone_and_taken_back() {
    let deadline = Duration::from_millis(200);
    let server = RedisServer::start_tcp();
    let cache = RedisCache::new(&server.config().with_cache_deadline(deadline)).unwrap();
    eventually("the cache", async || cache.get(&key("a")).await.ok()).await;
    let stalled = server.stall();
    let mut kinds = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let error = cache.get(&key("a")).await.unwrap_err();
        if error.kind() == ErrorKind::BreakerOpen {
            assert!(start.elapsed() < deadline / 2, "{:?}", start.elapsed());
            assert!(error.retry_after().is_some(), "{error}");
        }
        kinds.push(error.kind());
    }
    let waited = kinds.iter().filter(|kind| **kind == ErrorKind::Timeout);
    assert_eq!(waited.count(), 5, "{kinds:?}");
    let health = cache.health().await;
    assert!(!health.connected, "{health:?}");
    assert!(health.message.contains("breaker is open"), "{health:?}");
    drop(stalled);
    eventually("the cache again", async || cache.get(&key("a")).await.ok()).await;
}

struct Wrapped {
    cache: Arc<dyn CacheStore>,
    clock: ManualClock,
}

#[async_trait]
impl CacheHarness for Wrapped {
    fn store(&self) -> Arc<dyn CacheStore> {
        self.cache.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[tokio::test]
async fn the_wrappers_of_a_cache_conform() {
    let clock = ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456));
    let config = MemoryConfig::default().with_clock(clock.clone());
    let breaker = Breaker::new("memory", BreakerConfig::default());
    let cache = Breaking::new(MemoryCache::with_config(&config), breaker);
    let cache = Fallback::new(cache, MemoryCache::new(), OutageLog::new());
    let cache = Arc::new(cache);
    caches(&Wrapped { cache, clock }).await;
}
