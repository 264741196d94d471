//! What the people who run limits rely on: events, the audit trail, policies that are changed while they are used.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod audit;
mod offenders;
mod spans;
mod thresholds;
