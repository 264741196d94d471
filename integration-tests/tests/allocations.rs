//! A check in memory allocates nothing: its cost is a hash, a lock and some arithmetic. One in Redis allocates little, if it is not
//! alone.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test: its failures are panics"
)]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use integration_tests::{RedisServer, policy, redis_limiter};
use limiter_core::Key;
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{
    Action, Calendar, Capabilities, Decision, Group, LimitStore, Limiter, Observed, Period, Policy,
    Quota, Step,
};
use limiter_memory::MemoryStore;
use limiter_redis::{ClusterStore, RedisConfig, RedisStore};

/// Runs a check to its end, which in memory is its first step.
fn check(limiter: &Limiter, policy: &Policy, key: &Key) -> Decision {
    let mut check = pin!(limiter.check(policy, key));
    match check.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(decision) => decision,
        Poll::Pending => panic!("a check in memory waits for nothing"),
    }
}

/// The allocations of one check, and whether it was allowed.
fn allocations(limiter: &Limiter, policy: &Policy, key: &Key) -> (u64, bool) {
    let mut allowed = false;
    let counted = measure(|| allowed = check(limiter, policy, key).is_allowed());
    (counted.count_total, allowed)
}

#[test]
fn a_warm_check_allocates_nothing() {
    assert_eq!(
        measure(|| drop(Box::new(1))).count_total,
        1,
        "the counter counts"
    );
    let limiters = [
        ("a store", Limiter::new(MemoryStore::new())),
        (
            "a store in its wrappers",
            Limiter::new(Stack::new(MemoryStore::new()).build()),
        ),
    ];
    for (what, limiter) in limiters {
        for policy in [
            policy(Quota::fixed_window(3, Period::DAY)),
            policy(Quota::calendar_window(3, Calendar::Month)),
            policy(Quota::sliding_log(3, Period::DAY)),
            policy(Quota::sliding_window(3, Period::DAY)),
            policy(Quota::token_bucket(3, 1, Period::DAY)),
        ] {
            let key = Key::new(["ratelimit", "user", "42", policy.name()]);
            assert!(
                check(&limiter, &policy, &key).is_allowed(),
                "the key gets its entry"
            );
            for allowed in [true, true, false, false] {
                let counted = allocations(&limiter, &policy, &key);
                assert_eq!(counted, (0, allowed), "{} over {what}", policy.name());
            }
        }
    }
}

/// Among many, in a runtime of one thread, where every task's allocations are counted.
#[test]
fn a_check_in_a_batch_allocates_little() {
    const CALLERS: usize = 128;
    const ROUNDS: usize = 20;
    let server = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (limiter, policy) = (
        redis_limiter(&server.config()),
        policy(Quota::fixed_window(1_000_000, Period::DAY)),
    );
    let keys: Vec<Key> = (0..CALLERS)
        .map(|key| policy.key([key.to_string()]))
        .collect();
    let ask = |rounds: usize, is_asked: bool| {
        runtime.block_on(async {
            for _ in 0..rounds {
                let asked = keys.iter().map(|key| {
                    let (limiter, policy) = (&limiter, &policy);
                    async move {
                        match is_asked {
                            true => assert!(limiter.try_check(policy, key).await.is_ok()),
                            false => tokio::task::yield_now().await,
                        }
                    }
                });
                futures_util::future::join_all(asked).await;
            }
        });
    };
    ask(5, true);
    let callers_own = measure(|| ask(ROUNDS, false)).count_total;
    let counted = measure(|| ask(ROUNDS, true)).count_total - callers_own;
    let checks = (CALLERS * ROUNDS) as u64;
    assert!(
        counted <= 8 * checks,
        "{counted} allocations for {checks} checks"
    );
}

/// So much an allocator keeps at hand for each thread (glibc up to 1,032 bytes); what is larger it looks for, under a lock.
const SMALL: usize = 1_024;

/// What waits for an answer is small, in a cluster too.
#[tokio::test]
async fn a_check_that_waits_takes_little_memory() {
    let config = RedisConfig::new("redis://127.0.0.1:1").unwrap();
    let stores: [(&str, Box<dyn LimitStore>); 2] = [
        ("one server", Box::new(RedisStore::new(&config).unwrap())),
        ("a cluster", Box::new(ClusterStore::new(&config).unwrap())),
    ];
    let policy = policy(Quota::token_bucket(3, 1, Period::DAY));
    let key = Key::new(["ratelimit", "user", "42"]);
    let steps = [Step::new(&policy, &key, Action::Charge { cost: 1 })];
    let group = Group::new(&steps, &Capabilities::ALL).unwrap();
    for (place, store) in stores {
        let mut observed = [Observed::default()];
        let check = store.apply(&group, &mut observed);
        let bytes = size_of_val(&*check);
        assert!(bytes <= SMALL, "{place}: {bytes} bytes");
    }
}
