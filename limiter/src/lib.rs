//! Rate limits that are exact across all instances of a service, and shared caches for AI responses.
//!
//! A request is checked in one direction: request -> [`Key`] + [`Policy`] -> [`Limiter`] -> store -> [`Decision`] -> headers.
#![cfg_attr(
    feature = "memory",
    doc = r##"
```
use limiter::{Period, Policy, Quota};

# tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
// `connect("redis://...")` shares the counts between instances; `from_env()` lets the environment say.
let backends = limiter::connect("memory:").await?;
let letters = Policy::new("cover-letter", Quota::fixed_window(20, Period::HOUR)?)?;
let key = letters.key(["42"]); // ratelimit:cover-letter:42

let decision = backends.limiter.check(&letters, &key).await;
assert!(decision.is_allowed());
assert_eq!((decision.limit, decision.remaining), (20, 19));
# Ok::<(), limiter::Error>(())
# }).unwrap();
```
"##
)]
//!
//! # The map
//!
//! - [`Quota`]: an algorithm and its numbers. [`Policy`]: a quota with a name, a scope and a rule for
//!   outages. [`Key`]: the name of a counter. [`Limiter`]: checks a policy. [`Decision`]: the result.
//! - [`from_env`] and [`connect`] make [`Backends`], a limiter and a cache store, from the environment or a URL; [`Builder`] has
//!   the options.
//! - Reservations, leases and refunds: [`Limiter::reserve`] and [`Reservation`], [`Limiter::acquire`] and
//!   [`Lease`], [`Limiter::charge`] and [`Charged`]. [`LivePolicy`]: quotas that change at run time.
//! - [`Limiter::reserve_model_call`] and [`ModelCall`]: token budgets of AI models. `PaidCall`: one behind a cache.
//! - [`AgentLimits`]: the tools of an AI agent, per turn and per session.
//! - `http`: headers, bodies and a tower layer. `ai_cache`: typed caches. `config`: policies from a
//!   file. `metrics`: every decision counted.
//!   [`events`]: what became of each charge, in the same words for metrics and audit trails.
//! - Contracts for implementors of stores and wrappers are in [`limiter_core`].
//!
//! # Features
//!
//! | Feature | Default | What it adds |
//! |---|---|---|
//! | `memory` | yes | limits and a cache in this process |
//! | `redis` | | limits and a cache shared through Redis |
//! | `http` | | the `http` module: headers, problem bodies, a tower layer |
//! | `axum` | | `http`, whose layer finds the peer in axum's `ConnectInfo` |
//! | `grpc` | | `http`, whose layer finds the peer of tonic's server and refuses with a gRPC status |
//! | `ai-cache` | | the `ai_cache` module: typed caches for AI responses |
//! | `config` | | the `config` module: policies from a TOML, YAML or JSON file |
//! | `metrics` | | the `metrics` module: an observer for the `metrics` facade |
//! | `audit` | | the `audit` module: a line of JSON for each decision |

mod agent;
#[cfg(feature = "audit")]
pub mod audit;
mod backends;
#[cfg(feature = "config")]
pub mod config;
pub mod events;
#[cfg(feature = "metrics")]
pub mod metrics;
mod offenders;
#[cfg(feature = "ai-cache")]
mod paid_call;
#[cfg(feature = "config")]
pub mod switch;
mod thresholds;

pub use agent::{AgentLimits, AgentTurn};
#[cfg(feature = "ai-cache")]
pub use ai_cache;
pub use backends::{Backends, Builder, connect, from_env};
pub use limiter_core;
pub use limiter_core::breaker::BreakerConfig;
pub use limiter_core::cache::{CacheKey, CacheStore};
pub use limiter_core::limit::wrap::{Event, Observer, Portion, Route, Routing, Switch};
pub use limiter_core::limit::{
    Acquired, Calendar, Charge, Charged, Decision, GiveBackStats, GroupDecision, Lease,
    LeaseStatus, LimitStore, Limiter, LivePolicy, ModelCall, ModelCallReserved, Observed,
    OperationId, Outage, Outcome, Period, Policy, Quota, Replay, Reservation, Reserved, Settled,
    Share, Source, Step, TokenUsage, Unit, UnitName, Verdict,
};
pub use limiter_core::{
    Effect, Error, ErrorKind, Health, IdentitySecret, Key, KeyBuilder, OutageLog, ServerInfo,
    Substitute,
};
#[cfg(feature = "http")]
pub use limiter_http as http;
/// The examples of the README and of the page for people who know other libraries, compiled and run.
#[cfg(all(doctest, feature = "ai-cache", feature = "axum", feature = "redis"))]
#[doc = include_str!("../../README.md")]
pub struct Readme;
#[cfg(all(doctest, feature = "ai-cache", feature = "axum", feature = "redis"))]
#[doc = include_str!("../../docs/coming-from.md")]
pub struct ComingFrom;

pub use offenders::Offenders;
#[cfg(feature = "ai-cache")]
pub use paid_call::{CallError, CallFailure, PaidAnswer, PaidCall, Spent};
pub use thresholds::{Crossing, Thresholds};

#[cfg(feature = "memory")]
pub use limiter_memory as memory;
#[cfg(feature = "redis")]
pub use limiter_redis as redis;
