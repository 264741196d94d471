//! What real deployments bring: URLs, passwords that change, addresses that are announced and not reached, old and new protocols.

#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use integration_tests::{
    Logs, Proxy, RedisCluster, RedisServer, eventually, needs, policy, redis_limiter,
};
use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::{Charge, LimitStore, Limiter, Period, Policy, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{Credentials, PasswordFile, RedisCache, RedisConfig, RedisStore};

fn hourly() -> Policy {
    policy(Quota::fixed_window(1_000, Period::HOUR))
}

fn key(name: &str) -> Key {
    Key::new(["ratelimit", name])
}

/// One of the five services is configured with the plain URL of a cluster's node: its keys are on all masters.
#[tokio::test]
async fn the_plain_url_of_a_node_is_the_cluster() {
    let cluster = RedisCluster::start();
    let logs = Logs::capture();
    // A node that has the slot of the first key that is used shows nothing until it is asked.
    let home = cluster.home(cluster.slot("ratelimit:%probe"));
    let other = (home + 1) % 3;
    for (round, (is_warmed_up, node)) in (1..).zip([(true, home), (true, other), (false, other)]) {
        let config = cluster.nodes[node].config();
        let store = RedisStore::new(&config).unwrap();
        if is_warmed_up {
            store.warm_up().await.unwrap();
            assert!(store.is_cluster());
        }
        let limiter = Limiter::new(store.clone());
        for user in 0..30 {
            let decision = limiter.try_check(&hourly(), &key(&user.to_string())).await;
            assert_eq!(decision.unwrap().used, round);
        }
        assert!(store.is_cluster());
        let health = store.health().await;
        assert!(health.message.contains("3 of 3 masters"), "{health:?}");
        // As with the URL of a cluster.
        let (policy, one, two) = (hourly(), key("1"), key("2"));
        let group = [Charge::new(&policy, &one), Charge::new(&policy, &two)];
        let error = limiter.try_check_all(&group).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Unsupported, Effect::No)
        );
        assert!(error.message().contains("one hash tag"), "{error}");

        let cache = RedisCache::new(&config).unwrap();
        let error = cache.warm_up().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains("CACHE_REDIS_URL"), "{error}");
    }
    assert_eq!(
        logs.with("node of a cluster").len(),
        3,
        "{:?}",
        logs.lines()
    );
}

/// Two limits whose keys stand in several slots, from the first check on.
#[tokio::test]
async fn a_group_shows_a_cluster_too() {
    let cluster = RedisCluster::start();
    let store = RedisStore::new(&cluster.nodes[0].config()).unwrap();
    let limiter = Limiter::new(store.clone());
    let (policy, one, two) = (hourly(), key("1"), key("2"));
    let group = [Charge::new(&policy, &one), Charge::new(&policy, &two)];
    let error = limiter.try_check_all(&group).await.unwrap_err();
    assert!(error.message().contains("one hash tag"), "{error}");
    assert!(store.is_cluster());
}

/// It showed as a broken pipe.
#[tokio::test]
async fn a_server_with_too_many_clients_says_so() {
    let server = RedisServer::start_tcp();
    let mut admin = server.admin();
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxclients")
        .arg(1)
        .exec(&mut admin)
        .unwrap();
    let with_password = redis_limiter(&server.config());
    // Nobody: the first command is another one.
    redis::cmd("ACL")
        .arg("SETUSER")
        .arg("default")
        .arg("on")
        .arg("nopass")
        .arg("+@all")
        .arg("~*")
        .exec(&mut admin)
        .unwrap();
    let url = format!("redis://127.0.0.1:{}", server.port());
    let without = redis_limiter(
        &RedisConfig::new(&url)
            .unwrap()
            .with_check_deadline(Duration::from_secs(20)),
    );
    for limiter in [with_password, without] {
        let error = limiter
            .try_check(&hourly(), &key("full"))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Server, Effect::No),
            "{error}"
        );
        for said in ["max number of clients reached", "raise its maxclients"] {
            assert!(error.message().contains(said), "{error}");
        }
    }
}

/// The warning names the variable, once.
#[tokio::test]
async fn a_deadline_that_is_short_for_the_way_is_said() {
    let server = RedisServer::start_tcp();
    let proxy = Proxy::start(server.port()).await;
    proxy.delay(Duration::from_millis(40));
    let url = server.url_at(proxy.port());
    let config = RedisConfig::new(&url).unwrap();
    for (deadline, warnings) in [(200, 1), (2_000, 0)] {
        let logs = Logs::capture();
        let deadline = Duration::from_millis(deadline);
        let config = config
            .clone()
            .with_check_deadline(deadline)
            .with_cache_deadline(deadline);
        let _ = RedisStore::new(&config).unwrap().warm_up().await;
        let said = logs.with(" REDIS_DEADLINE_MILLIS");
        assert_eq!(said.len(), warnings, "{said:?}");
        let _ = RedisCache::new(&config).unwrap().warm_up().await;
        let said = logs.with("CACHE_REDIS_DEADLINE_MILLIS");
        assert_eq!(said.len(), warnings, "{said:?}");
    }
}

