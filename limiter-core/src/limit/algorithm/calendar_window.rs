//! Calendar window: a fixed window that ends with the minute, hour, day or month of UTC.
//!
//! The same plain count as a fixed window's, whose key's expiry is the window's end, so `TTL` counts
//! down to midnight. A window that is opened in its last millisecond lasts one more, because a Redis key
//! cannot expire at once.

use std::fmt;
use std::time::Duration;

use super::fixed_window::window_end;
use super::{Algorithm, Change, FixedWindowState, Written, check_limit};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::limit::period::Period;
use crate::limit::store::Mark;

const DAY: u64 = 86_400_000;

/// A unit of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Calendar {
    /// From second 0 to second 59.
    Minute,
    /// From minute 0 to minute 59.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From midnight of the first day to midnight after the last one.
    Month,
}

impl Calendar {
    /// Lower case, as people say it: "minute".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The unit's length; thirty days for a month.
    pub fn period(self) -> Period {
        match self {
            Self::Minute => Period::MINUTE,
            Self::Hour => Period::HOUR,
            Self::Day => Period::DAY,
            Self::Month => Period::MONTH,
        }
    }

    /// The first millisecond (since the epoch) after the unit that holds `millis`.
    fn end(self, millis: u64) -> u64 {
        let length = match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => DAY,
            Self::Month => return end_of_month(millis / DAY) * DAY,
        };
        (millis / length + 1) * length
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first day of the next month; days are counted from the epoch.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (2013), `civil_from_days` and
/// `days_from_civil`: a year begins with March, so that the leap day is its last one.
fn end_of_month(day: u64) -> u64 {
    // From 1 March of the year 0.
    let day = day + 719_468;
    let era = day / 146_097;
    let of_era = day % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // March is 0; the next month may be the next year's March.
    let next = (5 * of_year + 2) / 153 + 1;
    let (year, next) = (year + next / 12, next % 12);
    era * 146_097 + 365 * year + year / 4 - year / 100 + year / 400 + (153 * next + 2) / 5 - 719_468
}

/// The numbers of [`Quota::calendar_window`](crate::limit::Quota::calendar_window).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CalendarWindow {
    limit: u64,
    calendar: Calendar,
}

impl CalendarWindow {
    pub(crate) fn new(limit: u64, calendar: Calendar) -> Result<Self, Error> {
        check_limit("a calendar window's limit", limit)?;
        Ok(Self { limit, calendar })
    }

    /// The most in one window.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What a window is.
    pub fn calendar(&self) -> Calendar {
        self.calendar
    }

    /// The last millisecond of a window that is opened now.
    fn expires(&self, now: u64) -> u64 {
        (self.calendar.end(now) - 1).max(now + 1)
    }
}

impl Algorithm for CalendarWindow {
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
        let end = self.expires(now.as_millis());
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
        view.count()
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
        view.write(now, change, TOLERANCE)
    }

    fn counts_until(&self, mark: Mark) -> Timestamp {
        window_end(mark)
    }
}

/// Less than half of the shortest unit, in milliseconds.
const TOLERANCE: u64 = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn end(calendar: Calendar, seconds: u64) -> u64 {
        calendar.end(seconds * 1_000) / 1_000
    }

    /// Against `date -u -d '...' +%s`.
    #[test]
    fn units_end_where_the_calendar_says() {
        let leap_day = 1_709_164_800; // 2024-02-29 00:00
        assert_eq!(end(Calendar::Minute, leap_day), leap_day + 60);
        assert_eq!(end(Calendar::Hour, leap_day + 3_599), leap_day + 3_600);
        assert_eq!(end(Calendar::Day, leap_day + 86_399), 1_709_251_200);
        assert_eq!(end(Calendar::Month, leap_day), 1_709_251_200);
        // 2023-02-15, 2100-02-28 (no leap year), 2026-12-31 23:59:59, 2000-02-01.
        assert_eq!(end(Calendar::Month, 1_676_419_200), 1_677_628_800);
        assert_eq!(end(Calendar::Month, 4_107_456_000), 4_107_542_400);
        assert_eq!(end(Calendar::Month, 1_798_761_599), 1_798_761_600);
        assert_eq!(end(Calendar::Month, 949_363_200), 951_868_800);
    }

    /// Walks every day from 1970 to 2400 against the lengths of the months.
    #[test]
    fn months_follow_one_another() {
        let leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        let mut first = 0;
        for year in 1970..2400 {
            let february = if leap(year) { 29 } else { 28 };
            for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
                for day in first..first + length {
                    assert_eq!(end_of_month(day), first + length, "day {day} of {year}");
                }
                first += length;
            }
        }
    }
}
