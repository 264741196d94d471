//! I-H8: every key has a time to live within its bound, on a real Redis under its own clock.

use std::collections::HashMap;
use std::time::Duration;

use integration_tests::{RedisServer, random};
use limiter_core::Key;
use limiter_core::limit::{
    Action, Calendar, Group, LimitStore, OPERATION_TTL, Observed, OperationId, Policy, Quota,
    Receipt, Step,
};
use limiter_redis::RedisStore;
use proptest::collection::vec;

use super::play::policy;

/// States that only time makes fresh live at least this long, unless the settings say otherwise.
const FLOOR: Duration = Duration::from_secs(1_800);

const KEYS: usize = 3;

/// The longest that a state can count.
fn longest(quota: &Quota, lease: Duration) -> Duration {
    match quota {
        Quota::FixedWindow(quota) => quota.window().as_duration(),
        Quota::CalendarWindow(quota) if quota.calendar() == Calendar::Month => {
            Duration::from_secs(31 * 86_400)
        }
        Quota::CalendarWindow(quota) => quota.calendar().period().as_duration(),
        Quota::SlidingLog(quota) => quota.window().as_duration().max(FLOOR),
        Quota::SlidingWindow(quota) => (2 * quota.window().as_duration()).max(FLOOR),
        Quota::TokenBucket(quota) => {
            // As much debt again as the bucket holds.
            let micros = 2 * u128::from(quota.capacity()) * u128::from(quota.period().as_micros());
            let micros = micros / u128::from(quota.refill()) + u128::from(quota.unit_micros());
            Duration::from_micros(u64::try_from(micros).unwrap()).max(FLOOR)
        }
        Quota::Concurrency(_) => lease.max(FLOOR),
        other => unreachable!("{other}"),
    }
}

/// Which key, what is done, how much, and for how long.
type Call = (usize, usize, u64, u64);

#[test]
fn i_h8_every_key_has_a_ttl_within_its_bound() {
    let config = random::config(40);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = RedisServer::start();
    let stores: Vec<_> = runtime.block_on(async {
        let instance = || RedisStore::new(&server.config()).unwrap();
        vec![instance(), instance(), instance()]
    });
    let calls = vec((0..KEYS, 0usize..12, 1u64..5, 1u64..5_000_000), 5..30);
    let values = (vec(random::any_quota(), KEYS), calls);
    random::check(&config, &values, |(quotas, calls)| {
        server.command::<()>(&["FLUSHALL"]);
        runtime.block_on(case(&server, &stores, &quotas, &calls));
        Ok(())
    });
}

async fn case(server: &RedisServer, stores: &[RedisStore], quotas: &[Quota], calls: &[Call]) {
    let policies: Vec<Policy> = quotas.iter().map(|quota| policy(*quota)).collect();
    let keys: Vec<_> = (0..KEYS)
        .map(|key| Key::new(["ratelimit", "ttl", &key.to_string()]))
        .collect();
    let mut receipts: HashMap<usize, Receipt> = HashMap::new();
    let mut ttls = Duration::ZERO;
    for (number, (key, what, amount, millis)) in calls.iter().enumerate() {
        let (policy, store) = (&policies[*key], &stores[number % stores.len()]);
        let id = OperationId::new((*amount % 3).to_string());
        let (id, cost, estimate, actual) = (&id, *amount, *amount, *amount * 2);
        let (lease, ttl) = (id, Duration::from_millis(*millis));
        ttls = ttls.max(ttl);
        let action = match (policy.quota().is_concurrency(), what) {
            (true, 0..=5) => Action::Acquire { lease, cost, ttl },
            (true, 6..=8) => Action::Renew { lease, ttl },
            (true, _) => Action::Release {
                lease,
                ttl: Duration::from_secs(60),
            },
            (false, 0..=4) => Action::Charge { cost },
            (false, 5..=7) => Action::Reserve { id, estimate, ttl },
            (false, 8) => Action::Settle { id, actual },
            (false, 9) => Action::Cancel { id, ttl },
            (false, _) => match receipts.get(key) {
                Some(receipt) => Action::Refund { receipt },
                None => Action::Peek { cost },
            },
        };
        let charges = matches!(action, Action::Charge { .. });
        let steps = [Step::new(policy, &keys[*key], action)];
        let group = Group::new(&steps, &store.capabilities()).unwrap();
        let operation = OperationId::new(number.to_string());
        let group = if number % 4 == 0 {
            let all = store.capabilities();
            group
                .with_operation(&operation, OPERATION_TTL, &all)
                .unwrap()
        } else {
            group
        };
        let mut observed = [Observed::default()];
        // A reservation that is unknown or settled is refused, and leaves nothing.
        let answered = store.apply(&group, &mut observed).await.is_ok();
        if answered && charges && observed[0].is_admitted() {
            lives_long_enough(server, policy, &keys[*key], &observed[0]);
            let id = OperationId::new(format!("charge-{number}"));
            receipts.insert(*key, Receipt::new(id, observed[0].mark, cost));
        }
        look(server, quotas, ttls);
    }
}

/// Who has charged can rely on it until all is free; and what does not end with a window stays for most of the floor.
fn lives_long_enough(server: &RedisServer, policy: &Policy, key: &Key, observed: &Observed) {
    let left: i64 = server.command(&["PTTL", key.as_str()]);
    let left = Duration::from_millis(left.unsigned_abs());
    // So long ago the answer was made, at most.
    let slack = Duration::from_secs(5);
    let needed = match policy.quota() {
        // The millisecond of the expiry belongs to the window.
        Quota::FixedWindow(_) | Quota::CalendarWindow(_) => observed.reset_after,
        _ => observed.reset_after.max(FLOOR / 8 * 7),
    };
    assert!(left + slack >= needed, "{policy:?}: {left:?} of {needed:?}");
}

/// Every key that Redis holds.
fn look(server: &RedisServer, quotas: &[Quota], ttls: Duration) {
    let names: Vec<String> = server.command(&["KEYS", "*"]);
    for name in names {
        let left: i64 = server.command(&["PTTL", &name]);
        if left == -2 {
            continue;
        }
        assert!(left >= 0, "{name} never expires");
        let limit = name.strip_prefix("ratelimit:ttl:");
        let bound = match limit.map(|key| &quotas[key.parse::<usize>().unwrap()]) {
            Some(quota) => longest(quota, ttls),
            // A refund is remembered for as long as the charge may count.
            None if name.contains("%refund:") => {
                let longest = quotas.iter().map(|quota| longest(quota, ttls));
                longest.max().unwrap().max(OPERATION_TTL)
            }
            None if name.contains("%operation:") => OPERATION_TTL,
            None if name.contains("%reservation:") => ttls,
            // Of releases.
            None if name.contains("%lease:") => Duration::from_secs(60),
            None => {
                assert!(name.contains("%probe"), "{name} is no key of ours");
                Duration::from_secs(60)
            }
        };
        // Rounded up to a millisecond.
        let left = Duration::from_millis(left.unsigned_abs());
        assert!(
            left <= bound + Duration::from_millis(1),
            "{name}: {left:?} of {bound:?}"
        );
    }
}
