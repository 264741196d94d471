//! What holds for the states of every algorithm: when they are kept, mended and over.

use std::time::Duration;

use super::{One, at};
use crate::clock::Timestamp;
use crate::limit::algorithm::{Change, Lease, State};
use crate::limit::{Calendar, ChargeRecord, Mark, Period, Quota, Record, Status};

const SECOND: Duration = Duration::from_secs(1);

/// Six a minute, each in its way.
fn quotas() -> [Quota; 5] {
    [
        Quota::fixed_window(6, Period::MINUTE),
        Quota::calendar_window(6, Calendar::Minute),
        Quota::sliding_window(6, Period::MINUTE),
        Quota::sliding_log(6, Period::MINUTE),
        Quota::token_bucket(6, 6, Period::MINUTE),
    ]
    .map(Result::unwrap)
}

/// Six an hour, by the same algorithms.
fn hourly() -> [Quota; 5] {
    [
        Quota::fixed_window(6, Period::HOUR),
        Quota::calendar_window(6, Calendar::Hour),
        Quota::sliding_window(6, Period::HOUR),
        Quota::sliding_log(6, Period::HOUR),
        Quota::token_bucket(6, 6, Period::HOUR),
    ]
    .map(Result::unwrap)
}

/// A denial, a look and a give-back of nothing leave the state as it is, to the last number.
#[test]
fn what_changes_nothing_writes_nothing() {
    let elsewhere = Mark {
        number: 1,
        ..Mark::default()
    };
    for quota in quotas() {
        let mut one = One::default();
        one.take(&quota, at(1.0), 6);
        one.charge(&quota, at(1.5), 1);
        let before = one.0.clone();
        for now in [at(2.0), at(2.5)] {
            assert!(!one.charge(&quota, now, 6).is_admitted(), "{quota}");
            assert!(one.charge(&quota, now, 0).is_admitted(), "{quota}");
            assert_eq!(one.change(&quota, now, Change::Keep), 0);
            assert_eq!(one.change(&quota, now, Change::GiveBack(elsewhere, 1)), 0);
            assert_eq!(one.0, before, "{quota}");
        }
    }
    // Nor do they make one.
    for quota in quotas() {
        let mut one = One::default();
        one.change(&quota, at(1.0), Change::Keep);
        one.change(&quota, at(1.0), Change::GiveBack(elsewhere, 1));
        assert!(!one.charge(&quota, at(1.0), 7).is_admitted());
        assert!(one.0.is_none(), "{quota}");
    }
}

/// In the next minute too, where a counter looks at its windows otherwise.
#[test]
fn a_denial_in_the_next_window_writes_nothing() {
    let quota = Quota::sliding_window(6, Period::MINUTE).unwrap();
    let mut one = One::default();
    one.take(&quota, at(1.0), 6);
    let before = one.0.clone();
    assert!(!one.charge(&quota, at(60.0), 1).is_admitted());
    one.change(&quota, at(60.0), Change::Keep);
    assert_eq!(one.0, before);
}

/// Counts that go on under another quota are written down with a denial, or its time to wait would move.
#[test]
fn a_denial_under_another_quota_keeps_its_word() {
    for (short, long) in quotas().into_iter().zip(hourly()) {
        for (old, new) in [(&short, &long), (&long, &short)] {
            // With what was charged in this window, and in the one before.
            for now in [1.5, 60.0] {
                let mut one = One::default();
                one.take(old, at(1.0), 6);
                let wait = one.wait(new, at(now), 6);
                if wait.is_zero() {
                    continue;
                }
                assert!(!one.charge(new, at(now), 6).is_admitted());
                let due = at(now).saturating_add(wait);
                let early = Timestamp::from_micros(due.as_micros() - 1_000);
                assert!(!one.charge(new, early, 6).is_admitted(), "{old}, {new}");
                assert!(one.charge(new, due, 6).is_admitted(), "{old}, {new}");
            }
        }
    }
}

