//! Numbers that stay exact in Redis scripts, and what constructors refuse.

use crate::clock::MAX_INTEGER;
use crate::error::{Error, ErrorKind};

/// The finest of 1 us, 1 ms and 1 s that divides `length` (microseconds) and that `fits` accepts
/// for the length counted in that unit.
pub(super) fn finest_unit(length: u64, fits: impl Fn(u64) -> bool) -> Option<u64> {
    [1, 1_000, 1_000_000]
        .into_iter()
        .find(|unit| length.is_multiple_of(*unit) && fits(length / unit))
}

/// `a * b + c` if it stays below 2^53.
pub(super) fn exact(a: u64, b: u64, c: u64) -> Option<u64> {
    a.checked_mul(b)?
        .checked_add(c)
        .filter(|value| *value <= MAX_INTEGER)
}

/// Limits and capacities stay below this, so that sums of a few stay exact.
pub(in crate::limit) const LIMIT_BOUND: u64 = 1 << 51;

/// Counts stay at or below this, whatever settled reservations add, so that the largest cost on top
/// stays exact.
pub(super) const COUNT_BOUND: u64 = 1 << 52;

pub(super) fn check_limit(what: &'static str, limit: u64) -> Result<(), Error> {
    if limit == 0 || limit >= LIMIT_BOUND {
        return Err(invalid(format!(
            "{what} is {limit}; it must be at least 1 and below 2^51"
        )));
    }
    Ok(())
}

pub(super) fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, "quota", message)
}
