//! Sliding window counter: this window's count plus the last one's, weighted by the part of it
//! that a span of one window's length, ending now, still covers.
//!
//! Source of the estimate: Cloudflare, "How we built rate limiting capable of scaling to millions
//! of domains" (2017). Windows are aligned to the epoch, so that instances agree without a word.
//! Time inside a window is counted in whole units (rounded down, so the last window weighs more,
//! never less) of 1 us, 1 ms or 1 s, the finest for which `limit * window` stays below 2^53.

use std::time::Duration;

use super::{Algorithm, Change, LIMIT_BOUND, Written, check_limit, exact, finest_unit, invalid};
use crate::clock::{MAX_INTEGER, Timestamp};
use crate::error::Error;
use crate::limit::period::Period;
use crate::limit::store::Mark;

/// The numbers of [`Quota::sliding_window`](crate::limit::Quota::sliding_window).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlidingWindow {
    limit: u64,
    window: Period,
    /// Microseconds in a time unit.
    unit: u64,
}

/// The counts of the current window and of the one before it, under the window's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindowState {
    /// Microseconds.
    window: u64,
    /// Microseconds since the epoch.
    start: u64,
    previous: u64,
    current: u64,
}

impl SlidingWindow {
    pub(crate) fn new(limit: u64, window: Period) -> Result<Self, Error> {
        check_limit("a sliding window's limit", limit)?;
        let unit = finest_unit(window.as_micros(), |length| {
            exact(limit, length, 0).is_some()
        })
        .ok_or_else(|| {
            invalid(format!(
                "a sliding window of {limit} per {window} is too large to count exactly; lower the limit or shorten the window"
            ))
        })?;
        Ok(Self {
            limit,
            window,
            unit,
        })
    }

    /// The most in any span of one window's length, by the estimate.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How long a window lasts.
    pub fn window(&self) -> Period {
        self.window
    }

    /// Microseconds in the unit that time is counted in: 1, 1,000 or 1,000,000.
    pub fn unit_micros(&self) -> u64 {
        self.unit
    }

    /// The window's length in units.
    fn length(&self) -> u64 {
        self.window.as_micros() / self.unit
    }

    /// The largest count whose product with the length is exact. A larger one can only come from a
    /// quota that was higher; it weighs as this one, which is at least the limit.
    fn largest_count(&self) -> u64 {
        (MAX_INTEGER / self.length()).min(LIMIT_BOUND)
    }

    /// Whole units since the window's start; zero before it.
    fn elapsed(&self, start: u64, now: Timestamp) -> u64 {
        now.as_micros().saturating_sub(start) / self.unit
    }

    /// What `previous` still weighs, `elapsed` units into the window.
    fn weight(&self, previous: u64, elapsed: u64) -> u64 {
        previous * (self.length() - elapsed) / self.length()
    }

    /// The first moment (microseconds) in the window from `start` at which `previous`, the count of
    /// the window before it, weighs at most `allowed`. `previous > allowed`.
    ///
    /// `floor(previous * left / length) <= allowed` holds up to the largest `left` with
    /// `previous * left < (allowed + 1) * length`.
    fn lightens_at(&self, start: u64, previous: u64, allowed: u64) -> u64 {
        let left = ((allowed + 1) * self.length()).div_ceil(previous) - 1;
        start + (self.length() - left) * self.unit
    }
}

impl SlidingWindowState {
    /// A state that a store keeps as numbers: the window's length and start (us), the count of the window before it, and its own.
    /// `None` if they are none.
    pub fn from_numbers([window, start, previous, current]: [u64; 4]) -> Option<Self> {
        let numbers = [window, start, previous, current];
        let is_state = window > 0 && numbers.iter().all(|number| *number <= MAX_INTEGER);
        is_state.then_some(Self {
            window,
            start,
            previous,
            current,
        })
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let windows = if self.current > 0 { 2 } else { 1 };
        now.as_micros() >= self.start + windows * self.window
    }

    /// Where a window of another length begins so that the counts end no earlier under it than they would have,
    /// `windows` whole windows after the stored start.
    fn moved_to(&self, window: u64, windows: u64, previous: bool, current: bool) -> u64 {
        let start = self.start + windows * self.window;
        // A count ends `last` windows after the start.
        let begins = |counts: bool, last: u64| {
            if !counts {
                return 0;
            }
            let end = start + last * self.window;
            end.next_multiple_of(window).saturating_sub(last * window)
        };
        begins(previous, 1).max(begins(current, 2))
    }
}

