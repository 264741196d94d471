//! The token bucket, to the fraction.

use std::time::Duration;

use super::{One, at};
use crate::clock::Timestamp;
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

/// As long as a debt of twice the bucket, the largest there is, takes to be paid off.
#[test]
fn a_charge_counts_until_the_largest_debt_is_paid_off() {
    let mark = Mark {
        at: at(5.0),
        number: 1,
    };
    let until = |quota| counts_until(&quota, mark).saturating_since(at(5.0));
    // 20 tokens at 7 a minute; 120,000 at 7 a day, in milliseconds.
    assert_eq!(until(seven_a_minute()), micros(171_428_572));
    let longest = Duration::from_millis(1_481_142_857_143);
    assert_eq!(until(seven_a_day()), longest);
}

/// What has flowed back already is not given back.
#[test]
fn a_late_give_back_is_of_what_is_still_owed() {
    let (quota, mut one) = (seven_a_minute(), One::default());
    let mark = one.take(&quota, at(0.0), 7);
    assert_eq!(mark.number, at(0.0).as_micros() + 7);
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

/// A debt may be twice the bucket, no more.
#[test]
fn an_overrun_leaves_as_much_debt_again() {
    let quota = bucket(10, 1, Period::SECOND);
    let mut one = One::default();
    let mark = one.take(&quota, at(0.0), 10);
    assert_eq!(one.change(&quota, at(0.0), Change::Overrun(mark, 99)), 10);
    assert_eq!(one.used(&quota, at(0.0)), 20);
    assert_eq!(one.wait(&quota, at(0.0), 1), Duration::from_secs(11));
    // Of the 11 that are owed after 9 s, the overrun came after the charge and is paid off after it.
    let mut one_more = one.clone();
    let given = one_more.change(&quota, at(9.0), Change::GiveBack(mark, 99));
    assert_eq!((given, one_more.used(&quota, at(9.0))), (1, 10));
    // With it, 11 are owed: more than the 10 that a charge can be.
    let number = mark.number + 10;
    let whole = Change::GiveBack(Mark { number, ..mark }, 99);
    assert_eq!(one.change(&quota, at(9.0), whole), 10);
    assert_eq!(one.used(&quota, at(9.0)), 1);
}

/// A receipt of what a bucket counted before it was full again, or after its count began anew, names
/// nothing.
#[test]
fn what_was_charged_before_is_not_owed() {
    let quota = bucket(10, 1, Period::SECOND);
    let mut one = One::default();
    let mark = one.take(&quota, at(0.0), 10);
    one.take(&quota, at(10.0), 10);
    assert_eq!(one.change(&quota, at(10.0), Change::GiveBack(mark, 10)), 0);
    assert_eq!(one.used(&quota, at(10.0)), 10);

    // The count goes on to 2^53 - 1.
    let now = Timestamp::from_micros((1 << 53) - 1 - 3);
    let mut one = One::default();
    let last = one.take(&quota, now, 3);
    assert_eq!(last.number, (1 << 53) - 1);
    assert_eq!(one.take(&quota, now, 5).number, 5);
    assert_eq!(one.change(&quota, now, Change::GiveBack(last, 3)), 0);
    assert_eq!(one.used(&quota, now), 8);
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
