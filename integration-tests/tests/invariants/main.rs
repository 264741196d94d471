//! The invariants of the limits, each a property over memory and Redis, reached through several
//! instances. What is checked is computed from the recorded admissions alone.
//!
//! `LIMITER_SEED` repeats a run; the seed is printed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: its failures are panics"
)]

mod bounds;
mod charges;
mod clock;
mod costs;
mod expiry;
mod groups;
mod play;
mod waiting;
