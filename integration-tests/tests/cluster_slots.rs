//! Keys, slots and groups in a cluster: where they are, what is refused, which rights are needed.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{Logs, RedisCluster, RedisServer, eventually, policy, random};
use limiter_core::limit::{Charge, Limiter, Period, Policy, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{ClusterStore, RedisCache, RedisConfig, RedisStore, slot_of};
use proptest::prelude::*;

/// Settings with a deadline that a busy test machine keeps.
fn config(url: &str) -> RedisConfig {
    let config = RedisConfig::new(url).unwrap();
    config.with_check_deadline(Duration::from_secs(10))
}

fn hourly() -> Policy {
    policy(Quota::fixed_window(5, Period::HOUR))
}

fn key(user: &str) -> Key {
    Key::new(["ratelimit", "user", user])
}

fn tagged(tag: &str, user: &str) -> Key {
    let key = Key::builder().segment("ratelimit").hash_tag(tag);
    key.segment(user).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_spread_over_the_masters() {
    let cluster = RedisCluster::start();
    let store = ClusterStore::new(&cluster.config()).unwrap();
    eventually("it is warm", async || store.warm_up().await.ok()).await;
    let limiter = Limiter::new(store);
    for user in 0..60 {
        let key = key(&user.to_string());
        let decision = limiter.try_check(&hourly(), &key).await.unwrap();
        assert_eq!(decision.remaining, 4);
    }
    for node in &cluster.nodes {
        let keys: Vec<String> = node.command(&["KEYS", "ratelimit:user:*"]);
        assert!(!keys.is_empty(), "every master has some of the counters");
    }
    let health = limiter.health().await;
    assert!(health.connected && health.latency.is_some());
    assert!(health.message.contains("3 of 3 masters"), "{health:?}");
}

/// The facade: limits in the cluster, caches beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_enough() {
    let cluster = RedisCluster::start();
    let url = format!("{}?cross_slot=compensate", cluster.url());
    let backends = limiter::connect(&url).await.unwrap();
    let policy = policy(Quota::fixed_window(1_000, Period::HOUR));
    let (one, other) = (key("1"), key("2"));
    let group = [Charge::new(&policy, &one), Charge::new(&policy, &other)];
    // The first connections may take longer than a call has.
    let decision = eventually("both nodes answer", async || {
        backends.limiter.try_check_all(&group).await.ok()
    })
    .await;
    assert!(decision.is_allowed());
    let health = backends.limiter.health().await;
    assert!(health.message.contains("3 of 3 masters"), "{health:?}");
    assert_eq!(backends.cache.health().await.backend, "memory");
}

/// A cold instance that was never warmed up, and one that knows a single node.
#[tokio::test(flavor = "multi_thread")]
async fn one_node_that_answers_is_enough_to_begin() {
    let mut cluster = RedisCluster::start();
    let (user, password) = ("limiter", "limiter-secret");
    let last = cluster.nodes[2].port();
    let urls = [
        cluster.url(),
        cluster.nodes[1].url_of(user, password),
        // Port 1 is never a Redis.
        format!("redis+cluster://{user}:{password}@127.0.0.1:1,127.0.0.1:{last}"),
    ];
    for (round, url) in (1..).zip(urls) {
        let limiter = Limiter::new(ClusterStore::new(&config(&url)).unwrap());
        for user in 0..6 {
            let key = key(&user.to_string());
            let decision = limiter.try_check(&hourly(), &key).await.unwrap();
            assert_eq!(decision.used, round);
        }
    }
    let nobody = config("redis+cluster://127.0.0.1:1");
    let limiter = Limiter::new(ClusterStore::new(&nobody).unwrap());
    let error = limiter.try_check(&hourly(), &key("1")).await.unwrap_err();
    let found = (error.kind(), error.effect());
    assert_eq!(found, (ErrorKind::Connection, Effect::No), "{error}");
    let health = limiter.health().await;
    assert!(!health.connected, "{health:?}");
    // Not a cluster at all.
    let single = RedisServer::start_tcp();
    let config = config(&single.admin_url());
    let limiter = Limiter::new(ClusterStore::new(&config).unwrap());
    let error = limiter.try_check(&hourly(), &key("1")).await.unwrap_err();
    assert!(
        error.message().contains("cluster support disabled"),
        "{error}"
    );
    cluster.nodes.clear();
}

/// N1: refused before anything is sent, unless the keys share a tag.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_over_several_slots_is_refused_by_default() {
    let cluster = RedisCluster::start();
    let limiter = Limiter::new(ClusterStore::new(&cluster.config()).unwrap());
    let policy = hourly();
    let (one, other) = (key("1"), key("2"));
    assert_ne!(slot_of(one.as_str()), slot_of(other.as_str()));
    let group = [Charge::new(&policy, &one), Charge::new(&policy, &other)];
    let error = limiter.try_check_all(&group).await.unwrap_err();
    let found = (error.kind(), error.effect());
    assert_eq!(found, (ErrorKind::Unsupported, Effect::No));
    assert!(error.message().contains("one hash tag"), "{error}");
    for node in &cluster.nodes {
        let keys: Vec<String> = node.command(&["KEYS", "*"]);
        assert_eq!(keys, Vec::<String>::new());
    }
    let (one, other) = (tagged("acme", "1"), tagged("acme", "2"));
    let group = [Charge::new(&policy, &one), Charge::new(&policy, &other)];
    assert!(limiter.try_check_all(&group).await.unwrap().is_allowed());

    for error in [
        RedisStore::new(&cluster.config()).unwrap_err(),
        RedisCache::new(&cluster.config()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
}

/// The rights of a cluster show when connecting, as all others do.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_shows_when_connecting() {
    let cluster = RedisCluster::start();
    for lacks in ["cluster", "asking", "set", "pttl"] {
        let (less, again) = (format!("-{lacks}"), format!("+{lacks}"));
        for node in &cluster.nodes {
            node.command::<()>(&["ACL", "SETUSER", "limiter", &less]);
        }
        let limiter = Limiter::new(ClusterStore::new(&cluster.config()).unwrap());
        for _ in 0..2 {
            let error = limiter.try_check(&hourly(), &key("1")).await.unwrap_err();
            let found = (error.kind(), error.effect());
            let expected = (ErrorKind::Unauthorized, Effect::No);
            assert_eq!(found, expected, "{lacks}: {error}");
            let advice = "docs/redis-setup.md";
            assert!(error.message().contains(advice), "{lacks}: {error}");
        }
        for node in &cluster.nodes {
            let keys: Vec<String> = node.command(&["KEYS", "*"]);
            assert!(keys.iter().all(|key| key.contains("%probe")), "{keys:?}");
            node.command::<()>(&["ACL", "SETUSER", "limiter", &again]);
        }
    }
}

/// D2: on one thread, so that everything that is logged is seen.
#[tokio::test]
async fn no_password_is_logged() {
    let mut cluster = RedisCluster::start();
    let logs = Logs::capture();
    let store = ClusterStore::new(&cluster.config()).unwrap();
    let limiter = Limiter::new(store.clone());
    eventually("it is warm", async || store.warm_up().await.ok()).await;
    let home = cluster.home(slot_of(key("1").as_str()));
    cluster.migrate(slot_of(key("1").as_str()), home, (home + 1) % 3);
    limiter.try_check(&hourly(), &key("1")).await.unwrap();
    let wrong = config(&cluster.url_of("limiter", "wr0ng-secret"));
    let wrong = Limiter::new(ClusterStore::new(&wrong).unwrap());
    let error = wrong.try_check(&hourly(), &key("1")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    cluster.nodes[(home + 1) % 3].stop();
    let gone = limiter.try_check(&hourly(), &key("1")).await.unwrap_err();
    let health = limiter.health().await;
    assert!(health.message.contains("2 of 3 masters"), "{health:?}");
    let mut said = logs.lines();
    assert!(!logs.with("the masters of the Redis Cluster").is_empty());
    said.push(format!(
        "{error:?} {error} {gone:?} {gone} {health:?} {limiter:?} {store:?}"
    ));
    for line in said {
        assert!(!line.contains("-secret"), "{line}");
    }
}

/// Any name, braces above all.
#[test]
fn slots_are_those_that_the_server_computes() {
    let cluster = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let admin = std::cell::RefCell::new(cluster.admin());
    let name = prop_oneof!["[ab{}:%]{0,12}", "\\PC{0,40}"];
    random::check(&random::config(256), &name, |name| {
        let mut command = redis::cmd("CLUSTER");
        command.arg("KEYSLOT").arg(&name);
        let slot: u16 = command.query(&mut *admin.borrow_mut()).unwrap();
        prop_assert_eq!(slot_of(&name), slot);
        Ok(())
    });
}
