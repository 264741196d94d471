//! Which numbers a quota takes, and how it reads.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::limit::{Calendar, Period, Quota};

/// Whether a quota is built; anything else than bad input fails.
fn is_built(quota: Result<Quota, Error>) -> bool {
    match quota {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            false
        }
    }
}

fn micros(micros: u64) -> Period {
    Period::new(Duration::from_micros(micros)).unwrap()
}

#[test]
fn limits_are_1_to_below_2_to_the_51() {
    let second = micros(1_000_000);
    type Make = fn(u64, Period) -> Result<Quota, Error>;
    let makes: [Make; 4] = [
        Quota::fixed_window,
        |limit, _| Quota::calendar_window(limit, Calendar::Day),
        // In seconds, so that the product does not bind first.
        Quota::sliding_window,
        |limit, per| Quota::token_bucket(limit, limit, per),
    ];
    for make in makes {
        assert!(!is_built(make(0, second)));
        assert!(is_built(make(1, second)));
        assert!(is_built(make((1 << 51) - 1, second)));
        assert!(!is_built(make(1 << 51, second)));
    }
    assert!(!is_built(Quota::token_bucket(1, 0, second)));
    assert!(!is_built(Quota::token_bucket(1, 1 << 51, second)));
    let log = |limit| Quota::sliding_log(limit, Period::HOUR);
    for (make, most) in [(log as fn(u64) -> _, 1_000), (Quota::concurrency, 10_000)] {
        assert!(!is_built(make(0)));
        assert!(is_built(make(1)));
        assert!(is_built(make(most)));
        assert!(!is_built(make(most + 1)));
    }
}

#[test]
fn a_fixed_window_is_whole_milliseconds() {
    for (length, fits) in [
        (1, false),
        (1_000, false),
        (1_999, false),
        (2_000, true),
        (2_001, false),
        (3_000, true),
        (3_500, false),
    ] {
        let quota = Quota::fixed_window(1, micros(length));
        assert_eq!(is_built(quota), fits, "{length} us");
    }
}

fn unit(quota: Result<Quota, Error>) -> Option<u64> {
    match quota.ok()? {
        Quota::SlidingWindow(quota) => Some(quota.unit_micros()),
        Quota::TokenBucket(quota) => Some(quota.unit_micros()),
        _ => None,
    }
}

/// `limit * window` stays below 2^53 = 9,007,199,254,740,992 in the finest unit that divides the window.
#[test]
fn a_sliding_window_counts_in_the_finest_unit_that_is_exact() {
    let unit = |limit, window| unit(Quota::sliding_window(limit, window));
    // 2^53 / 1,000,000 us = 9,007,199,254.7...
    assert_eq!(unit(9_007_199_254, Period::SECOND), Some(1));
    assert_eq!(unit(9_007_199_255, Period::SECOND), Some(1_000));
    assert_eq!(unit(9_007_199_254_740, Period::SECOND), Some(1_000));
    assert_eq!(unit(9_007_199_254_741, Period::SECOND), Some(1_000_000));
    // What no coarser unit divides has none.
    assert_eq!(unit(9_007_199_254, micros(1_000_001)), None);
    assert_eq!(unit(9_007_190_247, micros(1_000_001)), Some(1));
    // 2^53 - 1 = 20,394,401 * 441,650,591, and 2^53 = 2^33 * 2^20.
    assert_eq!(unit(20_394_401, micros(441_650_591)), Some(1));
    assert_eq!(unit(1 << 33, micros(1 << 20)), None);
}

/// `2 * capacity * p + n` stays below 2^53, with n tokens per p units reduced.
#[test]
fn a_token_bucket_counts_in_the_finest_unit_that_is_exact() {
    let unit = |capacity, refill, per| unit(Quota::token_bucket(capacity, refill, per));
    // 9,999,999 and a power of ten have no common divisor. (2^53 - 1 - 9,999,999) / 2,000,000 us =
    // 4,503,599,622.37...
    assert_eq!(unit(4_503_599_622, 9_999_999, Period::SECOND), Some(1));
    assert_eq!(unit(4_503_599_623, 9_999_999, Period::SECOND), Some(1_000));
    assert_eq!(
        unit(4_503_599_622_370, 9_999_999, Period::SECOND),
        Some(1_000)
    );
    assert_eq!(
        unit(4_503_599_622_371, 9_999_999, Period::SECOND),
        Some(1_000_000)
    );
    // What no coarser unit divides has none. (2^53 - 1 - 10,000,000) / 2,000,002 = 4,503,595,119.8...
    assert_eq!(unit(4_503_595_118, 10_000_000, micros(1_000_001)), Some(1));
    assert_eq!(unit(4_503_595_119, 10_000_000, micros(1_000_001)), None);
}

#[test]
fn a_token_bucket_reduces_its_rate() {
    for (refill, per, fractions) in [
        (7, Period::SECOND, (7, 1_000_000)),
        (600, Period::MINUTE, (1, 100_000)),
        (3_000_000, Period::SECOND, (3, 1)),
        (1, micros(1), (1, 1)),
    ] {
        let Ok(Quota::TokenBucket(bucket)) = Quota::token_bucket(10, refill, per) else {
            panic!("{refill} per {per} is refused");
        };
        assert_eq!(bucket.fractions(), fractions, "{refill} per {per}");
    }
}

