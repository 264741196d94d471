//! The contract of the stores that count, and what it is made of.
//!
//! Data flows one way: an [`Action`] on a key under a policy is a [`Step`], steps are a [`Group`], a
//! [`LimitStore`] applies it and fills one [`Observed`] a step. [`apply_group`] does so for states that are held in
//! this process; what it remembers beside them are [`Record`]s.

mod action;
mod apply;
mod capabilities;
mod contract;
mod counter;
mod group;
mod id;
mod observed;
mod plan;
mod record;
mod states;

pub use action::{Action, MAX_HOLD, MAX_LIFE};
pub use apply::apply_group;
pub use capabilities::Capabilities;
pub use contract::LimitStore;
pub use counter::Counter;
pub(in crate::limit) use group::places;
pub use group::{Group, MAX_STEPS, OPERATION_TTL, Step};
pub use id::{Issuer, Mark, OperationId, Receipt};
pub use observed::{Observed, Replay, Source, Verdict};
pub use record::{ChargeRecord, OperationRecord, Record, RecordKind, Status};
pub use states::{MapStates, Place, States};
