//! Fixed window: a plain count whose key's expiry is the window's end.
//!
//! Mirrors a Redis counter made by `INCR` and `EXPIRE` to the millisecond. A key lives through the
//! millisecond of its expiry, so the time left is `PTTL + 1` ms, and a window of `W` ms is opened
//! with `PX W - 1`: it lasts exactly `W`, and nobody is told to wait longer than that.

use std::time::Duration;

use super::{Algorithm, COUNT_BOUND, Change, Written, check_limit, invalid};
use crate::clock::{MAX_INTEGER, Timestamp};
use crate::error::Error;
use crate::limit::period::Period;
use crate::limit::store::Mark;

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
    /// A state that a store keeps as numbers: the count, and the window's last millisecond since the epoch. `None` if they are none.
    pub fn from_numbers([count, expires]: [u64; 2]) -> Option<Self> {
        let is_state = count.max(expires) <= MAX_INTEGER;
        is_state.then_some(Self { count, expires })
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now.as_millis() > self.expires
    }

    /// No charge yet, in a window whose last millisecond is `expires`.
    pub(super) fn opened(expires: u64) -> Self {
        Self { count: 0, expires }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What is left of a limit, until the window ends.
    pub(super) fn debitable(&self, limit: u64, now: Timestamp, life: Duration) -> (u64, Duration) {
        let left = Duration::from_micros(
            (self.expires + 1)
                .saturating_mul(1_000)
                .saturating_sub(now.as_micros()),
        );
        (limit.saturating_sub(self.count), life.min(left))
    }

    pub(super) fn wait(&self, limit: u64, now: Timestamp, cost: u64) -> Duration {
        if self.count + cost <= limit {
            return Duration::ZERO;
        }
        Duration::from_millis(self.expires + 1 - now.as_millis())
    }

    /// What a charge, or an adjustment of one in this window, makes of it. A charge is marked by its
    /// window's end. In Redis that is told by the key's expiry, a moment after the time was read, so
    /// an end that is off by less than half a window, `tolerance` milliseconds, is the same.
    pub(super) fn write(mut self, now: Timestamp, change: Change, tolerance: u64) -> Written<Self> {
        let here = |mark: Mark| mark.number.abs_diff(self.expires) <= tolerance;
        let mut mark = Mark::default();
        let amount = match change {
            Change::Charge(cost) | Change::Debit(cost, _) => {
                self.count += cost;
                mark = Mark {
                    at: now,
                    number: self.expires,
                };
                cost
            }
            Change::GiveBack(mark, cost) if here(mark) => {
                let given = cost.min(self.count);
                self.count -= given;
                given
            }
            Change::Overrun(mark, cost) if here(mark) => {
                let taken = cost.min(COUNT_BOUND.saturating_sub(self.count));
                self.count += taken;
                taken
            }
            _ => 0,
        };
        Written::new(self, amount, mark)
    }
}

/// When the window of a charge at `mark` is over.
pub(super) fn window_end(mark: Mark) -> Timestamp {
    Timestamp::from_micros(mark.number.saturating_add(1).saturating_mul(1_000))
}

impl Algorithm for FixedWindow {
    type State = FixedWindowState;
    type View = FixedWindowState;

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn is_over(&self, stored: &FixedWindowState, now: Timestamp) -> bool {
        stored.is_over(now)
    }

    fn view(&self, stored: Option<&FixedWindowState>, now: Timestamp) -> FixedWindowState {
        // A window ends when it was opened for, whatever the quota is by then.
        let end = now.as_millis() + self.window_millis() - 1;
        stored.map_or_else(|| FixedWindowState::opened(end), |state| *state)
    }

    fn mends(&self, _stored: &FixedWindowState, _view: &FixedWindowState) -> bool {
        false
    }

    fn debitable(
        &self,
        view: &FixedWindowState,
        now: Timestamp,
        life: Duration,
    ) -> (u64, Duration) {
        view.debitable(self.limit, now, life)
    }

    fn used(&self, view: &FixedWindowState, _now: Timestamp) -> u64 {
        view.count
    }

    fn wait(
        &self,
        _stored: Option<&FixedWindowState>,
        view: &FixedWindowState,
        now: Timestamp,
        cost: u64,
    ) -> Duration {
        view.wait(self.limit, now, cost)
    }

    fn write(
        &self,
        _stored: Option<FixedWindowState>,
        view: FixedWindowState,
        now: Timestamp,
        change: Change,
    ) -> Written<FixedWindowState> {
        view.write(now, change, (self.window_millis() - 1) / 2)
    }

    fn counts_until(&self, mark: Mark) -> Timestamp {
        window_end(mark)
    }
}
