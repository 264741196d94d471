//! How much is allowed: the closed set of algorithms with checked numbers.

use std::fmt;

use super::algorithm::{
    Calendar, CalendarWindow, Concurrency, FixedWindow, SlidingLog, SlidingWindow, TokenBucket,
};
use super::period::Period;
use super::share::Share;
use crate::error::{Error, ErrorKind};

/// An algorithm and its numbers. A quota that exists is valid: every value and every product that
/// its arithmetic needs stays below 2^53.
///
/// `per_second`, `per_minute`, `per_hour` and `per_day` are token buckets, which admit a burst and then a steady rate. The
/// other constructors are named after their algorithm.
///
/// ```
/// use limiter_core::limit::{Period, Quota};
///
/// let steady = Quota::per_minute(100)?;
/// assert_eq!(steady, Quota::token_bucket(100, 100, Period::MINUTE)?);
/// assert_eq!(steady.with_burst(20)?.to_string(), "20 at once, 100 per minute");
///
/// let window = Quota::fixed_window(20, Period::HOUR)?;
/// assert_eq!(window.to_string(), "20 per hour");
/// assert!(Quota::fixed_window(0, Period::HOUR).is_err());
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quota {
    /// See [`Quota::fixed_window`].
    FixedWindow(FixedWindow),
    /// See [`Quota::calendar_window`].
    CalendarWindow(CalendarWindow),
    /// See [`Quota::sliding_window`].
    SlidingWindow(SlidingWindow),
    /// See [`Quota::sliding_log`].
    SlidingLog(SlidingLog),
    /// See [`Quota::token_bucket`].
    TokenBucket(TokenBucket),
    /// See [`Quota::concurrency`].
    Concurrency(Concurrency),
}

impl Quota {
    /// `n` a second: a [token bucket](Self::token_bucket) that holds `n` and refills with `n` every second. The whole bucket
    /// can be spent at once, so up to `2n` pass in the first second and `n` in each one after it.
    /// [`with_burst`](Self::with_burst) makes the bucket smaller or larger. Where no span of time may exceed a number, see
    /// [`sliding_log`](Self::sliding_log).
    ///
    /// # Errors
    /// As [`token_bucket`](Self::token_bucket): `InvalidInput` for 0, or for what is too large to count.
    pub fn per_second(n: u64) -> Result<Self, Error> {
        Self::token_bucket(n, n, Period::SECOND)
    }

    /// `n` a minute, as [`per_second`](Self::per_second) is `n` a second.
    ///
    /// # Errors
    /// As [`per_second`](Self::per_second).
    pub fn per_minute(n: u64) -> Result<Self, Error> {
        Self::token_bucket(n, n, Period::MINUTE)
    }

    /// `n` an hour, as [`per_second`](Self::per_second) is `n` a second.
    ///
    /// # Errors
    /// As [`per_second`](Self::per_second).
    pub fn per_hour(n: u64) -> Result<Self, Error> {
        Self::token_bucket(n, n, Period::HOUR)
    }

    /// `n` in 24 hours, as [`per_second`](Self::per_second) is `n` a second. For a day of the calendar, see
    /// [`calendar_window`](Self::calendar_window).
    ///
    /// # Errors
    /// As [`per_second`](Self::per_second).
    pub fn per_day(n: u64) -> Result<Self, Error> {
        Self::token_bucket(n, n, Period::DAY)
    }

    /// The same rate with another size of the bucket: how much can be spent at once.
    ///
    /// # Errors
    /// `InvalidInput` for another algorithm than a token bucket, which has no burst, and as
    /// [`token_bucket`](Self::token_bucket).
    pub fn with_burst(&self, burst: u64) -> Result<Self, Error> {
        match self {
            Self::TokenBucket(quota) => Self::token_bucket(burst, quota.refill(), quota.period()),
            other => Err(Error::new(
                ErrorKind::InvalidInput,
                "quota.with_burst",
                format!(
                    "a {} has no burst; start from Quota::per_second, per_minute, per_hour, per_day or token_bucket",
                    other.algorithm()
                ),
            )),
        }
    }

