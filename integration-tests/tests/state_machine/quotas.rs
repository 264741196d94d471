//! What the histories are about.

use std::time::Duration;

use limiter_core::Error;
use limiter_core::limit::{Calendar, Period, Quota};
use proptest::prelude::*;

/// The quotas of one test.
pub(crate) trait Subject: 'static {
    const NAME: &'static str;
    fn quota() -> BoxedStrategy<Quota>;
}

pub(crate) struct FixedWindows;
pub(crate) struct CalendarWindows;
pub(crate) struct SlidingCounters;
pub(crate) struct SlidingLogs;
pub(crate) struct TokenBuckets;
pub(crate) struct Concurrency;
pub(crate) struct Every;

fn period() -> impl Strategy<Value = Period> {
    prop_oneof![
        Just(Period::SECOND),
        Just(Period::MINUTE),
        Just(Period::DAY),
        (2u64..5_000).prop_map(|millis| Period::new(Duration::from_millis(millis)).unwrap()),
        (2u64..5_000_000).prop_map(|micros| Period::new(Duration::from_micros(micros)).unwrap()),
    ]
}

fn limit() -> impl Strategy<Value = u64> {
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

impl Subject for FixedWindows {
    const NAME: &'static str = "fixed windows";
    fn quota() -> BoxedStrategy<Quota> {
        drawn(|limit, _, period| Quota::fixed_window(limit, period))
    }
}

impl Subject for CalendarWindows {
    const NAME: &'static str = "calendar windows";
    fn quota() -> BoxedStrategy<Quota> {
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
}

impl Subject for SlidingCounters {
    const NAME: &'static str = "sliding counters";
    fn quota() -> BoxedStrategy<Quota> {
        drawn(|limit, _, period| Quota::sliding_window(limit, period))
    }
}

impl Subject for SlidingLogs {
    const NAME: &'static str = "sliding logs";
    fn quota() -> BoxedStrategy<Quota> {
        drawn(|limit, _, period| Quota::sliding_log(limit, period))
    }
}

impl Subject for TokenBuckets {
    const NAME: &'static str = "token buckets";
    fn quota() -> BoxedStrategy<Quota> {
        drawn(Quota::token_bucket)
    }
}

impl Subject for Concurrency {
    const NAME: &'static str = "concurrency";
    fn quota() -> BoxedStrategy<Quota> {
        drawn(|limit, _, _| Quota::concurrency(limit))
    }
}

impl Subject for Every {
    const NAME: &'static str = "every algorithm";
    fn quota() -> BoxedStrategy<Quota> {
        prop_oneof![
            FixedWindows::quota(),
            CalendarWindows::quota(),
            SlidingCounters::quota(),
            SlidingLogs::quota(),
            TokenBuckets::quota(),
            Concurrency::quota(),
        ]
        .boxed()
    }
}
