//! Threshold events of a fleet: once a window, whichever instance crosses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use integration_tests::{Bench, random};
use limiter::Thresholds;
use limiter_core::conformance::LimitHarness;
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{Calendar, Charge, Limiter, Period, Policy, Quota};
use limiter_redis::RedisStore;
use proptest::prelude::*;

const INSTANCES: usize = 8;

#[derive(Clone, Debug)]
struct Plan {
    quota: Quota,
    /// What is asked in each window, by which instance, for which of three keys.
    windows: Vec<Vec<(usize, usize, u64)>>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let quota = (1..60_u64, any::<bool>()).prop_map(|(limit, calendar)| match calendar {
        true => Quota::calendar_window(limit, Calendar::Minute).unwrap(),
        false => Quota::fixed_window(limit, Period::MINUTE).unwrap(),
    });
    let asked = (0..INSTANCES, 0..3_usize, 1..6_u64);
    let windows = proptest::collection::vec(proptest::collection::vec(asked, 1..120), 1..4);
    (quota, windows).prop_map(|(quota, windows)| Plan { quota, windows })
}

type Told = Arc<Mutex<BTreeMap<(String, u8), u64>>>;

#[test]
fn a_fleet_tells_of_a_threshold_once_a_window() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    let bench = runtime.block_on(Bench::new());
    let config = bench.server.virtual_config();
    let told = Told::default();
    let instances: Vec<Limiter> = (0..INSTANCES)
        .map(|_| {
            let told = told.clone();
            let thresholds = Thresholds::new(&[80, 95], move |crossing| {
                let name = (crossing.key.as_str().to_owned(), crossing.percent);
                *told.lock().unwrap().entry(name).or_default() += 1;
            });
            let stack = Stack::new(RedisStore::with_virtual_clock(&config).unwrap());
            let stack = stack.observe(thresholds.unwrap());
            Limiter::raw(stack.build())
        })
        .collect();
    let cases = AtomicU64::new(0);
    let minute = Duration::from_secs(60);
    random::check(&random::config(40), &plan(), |plan| {
        let case = cases.fetch_add(1, Ordering::Relaxed);
        let policy = Policy::new("threshold", plan.quota).unwrap();
        let limit = plan.quota.capacity();
        let keys = [0, 1, 2].map(|key| policy.key([format!("{case}-{key}")]));
        for asked in &plan.windows {
            // All at once, and a window later again.
            let admitted = runtime.block_on(async {
                let calls = asked.iter().map(|(instance, key, cost)| {
                    let (limiter, policy) = (instances[*instance].clone(), policy.clone());
                    let (place, key, cost) = (*key, keys[*key].clone(), *cost);
                    tokio::spawn(async move {
                        let charge = [Charge::new(&policy, &key).with_cost(cost)];
                        let decision = limiter.try_check_all(&charge).await.unwrap();
                        (place, if decision.is_allowed() { cost } else { 0 })
                    })
                });
                let calls: Vec<_> = calls.collect();
                let mut admitted = [0; 3];
                for call in calls {
                    let (place, cost) = call.await.unwrap();
                    admitted[place] += cost;
                }
                bench.advance(minute).await;
                admitted
            });
            let events = std::mem::take(&mut *told.lock().unwrap());
            for (key, admitted) in keys.iter().zip(admitted) {
                for percent in [80_u8, 95] {
                    let is_crossed = admitted * 100 >= limit * u64::from(percent);
                    let count = events.get(&(key.as_str().to_owned(), percent));
                    prop_assert_eq!(
                        count.copied().unwrap_or(0),
                        u64::from(is_crossed),
                        "{}% of {}, {} used",
                        percent,
                        limit,
                        admitted
                    );
                }
            }
        }
        Ok(())
    });
}
