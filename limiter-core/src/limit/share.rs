//! A part of a whole, for limits that are divided.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// A share of a quota: more than nothing, at most all of it. Exact, as a fraction.
///
/// ```
/// use limiter_core::limit::{Period, Quota, Share};
///
/// // What one of three instances may admit by itself while the store is away.
/// let third = Share::new(1, 3)?;
/// let local = Quota::token_bucket(10, 60, Period::MINUTE)?.scaled(third)?;
/// assert_eq!(local.to_string(), "3 at once, 20 per minute");
/// assert!(Quota::fixed_window(2, Period::HOUR)?.scaled(third).is_err());
/// assert_eq!("1/3".parse::<Share>()?, third);
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    part: u32,
    of: u32,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { part: 1, of: 1 };

    /// `part` of `of` equal parts.
    ///
    /// # Errors
    /// `InvalidInput` unless `1 <= part <= of`.
    pub fn new(part: u32, of: u32) -> Result<Self, Error> {
        if part == 0 || part > of {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "share",
                format!("{part} of {of} is no share; give 1 <= part <= of"),
            ));
        }
        Ok(Self { part, of })
    }

    /// The two numbers: so many parts, of so many.
    pub fn parts(self) -> (u32, u32) {
        (self.part, self.of)
    }

    /// The share of a number, rounded down.
    pub fn of(self, number: u64) -> u64 {
        let share = u128::from(number) * u128::from(self.part) / u128::from(self.of);
        // At most the number itself.
        u64::try_from(share).unwrap_or(number)
    }
}

/// "1/3".
impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let numbers = text.split_once('/').and_then(|(part, of)| {
            let number = |text: &str| text.trim().parse().ok();
            Some((number(part)?, number(of)?))
        });
        match numbers {
            Some((part, of)) => Self::new(part, of),
            None => Err(Error::new(
                ErrorKind::InvalidInput,
                "share",
                format!("{text:?} is no share; write it as 1/3"),
            )),
        }
    }
}

/// "1/3".
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}
