//! I-H1, I-H2, I-H3, I-H4: how much is admitted in which span of time.

use std::time::Duration;

use integration_tests::model::calendar_end;
use integration_tests::random;
use limiter_core::limit::algorithm::TokenBucket;
use limiter_core::limit::{Calendar, Quota};

use super::play::{Admission, GiveBacks, moves, play, property};

const CASES: u32 = 200;

/// The most that stands of what was admitted in a span of this length that ends with the last admission.
fn in_the_last(length: u64, admissions: &[Admission]) -> u64 {
    let now = admissions.last().map_or(0, |admission| admission.at);
    let recent = admissions.iter().rev();
    let recent = recent.take_while(|admission| now - admission.at < length);
    recent.map(|admission| admission.net).sum()
}

/// `B + floor(n * (t + unit) / p)` in any interval of length t.
fn bucket_bound(bucket: &TokenBucket, micros: u64) -> u64 {
    let micros = u128::from(micros + bucket.unit_micros());
    let period = u128::from(bucket.period().as_micros());
    let refilled = u128::from(bucket.refill()) * micros / period;
    bucket.capacity() + u64::try_from(refilled).unwrap()
}

/// Plays over token buckets; `taken` tells what counts for the interval that begins at a moment.
fn i_h1(order: GiveBacks, taken: impl Fn(&[Admission], u64) -> u64) {
    let values = (random::token_bucket(), moves());
    property(CASES, values, async |table, (quota, moves)| {
        let Quota::TokenBucket(bucket) = quota else {
            unreachable!("a token bucket was drawn");
        };
        let window = bucket.period().as_duration();
        play(table, quota, window, &moves, order, |admissions, side| {
            let now = admissions.last().unwrap().at;
            for from in admissions {
                let (taken, length) = (taken(admissions, from.at), now - from.at);
                assert!(
                    taken <= bucket_bound(&bucket, length),
                    "{side}: {taken} in {length} us: {admissions:?}"
                );
            }
        })
        .await;
    });
}

/// What is given back counts for nothing, where charges are given back newest first.
#[test]
fn i_h1_token_bucket_bound_in_any_interval() {
    i_h1(GiveBacks::NewestFirst, |admissions, from| {
        let recent = admissions.iter().filter(|admission| admission.at >= from);
        recent.map(|admission| admission.net).sum()
    });
}

/// In any order, what flows out less what flows back, each when it does.
#[test]
fn i_h1_token_bucket_bound_with_give_backs_in_any_order() {
    i_h1(GiveBacks::InAnyOrder, |admissions, from| {
        let (mut out, mut back) = (0, 0);
        for admission in admissions {
            let (when, given) = admission.given.unwrap_or_default();
            if admission.at >= from {
                out += admission.net + given;
            }
            if when >= from {
                back += given;
            }
        }
        out.saturating_sub(back)
    });
}

/// The sum of what was admitted since each window was opened, which the first admission after the last
/// window's end does. `end` gives a window's end for its opening, in milliseconds.
fn most_in_a_window(admissions: &[Admission], end: impl Fn(u64) -> u64) -> u64 {
    let (mut until, mut sum, mut most) = (0, 0, 0);
    for admission in admissions {
        let millis = admission.at / 1_000;
        if millis >= until {
            (until, sum) = (end(millis), 0);
        }
        sum += admission.net;
        most = most.max(sum);
    }
    most
}

#[test]
fn i_h2_fixed_at_most_limit_a_window() {
    let values = (random::fixed_window(), moves());
    property(CASES, values, async |table, (quota, moves)| {
        let Quota::FixedWindow(fixed) = quota else {
            unreachable!("a fixed window was drawn");
        };
        let window = fixed.window().as_duration();
        let millis = fixed.window().as_micros() / 1_000;
        let order = GiveBacks::InAnyOrder;
        play(table, quota, window, &moves, order, |admissions, side| {
            let most = most_in_a_window(admissions, |opened| opened + millis);
            assert!(most <= fixed.limit(), "{side}: {most}: {admissions:?}");
            let twice = in_the_last(fixed.window().as_micros(), admissions);
            assert!(twice <= 2 * fixed.limit(), "{side}: {twice} in one length");
        })
        .await;
    });
}

/// In each unit of the calendar. A window that is opened in a unit's last millisecond lasts one more.
#[test]
fn i_h2_calendar_at_most_limit_a_window() {
    let values = (random::calendar_window(), moves());
    property(CASES, values, async |table, (quota, moves)| {
        let Quota::CalendarWindow(window) = quota else {
            unreachable!("a calendar window was drawn");
        };
        let length = match window.calendar() {
            Calendar::Month => Duration::from_secs(86_400),
            unit => unit.period().as_duration(),
        };
        let order = GiveBacks::InAnyOrder;
        play(table, quota, length, &moves, order, |admissions, side| {
            let most = most_in_a_window(admissions, |opened| {
                calendar_end(window.calendar(), opened).max(opened + 2)
            });
            assert!(most <= window.limit(), "{side}: {most}: {admissions:?}");
        })
        .await;
    });
}

#[test]
fn i_h3_log_at_most_limit_in_any_window() {
    let values = (random::sliding_log(), moves());
    property(CASES, values, async |table, (quota, moves)| {
        let Quota::SlidingLog(log) = quota else {
            unreachable!("a sliding log was drawn");
        };
        let window = log.window();
        let order = GiveBacks::InAnyOrder;
        play(
            table,
            quota,
            window.as_duration(),
            &moves,
            order,
            |admissions, side| {
                let sum = in_the_last(window.as_micros(), admissions);
                assert!(sum <= log.limit(), "{side}: {sum}: {admissions:?}");
            },
        )
        .await;
    });
}

#[test]
fn i_h4_counter_at_most_twice() {
    let values = (random::sliding_window(), moves());
    property(CASES, values, async |table, (quota, moves)| {
        let Quota::SlidingWindow(counter) = quota else {
            unreachable!("a sliding window was drawn");
        };
        let window = counter.window();
        let order = GiveBacks::InAnyOrder;
        play(
            table,
            quota,
            window.as_duration(),
            &moves,
            order,
            |admissions, side| {
                let sum = in_the_last(window.as_micros(), admissions);
                assert!(sum <= 2 * counter.limit(), "{side}: {sum}: {admissions:?}");
                // In one aligned window, never more than the limit.
                let start = |at: u64| at / window.as_micros();
                let last = admissions.last().unwrap().at;
                let aligned = admissions.iter().filter(|a| start(a.at) == start(last));
                let sum: u64 = aligned.map(|admission| admission.net).sum();
                assert!(sum <= counter.limit(), "{side}: {sum} in an aligned window");
            },
        )
        .await;
    });
}
