//! The suite of limiter-core over the in-process backend.

use std::sync::Arc;
use std::time::Duration;

use limiter_core::cache::CacheStore;
use limiter_core::clock::{ManualClock, Timestamp};
use limiter_core::conformance::{CacheHarness, LimitHarness, caches, limits};
use limiter_core::limit::LimitStore;
use limiter_memory::{MemoryCache, MemoryConfig, MemoryStore, Overflow};

/// 2026-11-21 00:00:00.123456 UTC.
const START: Timestamp = Timestamp::from_micros(1_795_219_200_123_456);

struct Memory {
    clock: ManualClock,
    limits: MemoryStore,
    cache: MemoryCache,
}

impl Memory {
    fn new(overflow: Overflow) -> Self {
        let clock = ManualClock::at(START);
        let config = MemoryConfig::default()
            .with_clock(clock.clone())
            .with_overflow(overflow);
        Self {
            clock,
            limits: MemoryStore::with_config(&config),
            cache: MemoryCache::with_config(&config),
        }
    }
}

#[async_trait::async_trait]
impl LimitHarness for Memory {
    fn store(&self) -> Arc<dyn LimitStore> {
        Arc::new(self.limits.clone())
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[async_trait::async_trait]
impl CacheHarness for Memory {
    fn store(&self) -> Arc<dyn CacheStore> {
        Arc::new(self.cache.clone())
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_conform() {
    limits(&Memory::new(Overflow::Refuse)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_conform_when_new_keys_may_share() {
    limits(&Memory::new(Overflow::Share)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_conform() {
    caches(&Memory::new(Overflow::Refuse)).await;
}
