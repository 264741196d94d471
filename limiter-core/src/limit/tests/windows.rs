//! Fixed, calendar and sliding windows, to the unit.

use std::time::Duration;

use super::{MIDNIGHT, One, at};
use crate::limit::algorithm::{Change, counts_until};
use crate::limit::{Calendar, Mark, Period, Quota};

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn calendar(limit: u64, calendar: Calendar) -> Quota {
    Quota::calendar_window(limit, calendar).unwrap()
}

fn minute() -> Quota {
    Quota::sliding_window(6, Period::MINUTE).unwrap()
}

/// In whole milliseconds, the one that holds `now` included.
#[test]
fn a_fixed_window_lasts_its_length() {
    let quota = Quota::fixed_window(5, Period::MINUTE).unwrap();
    let mut one = One::default();
    let mark = one.take(&quota, at(0.123_456), 5);
    assert_eq!(mark.at, at(0.123_456));
    assert_eq!(one.wait(&quota, at(0.123_456), 1), seconds(60.0));
    assert_eq!(one.wait(&quota, at(30.123), 1), seconds(30.0));
    assert_eq!(one.used(&quota, at(60.122_999)), 5);
    assert!(!one.is_fresh(at(60.122_999)));
    assert_eq!(one.used(&quota, at(60.123)), 0);
    assert!(one.is_fresh(at(60.123)));
    assert_eq!(counts_until(&quota, mark), at(60.123));
}

/// The mark of a window is its end, which Redis tells a moment later than the time; off by less than half a
/// window it is the same window.
#[test]
fn a_fixed_window_adjusts_its_own_charges() {
    let quota = Quota::fixed_window(9, Period::new(Duration::from_millis(10)).unwrap()).unwrap();
    let mut one = One::default();
    let mark = one.take(&quota, at(0.0), 5);
    // Opened at 0 ms, its last is 9 ms later.
    assert_eq!(mark.number, MIDNIGHT * 1_000 + 9);
    let off = |number: u64| Mark { number, ..mark };
    for (number, adjusts) in [
        (mark.number - 5, 0),
        (mark.number - 4, 1),
        (mark.number + 4, 1),
        (mark.number + 5, 0),
    ] {
        let mut less = one.clone();
        let change = Change::GiveBack(off(number), 1);
        assert_eq!(less.change(&quota, at(0.0), change), adjusts);
        assert_eq!(less.used(&quota, at(0.0)), 5 - adjusts);
        let mut more = one.clone();
        let change = Change::Overrun(off(number), 1);
        assert_eq!(more.change(&quota, at(0.0), change), adjusts);
        assert_eq!(more.used(&quota, at(0.0)), 5 + adjusts);
    }
    // A later window is not charged for what began before it.
    one.take(&quota, at(0.010), 1);
    assert_eq!(one.change(&quota, at(0.010), Change::Overrun(mark, 3)), 0);
    assert_eq!(one.change(&quota, at(0.010), Change::GiveBack(mark, 1)), 0);
    assert_eq!(one.used(&quota, at(0.010)), 1);
}

#[test]
fn a_calendar_window_ends_with_its_unit() {
    let quota = calendar(5, Calendar::Minute);
    let mut one = One::default();
    let mark = one.take(&quota, at(0.123_456), 5);
    assert_eq!(one.wait(&quota, at(0.123_456), 1), seconds(59.877));
    assert_eq!(counts_until(&quota, mark), at(60.0));
    assert_eq!(one.used(&quota, at(59.999_999)), 5);
    assert_eq!(one.used(&quota, at(60.0)), 0);
    // A key cannot expire in the millisecond in which it is made.
    let mut last = One::default();
    last.take(&quota, at(59.999), 5);
    assert_eq!(last.wait(&quota, at(59.999), 1), seconds(0.002));
    let mut last_but_one = One::default();
    last_but_one.take(&quota, at(59.998), 5);
    assert_eq!(last_but_one.wait(&quota, at(59.998), 1), seconds(0.002));
}

