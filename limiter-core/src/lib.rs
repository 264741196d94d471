//! Contracts and algorithms of rate limits that are exact across instances, and of shared caches.
//!
//! This crate does no I/O. The stores are in `limiter-memory` and `limiter-redis`, HTTP is in `limiter-http`. Applications
//! usually depend on the facade, `limiter`.
//!
//! - [`limit`]: [`Quota`](limit::Quota) and [`Policy`](limit::Policy) define what is allowed,
//!   [`Limiter`](limit::Limiter) checks it, and backends implement [`LimitStore`](limit::LimitStore).
//!   [`limit::algorithm`] contains the algorithms as pure functions.
//! - [`breaker`]: a circuit breaker in front of a store.
//! - [`cache`]: [`CacheStore`](cache::CacheStore), the contract of a cache of bytes with a time to live.
//! - [`Key`]: the name of a counter, encoded so that a user's text cannot change its structure. [`clock`]: time as an argument.
//!   [`Error`]: what failed, and whether the call took effect.
//!
//! # A backend in a few lines
//!
//! This store keeps the state of each key in a map. (`limiter-memory` is the real one: bounded and sharded.)
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//! use limiter_core::clock::{Clock, SystemClock};
//! use limiter_core::limit::algorithm::State;
//! use limiter_core::limit::{
//!     Capabilities, Group, Issuer, LimitStore, Limiter, MapStates, Observed, Period, Policy, Quota, apply_group,
//! };
//! use limiter_core::{Error, Health};
//!
//! #[derive(Debug)]
//! struct MapStore(Mutex<HashMap<String, State>>, Issuer);
//!
//! #[async_trait::async_trait]
//! impl LimitStore for MapStore {
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::ALL
//!     }
//!     fn is_issuer(&self, issuer: Issuer) -> bool {
//!         issuer == self.1
//!     }
//!     fn try_apply_now(&self, group: &Group<'_>, observed: &mut [Observed]) -> Option<Result<(), Error>> {
//!         let mut map = self.0.lock().unwrap();
//!         Some(apply_group(group, &mut MapStates::new(group, &mut map, self.1), SystemClock.now(), observed))
//!     }
//!     async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
//!         self.try_apply_now(group, observed).expect("always answers")
//!     }
//!     async fn health(&self) -> Health {
//!         Health::new("map", true, None, "in this process")
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let limiter = Limiter::new(MapStore(Mutex::default(), Issuer::unique()));
//! let policy = Policy::new("cover-letter", Quota::fixed_window(2, Period::HOUR)?)?;
//! let key = policy.key(["42"]);
//! assert_eq!(key.as_str(), "ratelimit:cover-letter:42");
//! assert_eq!(limiter.check(&policy, &key).await.remaining, 1);
//! assert!(limiter.check(&policy, &key).await.is_allowed());
//! let third = limiter.check(&policy, &key).await;
//! assert!(!third.is_allowed() && third.retry_after().is_some());
//! # Ok::<(), Error>(())
//! # }).unwrap();
//! ```
//!
//! # Features
//!
//! - `conformance`: [`conformance`](https://docs.rs/limiter-core), the suite that every backend calls
//!   from its tests. Off by default.

pub mod breaker;
pub mod cache;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod figures;
mod fingerprint;
mod health;
mod key;
pub mod limit;
mod log_limit;
mod outage_log;
pub mod ranking;
mod sync;
#[cfg(test)]
mod testing;

pub use error::{Effect, Error, ErrorKind};
pub use figures::Figure;
pub use fingerprint::Fingerprint;
pub use health::{Health, ServerInfo};
pub use key::{IdentitySecret, Key, KeyBuilder};
pub use log_limit::LogLimit;
pub use outage_log::{OutageLog, Substitute};
