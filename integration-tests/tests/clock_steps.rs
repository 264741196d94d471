//! I-C2 over memory and Redis: a clock that steps back grants nothing, one that steps forward at
//! most one capacity a key; and what a denial says then is still true (I-H6).
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{Bench, policy};
use limiter_core::Key;
use limiter_core::clock::Timestamp;
use limiter_core::limit::{Calendar, LimitStore, Limiter, Period, Policy, Quota};

const LIMIT: u64 = 6;

fn policies() -> [Policy; 5] {
    [
        policy(Quota::fixed_window(LIMIT, Period::MINUTE)),
        policy(Quota::sliding_window(LIMIT, Period::MINUTE)),
        policy(Quota::token_bucket(LIMIT, LIMIT, Period::MINUTE)),
        policy(Quota::sliding_log(LIMIT, Period::MINUTE)),
        policy(Quota::calendar_window(LIMIT, Calendar::Minute)),
    ]
}

/// Runs a case for each algorithm over both stores.
async fn each(case: impl AsyncFn(&Bench, &Limiter, &Policy, &Key)) {
    let bench = Bench::new().await;
    let stores: [(&str, std::sync::Arc<dyn LimitStore>); 2] = [
        ("memory", std::sync::Arc::new(bench.memory.clone())),
        ("redis", std::sync::Arc::new(bench.redis().clone())),
    ];
    for (name, store) in stores {
        let limiter = Limiter::new(store);
        for policy in policies() {
            let key = Key::new(["ratelimit", "steps", name, policy.name()]);
            case(&bench, &limiter, &policy, &key).await;
        }
    }
}

async fn step_back(bench: &Bench, by: Duration) {
    let back = u64::try_from(by.as_micros()).unwrap();
    bench
        .set(Timestamp::from_micros(bench.now().as_micros() - back))
        .await;
}

const STEPS: [Duration; 5] = [
    Duration::from_micros(1),
    Duration::from_millis(1),
    Duration::from_secs(59),
    Duration::from_secs(60),
    Duration::from_secs(7_200),
];

#[tokio::test]
async fn a_step_back_grants_nothing() {
    each(async |bench, limiter, policy, key| {
        limiter.try_check_n(policy, key, LIMIT).await.unwrap();
        for by in STEPS {
            step_back(bench, by).await;
            let denied = limiter.try_check(policy, key).await.unwrap();
            assert!(!denied.is_allowed(), "{} after {by:?}", policy.name());
        }
    })
    .await;
}

#[tokio::test]
async fn a_denial_after_a_step_back_says_when() {
    each(async |bench, limiter, policy, key| {
        for by in STEPS {
            limiter.reset(policy, key).await.unwrap();
            limiter.try_check_n(policy, key, LIMIT).await.unwrap();
            step_back(bench, by).await;
            let denied = limiter.try_check(policy, key).await.unwrap();
            let retry_after = denied.retry_after().unwrap();
            bench.set(bench.now().saturating_add(retry_after)).await;
            let due = limiter.try_check(policy, key).await.unwrap();
            assert!(
                due.is_allowed(),
                "{key} after {by:?} and {retry_after:?}: {due:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_step_forward_grants_one_capacity() {
    each(async |bench, limiter, policy, key| {
        for by in [Duration::from_secs(61), Duration::from_secs(86_400 * 365)] {
            limiter.try_check_n(policy, key, LIMIT).await.unwrap();
            bench.set(bench.now().saturating_add(by)).await;
            let mut granted = 0;
            while limiter.try_check(policy, key).await.unwrap().is_allowed() {
                granted += 1;
            }
            assert!(granted <= LIMIT, "{key} after {by:?}: {granted}");
            // The clock is put right again: what was granted is not granted twice.
            step_back(bench, by).await;
            let denied = limiter.try_check(policy, key).await.unwrap();
            assert!(!denied.is_allowed(), "{key} after {by:?} forward and back");
            limiter.reset(policy, key).await.unwrap();
        }
    })
    .await;
}
