//! Rate limits and a cache that instances share through Redis (6.2 or later).
//!
//! - [`RedisStore`]: a [`LimitStore`](limiter_core::limit::LimitStore). Groups that come at
//!   once share a script call.
//! - [`ClusterStore`]: the same over a Redis Cluster, with a slot map of its own and a pool a node.
//! - [`RedisCache`]: a [`CacheStore`](limiter_core::cache::CacheStore) over a pool of its own.
//! - [`RedisConfig`]: URL, key prefix, pool size, deadlines, TLS. [`RedisEnv`]: the same from the
//!   environment. [`CredentialsProvider`], [`Resolver`]: as whom and where to, asked at each connection.
//! - [`describe`], [`describe_leases`]: what a counter's value in Redis says, for people; the program `limiter-state KEY...` prints it.
//!
//! All connect when they are first used, in the tokio runtime of whoever uses them: each has connections of its own. Errors say
//! whether the call took effect; a call that may have been sent is never sent again.
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
