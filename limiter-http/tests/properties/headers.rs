//! Any decisions; `oracle::headers::check` asserts, for the fuzz target too.

use std::time::Duration;

use limiter_core::clock::Timestamp;
use limiter_core::limit::{Decision, Observed, Period, Policy, Quota, Source, Unit, Verdict};
use limiter_core::{Error, ErrorKind};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::oracle::headers::check;

/// Common spans, whole and broken, and the largest there are.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0u64..10_000_000_000).prop_map(Duration::from_nanos),
        (0u64..1 << 50).prop_map(Duration::from_micros),
        (any::<u64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        select(vec![Duration::ZERO, Duration::from_nanos(1), Duration::MAX]),
    ]
}

fn policy() -> impl Strategy<Value = Policy> {
    let numbers = (1u64..1 << 51, 1u64..1 << 30, 1u64..100_000_000);
    let quota = (any::<bool>(), numbers).prop_filter_map(
        "a quota that exists",
        |(bucket, (limit, refill, millis))| {
            let period = Period::new(Duration::from_millis(millis)).ok()?;
            if bucket {
                Quota::token_bucket(limit >> 30 | 1, refill, period).ok()
            } else {
                Quota::fixed_window(limit, period).ok()
            }
        },
    );
    let unit = select(vec![
        Unit::Requests,
        Unit::Tokens,
        Unit::named("pages").unwrap(),
    ]);
    ("[A-Za-z0-9_.\\-]{1,64}", quota, unit, any::<bool>()).prop_map(
        |(name, quota, unit, shadow)| {
            let policy = Policy::new(&name, quota).unwrap();
            policy.with_unit(unit).with_shadow(shadow)
        },
    )
}

/// Any that a store could report, also one that contradicts itself.
fn decision() -> impl Strategy<Value = Decision> {
    let verdict = prop_oneof![
        2 => Just(Verdict::Admit),
        1 => Just(Verdict::Never),
        2 => duration().prop_map(|retry_after| Verdict::Deny { retry_after }),
    ];
    let used = prop_oneof![0u64..100, any::<u64>()];
    (policy(), verdict, used, duration()).prop_map(|(policy, verdict, used, reset)| {
        Decision::new(&policy, &Observed::new(verdict, used, reset, Source::Store))
    })
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        (0u64..20_000_000).prop_map(Timestamp::from_micros),
        any::<u64>().prop_map(Timestamp::from_micros),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A3, N8, known fault: "Retry-After of 0, fractions".
    #[test]
    fn any_decision_has_headers_that_a_client_can_trust(
        decisions in vec(decision(), 0..5), decided in timestamp(), now in timestamp(),
    ) {
        check(decisions, decided, now);
    }

    /// The same where the store did not answer.
    #[test]
    fn any_outage_has_headers_that_a_client_can_trust(
        policies in vec(policy(), 1..4),
        kind in select(vec![
            ErrorKind::Timeout, ErrorKind::Connection, ErrorKind::Unauthorized,
            ErrorKind::Server, ErrorKind::Protocol, ErrorKind::Capacity,
            ErrorKind::InvalidInput, ErrorKind::Config, ErrorKind::Foreign,
        ]),
        decided in timestamp(), now in timestamp(),
    ) {
        let error = Error::new(kind, "limit.apply", "no answer");
        let decisions = policies.iter().map(|policy| Decision::unavailable(policy, &error));
        check(decisions.collect(), decided, now);
    }
}
