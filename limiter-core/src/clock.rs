//! Time as an argument: microseconds since the Unix epoch, from a clock that tests can move.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The largest integer that every part of a limit may hold: 2^53 - 1, because numbers in Redis
/// scripts are doubles.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A moment: whole microseconds since the Unix epoch, at most [`MAX_INTEGER`] (the year 2255).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `micros` microseconds after the epoch; later than the largest one is the largest.
    pub const fn from_micros(micros: u64) -> Self {
        Self(if micros > MAX_INTEGER {
            MAX_INTEGER
        } else {
            micros
        })
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the epoch, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// This moment plus `by`, rounded down to a microsecond.
    #[must_use]
    pub fn saturating_add(self, by: Duration) -> Self {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        Self::from_micros(self.0.saturating_add(micros))
    }

    /// Time from `earlier` until this moment; zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Where an in-process store reads the time. (A Redis store reads Redis's own `TIME`.)
pub trait Clock: Send + Sync + fmt::Debug {
    /// Now. May step back, unless the clock says that it does not; stores grant nothing for that.
    fn now(&self) -> Timestamp;
}

/// The machine's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Timestamp::default().saturating_add(since)
    }
}

/// A clock that never steps back: the wall clock's time when it was made, and the monotonic time that has passed since.
///
/// Cheaper than [`SystemClock`] where the system's monotonic clock is, and unmoved by whoever sets the wall clock. For the
/// same reason it drifts from the calendar, by as much as the wall clock was corrected since. Clones and copies show
/// the same time.
#[derive(Clone, Copy, Debug)]
pub struct MonotonicClock {
    start: Timestamp,
    made: Instant,
}

impl MonotonicClock {
    /// A clock that goes on from the wall clock's time.
    pub fn new() -> Self {
        Self::from(SystemClock.now())
    }

    /// A clock that goes on from `start`.
    pub fn from(start: Timestamp) -> Self {
        Self {
            start,
            made: Instant::now(),
        }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Timestamp {
        self.start.saturating_add(self.made.elapsed())
    }
}

/// A clock that moves only when a test says so. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use limiter_core::clock::{Clock, ManualClock, Timestamp};
///
/// let clock = ManualClock::at(Timestamp::from_micros(1_000));
/// clock.advance(Duration::from_micros(5));
/// assert_eq!(clock.now().as_micros(), 1_005);
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn at(start: Timestamp) -> Self {
        Self(Arc::new(AtomicU64::new(start.as_micros())))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().saturating_add(by));
    }

    /// Sets the clock, also back.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.as_micros(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monotonic_clock_goes_on_from_its_start() {
        let start = Timestamp::from_micros(1_000);
        let clock = MonotonicClock::from(start);
        let mut last = start;
        for _ in 0..1_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(MonotonicClock::new().now() > last, "the wall clock's time");
    }
}
