//! B10: who is denied most, on all instances and across restarts.

use std::collections::HashMap;
use std::sync::Arc;

use integration_tests::{RedisServer, eventually, random};
use limiter::{Backends, Offenders};
use limiter_core::Key;
use limiter_core::limit::{Period, Policy, Quota};
use limiter_core::ranking::{Addition, Ranking};
use limiter_memory::MemoryRanking;
use limiter_redis::RedisCache;
use proptest::prelude::*;

struct Instance {
    offenders: Offenders,
    backends: Backends,
}

async fn instance(server: &RedisServer) -> Instance {
    let offenders = Offenders::new();
    let builder = limiter::Builder::new().observe(offenders.clone());
    let config = server.config();
    let backends = builder.redis(&config, &config).await.unwrap();
    offenders.keep_in(backends.ranking.clone());
    Instance {
        offenders,
        backends,
    }
}

fn daily(limit: u64) -> Policy {
    Policy::new("letters", Quota::fixed_window(limit, Period::DAY).unwrap()).unwrap()
}

#[tokio::test]
async fn who_is_denied_most_is_known_after_a_restart() {
    let server = RedisServer::start();
    let policy = daily(1);
    let calls = server.calls("evalsha");
    let instances = [instance(&server).await, instance(&server).await];
    for (user, times) in [("heavy", 60), ("some", 20), ("honest", 1)] {
        for time in 0..times {
            let limiter = &instances[time % 2].backends.limiter;
            limiter.check(&policy, &policy.key([user])).await;
        }
    }
    // By themselves, once a second at most.
    eventually("both have told", async || {
        let top = instances[0].offenders.top("letters", 0, 10).await.unwrap();
        let told: Vec<_> = top.iter().map(|it| (it.name.as_str(), it.count)).collect();
        (told
            == [
                ("ratelimit:letters:heavy", 59),
                ("ratelimit:letters:some", 19),
            ])
        .then_some(())
    })
    .await;
    // Each check is a call of its own; what is more are the lists, and what is tried when connections begin.
    let more = server.calls("evalsha") - calls - 81;
    assert!(more < 20, "{more} calls beside the checks");
    drop(instances);
    let next = instance(&server).await;
    let limiter = &next.backends.limiter;
    limiter.check(&policy, &policy.key(["some"])).await;
    next.offenders.flush().await.unwrap();
    let top = next.offenders.top("letters", 0, 10).await.unwrap();
    assert_eq!(
        (top[1].name.as_str(), top[1].count),
        ("ratelimit:letters:some", 20)
    );
    assert_eq!(next.offenders.top("letters", 1, 10).await.unwrap(), []);
    let keys: Vec<String> = server.command(&["KEYS", "cache:*denied*"]);
    let ttl: i64 = server.command(&["PTTL", &keys[0]]);
    assert!(ttl > 7 * 86_400_000 && keys.len() == 1, "{ttl}");
}

/// What cannot be told is told later, and takes bounded room until then.
#[tokio::test]
async fn denials_outlive_an_outage() {
    let mut server = RedisServer::start();
    let offenders = Offenders::new();
    let builder = limiter::Builder::new().observe(offenders.clone());
    let limiter = builder.connect("memory:").await.unwrap().limiter;
    offenders.keep_in(Arc::new(RedisCache::new(&server.config()).unwrap()));
    server.stop();
    let policy = daily(1);
    for user in 0..2_000 {
        let key = policy.key([user.to_string()]);
        // One is denied more often than all that take turns in what waits.
        limiter.check_n(&policy, &policy.key(["heavy"]), 2).await;
        limiter.check_n(&policy, &key, 2).await;
    }
    assert!(offenders.flush().await.is_err());
    server.restart();
    eventually("told", async || offenders.flush().await.ok()).await;
    let top = offenders.top("letters", 0, 1_000).await.unwrap();
    assert_eq!(top.len(), 200, "a list is bounded");
    assert_eq!(
        (top[0].name.as_str(), top[0].count),
        ("ratelimit:letters:heavy", 2_000)
    );
    assert_eq!(top.iter().map(|it| it.count).sum::<u64>(), 4_000);
}

/// The lists of Redis are those of the model, and whoever counts more than one of so many is in them.
#[test]
fn a_sketch_holds_who_counts_most() {
    const MOST: usize = 8;
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let server = RedisServer::start();
    let redis = {
        let _entered = runtime.enter();
        RedisCache::new(&server.config()).unwrap()
    };
    let added = proptest::collection::vec((0..3_usize, 0..40_u64, 1..9_u64), 1..120);
    let case = std::sync::atomic::AtomicU64::new(0);
    random::check(&random::config(60), &added, |added| {
        let case = case.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let list = |which: usize| Key::new(["cache", "", "denied", &format!("{case}-{which}")]);
        let memory = MemoryRanking::new();
        let stores: [&dyn Ranking; 2] = [&redis, &memory];
        let mut exact: [HashMap<String, u64>; 3] = Default::default();
        let ttl = std::time::Duration::from_secs(600);
        for additions in added.chunks(7) {
            let of = |which: usize| Addition {
                list: list(which),
                counts: additions
                    .iter()
                    .filter(|(of, ..)| *of == which)
                    // Some count far more often than others.
                    .map(|(_, name, count)| (format!("{}", name * name / 60), *count))
                    .collect(),
            };
            let lists: Vec<_> = (0..3).map(of).collect();
            for (which, addition) in lists.iter().enumerate() {
                for (name, count) in &addition.counts {
                    *exact[which].entry(name.clone()).or_default() += count;
                }
            }
            for store in stores {
                runtime.block_on(store.add(&lists, MOST, ttl)).unwrap();
            }
        }
        for (which, exact) in exact.iter().enumerate() {
            let all: u64 = exact.values().sum();
            for store in stores {
                let top = runtime.block_on(store.top(&list(which), 100)).unwrap();
                prop_assert!(top.len() <= MOST && top.is_sorted_by(|a, b| a.count >= b.count));
                prop_assert_eq!(top.iter().map(|it| it.count).sum::<u64>(), all);
                for (name, count) in exact {
                    let found = top.iter().find(|it| it.name == *name);
                    if *count * MOST as u64 > all {
                        prop_assert!(found.is_some(), "{} of {}", count, all);
                    }
                    if let Some(found) = found {
                        prop_assert!(found.count >= *count);
                        prop_assert!((found.count - count) * MOST as u64 <= all);
                    }
                }
            }
        }
        Ok(())
    });
}
