//! What users call: a [`Limiter`] over a store, and what it answers.
//!
//! Data flows one way: a [`Charge`] is asked for, the store's observations become a [`Decision`]. Reservations,
//! leases and charges that can be refunded hold what is needed to give them back, which
//! `give_back` does.

mod charge;
mod charged;
mod check;
mod decision;
mod give_back;
mod lease;
mod live;
mod model_call;
mod queues;
mod ready;
mod reserve;

pub use charge::Charge;
pub use charged::Charged;
pub use check::Limiter;
pub use decision::{Decision, GroupDecision, Outcome};
pub use give_back::{GIVE_BACKS, GiveBackQueue, GiveBackStats};
pub use lease::{Acquired, Lease, LeaseStatus};
pub use live::LivePolicy;
pub use model_call::{ModelCall, ModelCallReserved, TokenUsage};
pub use reserve::{Reservation, Reserved, Settled};