/// Where nothing counts under the other quota, there is nothing to write down: under its own it may.
#[test]
fn nothing_that_counts_is_nothing_to_keep() {
    for (short, long) in quotas().into_iter().zip(hourly()) {
        // Given back.
        let mut one = One::default();
        let mark = one.take(&short, at(1.0), 6);
        assert_eq!(one.change(&short, at(1.0), Change::GiveBack(mark, 6)), 6);
        let before = one.0.clone();
        if matches!(short, Quota::SlidingWindow(_) | Quota::SlidingLog(_)) {
            one.change(&long, at(1.0), Change::Keep);
            assert_eq!(one.0, before, "{short}");
        }
    }
    // Paid off under the faster one, and owed under the slower.
    let slow = Quota::token_bucket(6, 6, Period::HOUR).unwrap();
    let fast = Quota::token_bucket(6, 6, Period::SECOND).unwrap();
    let mut one = One::default();
    one.take(&slow, at(0.0), 6);
    one.change(&fast, at(2.0), Change::Keep);
    assert_eq!(one.used(&slow, at(2.0)), 6);
}

/// A state that is over is none: a store may have dropped it or not, and nobody can tell.
#[test]
fn what_is_over_is_as_if_it_were_not_there() {
    for (short, long) in quotas().into_iter().zip(hourly()) {
        let mut over = One::default();
        let mark = over.take(&short, at(1.0), 2);
        over.take(&short, at(1.0), 1);
        let now = at(180.0);
        assert!(over.is_fresh(now), "{short}");
        for quota in [&short, &long] {
            let (mut held, mut dropped) = (over.clone(), One::default());
            let answers = [held.charge(quota, now, 2), dropped.charge(quota, now, 2)];
            assert_eq!(answers[0], answers[1], "{quota}");
            assert_eq!(held.0, dropped.0, "{quota}");
            let mut held = over.clone();
            assert_eq!(held.change(quota, now, Change::GiveBack(mark, 1)), 0);
            assert_eq!(held.change(quota, now, Change::Keep), 0);
            assert_eq!(held.0, over.0, "{quota}");
        }
    }
    let quota = Quota::concurrency(6).unwrap();
    let mut one = One::default();
    let lease = Lease {
        id: 1,
        cost: 1,
        expires: at(1.0),
    };
    one.change(&quota, at(0.0), Change::Acquire(lease));
    let before = one.0.clone();
    one.change(&quota, at(1.0), Change::Release(1));
    one.change(&quota, at(1.0), Change::Renew(1, at(9.0)));
    assert_eq!(one.0, before);
    // Beside a lease that is held, one that has ended is not written down for a look.
    let other = Lease {
        id: 2,
        cost: 1,
        expires: at(9.0),
    };
    let mut one = One::default();
    one.change(&quota, at(0.0), Change::Acquire(lease));
    one.change(&quota, at(0.0), Change::Acquire(other));
    let before = one.0.clone();
    one.change(&quota, at(1.0), Change::Keep);
    assert_eq!(one.0, before);
}

/// Not a microsecond too early: what is dropped would be granted again.
#[test]
fn states_are_fresh_when_nothing_counts() {
    for quota in quotas() {
        let mut one = One::default();
        one.take(&quota, at(0.0), 6);
        let last = match quota {
            Quota::SlidingWindow(_) => at(119.999_999),
            _ => at(59.999_999),
        };
        assert!(!one.is_fresh(last), "{quota}");
        assert!(one.is_fresh(last.saturating_add(SECOND)), "{quota}");
    }
    // A counter whose window holds nothing has only the last one left.
    let quota = Quota::sliding_window(6, Period::MINUTE).unwrap();
    let mut one = One::default();
    one.take(&quota, at(0.0), 6);
    let mark = one.take(&quota, at(119.0), 1);
    one.change(&quota, at(119.0), Change::GiveBack(mark, 1));
    assert!(!one.is_fresh(at(119.999_999)) && one.is_fresh(at(120.0)));

    let record = ChargeRecord {
        issuer: crate::limit::Issuer::unique(),
        status: Status::Held,
        cost: 1,
        charged: 1,
        mark: Mark::default(),
        expires: at(5.0),
    };
    assert_eq!(Record::Charge(record).expires(), at(5.0));
    let state = State::Record(Box::new(Record::Charge(record)));
    assert!(!state.is_fresh(at(4.999_999)) && state.is_fresh(at(5.0)));
}
