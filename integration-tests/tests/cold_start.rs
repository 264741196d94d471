//! A2, B8: what one instance counted, every later one sees; restarts forget nothing.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{RedisServer, policy, ten_years};
use limiter_core::Key;
use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::{Limiter, Period, Policy, Quota};
use limiter_redis::{RedisCache, RedisStore};

/// What an instance has.
struct Instance {
    limiter: Limiter,
    cache: RedisCache,
}

/// Starts an instance in a runtime of its own, lets it work, and ends it with its connections.
fn instance<T>(server: &RedisServer, work: impl AsyncFnOnce(Instance) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = server.config();
        work(Instance {
            limiter: Limiter::new(RedisStore::new(&config).unwrap()),
            cache: RedisCache::new(&config).unwrap(),
        })
        .await
    })
}

fn policies() -> [Policy; 3] {
    [
        policy(Quota::fixed_window(5, Period::MONTH)),
        policy(Quota::sliding_window(5, ten_years())),
        policy(Quota::token_bucket(5, 1, Period::MONTH)),
    ]
}

#[test]
fn a_new_instance_sees_the_counts_of_the_others() {
    let server = RedisServer::start();
    for policy in policies() {
        let key = Key::new(["ratelimit", "user", "42", policy.name()]);
        let check_n = |cost| {
            instance(&server, async |instance| {
                let check = instance.limiter.try_check_n(&policy, &key, cost);
                check.await.unwrap()
            })
        };
        assert_eq!(check_n(3).used, 3, "{}", policy.name());
        assert_eq!(check_n(0).used, 3, "{}: first a look", policy.name());
        assert_eq!(check_n(1).used, 4, "{}: or at once", policy.name());
        let last = check_n(1);
        assert!(last.is_allowed() && last.remaining == 0, "{last:?}");

        // A client does not get rid of a denial by being sent to a new instance.
        let denied = check_n(1).retry_after().unwrap();
        let again = check_n(1).retry_after().unwrap();
        assert!(!again.is_zero() && again <= denied, "{}", policy.name());
    }
}

#[test]
fn instances_that_are_up_already_see_the_charges_of_a_new_one() {
    let server = RedisServer::start();
    for policy in policies() {
        let key = Key::new(["ratelimit", "user", "7", policy.name()]);
        instance(&server, async |old| {
            old.limiter.try_check(&policy, &key).await.unwrap();
            let new = Limiter::new(RedisStore::new(&server.config()).unwrap());
            new.try_check_n(&policy, &key, 3).await.unwrap();
            let seen = old.limiter.try_check(&policy, &key).await.unwrap();
            assert_eq!(seen.used, 5, "{}", policy.name());
        });
    }
}

#[test]
fn cached_answers_survive_a_restart() {
    let server = RedisServer::start();
    let (key, count) = (cached("9f86d0"), cached("count"));
    let day = Duration::from_secs(86_400);
    instance(&server, async |before| {
        before
            .cache
            .set(&key, NewEntry::new("an answer", day))
            .await
            .unwrap();
        before.cache.increment(&count, 3, day).await.unwrap();
    });
    instance(&server, async |after| {
        let entry = after.cache.get(&key).await.unwrap().unwrap();
        assert_eq!(entry.value, "an answer");
        assert!(entry.ttl <= day && entry.ttl > day / 2, "{:?}", entry.ttl);
        let sum = after.cache.increment(&count, 1, day).await;
        assert_eq!(sum.unwrap(), 4);
        // The index survives too: the new instance can clear what the old one wrote.
        assert_eq!(after.cache.clear(key.namespace()).await.unwrap(), 2);
        assert_eq!(after.cache.get(&key).await.unwrap(), None);
    });
}

fn cached(name: &str) -> CacheKey {
    CacheKey::new(&Key::new(["cache", "companyResearch"]), name)
}
