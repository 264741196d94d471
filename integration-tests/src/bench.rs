//! The memory and the Redis store side by side, under one clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use limiter_core::clock::{Clock, ManualClock, Timestamp};
use limiter_core::conformance::LimitHarness;
use limiter_core::limit::LimitStore;
use limiter_memory::{MemoryConfig, MemoryStore};
use limiter_redis::RedisStore;
use tokio::sync::Mutex;

use crate::server::RedisServer;

/// Two stores and the clock that both read. Redis is reached through two instances in turn, of which one has the hot script and
/// the other all in one.
#[derive(Debug)]
pub struct Bench {
    /// The memory store.
    pub memory: MemoryStore,
    instances: Vec<RedisStore>,
    next: AtomicUsize,
    clock: ManualClock,
    redis_clock: Mutex<redis::aio::MultiplexedConnection>,
    /// The server.
    pub server: RedisServer,
}

impl Bench {
    /// Stores whose clock stands at 2026-11-21 00:00:00.123456 UTC.
    pub async fn new() -> Self {
        let server = RedisServer::start();
        let clock = ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456));
        let config = MemoryConfig::default().with_clock(clock.clone());
        let client = redis::Client::open(server.admin_url()).unwrap();
        // Half a second, which is the default, is not enough on a machine that is busy with other things.
        let patient = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(Duration::from_secs(20)))
            .set_connection_timeout(Some(Duration::from_secs(20)));
        let redis_clock = client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
            .unwrap();
        let config_of_server = server.virtual_config();
        let instances = vec![
            RedisStore::with_virtual_clock(&config_of_server).unwrap(),
            RedisStore::with_virtual_clock_and_one_script(&config_of_server).unwrap(),
        ];
        let bench = Self {
            memory: MemoryStore::with_config(&config),
            instances,
            next: AtomicUsize::new(0),
            clock,
            redis_clock: Mutex::new(redis_clock),
            server,
        };
        bench.set(bench.now()).await;
        bench
    }

    /// One of the instances that share the Redis server; the next call gives another.
    pub fn redis(&self) -> &RedisStore {
        &self.instances[self.next.fetch_add(1, Ordering::Relaxed) % self.instances.len()]
    }

    /// The time of both stores.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Sets the time of both stores, also back.
    pub async fn set(&self, to: Timestamp) {
        self.clock.set(to);
        let mut connection = self.redis_clock.lock().await;
        redis::cmd("SET")
            .arg("ratelimit:%virtual:now")
            .arg(to.as_micros())
            .exec_async(&mut *connection)
            .await
            .unwrap();
    }
}

/// The suite's view of the Redis store.
#[async_trait::async_trait]
impl LimitHarness for Bench {
    fn store(&self) -> Arc<dyn LimitStore> {
        Arc::new(self.redis().clone())
    }

    async fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by)).await;
    }
}