/// Twice the capacity comes back before 2^52 us, some 142 years, have passed.
#[test]
fn a_token_bucket_refills_within_a_lifetime() {
    // A token a day: 2^52 / 86,400,000,000 / 2 = 26,062.4...
    assert!(is_built(Quota::token_bucket(26_062, 1, Period::DAY)));
    assert!(!is_built(Quota::token_bucket(26_063, 1, Period::DAY)));
    // 2 * 2^31 tokens at one every 2^20 us are exactly 2^52 us.
    let (most, per) = ((1 << 31) - 1, micros(1 << 20));
    assert!(is_built(Quota::token_bucket(most, 1, per)));
    assert!(!is_built(Quota::token_bucket(most + 1, 1, per)));
}

#[test]
fn periods_are_whole_microseconds_up_to_ten_years() {
    let day = Duration::from_secs(86_400);
    assert!(Period::new(Duration::ZERO).is_err());
    assert!(Period::new(Duration::from_nanos(999)).is_err());
    assert!(Period::new(Duration::from_nanos(1_001)).is_err());
    assert!(Period::new(Duration::from_micros(1)).is_ok());
    assert!(Period::new(3_660 * day).is_ok());
    assert!(Period::new(3_660 * day + Duration::from_micros(1)).is_err());
    assert!(Period::new(Duration::MAX).is_err());
    let period = Period::try_from(day).unwrap();
    assert_eq!((period, period.as_micros()), (Period::DAY, 86_400_000_000));
    assert_eq!(period.as_duration(), day);
    assert_eq!(Period::SECOND.as_micros(), 1_000_000);
    assert_eq!(Period::MINUTE.as_micros(), 60_000_000);
    assert_eq!(Period::HOUR.as_micros(), 3_600_000_000);
    assert_eq!(Period::MONTH.as_micros(), 2_592_000_000_000);
}

#[test]
fn periods_read_as_people_say_them() {
    for (length, text) in [
        (1, "microsecond"),
        (999, "999 microseconds"),
        (1_000, "millisecond"),
        (1_500, "1500 microseconds"),
        (2_000, "2 milliseconds"),
        (1_000_000, "second"),
        (90_000_000, "90 seconds"),
        (60_000_000, "minute"),
        (120_000_000, "2 minutes"),
        (3_600_000_000, "hour"),
        (7_200_000_000, "2 hours"),
        (5_400_000_000, "90 minutes"),
        (86_400_000_000, "day"),
        (2_592_000_000_000, "30 days"),
    ] {
        assert_eq!(micros(length).to_string(), text);
    }
}

#[test]
fn quotas_read_as_people_say_them() {
    let rows = [
        (
            Quota::fixed_window(20, Period::HOUR),
            "20 per hour",
            "fixed_window",
            Some((20, Period::HOUR)),
        ),
        (
            Quota::calendar_window(20, Calendar::Month),
            "20 per calendar month",
            "calendar_window",
            Some((20, Period::MONTH)),
        ),
        (
            Quota::sliding_window(20, Period::DAY),
            "20 per day",
            "sliding_window",
            Some((20, Period::DAY)),
        ),
        (
            Quota::sliding_log(20, Period::MINUTE),
            "20 per minute",
            "sliding_log",
            Some((20, Period::MINUTE)),
        ),
        (
            Quota::token_bucket(20, 7, Period::MINUTE),
            "20 at once, 7 per minute",
            "token_bucket",
            Some((7, Period::MINUTE)),
        ),
        (
            Quota::token_bucket(20, 20, Period::MINUTE),
            "20 per minute",
            "token_bucket",
            Some((20, Period::MINUTE)),
        ),
        (Quota::concurrency(20), "20 at once", "concurrency", None),
    ];
    for (quota, text, algorithm, rate) in rows {
        let quota = quota.unwrap();
        assert_eq!(quota.to_string(), text);
        assert_eq!(quota.algorithm(), algorithm);
        assert_eq!((quota.capacity(), quota.rate()), (20, rate), "{quota}");
        assert_eq!(quota.is_concurrency(), rate.is_none(), "{quota}");
    }
}

#[test]
fn calendars_have_names_and_lengths() {
    for (calendar, name, period) in [
        (Calendar::Minute, "minute", Period::MINUTE),
        (Calendar::Hour, "hour", Period::HOUR),
        (Calendar::Day, "day", Period::DAY),
        (Calendar::Month, "month", Period::MONTH),
    ] {
        assert_eq!((calendar.as_str(), calendar.period()), (name, period));
        assert_eq!(calendar.to_string(), name);
    }
}

/// Known fault: `per_second(n)` that means a period (tower-governor#55). It is n in each second.
#[test]
fn rates_by_the_unit_of_time_are_buckets_of_that_size() {
    type Make = fn(u64) -> Result<Quota, Error>;
    let makes: [(Make, Period, &str); 4] = [
        (Quota::per_second, Period::SECOND, "7 per second"),
        (Quota::per_minute, Period::MINUTE, "7 per minute"),
        (Quota::per_hour, Period::HOUR, "7 per hour"),
        (Quota::per_day, Period::DAY, "7 per day"),
    ];
    for (make, per, text) in makes {
        let quota = make(7).unwrap();
        assert_eq!(quota, Quota::token_bucket(7, 7, per).unwrap());
        assert_eq!(quota.to_string(), text);
        let burst = quota.with_burst(20).unwrap();
        assert_eq!(burst, Quota::token_bucket(20, 7, per).unwrap());
        assert!(!is_built(make(0)) && !is_built(make(1 << 51)));
        assert!(!is_built(quota.with_burst(0)));
    }
    let window = Quota::fixed_window(7, Period::HOUR).unwrap();
    let refused = window.with_burst(9).unwrap_err();
    assert!(
        refused.message().contains("fixed_window has no burst"),
        "{refused}"
    );
}