/// Without a restart: whoever connects next asks for the password of now.
#[tokio::test]
async fn passwords_may_change() {
    let server = RedisServer::start_tcp();
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("password");
    let write = |password: &str| std::fs::write(&file, format!("{password}\n")).unwrap();
    let set = |password: &str| {
        let password = format!(">{password}");
        server.command::<()>(&["ACL", "SETUSER", "limiter", "resetpass", &password]);
        server.command::<i64>(&["CLIENT", "KILL", "USER", "limiter"]);
    };
    let url = format!("redis://limiter:stale@127.0.0.1:{}", server.port());
    let config = RedisConfig::new(&url)
        .unwrap()
        .with_check_deadline(Duration::from_secs(20));
    let asked = Arc::new(AtomicU64::new(0));
    let (by_file, by_function) = (PasswordFile(file.clone()), {
        let (file, asked) = (file.clone(), asked.clone());
        move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let password = std::fs::read_to_string(&file).unwrap();
            Ok(Credentials::of_password(password.trim()))
        }
    });
    let limiters = [
        redis_limiter(&config.clone().with_credentials(by_file)),
        redis_limiter(&config.clone().with_credentials(by_function)),
    ];
    for (used, password) in (1..).zip(["limiter-secret", "one/#?", "two %41"]) {
        write(password);
        set(password);
        for limiter in &limiters {
            eventually("a check with the password of now", async || {
                limiter.try_check(&hourly(), &key("rotated")).await.ok()
            })
            .await;
        }
        assert!(asked.load(Ordering::Relaxed) >= used);
    }
    // A secret that cannot be had is said, and shown by nobody.
    std::fs::remove_file(&file).unwrap();
    server.command::<i64>(&["CLIENT", "KILL", "USER", "limiter"]);
    let error = eventually("an error", async || {
        limiters[0]
            .try_check(&hourly(), &key("rotated"))
            .await
            .err()
    })
    .await;
    let debug = format!("{error:?} {:?}", config);
    assert!(
        !debug.contains("stale") && !debug.contains("two %41"),
        "{debug}"
    );
}

/// A cluster in a network of its own: its nodes announce addresses that nobody reaches from here.
#[tokio::test]
async fn announced_addresses_are_mapped() {
    needs!(
        RedisServer::knows("cluster-announce-hostname"),
        "host names of cluster nodes"
    );
    let cluster = RedisCluster::start();
    for node in &cluster.nodes {
        let set = |name: &str, value: &str| node.command::<()>(&["CONFIG", "SET", name, value]);
        set("cluster-announce-hostname", "node.invalid");
        set("cluster-preferred-endpoint-type", "hostname");
    }
    eventually("everybody knows", async || {
        let known = cluster.nodes.iter().all(|node| {
            let nodes: String = node.command(&["CLUSTER", "NODES"]);
            nodes.matches(",node.invalid").count() == 3
        });
        known.then_some(())
    })
    .await;
    let config = cluster.config().with_check_deadline(Duration::from_secs(5));
    let mapped = config.clone().with_resolver(|host: &str, port| {
        (host == "node.invalid").then(|| ("127.0.0.1".to_owned(), port))
    });
    let limiter = Limiter::new(limiter_redis::ClusterStore::new(&mapped).unwrap());
    for user in 0..20 {
        let key = key(&user.to_string());
        let decision = eventually("the announced address", async || {
            limiter.try_check(&hourly(), &key).await.ok()
        })
        .await;
        assert!(decision.is_allowed());
    }
    let health = limiter.health().await;
    assert!(health.message.contains("3 of 3 masters"), "{health:?}");

    // Without the map, the error says what is announced, and what to do.
    let config = config.with_check_deadline(Duration::from_millis(300));
    let limiter = Limiter::new(limiter_redis::ClusterStore::new(&config).unwrap());
    let error = limiter.try_check(&hourly(), &key("1")).await.unwrap_err();
    for said in ["node.invalid", "REDIS_ADDRESS_MAP"] {
        assert!(error.message().contains(said), "{error}");
    }
}

/// The certificate names `localhost`, the URL an address.
#[tokio::test]
async fn the_name_of_the_certificate_can_be_said() {
    needs!(TLS);
    let server = RedisServer::start_tls();
    let url = format!(
        "rediss://limiter:limiter-secret@127.0.0.1:{}",
        server.port()
    );
    let config = RedisConfig::new(&url)
        .unwrap()
        .with_tls_ca(server.ca_pem())
        .unwrap();
    let config = config.with_check_deadline(Duration::from_secs(20));
    let error = redis_limiter(&config)
        .try_check(&hourly(), &key("tls"))
        .await
        .unwrap_err();
    assert!(error.message().contains("REDIS_TLS_SERVER_NAME"), "{error}");
    let named = config.clone().with_tls_server_name("localhost").unwrap();
    redis_limiter(&named)
        .try_check(&hourly(), &key("tls"))
        .await
        .unwrap();
    assert!(config.with_tls_server_name("no name").is_err());
    assert!(
        RedisConfig::new("redis://host")
            .unwrap()
            .with_tls_server_name("a")
            .is_err()
    );
}

