//! I-H6: a lone client that waits exactly `retry_after` is admitted, and not a unit earlier.

use std::time::Duration;

use integration_tests::random;
use limiter_core::limit::{Action, OperationId, Quota, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;

use super::play::{Side, Table, policy, property};

const CASES: u32 = 150;

/// What comes before the wait: for each request what it takes (units, quarters of the capacity), and how
/// long after it the next one comes.
type Before = Vec<(u64, u64, Duration)>;

fn before() -> impl Strategy<Value = Before> {
    let pause = prop_oneof![
        2 => Just(Duration::ZERO),
        2 => (0u64..500_000).prop_map(Duration::from_micros),
        1 => (0u64..90_000).prop_map(Duration::from_millis),
    ];
    vec((0u64..4, 0u64..4, pause), 1..12)
}

fn waits(quota: BoxedStrategy<Quota>) {
    let values = (quota, before(), 1u64..4, 0u64..4);
    property(
        CASES,
        values,
        async |table, (quota, before, units, quarters)| {
            let policy = policy(quota);
            let capacity = quota.capacity();
            let cost =
                |units: u64, quarters: u64| (capacity * quarters / 4 + units).clamp(1, capacity);
            let asked = cost(units, quarters);
            let case = table.case();
            let lease = |number: usize| OperationId::new(format!("{case}-{number}"));
            for (number, (units, quarters, pause)) in before.iter().enumerate() {
                for side in &table.sides {
                    let key = side.key(case, 0);
                    let cost = cost(*units, *quarters);
                    let taken = side.take(&policy, &key, &lease(number), cost).await;
                    assert!(taken.used <= capacity, "{}: {taken:?}", side.name);
                }
                table.advance(*pause).await;
            }
            // Less is left than is asked for.
            let mut waits = Vec::new();
            for side in &table.sides {
                let key = side.key(case, 0);
                let left = capacity - side.used(&policy, &key).await;
                if let Some(most @ 1..) = left.checked_sub(quarters.min(asked - 1)) {
                    let taken = side.take(&policy, &key, &lease(100), most).await;
                    assert!(
                        taken.is_admitted(),
                        "{}: what is left can be had",
                        side.name
                    );
                }
                let denied = side.take(&policy, &key, &lease(101), asked).await;
                let Verdict::Deny { retry_after } = denied.verdict else {
                    panic!("{}: {denied:?}", side.name);
                };
                waits.push(retry_after);
            }
            let (retry_after, lease) = (waits[0], lease(101));
            assert_eq!(
                waits,
                vec![retry_after; table.sides.len()],
                "the stores agree"
            );
            exactly(table, &quota, case, asked, retry_after, &lease).await;
        },
    );
}

async fn exactly(
    table: &Table,
    quota: &Quota,
    case: usize,
    cost: u64,
    retry_after: Duration,
    lease: &OperationId,
) {
    let policy = policy(*quota);
    let unit = match quota {
        Quota::FixedWindow(_) | Quota::CalendarWindow(_) => Duration::from_millis(1),
        _ => Duration::from_micros(1),
    };
    assert!(!retry_after.is_zero());
    table.advance(retry_after - unit).await;
    for side in &table.sides {
        let key = side.key(case, 0);
        let early = side.take(&policy, &key, lease, cost).await;
        let verdict = Verdict::Deny { retry_after: unit };
        assert_eq!(early.verdict, verdict, "{}: a unit early", side.name);
    }
    table.advance(unit).await;
    for side in &table.sides {
        let key = side.key(case, 0);
        let due = side.take(&policy, &key, lease, cost).await;
        assert!(
            due.is_admitted(),
            "{} after {retry_after:?}: {due:?}",
            side.name
        );
        assert!((cost..=quota.capacity()).contains(&due.used), "{due:?}");
        all_is_free_when_it_says(side, &policy, &key, due.reset_after).await;
    }
}

/// Only that it says so: the other side has to see the same moments.
async fn all_is_free_when_it_says(
    side: &Side,
    policy: &limiter_core::limit::Policy,
    key: &limiter_core::Key,
    reset_after: Duration,
) {
    let cost = policy.quota().capacity();
    let looked = side.one(policy, key, Action::Peek { cost }).await.unwrap();
    let retry_after = reset_after;
    assert_eq!(
        looked.verdict,
        Verdict::Deny { retry_after },
        "{}",
        side.name
    );
}

#[test]
fn i_h6_waiting_exactly_retry_after_admits_in_a_fixed_window() {
    waits(random::fixed_window());
}

#[test]
fn i_h6_waiting_exactly_retry_after_admits_in_a_calendar_window() {
    waits(random::calendar_window());
}

#[test]
fn i_h6_waiting_exactly_retry_after_admits_in_a_sliding_window() {
    waits(random::sliding_window());
}

#[test]
fn i_h6_waiting_exactly_retry_after_admits_in_a_sliding_log() {
    waits(random::sliding_log());
}

#[test]
fn i_h6_waiting_exactly_retry_after_admits_in_a_token_bucket() {
    waits(random::token_bucket());
}

#[test]
fn i_h6_waiting_exactly_retry_after_admits_under_concurrency() {
    waits(random::concurrency());
}
