//! Rate limits: quotas, keys, decisions, and the contract of the stores that count.
//!
//! Data flows one way: request -> [`Key`](crate::Key) + [`Policy`] -> [`Limiter`] ->
//! [`LimitStore`] -> [`Decision`].

mod action;
pub mod algorithm;
mod decision;
mod group;
mod limiter;
mod observed;
mod period;
mod policy;
mod quota;
mod store;
pub mod wrap;

pub use action::{Action, OperationId, Receipt};
pub use decision::{Decision, GroupDecision, Outcome};
pub use group::{Group, MAX_STEPS, States, Step, apply_group};
pub use limiter::{Charge, Limiter};
pub use observed::{Observed, Source, Verdict};
pub use period::Period;
pub use policy::{Outage, Policy};
pub use quota::Quota;
pub use store::{Capabilities, LimitStore};
