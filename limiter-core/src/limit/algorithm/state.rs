//! What an in-process store keeps under one name.

use super::{
    ConcurrencyState, FixedWindowState, SlidingLogState, SlidingWindowState, TokenBucketState,
};
use crate::clock::Timestamp;
use crate::limit::store::Record;

/// What an in-process store keeps under one name. A missing state is a fresh one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Of [`Quota::FixedWindow`](crate::limit::Quota::FixedWindow) and
    /// [`Quota::CalendarWindow`](crate::limit::Quota::CalendarWindow).
    FixedWindow(FixedWindowState),
    /// Of [`Quota::SlidingWindow`](crate::limit::Quota::SlidingWindow).
    SlidingWindow(SlidingWindowState),
    /// Of [`Quota::SlidingLog`](crate::limit::Quota::SlidingLog).
    SlidingLog(Box<SlidingLogState>),
    /// Of [`Quota::TokenBucket`](crate::limit::Quota::TokenBucket).
    TokenBucket(TokenBucketState),
    /// Of [`Quota::Concurrency`](crate::limit::Quota::Concurrency).
    Concurrency(Box<ConcurrencyState>),
    /// What is remembered of a reservation, a refund or an operation.
    Record(Box<Record>),
}

impl State {
    /// The name of the algorithm whose state it is, for people.
    pub(in crate::limit) fn algorithm(&self) -> &'static str {
        match self {
            Self::FixedWindow(_) => "fixed_window",
            Self::SlidingWindow(_) => "sliding_window",
            Self::SlidingLog(_) => "sliding_log",
            Self::TokenBucket(_) => "token_bucket",
            Self::Concurrency(_) => "concurrency",
            Self::Record(_) => "record",
        }
    }

    /// Whether the state says no more than a missing one would, so that it can be dropped.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        match self {
            Self::FixedWindow(state) => state.is_over(now),
            Self::SlidingWindow(state) => state.is_over(now),
            Self::SlidingLog(state) => state.is_over(now),
            Self::TokenBucket(state) => state.is_full(now),
            Self::Concurrency(state) => state.is_over(now),
            Self::Record(record) => now >= record.expires(),
        }
    }
}
