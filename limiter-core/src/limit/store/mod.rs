//! The contract of the stores that count, and what it is made of.
//!
//! Data flows one way: an [`Action`] on a key under a policy is a [`Step`], steps are a [`Group`], a
//! [`LimitStore`] applies it and fills one [`Observed`] a step. [`apply_group`] does so for states that are held in
//! this process; what it remembers beside them are [`Record`]s.

mod action;
mod apply;
mod capabilities;
mod contract;
mod group;
mod id;
mod observed;
mod record;

pub use action::{Action, MAX_HOLD};
pub use apply::{MapStates, Place, States, apply_group};
pub use capabilities::Capabilities;
pub use contract::LimitStore;
pub use group::{Group, MAX_STEPS, OPERATION_TTL, Step};
pub use id::{Mark, OperationId, Receipt};
pub use observed::{Observed, Source, Verdict};
pub use record::{ChargeRecord, OperationRecord, Record, RecordKind, Status};