/// A cluster that announces addresses, while its certificates name hosts: by the names that the nodes tell, or by the one that is
/// said.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_known_by_the_names_of_its_certificates() {
    needs!(TLS);
    let cluster = RedisCluster::start_tls();
    let config = cluster.tls_config();
    let announce = async |name: &str| {
        for node in &cluster.nodes {
            node.command::<()>(&["CONFIG", "SET", "cluster-announce-hostname", name]);
        }
        let told = if name.is_empty() { 0 } else { 3 };
        eventually("everybody knows", async || {
            let knows = cluster.nodes.iter().all(|node| {
                let nodes: String = node.command(&["CLUSTER", "NODES"]);
                nodes.matches(",localhost").count() == told
            });
            knows.then_some(())
        })
        .await;
    };
    let all = async |config: &RedisConfig| {
        let limiter = Limiter::new(limiter_redis::ClusterStore::new(config).unwrap());
        for user in 0..20 {
            limiter
                .try_check(&hourly(), &key(&user.to_string()))
                .await?;
        }
        let health = limiter.health().await;
        assert!(health.message.contains("3 of 3 masters"), "{health:?}");
        Ok::<(), limiter_core::Error>(())
    };
    announce("localhost").await;
    all(&config).await.unwrap();
    announce("").await;
    let error = all(&config).await.unwrap_err();
    assert!(error.message().contains("REDIS_TLS_SERVER_NAME"), "{error}");
    let named = config.with_tls_server_name("localhost").unwrap();
    all(&named).await.unwrap();
}

/// In RESP3 scores are doubles, and pairs are pairs.
#[tokio::test]
async fn both_protocols_do() {
    let server = RedisServer::start_tcp();
    for protocol in ["resp2", "resp3"] {
        let url = format!("{}?protocol={protocol}", server.url());
        let config = RedisConfig::new(&url)
            .unwrap()
            .with_check_deadline(Duration::from_secs(20));
        let config = config.with_cache_deadline(Duration::from_secs(20));
        let cache = RedisCache::new(&config).unwrap();
        let names = ["one", "two", "three"];
        let namespace = Key::new(["cache", "op"]);
        for name in names {
            let entry = NewEntry::new(name.as_bytes().to_vec(), Duration::from_secs(60));
            cache
                .set(&CacheKey::new(&namespace, name), entry)
                .await
                .unwrap();
        }
        let keys = names.map(|name| CacheKey::new(&namespace, name));
        let found = cache.get_many(&keys).await.unwrap();
        assert_eq!(found.iter().flatten().count(), 3, "{protocol}");
        assert!(cache.delete(&keys[0]).await.unwrap());
        assert_eq!(cache.clear(&namespace).await.unwrap(), 2, "{protocol}");
        assert_eq!(
            server.command::<i64>(&["EXISTS", &format!("{namespace}:%index")]),
            0
        );
        let counter = CacheKey::new(&namespace, "counter");
        let ttl = Duration::from_secs(60);
        assert_eq!(cache.increment(&counter, 3, ttl).await.unwrap(), 3);
        cache.delete(&counter).await.unwrap();
        assert!(cache.health().await.connected);

        let limiter = redis_limiter(&config);
        for quota in [
            Quota::fixed_window(5, Period::HOUR),
            Quota::sliding_log(5, Period::HOUR),
            Quota::token_bucket(5, 1, Period::HOUR),
        ] {
            let policy = policy(quota);
            let decision = limiter
                .try_check(&policy, &policy.key([protocol]))
                .await
                .unwrap();
            assert_eq!(decision.used, 1);
        }
        let places = policy(Quota::concurrency(3));
        let leases = policy_leases(&limiter, &places, protocol).await;
        assert_eq!(leases, 3);
        assert!(limiter.health().await.connected);
    }
}

async fn policy_leases(limiter: &Limiter, places: &Policy, name: &str) -> u64 {
    let key = places.key([name]);
    let mut held = Vec::new();
    for _ in 0..3 {
        let ttl = Duration::from_secs(60);
        held.push(
            limiter
                .acquire(&[Charge::new(places, &key)], ttl)
                .await
                .unwrap(),
        );
    }
    let used = limiter.peek(places, &key).await.unwrap().used;
    drop(held);
    used
}

/// A script's large numbers are written in full by every server: with an exponent they would be no counts.
#[tokio::test]
async fn large_counts_stay_counts() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config());
    let most = policy(Quota::fixed_window((1 << 51) - 1, Period::DAY));
    let key = key("large");
    for count in [
        5_000_000_000_000_000_u64,
        4_600_000_000_000_001,
        (1 << 53) - 1,
    ] {
        // No expiry: a look mends it, and writes what it holds.
        server.command::<()>(&["SET", key.as_str(), &count.to_string()]);
        let decision = limiter.try_check(&most, &key).await.unwrap();
        assert!(!decision.is_allowed(), "{decision:?}");
        let stored: String = server.command(&["GET", key.as_str()]);
        assert!(stored.bytes().all(|byte| byte.is_ascii_digit()), "{stored}");
        assert_eq!(stored.parse::<u64>().unwrap(), count);
    }
}
