//! What the tests share: real servers, and stores whose time a test can move.
//!
//! - [`RedisServer`]: a `redis-server` of its own for each test, ended with it.
//! - [`RedisCluster`]: three masters, whose slots can be moved while they are used.
//! - [`RedisSentinels`]: a primary and its replica, watched by three sentinels.
//! - [`Bench`]: the memory and the Redis store under one clock.
//! - [`TokioClock`]: a store's time that follows tokio's paused one.
//! - [`fault`]: stores that lose requests and replies, a network that holds packets back, a server that answers what a test says.
//! - [`AgentLoad`]: the load of an AI agent on several instances.
//! - [`Logs`]: what was logged.
//! - [`model`]: each limit from its definition, to compare stores with.
//! - [`matrix`]: every fault, and a checker of what came of it.
//! - [`random`]: what property tests draw.
//! - [`GCRA`]: the smallest script that limits anything, to measure beside.
//! - [`needs!`]: leaves a test out where the server program lacks what it needs.
//! - [`policy`], [`ten_years`], [`redis_limiter`], [`eventually`]: what nearly every test needs.
//!
//! ```
//! use integration_tests::{RedisServer, policy, redis_limiter};
//! use limiter_core::Key;
//! use limiter_core::limit::{Period, Quota};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let server = RedisServer::start();
//! let limiter = redis_limiter(&server.config());
//! let policy = policy(Quota::fixed_window(20, Period::HOUR));
//! let decision = limiter.check(&policy, &Key::new(["ratelimit", "api", "42"])).await;
//! assert_eq!(decision.remaining, 19);
//! assert_eq!(server.command::<String>(&["GET", "ratelimit:api:42"]), "1");
//! # });
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: a failure is a panic"
)]

mod agent_load;
mod bench;
mod clock;
mod cluster;
pub mod fault;
mod gcra;
mod launch;
mod logs;
pub mod matrix;
pub mod model;
mod needs;
pub mod random;
mod sentinel;
mod server;

use std::time::{Duration, Instant};

use limiter_core::Error;
use limiter_core::limit::{Limiter, Period, Policy, Quota};
use limiter_redis::{RedisConfig, RedisStore};

pub use agent_load::AgentLoad;
pub use bench::Bench;
pub use clock::TokioClock;
pub use cluster::{Moving, RedisCluster};
pub use fault::{Fault, Faulty, Proxy, ReplyProxy};
pub use gcra::GCRA;
pub use logs::Logs;
pub use needs::leave_out;
pub use sentinel::RedisSentinels;
pub use server::{RedisServer, Stalled};

/// A policy named after its algorithm.
pub fn policy(quota: Result<Quota, Error>) -> Policy {
    let quota = quota.unwrap();
    Policy::new(quota.algorithm(), quota).unwrap()
}

/// For sliding windows at the real clock: they are aligned to the epoch, and none of this length ends
/// while a test runs.
pub fn ten_years() -> Period {
    Period::new(3_650 * Period::DAY.as_duration()).unwrap()
}

/// A limiter over a Redis store of its own: what one instance of a service has.
pub fn redis_limiter(config: &RedisConfig) -> Limiter {
    Limiter::new(RedisStore::new(config).unwrap())
}

/// Asks until there is an answer, without a pause of its own.
///
/// # Panics
/// If there is none after 20 s.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::task::yield_now().await;
    }
}

/// A value as `limiter_redis` keeps it: the letter of its kind, its version, and numbers of seven bytes.
pub fn state(letter: u8, version: u8, numbers: &[u64]) -> Vec<u8> {
    let mut value = vec![letter, version];
    for number in numbers {
        value.extend_from_slice(&number.to_be_bytes()[1..]);
    }
    value
}
