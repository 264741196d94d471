//! The span of time that a quota speaks of.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// A positive span of whole microseconds, at most 3,660 days.
///
/// ```
/// use std::time::Duration;
/// use limiter_core::limit::Period;
///
/// assert_eq!(Period::HOUR.to_string(), "hour");
/// assert_eq!(Period::new(Duration::from_secs(90))?.to_string(), "90 seconds");
/// assert!(Period::new(Duration::ZERO).is_err());
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

const SECOND: u64 = 1_000_000;
const DAY: u64 = 86_400 * SECOND;
const LONGEST: u64 = 3_660 * DAY;

impl Period {
    /// One second.
    pub const SECOND: Self = Self(SECOND);
    /// Sixty seconds.
    pub const MINUTE: Self = Self(60 * SECOND);
    /// Sixty minutes.
    pub const HOUR: Self = Self(3_600 * SECOND);
    /// Twenty-four hours.
    pub const DAY: Self = Self(DAY);
    /// Thirty days, the usual billing month. (Calendar months differ in length.)
    pub const MONTH: Self = Self(30 * DAY);

    /// A period of any other length.
    ///
    /// # Errors
    /// `InvalidInput` unless it is a positive whole number of microseconds up to 3,660 days.
    pub fn new(length: Duration) -> Result<Self, Error> {
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        if micros == 0 || micros > LONGEST || !length.subsec_nanos().is_multiple_of(1_000) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "period",
                format!(
                    "{length:?} is no usable period; give whole microseconds, at least 1 and at most 3660 days"
                ),
            ));
        }
        Ok(Self(micros))
    }

    /// The length in microseconds.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The length as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl TryFrom<Duration> for Period {
    type Error = Error;

    fn try_from(length: Duration) -> Result<Self, Error> {
        Self::new(length)
    }
}

/// "hour", "2 hours", "90 seconds": the largest unit that divides the period.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (DAY, "day"),
            (3_600 * SECOND, "hour"),
            (60 * SECOND, "minute"),
            (SECOND, "second"),
            (1_000, "millisecond"),
            (1, "microsecond"),
        ];
        for (unit, name) in units {
            if self.0.is_multiple_of(unit) {
                return match self.0 / unit {
                    1 => f.write_str(name),
                    n => write!(f, "{n} {name}s"),
                };
            }
        }
        Ok(())
    }
}
