//! B7, D2: what is logged, and what never is.

use std::error::Error as _;
use std::time::Duration;

use integration_tests::{Logs, RedisServer, eventually, policy, redis_limiter};
use limiter_core::Key;
use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::{LimitStore, Period, Policy, Quota};
use limiter_redis::{RedisCache, RedisConfig, RedisEnv, RedisStore};

/// Of the kit's user.
const PASSWORD: &str = "limiter-secret";

fn hourly() -> Policy {
    policy(Quota::fixed_window(5, Period::HOUR))
}

fn key() -> Key {
    Key::new(["ratelimit", "user", "42"])
}

fn cached() -> CacheKey {
    CacheKey::new(&Key::new(["cache", "op"]), "a")
}

/// B7: with the operation, the host and the time it took.
#[tokio::test]
async fn a_slow_call_is_logged_with_its_operation() {
    let server = RedisServer::start_tcp();
    let config = server.config().with_slow_threshold(Duration::ZERO);
    let logs = Logs::capture();
    redis_limiter(&config)
        .try_check(&hourly(), &key())
        .await
        .unwrap();
    let cache = RedisCache::new(&config).unwrap();
    let entry = NewEntry::new("x", Duration::from_secs(60));
    cache.set(&cached(), entry).await.unwrap();
    cache.get(&cached()).await.unwrap();
    let slow = logs.with("slow Redis call");
    for (line, operation) in slow.iter().zip(["limit.apply", "cache.set", "cache.get"]) {
        assert!(line.contains("WARN") && line.contains(operation), "{line}");
        assert!(
            line.contains("millis=") && line.contains(&config.host()),
            "{line}"
        );
    }
    assert_eq!(slow.len(), 3, "{slow:?}");
}

#[tokio::test]
async fn a_quick_call_is_not() {
    let server = RedisServer::start();
    let logs = Logs::capture();
    let patient = server.config().with_slow_threshold(Duration::from_secs(60));
    let patient = patient.with_pool_size(1);
    redis_limiter(&patient)
        .try_check(&hourly(), &key())
        .await
        .unwrap();
    assert_eq!(
        logs.with("connected to Redis").len(),
        1,
        "{:?}",
        logs.lines()
    );
    assert_eq!(logs.with("slow"), [""; 0]);
}

/// B7: the default threshold is 100 ms; a call that its deadline cuts before that is logged all the same.
#[tokio::test]
async fn a_call_that_times_out_is_slow() {
    let server = RedisServer::start();
    let config = server
        .config()
        .with_check_deadline(Duration::from_millis(80));
    let limiter = redis_limiter(&config);
    eventually("a connection", async || {
        limiter.try_check(&hourly(), &key()).await.ok()
    })
    .await;
    let logs = Logs::capture();
    let stalled = server.stall();
    limiter.try_check(&hourly(), &key()).await.unwrap_err();
    drop(stalled);
    let slow = logs.with("slow Redis call");
    assert!(
        slow.len() == 1
            && slow[0].contains("limit.apply")
            && slow[0].contains("cut_by_its_deadline=true"),
        "{slow:?}"
    );
}

/// D2: whatever happens, at every level, from every crate, in every Debug output.
#[tokio::test]
async fn the_host_is_named_and_the_password_never() {
    let mut server = RedisServer::start_tcp();
    let logs = Logs::capture();
    let mut texts = Vec::new();
    let host = server.config().host();
    let quick = Duration::from_millis(200);

    // Working.
    let config = server
        .config()
        .with_check_deadline(quick)
        .with_cache_deadline(quick);
    let store = RedisStore::new(&config).unwrap();
    let cache = RedisCache::new(&config).unwrap();
    let limiter = limiter_core::limit::Limiter::new(store.clone());
    eventually("a check", async || {
        limiter.try_check(&hourly(), &key()).await.ok()
    })
    .await;
    eventually("a read", async || cache.get(&cached()).await.ok()).await;
    let connected = logs.with("connected to Redis");
    assert!(
        connected.iter().any(|line| line.contains(&host)),
        "{connected:?}"
    );
    texts.push(format!("{config:?} {store:?} {cache:?} {limiter:?}"));
    texts.push(format!(
        "{:?} {:?}",
        limiter.health().await,
        cache.health().await
    ));
    let url = server.url();
    let variable = |name: &str| (name == "REDIS_URL").then(|| url.clone());
    texts.push(format!("{:?}", RedisEnv::from_lookup(variable).unwrap()));

    // Stalled, gone, refused.
    let mut errors = Vec::new();
    let stalled = server.stall();
    errors.push(limiter.try_check(&hourly(), &key()).await.unwrap_err());
    errors.push(cache.get(&cached()).await.unwrap_err());
    drop(stalled);
    let stranger = RedisConfig::new(&server.url_of("stranger", PASSWORD)).unwrap();
    let stranger = redis_limiter(&stranger.with_check_deadline(Duration::from_secs(5)));
    errors.push(stranger.try_check(&hourly(), &key()).await.unwrap_err());
    texts.push(format!("{:?}", stranger.health().await));
    server.stop();
    for _ in 0..3 {
        errors.push(limiter.try_check(&hourly(), &key()).await.unwrap_err());
        errors.push(cache.get(&cached()).await.unwrap_err());
        limiter.check(&hourly(), &key()).await;
    }
    texts.push(format!(
        "{:?} {:?}",
        limiter.health().await,
        cache.health().await
    ));
    for wrong in [
        "redis://limiter:limiter-secret@h:port",
        "redis://u:limiter-secret@h/#insecure",
    ] {
        errors.extend(RedisConfig::new(wrong).err());
    }
    for error in errors {
        texts.push(format!("{error} {error:?} {:#?}", error.source()));
    }
    assert!(
        logs.with("cannot connect to Redis")
            .iter()
            .any(|line| line.contains(&host))
    );
    assert!(!logs.with("limit not checked").is_empty());

    texts.extend(logs.lines());
    for text in texts {
        assert!(!text.contains(PASSWORD), "{text}");
    }
}

