//! How much is allowed: the closed set of algorithms with checked numbers.

use std::fmt;

use super::algorithm::{FixedWindow, SlidingWindow, TokenBucket};
use super::period::Period;
use crate::error::Error;

/// An algorithm and its numbers. A quota that exists is valid: every value and every product that
/// its arithmetic needs stays below 2^53.
///
/// ```
/// use limiter_core::limit::{Period, Quota};
///
/// let a_day = Quota::token_bucket(10_000_000, 10_000_000, Period::DAY)?;
/// assert_eq!(a_day.capacity(), 10_000_000);
/// assert!(Quota::fixed_window(0, Period::HOUR).is_err());
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Quota {
    /// See [`Quota::fixed_window`].
    FixedWindow(FixedWindow),
    /// See [`Quota::sliding_window`].
    SlidingWindow(SlidingWindow),
    /// See [`Quota::token_bucket`].
    TokenBucket(TokenBucket),
}

impl Quota {
    /// At most `limit` in a window that the first charge opens and that lasts `window`. Up to twice
    /// the limit can fall into some span of one window's length, around a window's end.
    ///
    /// # Errors
    /// `InvalidInput` unless `1 <= limit < 2^51` and the window is whole milliseconds,
    /// at least 2.
    pub fn fixed_window(limit: u64, window: Period) -> Result<Self, Error> {
        FixedWindow::new(limit, window).map(Self::FixedWindow)
    }

    /// At most about `limit` in any span of `window`: this window's count plus the last one's,
    /// weighted by how much of it the span still covers. Two numbers a key. Never more than twice
    /// the limit in any span.
    ///
    /// # Errors
    /// `InvalidInput` unless `1 <= limit < 2^51` and `limit * window` stays below 2^53 in microseconds,
    /// milliseconds or seconds, whichever is the finest that divides the window.
    pub fn sliding_window(limit: u64, window: Period) -> Result<Self, Error> {
        SlidingWindow::new(limit, window).map(Self::SlidingWindow)
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

    /// The most that one request can ever be granted: the window's limit or the bucket's size. A
    /// higher cost is answered with "never".
    pub fn capacity(&self) -> u64 {
        match self {
            Self::FixedWindow(quota) => quota.limit(),
            Self::SlidingWindow(quota) => quota.limit(),
            Self::TokenBucket(quota) => quota.capacity(),
        }
    }

    /// What a client may use in the long run: an amount per period. Headers and messages show it.
    pub fn rate(&self) -> (u64, Period) {
        match self {
            Self::FixedWindow(quota) => (quota.limit(), quota.window()),
            Self::SlidingWindow(quota) => (quota.limit(), quota.window()),
            Self::TokenBucket(quota) => (quota.refill(), quota.period()),
        }
    }

    /// The algorithm's name: `fixed_window`, `sliding_window` or `token_bucket`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::FixedWindow(_) => "fixed_window",
            Self::SlidingWindow(_) => "sliding_window",
            Self::TokenBucket(_) => "token_bucket",
        }
    }
}

/// "20 per hour", "10 at once, 7 per minute".
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (amount, per) = self.rate();
        if self.capacity() != amount {
            write!(f, "{} at once, ", self.capacity())?;
        }
        write!(f, "{amount} per {per}")
    }
}
