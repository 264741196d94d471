//! Fixed window: a plain count whose key's expiry is the window's end.
//!
//! Mirrors a Redis counter made by `INCR` and `EXPIRE` to the millisecond. A key lives through the
//! millisecond of its expiry, so the time left is `PTTL + 1` ms, and a window of `W` ms is opened
//! with `PX W - 1`: it lasts exactly `W`, and nobody is told to wait longer than that.

use std::time::Duration;

use super::{Algorithm, check_limit, invalid};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::limit::period::Period;

/// The numbers of [`Quota::fixed_window`](crate::limit::Quota::fixed_window).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FixedWindow {
    limit: u64,
    window: Period,
}

/// A count, and the last millisecond (since the epoch) at which it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedWindowState {
    count: u64,
    expires: u64,
}

impl FixedWindow {
    pub(crate) fn new(limit: u64, window: Period) -> Result<Self, Error> {
        check_limit("a fixed window's limit", limit)?;
        if !window.as_micros().is_multiple_of(1_000) || window.as_micros() < 2_000 {
            return Err(invalid(format!(
                "a fixed window of {window} is not whole milliseconds, at least 2: the grain of Redis expiry"
            )));
        }
        Ok(Self { limit, window })
    }

    /// The most in one window.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How long a window lasts.
    pub fn window(&self) -> Period {
        self.window
    }

    /// The window's length in milliseconds, as scripts take it.
    pub fn window_millis(&self) -> u64 {
        self.window.as_micros() / 1_000
    }
}

impl FixedWindowState {
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now.as_millis() > self.expires
    }
}

impl Algorithm for FixedWindow {
    type State = FixedWindowState;

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn settle(&self, stored: Option<FixedWindowState>, now: Timestamp) -> FixedWindowState {
        // A window that a longer quota opened, or that a clock that stepped back makes longer than
        // a whole one, ends with the shorter.
        let end = now.as_millis() + self.window_millis() - 1;
        match stored {
            Some(state) if !state.is_over(now) => FixedWindowState {
                count: state.count,
                expires: state.expires.min(end),
            },
            _ => FixedWindowState {
                count: 0,
                expires: end,
            },
        }
    }

    fn mends(&self, stored: &FixedWindowState, settled: &FixedWindowState) -> bool {
        settled.expires < stored.expires
    }

    fn used(&self, state: &FixedWindowState, _now: Timestamp) -> u64 {
        state.count
    }

    fn wait(&self, state: &FixedWindowState, now: Timestamp, cost: u64) -> Duration {
        if state.count + cost <= self.limit {
            return Duration::ZERO;
        }
        Duration::from_millis(state.expires + 1 - now.as_millis())
    }

    fn charge(&self, state: FixedWindowState, cost: u64) -> FixedWindowState {
        FixedWindowState {
            count: state.count + cost,
            ..state
        }
    }
}