/// Known fault: "eviction": an evicting Redis is an error in the log, before it drops a counter.
#[tokio::test]
async fn warming_up_looks_at_the_eviction_policy() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    for (memory, policy, told) in [
        ("0", "allkeys-lru", false),
        ("1gb", "noeviction", false),
        ("1gb", "allkeys-lru", true),
        ("1gb", "volatile-ttl", true),
    ] {
        // Redis 6.2 takes one setting a call.
        for (setting, value) in [("maxmemory", memory), ("maxmemory-policy", policy)] {
            server.command::<()>(&["CONFIG", "SET", setting, value]);
        }
        let logs = Logs::capture();
        eventually("it is warm", async || store.warm_up().await.ok()).await;
        let errors = logs.with("ERROR");
        assert_eq!(
            errors.len(),
            usize::from(told),
            "{memory} {policy}: {errors:?}"
        );
        let says = |line: &String| line.contains(policy) && line.contains("noeviction");
        assert!(errors.iter().all(says), "{errors:?}");
    }
}

/// B9: a full Redis raises the alarm before it is full, and health says how full it is, from INFO alone.
#[tokio::test]
async fn a_redis_that_fills_up_is_an_alarm() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    // What connections and scripts take is little beside that.
    server.set("other", &vec![7; 64 << 20]);
    let used = || {
        let info: String = server.command(&["INFO", "memory"]);
        let mut lines = info.lines();
        let used = lines.find_map(|line| line.strip_prefix("used_memory:"));
        used.unwrap().trim().parse::<u64>().unwrap()
    };
    for (percent, warnings, errors) in [(50, 0, 0), (87, 1, 0), (88, 0, 0), (98, 0, 1)] {
        let most = (used() * 100 / percent).to_string();
        server.command::<()>(&["CONFIG", "SET", "maxmemory", &most]);
        let logs = Logs::capture();
        eventually("it is warm", async || store.warm_up().await.ok()).await;
        let told = (logs.with("fills up").len(), logs.with("nearly full").len());
        assert_eq!(told, (warnings, errors), "{percent}");
        let health = store.health().await;
        let message = &health.message;
        assert!(
            message.contains("% of its memory, maxmemory-policy noeviction"),
            "{message}"
        );
        assert!(message.contains("version "), "{message}");
        assert_eq!(health.servers.len(), 1, "{health:?}");
        let told = &health.servers[0];
        assert_eq!(told.memory_limit, Some(most.parse().unwrap()));
        let about = told.memory_percent().unwrap();
        assert!(about.abs_diff(percent) <= 2, "{health:?}");
        assert_eq!(told.eviction.as_deref(), Some("noeviction"));
        assert_eq!(told.host, server.config().host());
    }
}

/// Afterwards a check is one round trip: the connection stands and the script is known.
#[tokio::test]
async fn warming_up_connects_and_loads_the_script() {
    let mut server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    eventually("it is warm", async || store.warm_up().await.ok()).await;
    let logs = Logs::capture();
    server.command::<()>(&["CONFIG", "RESETSTAT"]);
    let limiter = limiter_core::limit::Limiter::new(store.clone());
    limiter.try_check(&hourly(), &key()).await.unwrap();
    assert_eq!(
        logs.with("connected to Redis"),
        [""; 0],
        "it was connected before"
    );
    let calls = ["evalsha", "script|load"].map(|command| server.calls(command));
    assert_eq!(calls, [1, 0]);

    // Where there is nothing to connect to it says so, and the store goes on trying.
    server.stop();
    eventually("an error", async || store.warm_up().await.err()).await;
    server.restart();
    eventually("a warm store", async || store.warm_up().await.ok()).await;
    limiter.try_check(&hourly(), &key()).await.unwrap();
}