impl Algorithm for SlidingWindow {
    type State = SlidingWindowState;
    type View = SlidingWindowState;

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn is_over(&self, stored: &SlidingWindowState, now: Timestamp) -> bool {
        stored.is_over(now)
    }

    fn view(&self, stored: Option<&SlidingWindowState>, now: Timestamp) -> SlidingWindowState {
        let window = self.window.as_micros();
        let start = now.as_micros() - now.as_micros() % window;
        let fresh = SlidingWindowState {
            window,
            start,
            previous: 0,
            current: 0,
        };
        let Some(state) = stored else { return fresh };
        // A clock that stepped back stays in the stored window.
        let windows = now.as_micros().saturating_sub(state.start) / state.window;
        let (previous, current) = match windows {
            0 => (state.previous, state.current),
            1 => (state.current, 0),
            _ => return fresh,
        };
        SlidingWindowState {
            window,
            start: start.max(if state.window == window {
                state.start
            } else {
                state.moved_to(window, windows, previous > 0, current > 0)
            }),
            previous: previous.min(self.largest_count()),
            current: current.min(self.largest_count()),
        }
    }

    fn debitable(
        &self,
        view: &SlidingWindowState,
        now: Timestamp,
        life: Duration,
    ) -> (u64, Duration) {
        let end = Timestamp::from_micros(view.start + self.window.as_micros());
        let free = self.limit.saturating_sub(self.used(view, now));
        (free, life.min(end.saturating_since(now)))
    }

    /// Counts that go on under a window of another length.
    fn mends(&self, stored: &SlidingWindowState, view: &SlidingWindowState) -> bool {
        view.window != stored.window && (view.previous > 0 || view.current > 0)
    }

    fn used(&self, view: &SlidingWindowState, now: Timestamp) -> u64 {
        self.weight(view.previous, self.elapsed(view.start, now)) + view.current
    }

    fn wait(
        &self,
        _stored: Option<&SlidingWindowState>,
        state: &SlidingWindowState,
        now: Timestamp,
        cost: u64,
    ) -> Duration {
        if self.used(state, now) + cost <= self.limit {
            return Duration::ZERO;
        }
        let at = if state.current + cost <= self.limit {
            // The last window has to weigh less; at this window's end it weighs nothing.
            self.lightens_at(
                state.start,
                state.previous,
                self.limit - state.current - cost,
            )
        } else {
            // This window has to become the last one first, and then to weigh less.
            let next = state.start + self.window.as_micros();
            self.lightens_at(next, state.current, self.limit - cost)
        };
        Duration::from_micros(at - now.as_micros())
    }

    /// A charge is marked by the start of the window that it is counted in.
    fn write(
        &self,
        _stored: Option<SlidingWindowState>,
        mut state: SlidingWindowState,
        now: Timestamp,
        change: Change,
    ) -> Written<SlidingWindowState> {
        if let Change::Charge(cost) | Change::Debit(cost, _) = change {
            state.current += cost;
            let mark = Mark {
                at: now,
                number: state.start,
            };
            return Written::new(state, cost, mark);
        }
        let (Change::GiveBack(mark, cost) | Change::Overrun(mark, cost)) = change else {
            return Written::without_effect(state);
        };
        let most = self.largest_count();
        let count = if mark.number >= state.start {
            &mut state.current
        } else if mark.number >= state.start.saturating_sub(state.window) {
            &mut state.previous
        } else {
            return Written::without_effect(state);
        };
        let amount = if matches!(change, Change::GiveBack(..)) {
            let given = cost.min(*count);
            *count -= given;
            given
        } else {
            let taken = cost.min(most - *count);
            *count += taken;
            taken
        };
        Written::new(state, amount, mark)
    }

    fn counts_until(&self, mark: Mark) -> Timestamp {
        Timestamp::from_micros(mark.number.saturating_add(2 * self.window.as_micros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both counts end no earlier under a longer window than they would have.
    #[test]
    fn a_longer_window_forgets_nothing() {
        let seconds = |seconds: u64| seconds * 1_000_000;
        let stored = SlidingWindowState {
            window: seconds(60),
            start: seconds(60),
            previous: 100,
            current: 50,
        };
        let now = Timestamp::from_micros(seconds(89));
        let of = |window: u64| {
            SlidingWindow::new(100, Period::new(Duration::from_secs(window)).unwrap()).unwrap()
        };
        let used = |window| {
            let window = of(window);
            window.used(&window.view(Some(&stored), now), now)
        };
        assert_eq!(used(60), 101);
        for longer in [61, 90, 100, 3_600] {
            assert!(used(longer) >= 101, "{longer}: {}", used(longer));
        }
    }
}
