//! Contracts and algorithms of rate limits that are exact across instances, and of shared caches.
//!
//! This crate does no I/O: stores are elsewhere (`limiter-memory`, `limiter-redis`), and so is HTTP
//! (`limiter-http`). Applications usually depend on the facade, `limiter`.
//!
//! - [`limit`]: [`Quota`](limit::Quota) and [`Policy`](limit::Policy) say what is allowed,
//!   [`Limiter`](limit::Limiter) asks, [`LimitStore`](limit::LimitStore) is what a backend implements.
//!   [`limit::algorithm`] has the algorithms as pure functions.
//! - [`breaker`]: leaves a store alone that fails, and asks it carefully again.
//! - [`cache`]: [`CacheStore`](cache::CacheStore), bytes with a time to live.
//! - [`Key`]: names that a user's text cannot break. [`clock`]: time as an argument. [`Error`]: what
//!   went wrong, and whether it took effect.
//!
//! # A backend in a few lines
//!
//! A store that keeps one state a key in a map. (The real one, `limiter-memory`, is bounded and
//! sharded.)
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
