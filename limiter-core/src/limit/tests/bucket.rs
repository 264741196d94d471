//! The token bucket, to the fraction.

use std::time::Duration;

use super::{One, at};
use crate::limit::algorithm::{Change, counts_until};
use crate::limit::{Mark, Period, Quota};

fn bucket(capacity: u64, refill: u64, per: Period) -> Quota {
    Quota::token_bucket(capacity, refill, per).unwrap()
}

/// A token takes 60 s / 7 = 8.571428... s to come back.
fn seven_a_minute() -> Quota {
    bucket(10, 7, Period::MINUTE)
}

/// So large that it counts in milliseconds: a token takes 86,400,000 ms / 7 = 12,342,857.14... ms.
fn seven_a_day() -> Quota {
    bucket(60_000, 7, Period::DAY)
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

#[test]
fn a_charge_counts_until_its_debt_is_paid_off() {
    let mark = |number| Mark {
        at: at(5.0),
        number,
    };
    let until = |quota, number| counts_until(&quota, mark(number)).saturating_since(at(5.0));
    assert_eq!(until(seven_a_minute(), 7), Duration::from_secs(60));
    assert_eq!(until(seven_a_minute(), 1), micros(8_571_429));
    // No debt is more than twice the bucket: 20 tokens.
    assert_eq!(until(seven_a_minute(), 1_000), micros(171_428_572));
    assert_eq!(until(seven_a_day(), 7), Duration::from_secs(86_400));
    assert_eq!(until(seven_a_day(), 1), Duration::from_millis(12_342_858));
}

/// What has flowed back already is not given back.
#[test]
fn a_late_give_back_is_of_what_is_still_owed() {
    let (quota, mut one) = (seven_a_minute(), One::default());
    let mark = one.take(&quota, at(0.0), 7);
    assert_eq!(mark.number, 7);
    // Half of it has flowed back; 3 more are taken: 6.5 are owed, 3.5 of them for the first.
    one.take(&quota, at(30.0), 3);
    assert_eq!(one.used(&quota, at(30.0)), 7);
    assert_eq!(one.change(&quota, at(30.0), Change::GiveBack(mark, 7)), 4);
    assert_eq!(one.used(&quota, at(30.0)), 3);
    assert_eq!(
        one.wait(&quota, at(30.0), 10),
        micros(3 * 60_000_000 / 7 + 1)
    );

    // The same in milliseconds: 3.5 of 7 tokens after half a day.
    let (quota, mut one) = (seven_a_day(), One::default());
    let mark = one.take(&quota, at(0.0), 7);
    one.take(&quota, at(43_200.0), 3);
    let given = one.change(&quota, at(43_200.0), Change::GiveBack(mark, 7));
    assert_eq!((given, one.used(&quota, at(43_200.0))), (4, 3));
}

/// A debt may be twice the bucket, no more, and each of its charges is owed for that long.
#[test]
fn an_overrun_leaves_as_much_debt_again() {
    let quota = bucket(10, 1, Period::SECOND);
    let mut one = One::default();
    let mark = one.take(&quota, at(0.0), 10);
    assert_eq!(one.change(&quota, at(0.0), Change::Overrun(mark, 99)), 10);
    assert_eq!(one.used(&quota, at(0.0)), 20);
    assert_eq!(one.wait(&quota, at(0.0), 1), Duration::from_secs(11));
    // 20 of debt as it was left, 9 of it paid off: more than the 10 that a charge can be is owed.
    let whole = Mark { number: 20, ..mark };
    assert_eq!(one.change(&quota, at(9.0), Change::GiveBack(whole, 99)), 10);
    assert_eq!(one.used(&quota, at(9.0)), 1);
}

/// Of a charge nothing is owed once the bucket was full after it, or was reset, or while the clock stands
/// before it.
#[test]
fn a_full_bucket_owes_nothing_of_what_was_before() {
    let quota = bucket(10, 1, Period::SECOND);
    let give = |one: &mut One, now, mark| one.change(&quota, at(now), Change::GiveBack(mark, 10));
    let mut one = One::default();
    let mark = one.take(&quota, at(0.0), 10);
    one.take(&quota, at(10.0), 10);
    assert_eq!(give(&mut one, 10.0, mark), 0);

    // By give-backs: what is charged at that moment is of the new count, what was before is not.
    let mut one = One::default();
    let old = one.take(&quota, at(0.0), 10);
    let last = one.take(&quota, at(5.0), 5);
    assert_eq!(give(&mut one, 5.0, last), 10);
    let new = one.take(&quota, at(5.0), 5);
    assert_eq!(give(&mut one.clone(), 5.0, old), 0);
    assert_eq!(give(&mut one.clone(), 5.0, new), 5);
    // And a clock that stands before both knows nothing of what was paid since.
    assert_eq!(give(&mut one.clone(), 4.999_999, new), 0);
    assert_eq!(give(&mut one, 4.0, old), 0);
    assert_eq!(one.used(&quota, at(5.0)), 5);

    // A debt that was not paid off in between: both are owed.
    let mut one = One::default();
    let old = one.take(&quota, at(0.0), 10);
    one.take(&quota, at(5.0), 5);
    assert_eq!(give(&mut one, 5.0, old), 5);
    assert_eq!(one.used(&quota, at(5.0)), 5);
}

#[test]
fn a_bucket_is_fresh_when_its_debt_is_paid_off() {
    let (quota, mut one) = (seven_a_minute(), One::default());
    one.take(&quota, at(0.0), 7);
    assert!(!one.is_fresh(at(59.999_999)) && one.is_fresh(at(60.0)));
}

/// A full bucket is full under another quota too, because a store may have dropped it by then.
#[test]
fn what_was_paid_off_is_not_owed_to_a_slower_bucket() {
    let fast = bucket(10, 10, Period::SECOND);
    let slow = bucket(10, 10, Period::HOUR);
    let mut one = One::default();
    one.take(&fast, at(0.0), 10);
    assert_eq!(one.used(&slow, at(0.999_999)), 10);
    assert_eq!(one.used(&slow, at(1.0)), 0);
}

/// Until everything is free, under `small`, of what `large` let a client take at once.
fn owed(large: &Quota, cost: u64, small: &Quota) -> Duration {
    let mut one = One::default();
    one.take(large, at(0.0), cost);
    one.wait(small, at(0.0), small.capacity())
}

/// Old and new side by side during a deploy: the debt of the larger is not cut down to the smaller's, as far
/// as numbers below 2^53 hold it.
#[test]
fn a_larger_buckets_debt_is_kept() {
    let small = bucket(10, 1, Period::SECOND);
    let large = bucket(1_000, 1, Period::SECOND);
    assert_eq!(owed(&large, 1_000, &small), Duration::from_secs(1_000));

    // 10^10 tokens are 10^16 fractions of a millionth: more than 2^53, and more than 2^52 us of one
    // fraction each. It is cut to what takes the longest time but one unit.
    let huge = bucket(10_000_000_000, 1_000_000, Period::SECOND);
    let all = huge.capacity();
    assert_eq!(owed(&huge, all, &small), micros((1 << 52) - 1));
    // Seven fractions a unit: 2^53 - 1 fractions, less a full bucket of 10,000,000 and one unit's 7.
    let faster = bucket(10, 7, Period::SECOND);
    assert_eq!(owed(&huge, all, &faster), micros(1_286_742_749_248_712));
    // In milliseconds: 2^52 us are 4,503,599,627,370.4 ms.
    let most = 10_000_000;
    let quick = bucket(most, 1_000_000, Period::SECOND);
    let longest = Duration::from_millis(4_503_599_627_369);
    assert_eq!(owed(&quick, most, &seven_a_day()), longest);
    // A bucket whose twofold debt is the larger bound: 2 * 4,503,599,622 * 1,000,000 fractions at
    // 9,999,999 a microsecond.
    let wide = bucket(4_503_599_622, 9_999_999, Period::SECOND);
    let vast = bucket((1 << 51) - 1, (1 << 51) - 1, Period::SECOND);
    assert_eq!(owed(&vast, vast.capacity(), &wide), micros(900_720_015));
}
