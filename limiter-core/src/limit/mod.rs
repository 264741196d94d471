//! Rate limits: quotas, keys, decisions, and the contract of the stores that count.
//!
//! Data flows one way: request -> [`Key`](crate::Key) + [`Policy`] -> [`Limiter`] ->
//! [`LimitStore`] -> [`Decision`].

mod action;
pub mod algorithm;
mod apply;
mod charge;
mod decision;
mod deliver;
mod group;
mod lease;
mod limiter;
mod live;
mod model_call;
mod observed;
mod period;
mod policy;
mod quota;
mod ready;
mod record;
mod reserve;
mod store;
#[cfg(test)]
mod tests;
pub mod wrap;

pub use action::{Action, MAX_HOLD, OperationId, Receipt};
pub use algorithm::Calendar;
pub use apply::{MapStates, Place, States, apply_group};
pub use charge::Charged;
pub use decision::{Decision, GroupDecision, Outcome};
pub use group::{Group, MAX_STEPS, OPERATION_TTL, Step};
pub use lease::{Acquired, Lease, LeaseStatus};
pub use limiter::{Charge, Limiter};
pub use live::LivePolicy;
pub use model_call::{ModelCall, ModelCallReserved, TokenUsage};
pub use observed::{Mark, Observed, Source, Verdict};
pub use period::Period;
pub use policy::{Outage, Policy, Unit};
pub use quota::Quota;
pub use record::{ChargeRecord, OperationRecord, Record, RecordKind, Status};
pub use reserve::{Reservation, Reserved, Settled};
pub use store::{Capabilities, LimitStore};
