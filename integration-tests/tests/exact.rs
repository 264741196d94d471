//! A4: however many instances charge at once, exactly the limit is admitted. Ten runs of ten, at
//! the real clock; any error fails the run, because its effect would be unknown.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use integration_tests::{RedisServer, policy, redis_limiter};
use limiter_core::Key;
use limiter_core::clock::{Clock, SystemClock};
use limiter_core::limit::{Limiter, Period, Policy, Quota};
use limiter_memory::MemoryStore;
use tokio::sync::Barrier;

const RUNS: u64 = 10;
const TASKS: usize = 64;
const INSTANCES: usize = 4;
const CHARGES: u64 = 10_000;
const LIMIT: u64 = 1_000;

fn fixed_window() -> Policy {
    policy(Quota::fixed_window(LIMIT, Period::DAY))
}

fn sliding_window() -> Policy {
    policy(Quota::sliding_window(LIMIT, Period::DAY))
}

/// Nothing comes back within a run: a token takes a day.
fn token_bucket() -> Policy {
    policy(Quota::token_bucket(LIMIT, 1, Period::DAY))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fixed_window_over_four_instances() {
    over_redis(&fixed_window()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sliding_window_over_four_instances() {
    over_redis(&sliding_window()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_bucket_over_four_instances() {
    over_redis(&token_bucket()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_over_one_memory() {
    let store = MemoryStore::new();
    let clones = [(); INSTANCES].map(|()| Limiter::new(store.clone()));
    for policy in [fixed_window(), sliding_window(), token_bucket()] {
        ten_runs(&clones, &policy).await;
    }
}

async fn over_redis(policy: &Policy) {
    let server = RedisServer::start();
    let instances = [(); INSTANCES].map(|()| redis_limiter(&server.config()));
    ten_runs(&instances, policy).await;
}

async fn ten_runs(instances: &[Limiter; INSTANCES], policy: &Policy) {
    let mut runs = 0;
    // Sliding windows are aligned to the day: a run over midnight says nothing, and a second one is
    // not over midnight.
    for attempt in 0.. {
        let day = today();
        let key = Key::new(["ratelimit", policy.name(), &attempt.to_string()]);
        let counts = run(instances, policy, &key).await;
        if day != today() {
            continue;
        }
        // No count was given out twice, and none was left out.
        assert_eq!(counts.len() as u64, LIMIT, "{}, run {runs}", policy.name());
        let distinct: BTreeSet<u64> = counts.into_iter().collect();
        assert!(
            distinct.into_iter().eq(1..=LIMIT),
            "{}, run {runs}",
            policy.name()
        );
        let left = instances[0].peek(policy, &key).await.unwrap();
        assert_eq!((left.used, left.remaining), (LIMIT, 0), "{}", policy.name());
        runs += 1;
        if runs == RUNS {
            return;
        }
    }
}

/// All charges of one run, from all tasks at once; what was used after each admitted one.
async fn run(instances: &[Limiter; INSTANCES], policy: &Policy, key: &Key) -> Vec<u64> {
    let tickets = Arc::new(AtomicU64::new(0));
    let start = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let limiter = instances[task % INSTANCES].clone();
            let (policy, key) = (policy.clone(), key.clone());
            let (tickets, start) = (tickets.clone(), start.clone());
            tokio::spawn(async move {
                let mut counts = Vec::new();
                start.wait().await;
                while tickets.fetch_add(1, Ordering::Relaxed) < CHARGES {
                    let decision = limiter.try_check(&policy, &key).await.unwrap();
                    if decision.is_allowed() {
                        counts.push(decision.used);
                    } else {
                        assert_eq!((decision.used, decision.remaining), (LIMIT, 0));
                    }
                }
                counts
            })
        })
        .collect();
    let mut counts = Vec::new();
    for task in tasks {
        counts.extend(task.await.unwrap());
    }
    counts
}

fn today() -> u64 {
    SystemClock.now().as_micros() / Period::DAY.as_micros()
}
