//! The sliding log, entry by entry.

use std::time::Duration;

use super::{One, at};
use crate::limit::algorithm::{Change, counts_until};
use crate::limit::{Period, Quota};

fn quota() -> Quota {
    Quota::sliding_log(6, Period::MINUTE).unwrap()
}

/// Charges of 1, 2 and 3 at 0, 10 and 20 s.
fn three() -> One {
    let mut one = One::default();
    for (seconds, cost) in [(0.0, 1), (10.0, 2), (20.0, 3)] {
        one.take(&quota(), at(seconds), cost);
    }
    one
}

#[test]
fn every_charge_leaves_by_itself() {
    let (quota, one) = (quota(), three());
    for (seconds, used) in [
        (59.999_999, 6),
        (60.0, 5),
        (69.999_999, 5),
        (70.0, 3),
        (79.999_999, 3),
        (80.0, 0),
    ] {
        assert_eq!(one.used(&quota, at(seconds)), used, "{seconds}");
    }
    // As many have to leave as the cost needs.
    for (cost, wait) in [(1, 40), (2, 50), (3, 50), (4, 60), (6, 60)] {
        assert_eq!(
            one.wait(&quota, at(20.0), cost),
            Duration::from_secs(wait),
            "{cost}"
        );
    }
    assert!(!one.is_fresh(at(79.999_999)) && one.is_fresh(at(80.0)));
    // And what comes after some have left is counted with the rest.
    let mut one = one;
    one.take(&quota, at(70.0), 3);
    assert_eq!(one.used(&quota, at(70.0)), 6);
    assert_eq!(one.used(&quota, at(80.0)), 3);
    assert_eq!(one.used(&quota, at(130.0)), 0);
}

/// Two charges of one microsecond are two.
#[test]
fn marks_tell_charges_of_one_moment_apart() {
    let (quota, mut one) = (quota(), One::default());
    let first = one.take(&quota, at(0.0), 1);
    let second = one.take(&quota, at(0.0), 4);
    assert_ne!(first, second);
    assert_eq!(one.change(&quota, at(1.0), Change::GiveBack(second, 4)), 4);
    assert_eq!(one.used(&quota, at(1.0)), 1);
    assert_eq!(one.change(&quota, at(1.0), Change::GiveBack(second, 4)), 0);
    assert_eq!(one.change(&quota, at(1.0), Change::GiveBack(first, 4)), 1);
    assert_eq!(one.used(&quota, at(1.0)), 0);
}

/// What is left of an adjusted charge leaves with it.
#[test]
fn adjustments_leave_with_their_charge() {
    let quota = quota();
    for (adjust, then) in [(-1_i64, 3), (2, 6)] {
        let mut one = One::default();
        let mark = one.take(&quota, at(0.0), 4);
        one.take(&quota, at(30.0), 1);
        let amount = adjust.unsigned_abs();
        let change = if adjust < 0 {
            Change::GiveBack(mark, amount)
        } else {
            Change::Overrun(mark, amount)
        };
        assert_eq!(one.change(&quota, at(30.0), change), amount);
        assert_eq!(one.used(&quota, at(30.0)), then + 1);
        assert_eq!(one.used(&quota, at(60.0)), 1);
        assert_eq!(one.used(&quota, at(90.0)), 0);
        assert_eq!(counts_until(&quota, mark), at(60.0));
        // Gone is gone.
        assert_eq!(one.change(&quota, at(60.0), Change::GiveBack(mark, 1)), 0);
        assert_eq!(one.change(&quota, at(60.0), Change::Overrun(mark, 1)), 0);
    }
}

/// Counts stay at or below 2^52.
#[test]
fn an_overrun_is_bounded() {
    let (quota, mut one) = (quota(), One::default());
    let mark = one.take(&quota, at(0.0), 3);
    let taken = one.change(&quota, at(0.0), Change::Overrun(mark, 1 << 53));
    assert_eq!(taken, 4_503_599_627_370_496 - 3);
    assert_eq!(one.used(&quota, at(0.0)), 4_503_599_627_370_496);
}

/// A clock that stepped back frees nothing, and what it charges then counts from the newest.
#[test]
fn time_in_a_log_does_not_go_back() {
    let (quota, mut one) = (quota(), One::default());
    one.take(&quota, at(10.0), 5);
    let mark = one.take(&quota, at(0.0), 1);
    assert_eq!(mark.at, at(10.0));
    assert_eq!(one.wait(&quota, at(0.0), 1), Duration::from_secs(70));
}