/// A window ends when it was opened for.
#[test]
fn a_calendar_window_after_a_step_back() {
    let quota = calendar(5, Calendar::Minute);
    let mut next = One::default();
    next.take(&quota, at(60.0), 5);
    assert_eq!(next.wait(&quota, at(59.0), 1), seconds(61.0));
    // It ends in the first millisecond after the next unit.
    let mut later = One::default();
    later.take(&quota, at(119.999), 5);
    assert_eq!(later.wait(&quota, at(59.0), 1), seconds(61.001));
}

/// A shorter unit by a deploy: the time that is told is the time that it takes.
#[test]
fn a_shorter_calendar_window_keeps_its_word() {
    let (month, minute) = (calendar(5, Calendar::Month), calendar(5, Calendar::Minute));
    let mut one = One::default();
    one.take(&month, at(0.0), 5);
    let denied = one.charge(&minute, at(59.0), 1);
    assert!(!denied.is_admitted());
    // The 21st of November has ten days to its month's end.
    let month_end = seconds(10.0 * 86_400.0);
    assert_eq!(one.wait(&minute, at(59.0), 1), month_end - seconds(59.0));
    assert_eq!(one.used(&minute, at(60.0)), 5);
}

/// `floor(6 * left / 60 s) + 1 + 2 <= 6` once less than 40 s are left.
#[test]
fn a_sliding_window_waits_for_the_last_one_to_weigh_less() {
    let (quota, mut one) = (minute(), One::default());
    one.take(&quota, at(0.0), 6);
    // 10 s into the next minute the last one weighs 5.
    one.take(&quota, at(70.0), 1);
    assert_eq!(one.used(&quota, at(70.0)), 6);
    assert_eq!(one.wait(&quota, at(70.0), 2), seconds(10.000_001));
    assert_eq!(one.wait(&quota, at(80.0), 2), seconds(0.000_001));
    assert_eq!(one.wait(&quota, at(80.000_001), 2), Duration::ZERO);
}

#[test]
fn a_sliding_window_adjusts_this_window_and_the_last() {
    let (quota, mut one) = (minute(), One::default());
    let last = one.take(&quota, at(0.0), 3);
    assert_eq!(last.number, MIDNIGHT * 1_000_000);
    // The last one weighs all of its 3 at the first moment.
    let this = one.take(&quota, at(60.0), 2);
    assert_eq!(one.used(&quota, at(60.0)), 5);
    assert_eq!(one.change(&quota, at(60.0), Change::GiveBack(last, 2)), 2);
    assert_eq!(one.used(&quota, at(60.0)), 3);
    assert_eq!(one.change(&quota, at(60.0), Change::GiveBack(this, 9)), 2);
    assert_eq!(one.used(&quota, at(60.0)), 1);
    assert_eq!(one.change(&quota, at(60.0), Change::Overrun(last, 4)), 4);
    assert_eq!(one.change(&quota, at(60.0), Change::Overrun(this, 2)), 2);
    assert_eq!(one.used(&quota, at(60.0)), 7);
    // Two windows later nothing is left of the first.
    assert_eq!(one.change(&quota, at(120.0), Change::GiveBack(last, 1)), 0);
    assert_eq!(one.change(&quota, at(120.0), Change::Overrun(last, 1)), 0);
    assert_eq!(one.used(&quota, at(120.0)), 2);
    assert_eq!(counts_until(&quota, last), at(120.0));
    assert_eq!(counts_until(&quota, this), at(180.0));
}

/// A count times the window's length stays below 2^53: 9,007,199,254,740,991 / 60,000,000 us = 150,119,987.5.
#[test]
fn a_sliding_window_counts_no_further_than_it_can() {
    let (quota, mut one) = (minute(), One::default());
    let mark = one.take(&quota, at(0.0), 3);
    let taken = one.change(&quota, at(0.0), Change::Overrun(mark, 1 << 50));
    assert_eq!(taken, 150_119_987 - 3);
    assert_eq!(one.used(&quota, at(0.0)), 150_119_987);
}
