//! Rate limits: quotas, keys, decisions, and the contract of the stores that count.
//!
//! Data flows one way: request -> [`Key`](crate::Key) + [`Policy`] -> [`Limiter`] ->
//! [`LimitStore`] -> [`Decision`]. The rooms, in that order: the words ([`Period`], [`Quota`], [`Policy`]), the
//! [algorithms](algorithm), the [contract of a store](store), the [limiter], the [wrappers](wrap) around a store.

pub mod algorithm;
pub mod limiter;
mod period;
mod policy;
mod quota;
mod share;
pub mod store;
#[cfg(test)]
mod tests;
mod unit;
pub mod wrap;

pub use algorithm::Calendar;
pub use limiter::{
    Acquired, Charge, Charged, Decision, GIVE_BACKS, GiveBackQueue, GiveBackStats, GroupDecision,
    Lease, LeaseStatus, Limiter, LivePolicy, ModelCall, ModelCallReserved, Outcome, Reservation,
    Reserved, Settled, TokenUsage,
};
pub use period::Period;
pub use policy::{Outage, Policy};
pub use quota::Quota;
pub use share::Share;
pub use store::{
    Action, Capabilities, ChargeRecord, Counter, Group, Issuer, LimitStore, MAX_HOLD, MAX_LIFE,
    MAX_STEPS, MapStates, Mark, OPERATION_TTL, Observed, OperationId, OperationRecord, Place,
    Receipt, Record, RecordKind, Replay, Source, States, Status, Step, Verdict, apply_group,
};
pub use unit::{Unit, UnitName};
