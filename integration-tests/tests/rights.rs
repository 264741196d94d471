//! Credentials and rights: refused when a connection is made, in words, with nothing left behind.
//! (known fault: "an ACL without +pexpire left a counter with no TTL".)
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{RedisServer, policy, redis_limiter};
use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::{Period, Policy, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{RedisCache, RedisConfig};

const PASSWORD: &str = "a-new-password";

fn hourly() -> Policy {
    policy(Quota::fixed_window(5, Period::HOUR))
}

fn key() -> Key {
    Key::new(["ratelimit", "user", "42"])
}

/// Settings of a user with all that the setup guide lists but for `lacks`.
fn without(server: &RedisServer, lacks: &str) -> RedisConfig {
    let mut rights: Vec<String> = server.command(&["ACL", "LIST"]);
    rights.retain(|user| user.starts_with("user limiter "));
    let commands = rights[0].split(' ').filter(|word| word.starts_with('+'));
    let commands: Vec<&str> = commands
        .filter(|word| *word != format!("+{lacks}"))
        .collect();
    let password = format!(">{PASSWORD}");
    let mut line = vec!["ACL", "SETUSER", "lame", "reset", "on", &password];
    line.extend(["~ratelimit:*", "~cache:*", "-@all"]);
    line.extend(commands);
    server.command::<()>(&line);
    RedisConfig::new(&server.url_of("lame", PASSWORD))
        .unwrap()
        .with_check_deadline(Duration::from_secs(5))
        .with_cache_deadline(Duration::from_secs(5))
}

/// Every key has an expiry, and none is a counter or a cached value.
fn nothing_is_left(server: &RedisServer, lacks: &str) {
    let left: Vec<String> = server.command(&["KEYS", "*"]);
    for key in left {
        assert!(
            key.contains("%probe"),
            "without {lacks}: {key} is left behind"
        );
        let ttl: i64 = server.command(&["PTTL", &key]);
        assert_ne!(ttl, -1, "without {lacks}: {key} never expires");
    }
}

#[tokio::test]
async fn the_guide_s_user_lacks_nothing() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&without(&server, "none"));
    limiter.try_check(&hourly(), &key()).await.unwrap();
}

#[tokio::test]
async fn a_missing_right_of_the_limits_shows_when_connecting() {
    let server = RedisServer::start();
    for lacks in [
        "time",
        "get",
        "set",
        "del",
        "pttl",
        "incrby",
        "pexpire",
        "getrange",
        "setrange",
        "strlen",
        "zadd",
        "zscore",
        "zmscore",
        "zcount",
        "zrange",
        "zrem",
        "zremrangebyscore",
        "evalsha",
        "script|load",
    ] {
        // A script that the server knows already needs no loading.
        server.command::<()>(&["SCRIPT", "FLUSH"]);
        let limiter = redis_limiter(&without(&server, lacks));
        for _ in 0..2 {
            let error = limiter.try_check(&hourly(), &key()).await.unwrap_err();
            let kind = (error.kind(), error.effect());
            assert_eq!(
                kind,
                (ErrorKind::Unauthorized, Effect::No),
                "{lacks}: {error}"
            );
            assert!(
                error.message().contains("docs/redis-setup.md"),
                "{lacks}: {error}"
            );
        }
        let health = limiter.health().await;
        assert!(!health.connected && health.message.contains("docs/redis-setup.md"));
        nothing_is_left(&server, lacks);
    }
}

#[tokio::test]
async fn a_missing_right_of_the_cache_shows_when_connecting() {
    let server = RedisServer::start();
    let key = CacheKey::new(&Key::new(["cache", "op"]), "a");
    let rights = [
        "time",
        "set",
        "zadd",
        "pttl",
        "pexpire",
        "zremrangebyscore",
        "evalsha",
    ];
    for lacks in rights {
        let cache = RedisCache::new(&without(&server, lacks)).unwrap();
        let entry = NewEntry::new("x", Duration::from_secs(60));
        let error = cache.set(&key, entry).await.unwrap_err();
        let kind = (error.kind(), error.effect());
        assert_eq!(
            kind,
            (ErrorKind::Unauthorized, Effect::No),
            "{lacks}: {error}"
        );
        let left: Vec<String> = server.command(&["KEYS", "*"]);
        assert!(
            left.iter().all(|key| key.contains("%probe")),
            "{lacks}: {left:?}"
        );
    }
}

/// A role or a ping that may not be asked for is no reason to refuse a Redis that counts.
#[tokio::test]
async fn what_only_looks_may_be_missing() {
    let server = RedisServer::start();
    for lacks in ["role", "info", "ping"] {
        let limiter = redis_limiter(&without(&server, lacks));
        limiter.try_check(&hourly(), &key()).await.unwrap();
    }
}

/// B6, D2: told at once and without the password.
#[tokio::test]
async fn wrong_credentials_are_refused() {
    let server = RedisServer::start_tcp();
    for (user, password) in [("limiter", "wr0ng-w0rd"), ("nobody", "wr0ng-w0rd")] {
        let config = RedisConfig::new(&server.url_of(user, password)).unwrap();
        let limiter = redis_limiter(&config.with_check_deadline(Duration::from_secs(5)));
        let error = limiter.try_check(&hourly(), &key()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Unauthorized, Effect::No)
        );
        assert!(
            error.message().contains("check the user and the password"),
            "{error}"
        );
        let health = limiter.health().await;
        assert!(!health.connected);
        for text in [
            format!("{error}"),
            format!("{error:?}"),
            format!("{health:?}"),
        ] {
            assert!(!text.contains(password), "{text}");
        }
    }
}

/// A user whose rights are taken away while it is connected, and given back.
#[tokio::test]
async fn rights_are_taken_and_given_back() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&without(&server, "none"));
    limiter.try_check(&hourly(), &key()).await.unwrap();
    // Rights are checked at each command: already the first read is refused.
    server.command::<()>(&["ACL", "SETUSER", "lame", "resetkeys"]);
    let error = limiter.try_check(&hourly(), &key()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    server.command::<()>(&["ACL", "SETUSER", "lame", "~ratelimit:*"]);
    assert_eq!(limiter.try_check(&hourly(), &key()).await.unwrap().used, 2);
}
