//! Rate limits and a cache in the memory of one process: the default backend.
//!
//! - [`MemoryStore`]: a [`LimitStore`](limiter_core::limit::LimitStore) over a bounded, sharded table.
//! - [`MemoryCache`]: a [`CacheStore`](limiter_core::cache::CacheStore) over moka.
//! - [`MemoryRanking`]: a [`Ranking`](limiter_core::ranking::Ranking).
//! - [`MemoryConfig`]: capacities, what happens when the table is full ([`Overflow`]), the clock.
//!
//! Each instance of a service has its own counts. To share them, use `limiter-redis`.
//!
//! ```
//! use limiter_core::limit::{Limiter, Policy, Quota};
//! use limiter_memory::MemoryStore;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let limiter = Limiter::new(MemoryStore::new());
//! let policy = Policy::new("api", Quota::per_second(10)?)?;
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
