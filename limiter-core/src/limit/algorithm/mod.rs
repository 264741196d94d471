//! The algorithms: pure functions of a state, a quota and a time. No I/O, no clock.
//!
//! Each algorithm answers a few questions about its state (the trait `Algorithm`); [`step`] derives the
//! verdict, what is used, `retry_after` and `reset_after` from them, for all algorithms alike.
//! An in-process store keeps [`State`]s and calls [`step`]; the Redis scripts mirror these
//! modules file by file, and a differential test holds the two equal.

mod fixed_window;
mod sliding_window;
mod token_bucket;

use std::time::Duration;

use super::action::Action;
use super::observed::{Observed, Source, Verdict};
use super::quota::Quota;
use crate::clock::{MAX_INTEGER, Timestamp};
use crate::error::{Error, ErrorKind};

pub use fixed_window::{FixedWindow, FixedWindowState};
pub use sliding_window::{SlidingWindow, SlidingWindowState};
pub use token_bucket::{TokenBucket, TokenBucketState};

/// What an in-process store keeps for one key. A missing state is a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Of [`Quota::FixedWindow`].
    FixedWindow(FixedWindowState),
    /// Of [`Quota::SlidingWindow`].
    SlidingWindow(SlidingWindowState),
    /// Of [`Quota::TokenBucket`].
    TokenBucket(TokenBucketState),
}

impl State {
    /// Whether the state says no more than a missing one would, so that it can be dropped.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        match self {
            Self::FixedWindow(state) => state.is_over(now),
            Self::SlidingWindow(state) => state.is_over(now),
            Self::TokenBucket(state) => state.is_full(now),
        }
    }
}

/// What [`step`] found: the state to keep if the whole group is admitted, and what to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stepped {
    /// The state after the action; the state as of now where the action was not admitted.
    pub state: Option<State>,
    /// Whether a charge keeps `state` even when it is denied: a changed quota or a clock that stepped
    /// back changed what the stored state means, and the reported time to wait counts on that.
    pub mended: bool,
    /// What to report.
    pub observed: Observed,
}

/// Takes one action on the state of one key.
///
/// `state` is what the store holds (`None`: nothing), `action` one that [`Action::cost`] or a reset
/// describes. A state of another algorithm is a fresh one. Pure: the caller decides whether the
/// returned state is kept.
///
/// # Errors
/// `Unsupported` for the actions that need more than one key's state (refund, reservations, leases).
pub fn step(
    quota: &Quota,
    state: Option<State>,
    now: Timestamp,
    action: &Action<'_>,
) -> Result<Stepped, Error> {
    match quota {
        Quota::FixedWindow(quota) => {
            let state = match state {
                Some(State::FixedWindow(state)) => Some(state),
                _ => None,
            };
            step_with(quota, state, now, action, State::FixedWindow)
        }
        Quota::SlidingWindow(quota) => {
            let state = match state {
                Some(State::SlidingWindow(state)) => Some(state),
                _ => None,
            };
            step_with(quota, state, now, action, State::SlidingWindow)
        }
        Quota::TokenBucket(quota) => {
            let state = match state {
                Some(State::TokenBucket(state)) => Some(state),
                _ => None,
            };
            step_with(quota, state, now, action, State::TokenBucket)
        }
    }
}

/// What one algorithm knows. Costs are in `1..=capacity`; states come from [`Algorithm::settle`].
trait Algorithm {
    type State: Copy;

    fn capacity(&self) -> u64;

    /// The stored state as of `now`: what has run out is gone, what a changed quota or a clock that
    /// stepped back makes impossible is mended. Idempotent.
    fn settle(&self, stored: Option<Self::State>, now: Timestamp) -> Self::State;

    /// See [`Stepped::mended`].
    fn mends(&self, _stored: &Self::State, _settled: &Self::State) -> bool {
        false
    }

    /// How much of the capacity is taken: what a request sees that is admitted or not.
    fn used(&self, state: &Self::State, now: Timestamp) -> u64;

    /// How long until `cost` alone is admitted; zero if it is now.
    fn wait(&self, state: &Self::State, now: Timestamp, cost: u64) -> Duration;

    fn charge(&self, state: Self::State, cost: u64) -> Self::State;
}

fn step_with<A: Algorithm>(
    quota: &A,
    stored: Option<A::State>,
    now: Timestamp,
    action: &Action<'_>,
    wrap: fn(A::State) -> State,
) -> Result<Stepped, Error> {
    let mut settled = quota.settle(stored, now);
    let cost = match *action {
        Action::Charge { cost } | Action::Peek { cost } => cost,
        Action::Reset => {
            return Ok(Stepped {
                state: None,
                mended: false,
                observed: Observed {
                    verdict: Verdict::Admit,
                    used: 0,
                    reset_after: Duration::ZERO,
                    source: Source::Store,
                },
            });
        }
        _ => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "limit.step",
                "this action needs more than a key's own state",
            ));
        }
    };
    let mended = stored.is_some_and(|stored| quota.mends(&stored, &settled));
    let verdict = if cost == 0 {
        Verdict::Admit
    } else if cost > quota.capacity() {
        Verdict::Never
    } else {
        match quota.wait(&settled, now, cost) {
            Duration::ZERO => Verdict::Admit,
            retry_after => Verdict::Deny { retry_after },
        }
    };
    if verdict == Verdict::Admit && matches!(action, Action::Charge { cost: 1.. }) {
        settled = quota.charge(settled, cost);
    }
    // A peek creates nothing.
    let keep = stored.is_some() || matches!(action, Action::Charge { cost: 1.. });
    Ok(Stepped {
        state: keep.then(|| wrap(settled)),
        mended,
        observed: Observed {
            verdict,
            used: quota.used(&settled, now),
            reset_after: quota.wait(&settled, now, quota.capacity()),
            source: Source::Store,
        },
    })
}

/// The finest of 1 us, 1 ms and 1 s that divides `length` (microseconds) and that `fits` accepts
/// for the length counted in that unit.
fn finest_unit(length: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    [1, 1_000, 1_000_000]
        .into_iter()
        .find(|unit| length.is_multiple_of(*unit) && fits(length / unit))
}

/// `a * b + c` if it stays below 2^53.
fn exact(a: u64, b: u64, c: u64) -> Option<u64> {
    a.checked_mul(b)?
        .checked_add(c)
        .filter(|value| *value <= MAX_INTEGER)
}

/// Limits and capacities stay below this, so that sums of a few stay exact.
const LIMIT_BOUND: u64 = 1 << 51;

fn check_limit(what: &'static str, limit: u64) -> Result<(), Error> {
    if limit == 0 || limit >= LIMIT_BOUND {
        return Err(invalid(format!(
            "{what} is {limit}; it must be at least 1 and below 2^51"
        )));
    }
    Ok(())
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, "quota", message)
}