    /// At most `limit` in a window that the first charge opens and that lasts `window`. Up to twice
    /// the limit can fall into some span of one window's length, around a window's end.
    ///
    /// # Errors
    /// `InvalidInput` unless `1 <= limit < 2^51` and the window is whole milliseconds,
    /// at least 2.
    pub fn fixed_window(limit: u64, window: Period) -> Result<Self, Error> {
        FixedWindow::new(limit, window).map(Self::FixedWindow)
    }

    /// At most `limit` in each window, which ends with the minute, hour, day or month of the calendar, in UTC. Up to
    /// twice the limit can fall into a short span around a unit's end.
    ///
    /// # Errors
    /// `InvalidInput` unless `1 <= limit < 2^51`.
    pub fn calendar_window(limit: u64, calendar: Calendar) -> Result<Self, Error> {
        CalendarWindow::new(limit, calendar).map(Self::CalendarWindow)
    }

    /// At most about `limit` in any span of `window`: this window's count plus the last one's,
    /// weighted by how much of it the span still covers. Four numbers a key. Never more than twice
    /// the limit in any span of `window`.
    ///
    /// # Errors
    /// `InvalidInput` unless `1 <= limit < 2^51` and `limit * window` stays below 2^53 in microseconds,
    /// milliseconds or seconds, whichever is the finest that divides the window.
    pub fn sliding_window(limit: u64, window: Period) -> Result<Self, Error> {
        SlidingWindow::new(limit, window).map(Self::SlidingWindow)
    }

    /// At most `limit` in any span of `window`, exactly: every charge is kept with its time. Memory and
    /// time grow with the limit.
    ///
    /// # Errors
    /// `InvalidInput` unless `1 <= limit <= 1,000`.
    pub fn sliding_log(limit: u64, window: Period) -> Result<Self, Error> {
        SlidingLog::new(limit, window).map(Self::SlidingLog)
    }

    /// At most `limit` held at once, by leases that are renewed, released, or run out. Takes acquire,
    /// renew and release in place of charges.
    ///
    /// # Errors
    /// `InvalidInput` unless `1 <= limit <= 10,000`.
    pub fn concurrency(limit: u64) -> Result<Self, Error> {
        Concurrency::new(limit).map(Self::Concurrency)
    }

    /// A bucket of `capacity` tokens that refills with `refill` tokens every `per`, continuously.
    /// A full bucket can be spent at once.
    ///
    /// # Errors
    /// `InvalidInput` unless both are at least 1 and below 2^51 and, with `n` tokens per `p` time
    /// units reduced by their greatest common divisor, `2 * capacity * p + n` stays below 2^53 in
    /// microseconds, milliseconds or seconds, whichever is the finest that divides the period; or if
    /// an empty bucket takes more than 70 years to fill.
    pub fn token_bucket(capacity: u64, refill: u64, per: Period) -> Result<Self, Error> {
        TokenBucket::new(capacity, refill, per).map(Self::TokenBucket)
    }

    /// The most that one request can ever be granted: the window's limit, the bucket's size, or what may
    /// be held at once. A higher cost is answered with "never".
    pub fn capacity(&self) -> u64 {
        match self {
            Self::FixedWindow(quota) => quota.limit(),
            Self::CalendarWindow(quota) => quota.limit(),
            Self::SlidingWindow(quota) => quota.limit(),
            Self::SlidingLog(quota) => quota.limit(),
            Self::TokenBucket(quota) => quota.capacity(),
            Self::Concurrency(quota) => quota.limit(),
        }
    }

