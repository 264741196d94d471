//! Rate limits and a cache in this process: the embedded default.
//!
//! - [`MemoryStore`]: a [`LimitStore`](limiter_core::limit::LimitStore) on a bounded, sharded table.
//! - [`MemoryCache`]: a [`CacheStore`](limiter_core::cache::CacheStore) on moka.
//! - [`MemoryRanking`]: a [`Ranking`](limiter_core::ranking::Ranking).
//! - [`MemoryConfig`]: capacities, the policy for a full table ([`Overflow`]), the clock.
//!
//! Several instances of a service do not see each other's counts; `limiter-redis` is for that.
//!
//! ```
//! use limiter_core::limit::{Limiter, Period, Policy, Quota};
//! use limiter_memory::MemoryStore;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let limiter = Limiter::new(MemoryStore::new());
//! let policy = Policy::new("api", Quota::token_bucket(10, 600, Period::MINUTE)?)?;
//! let decision = limiter.check_n(&policy, &policy.key(["42"]), 3).await;
//! assert!(decision.is_allowed());
//! assert_eq!(decision.remaining, 7);
//! # Ok::<(), limiter_core::Error>(())
//! # }).unwrap();
//! ```

mod cache;
mod config;
mod limit;
mod ranking;
mod sync;
mod table;

pub use cache::MemoryCache;
pub use config::{MemoryConfig, Overflow};
pub use limit::MemoryStore;
pub use ranking::MemoryRanking;
