//! Random histories over every action, several keys, several instances and clock moves, as a state
//! machine: the models of `integration_tests::model`, the memory store and Redis answer alike at every
//! step.
//!
//! `LIMITER_SEED` repeats a run; the seed is printed.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]
#![expect(clippy::print_stdout, reason = "how much was compared")]

mod events;
mod quotas;
mod reference;
mod stores;

/// In each test; `stores` asserts how many steps that were, and that all answers are equal.
const HISTORIES: u32 = 230;

#[test]
fn fixed_windows() {
    stores::run::<quotas::FixedWindows>(HISTORIES);
}

#[test]
fn calendar_windows() {
    stores::run::<quotas::CalendarWindows>(HISTORIES);
}

#[test]
fn sliding_counters() {
    stores::run::<quotas::SlidingCounters>(HISTORIES);
}

#[test]
fn sliding_logs() {
    stores::run::<quotas::SlidingLogs>(HISTORIES);
}

#[test]
fn token_buckets() {
    stores::run::<quotas::TokenBuckets>(HISTORIES);
}

#[test]
fn concurrency() {
    stores::run::<quotas::Concurrency>(HISTORIES);
}

#[test]
fn groups_of_every_algorithm() {
    stores::run::<quotas::Every>(HISTORIES);
}
