//! What the histories are about.

use integration_tests::random;
use limiter_core::limit::Quota;
use proptest::strategy::BoxedStrategy;

/// The quotas of one test.
pub(crate) trait Subject: 'static {
    const NAME: &'static str;
    fn quota() -> BoxedStrategy<Quota>;
}

macro_rules! subject {
    ($subject:ident, $name:literal, $quota:expr) => {
        pub(crate) struct $subject;

        impl Subject for $subject {
            const NAME: &'static str = $name;
            fn quota() -> BoxedStrategy<Quota> {
                $quota
            }
        }
    };
}

subject!(FixedWindows, "fixed windows", random::fixed_window());
subject!(
    CalendarWindows,
    "calendar windows",
    random::calendar_window()
);
subject!(
    SlidingCounters,
    "sliding counters",
    random::sliding_window()
);
subject!(SlidingLogs, "sliding logs", random::sliding_log());
subject!(TokenBuckets, "token buckets", random::token_bucket());
subject!(Concurrency, "concurrency", random::concurrency());
subject!(Every, "every algorithm", random::any_quota());
