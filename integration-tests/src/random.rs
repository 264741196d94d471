//! What property tests draw, and how they are run: `LIMITER_SEED` repeats a run; the seed is printed.

use std::fmt::Debug;
use std::time::Duration;

use limiter_core::Error;
use limiter_core::clock::{Clock, SystemClock};
use limiter_core::limit::{Calendar, Period, Quota};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseResult, TestRunner};

/// The settings of a run of so many cases, whose seed is printed.
pub fn config(cases: u32) -> Config {
    let given = std::env::var("LIMITER_SEED").ok();
    let seed = given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| SystemClock.now().as_micros());
    #[expect(clippy::print_stdout, reason = "shown if the test fails")]
    {
        println!("LIMITER_SEED={seed}");
    }
    Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_local_rejects: 1_000_000,
        max_global_rejects: 1_000_000,
        max_shrink_iters: 1_000,
        ..Config::default()
    }
}

/// Runs a property on so many random values.
///
/// # Panics
/// If it does not hold, with the smallest value found and the seed.
pub fn check<T: Debug>(
    config: &Config,
    values: &impl Strategy<Value = T>,
    property: impl Fn(T) -> TestCaseResult,
) {
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => 0,
    };
    if let Err(error) = TestRunner::new(config.clone()).run(values, property) {
        panic!("LIMITER_SEED={seed}\n{error}");
    }
}

/// From microseconds to a day.
pub fn period() -> impl Strategy<Value = Period> {
    prop_oneof![
        Just(Period::SECOND),
        Just(Period::MINUTE),
        Just(Period::DAY),
        (2u64..5_000).prop_map(|millis| Period::new(Duration::from_millis(millis)).unwrap()),
        (2u64..5_000_000).prop_map(|micros| Period::new(Duration::from_micros(micros)).unwrap()),
    ]
}

/// Mostly small.
pub fn limit() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 1u64..20, 1 => 20u64..1_000, 1 => 1_000_000u64..20_000_000]
}

/// What the constructor refuses is drawn again.
fn drawn(
    make: impl Fn(u64, u64, Period) -> Result<Quota, Error> + 'static,
) -> BoxedStrategy<Quota> {
    (limit(), limit(), period())
        .prop_filter_map("refused", move |(limit, refill, period)| {
            make(limit, refill, period).ok()
        })
        .boxed()
}

/// Fixed windows.
pub fn fixed_window() -> BoxedStrategy<Quota> {
    drawn(|limit, _, period| Quota::fixed_window(limit, period))
}

/// Windows of every unit of the calendar.
pub fn calendar_window() -> BoxedStrategy<Quota> {
    let unit = prop_oneof![
        3 => Just(Calendar::Minute),
        1 => Just(Calendar::Hour),
        1 => Just(Calendar::Day),
        2 => Just(Calendar::Month)
    ];
    (limit(), unit)
        .prop_map(|(limit, unit)| Quota::calendar_window(limit, unit).unwrap())
        .boxed()
}

/// Sliding window counters.
pub fn sliding_window() -> BoxedStrategy<Quota> {
    drawn(|limit, _, period| Quota::sliding_window(limit, period))
}

/// Sliding window logs.
pub fn sliding_log() -> BoxedStrategy<Quota> {
    drawn(|limit, _, period| Quota::sliding_log(limit, period))
}

/// Token buckets.
pub fn token_bucket() -> BoxedStrategy<Quota> {
    drawn(Quota::token_bucket)
}

/// Concurrency limits.
pub fn concurrency() -> BoxedStrategy<Quota> {
    drawn(|limit, _, _| Quota::concurrency(limit))
}

/// Quotas that take charges.
pub fn charged() -> BoxedStrategy<Quota> {
    prop_oneof![
        fixed_window(),
        calendar_window(),
        sliding_window(),
        sliding_log(),
        token_bucket(),
    ]
    .boxed()
}

/// Every algorithm.
pub fn any_quota() -> BoxedStrategy<Quota> {
    prop_oneof![5 => charged(), 1 => concurrency()].boxed()
}