    /// The quota of a share of what this one limits: the capacity rounded down, the same algorithm and period. A bucket's rate is
    /// exact, per a longer period if need be; rounded down where that is too large to count.
    ///
    /// # Errors
    /// `InvalidInput` if less than 1 is left of the capacity, or of a rate that was rounded.
    pub fn scaled(&self, share: Share) -> Result<Self, Error> {
        if share == Share::WHOLE {
            return Ok(*self);
        }
        let part = |what: &str, number: u64| match share.of(number) {
            0 => Err(Error::new(
                ErrorKind::InvalidInput,
                "quota.scaled",
                format!(
                    "a share of {share} leaves nothing of the {what} of {number}; give a larger share, or a larger number over a longer period"
                ),
            )),
            part => Ok(part),
        };
        let limit = part("limit", self.capacity())?;
        match self {
            Self::FixedWindow(quota) => Self::fixed_window(limit, quota.window()),
            Self::CalendarWindow(quota) => Self::calendar_window(limit, quota.calendar()),
            Self::SlidingWindow(quota) => Self::sliding_window(limit, quota.window()),
            Self::SlidingLog(quota) => Self::sliding_log(limit, quota.window()),
            Self::TokenBucket(quota) => match exact_rate(quota, share) {
                Some((refill, per)) => Self::token_bucket(limit, refill, per).or_else(|_| {
                    Self::token_bucket(limit, part("refill", quota.refill())?, quota.period())
                }),
                None => Self::token_bucket(limit, part("refill", quota.refill())?, quota.period()),
            },
            Self::Concurrency(_) => Self::concurrency(limit),
        }
    }

    /// What a client may use in the long run: an amount per period (thirty days for a calendar month).
    /// Headers and messages show it. `None` for concurrency, which has no period.
    pub fn rate(&self) -> Option<(u64, Period)> {
        Some(match self {
            Self::FixedWindow(quota) => (quota.limit(), quota.window()),
            Self::CalendarWindow(quota) => (quota.limit(), quota.calendar().period()),
            Self::SlidingWindow(quota) => (quota.limit(), quota.window()),
            Self::SlidingLog(quota) => (quota.limit(), quota.window()),
            Self::TokenBucket(quota) => (quota.refill(), quota.period()),
            Self::Concurrency(_) => return None,
        })
    }

    /// Whether leases are taken on it, and not charges.
    pub fn is_concurrency(&self) -> bool {
        matches!(self, Self::Concurrency(_))
    }

    /// The algorithm's name: `fixed_window`, `calendar_window`, `sliding_window`, `sliding_log`,
    /// `token_bucket` or `concurrency`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::FixedWindow(_) => "fixed_window",
            Self::CalendarWindow(_) => "calendar_window",
            Self::SlidingWindow(_) => "sliding_window",
            Self::SlidingLog(_) => "sliding_log",
            Self::TokenBucket(_) => "token_bucket",
            Self::Concurrency(_) => "concurrency",
        }
    }
}

/// The share of a bucket's rate: fewer tokens in its period, or else all of them in a longer one.
fn exact_rate(quota: &TokenBucket, share: Share) -> Option<(u64, Period)> {
    let (part, of) = share.parts();
    let refill = quota.refill().checked_mul(part.into())?;
    if refill.is_multiple_of(of.into()) {
        return Some((refill / u64::from(of), quota.period()));
    }
    let longer = quota.period().as_micros().checked_mul(of.into())?;
    let longer = Period::new(std::time::Duration::from_micros(longer)).ok()?;
    Some((refill, longer))
}

/// "20 per hour", "10 at once, 7 per minute", "3 at once".
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capacity = self.capacity();
        match (self, self.rate()) {
            (Self::CalendarWindow(quota), _) => {
                write!(f, "{capacity} per calendar {}", quota.calendar())
            }
            (_, None) => write!(f, "{capacity} at once"),
            (_, Some((amount, per))) if capacity == amount => write!(f, "{amount} per {per}"),
            (_, Some((amount, per))) => write!(f, "{capacity} at once, {amount} per {per}"),
        }
    }
}
