//! Rate limits and a cache that all instances share through Redis (6.2 or later) or Valkey.
//!
//! - [`RedisStore`]: a [`LimitStore`](limiter_core::limit::LimitStore). Checks that arrive at the same time share one script
//!   call.
//! - [`ClusterStore`]: the same over a Redis Cluster, with its own slot map and one pool for each node.
//! - [`RedisCache`]: a [`CacheStore`](limiter_core::cache::CacheStore) with its own pool.
//! - [`RedisConfig`]: URL, key prefix, pool size, deadlines, TLS. [`RedisEnv`] reads the same from the environment.
//!   [`CredentialsProvider`] and [`Resolver`] supply the credentials and the address of each new connection.
//! - [`describe`], [`describe_leases`]: print the value of a counter for people, as the program `limiter-state KEY...` does.
//!
//! A store connects when it is first used. It has separate connections for each tokio runtime that uses it. An error says whether
//! the call took effect; a call that may have been sent is never sent again.
//!
//! ```
//! use limiter_core::ErrorKind;
//! use limiter_core::limit::{Limiter, Period, Policy, Quota};
//! use limiter_redis::{RedisConfig, RedisStore};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! // Port 1 is never a Redis: the check says so at once, and that nothing was charged.
//! let config = RedisConfig::new("redis://127.0.0.1:1")?.with_key_prefix("myapp:")?;
//! let limiter = Limiter::new(RedisStore::new(&config)?);
//! let policy = Policy::new("api", Quota::fixed_window(20, Period::HOUR)?)?;
//! let error = limiter.try_check(&policy, &policy.key(["42"])).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Connection);
//! assert_eq!(error.effect(), limiter_core::Effect::No);
//! # Ok::<(), limiter_core::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Features
//!
//! - `fuzzing`: how a script's reply is read, as a function over bytes. Off by default.
//! - `metrics`: how long calls take and how large batches are, through the `metrics` facade. Off by default.
//! - `virtual-clock`: for tests, a store whose time is a key in Redis that the test sets. Off by
//!   default.

mod batch;
mod cache;
mod cluster;
mod config;
mod connect;
mod describe;
mod env;
mod error;
mod guard;
mod limit;
mod pool;
mod runtime;
mod script;
mod warm_up;

pub use cache::RedisCache;
pub use cluster::{ClusterStore, CrossSlot, slot_of};
pub use config::RedisConfig;
pub use connect::{Credentials, CredentialsProvider, PasswordFile, Resolver};
pub use describe::{describe, describe_leases};
pub use env::RedisEnv;
pub use limit::RedisStore;
#[cfg(feature = "fuzzing")]
pub use script::{hot::read_hot_bytes, reply::read_bytes};
#[cfg(feature = "virtual-clock")]
#[doc(hidden)]
pub use script::{hot_script, limit_script};
