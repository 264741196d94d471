//! When a breaker opens, and for how long.

use std::time::Duration;

/// Settings of a [`Breaker`](super::Breaker).
///
/// It opens after 5 failures in a row, or when half of at least 20 calls within 10 s have failed; then asks again after
/// 100 ms, and after twice as long each time, at most 1 s; and lets 1 call through at a time until one is answered.
///
/// ```
/// use std::time::Duration;
/// use limiter_core::breaker::BreakerConfig;
///
/// let config = BreakerConfig::default()
///     .with_failures_in_a_row(3)
///     .with_open(Duration::from_millis(50), Duration::from_secs(5));
/// assert_eq!(config.failures_in_a_row(), 3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    failures_in_a_row: u32,
    rate: Option<FailureRate>,
    open: Duration,
    longest_open: Duration,
    probes: u32,
}

/// A share of failed calls that opens a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailureRate {
    pub(super) percent: u32,
    pub(super) calls: u32,
    pub(super) window: Duration,
}

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(3_600);

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures_in_a_row: 5,
            rate: Some(FailureRate {
                percent: 50,
                calls: 20,
                window: Duration::from_secs(10),
            }),
            open: Duration::from_millis(100),
            longest_open: Duration::from_secs(1),
            probes: 1,
        }
    }
}

impl BreakerConfig {
    /// How many failures open it, none of them with an answer to another call since it began. At least 1.
    #[must_use]
    pub fn with_failures_in_a_row(self, failures: u32) -> Self {
        Self {
            failures_in_a_row: failures.max(1),
            ..self
        }
    }

    /// Which share of the calls within `window` (1 ms to an hour) opens it, in percent (1 to 100), if there were at least
    /// `calls`.
    #[must_use]
    pub fn with_failure_rate(self, percent: u32, calls: u32, window: Duration) -> Self {
        Self {
            rate: Some(FailureRate {
                percent: percent.clamp(1, 100),
                calls: calls.max(1),
                window: window.clamp(SHORTEST, LONGEST),
            }),
            ..self
        }
    }

    /// Only failures in a row open it.
    #[must_use]
    pub fn without_failure_rate(self) -> Self {
        Self { rate: None, ..self }
    }

    /// How long it is open before the store is asked again, and how long at most after it failed again and again: each 1 ms
    /// to an hour. What is waited is between half of that and all of it, so that instances do not come back as one.
    #[must_use]
    pub fn with_open(self, first: Duration, longest: Duration) -> Self {
        let open = first.clamp(SHORTEST, LONGEST);
        Self {
            open,
            longest_open: longest.clamp(open, LONGEST),
            ..self
        }
    }

    /// How many calls go through at a time while it is half open. At least 1.
    #[must_use]
    pub fn with_probes(self, probes: u32) -> Self {
        Self {
            probes: probes.max(1),
            ..self
        }
    }

    /// See [`with_failures_in_a_row`](Self::with_failures_in_a_row).
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    /// See [`with_probes`](Self::with_probes).
    pub fn probes(&self) -> u32 {
        self.probes
    }

    /// How long it is open for the `times`th time in a row, from 0, before the jitter.
    pub fn open(&self, times: u32) -> Duration {
        let factor = 2_u32.saturating_pow(times.min(31));
        self.open.saturating_mul(factor).min(self.longest_open)
    }

    pub(super) fn rate(&self) -> Option<FailureRate> {
        self.rate
    }
}
