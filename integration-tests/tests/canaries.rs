//! What nobody may read in logs, errors, `Debug` and Redis's keys: passwords, tokens, users' ids, operations' ids, cached values.
//!
//! Each stands in the configuration or in a call under a word that stands nowhere else, and then everything that can be read is
//! searched for these words, after all went well and after all went wrong. The running service has a test of its own:
//! `examples/ai-service/tests/canaries.rs`.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::error::Error as _;
use std::fmt::Debug;
use std::time::Duration;

use integration_tests::{Logs, RedisServer, ReplyProxy, eventually, policy};
use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{
    Charge, Limiter, OperationId, Outage, Period, Policy, Quota, Reserved, Share,
};
use limiter_core::{Error, ErrorKind, IdentitySecret, Key};
use limiter_memory::{MemoryCache, MemoryStore};
use limiter_redis::{Credentials, RedisCache, RedisConfig, RedisEnv, RedisStore};

const PASSWORD: &str = "canary-password";
const USER: &str = "canary-user";
const OPERATION: &str = "canary-operation";
const SECRET: &str = "canary-secret";
const VALUE: &str = "canary-value";
/// What is in all of them.
const CANARY: &str = "canary-";

/// All that was said, apart from the logs.
#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    fn shows(&mut self, what: &impl Debug) {
        self.0.push(format!("{what:?}"));
        self.0.push(format!("{what:#?}"));
    }

    fn fails<T: Debug>(&mut self, result: Result<T, Error>) {
        match result {
            Ok(value) => self.shows(&value),
            Err(error) => {
                self.0.push(error.to_string());
                self.shows(&error);
                let mut source = error.source();
                while let Some(error) = source {
                    self.0.push(format!("{error} {error:?}"));
                    source = error.source();
                }
            }
        }
    }

    /// Of everything there are some: else the search would prove nothing.
    fn has_none_of_them_in(self, logs: &Logs) {
        let lines = logs.lines();
        assert!(self.0.len() > 50, "{}", self.0.len());
        for text in self.0.iter().chain(&lines) {
            assert!(!text.contains(CANARY), "{text}");
        }
    }
}

/// A server whose user has the canary for a password.
fn guarded() -> RedisServer {
    let server = RedisServer::start_tcp();
    let password = format!(">{PASSWORD}");
    server.command::<()>(&["ACL", "SETUSER", "limiter", "resetpass", &password]);
    server
}

fn limiter_of(config: &RedisConfig) -> Limiter {
    let store = RedisStore::new(config).unwrap();
    Limiter::raw(Stack::new(store).local(MemoryStore::new()).build())
}

fn budget() -> Policy {
    let share = Share::WHOLE;
    policy(Quota::fixed_window(10, Period::HOUR)).with_outage(Outage::Local { share })
}

/// Everything that a limiter can do for a user, and what comes of it.
async fn limits(limiter: &Limiter, key: &Key, said: &mut Said) {
    let policy = budget();
    let streams = integration_tests::policy(Quota::concurrency(1));
    let ttl = Duration::from_secs(60);
    said.shows(key);
    said.fails(limiter.try_check(&policy, key).await);
    said.shows(&limiter.check_n(&policy, key, 20).await);
    let charge = [Charge::new(&policy, key).with_cost(2)];
    said.shows(&charge);
    let id = OperationId::new(OPERATION);
    said.shows(&id);
    said.fails(limiter.charge_once(&id, &charge).await);
    // Another group under the same id: a conflict.
    let other = [Charge::new(&policy, key).with_cost(3)];
    said.fails(limiter.charge_once(&id, &other).await);
    for cost in [1, 2] {
        let reserved = limiter
            .reserve_as(
                OperationId::new(format!("{OPERATION}-2")),
                &[Charge::new(&policy, key).with_cost(cost)],
                ttl,
            )
            .await;
        said.fails(reserved.map(|reserved| format!("{reserved:?}")));
    }
    if let Ok(Reserved::Held(reservation)) = limiter.reserve(&charge, ttl).await {
        said.shows(&reservation);
        said.fails(reservation.settle(&[1]).await);
    }
    let stream = streams.key([USER]);
    let lease = [Charge::new(&streams, &stream)];
    said.fails(limiter.acquire(&lease, ttl).await);
    // A state of another algorithm, and a value that is no state.
    let log = integration_tests::policy(Quota::sliding_log(10, Period::HOUR));
    said.fails(limiter.try_check(&log, key).await);
    said.fails(
        limiter
            .try_check(&policy, &Key::new(["ratelimit", "foreign", USER]))
            .await,
    );
    said.fails(limiter.reset(&policy, key).await);
    said.shows(&limiter.health().await);
    said.shows(limiter);
}

async fn caches(cache: &dyn CacheStore, said: &mut Said) {
    let namespace = Key::new(["cache", USER]);
    let key = CacheKey::new(&namespace, USER);
    said.shows(&key);
    let entry = NewEntry::new(VALUE, Duration::from_secs(60));
    said.shows(&entry);
    said.fails(cache.set(&key, entry).await);
    said.fails(cache.get(&key).await);
    said.fails(cache.get_many(std::slice::from_ref(&key)).await);
    said.fails(cache.increment(&key, 1, Duration::from_secs(60)).await);
    said.shows(&cache);
    said.fails(cache.delete(&key).await);
    said.fails(cache.clear(&namespace).await);
    said.shows(&cache.health().await);
    said.shows(&cache);
}

/// D2: with identities digested, not even the keys in Redis name a user.
#[tokio::test]
async fn nobody_reads_them() {
    let logs = Logs::capture();
    let mut said = Said::default();
    let mut server = guarded();
    let proxy = ReplyProxy::start(server.port()).await;
    let url = server
        .url_at(proxy.port())
        .replace("limiter-secret", PASSWORD);
    let config = RedisConfig::new(&url).unwrap();
    said.shows(&config);
    said.shows(&Credentials::of_password(PASSWORD));
    let secret = IdentitySecret::new(SECRET);
    said.shows(&secret);
    let builder = Key::builder().segment("ratelimit").segment("user");
    let builder = builder.identity(&secret, USER);
    said.shows(&builder);
    let key = builder.build();
    let shown = Key::new(["ratelimit", "user", USER]);

    let store = RedisStore::new(&config).unwrap();
    said.shows(&store);
    let limiter = limiter_of(&config);
    let cache = RedisCache::new(&config).unwrap();
    eventually("a check", async || {
        limiter
            .try_check(&budget(), &key)
            .await
            .ok()
            .filter(|decision| !decision.degraded)
    })
    .await;
    limits(&limiter, &key, &mut said).await;
    let keys: Vec<String> = server.command(&["KEYS", "*"]);
    let of_user = |key: &&String| key.contains(":user:");
    assert!(keys.iter().filter(of_user).count() > 0, "{keys:?}");
    for key in keys.iter().filter(of_user) {
        assert!(!key.contains(CANARY), "{key}");
    }
    let foreign = format!("ratelimit:foreign:{USER}");
    server.command::<()>(&["DEL", &foreign]);
    server.command::<()>(&["LPUSH", &foreign, VALUE]);
    limits(&limiter, &shown, &mut said).await;
    caches(&cache, &mut said).await;
    limits(&Limiter::new(MemoryStore::new()), &shown, &mut said).await;
    caches(&MemoryCache::new(), &mut said).await;
    let backends = limiter::connect("memory:").await.unwrap();
    let entry = NewEntry::new(VALUE, Duration::from_secs(60));
    let stored = CacheKey::new(&Key::new(["cache", USER]), USER);
    said.fails(backends.cache.set(&stored, entry).await);
    said.shows(&backends);
    let agents = limiter::AgentLimits::new(limiter.clone()).unwrap();
    said.shows(&agents.turn_of(USER, USER, USER));

    // Each of the ways in which a Redis refuses; the last one names what it was sent.
    for error in [
        "LOADING Redis is loading the dataset in memory",
        "NOPERM this user has no permissions to access one of the keys used as arguments",
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR something new",
        "ERR unknown command 'EVALSHA', with args beginning with: 'ratelimit:user:canary-user' 'canary-value' ",
    ] {
        proxy.refuse(&["EVALSHA", "EVAL", "GET", "MULTI", "EXEC"], error);
        limits(&limiter, &shown, &mut said).await;
        caches(&cache, &mut said).await;
    }
    proxy.heal();
    // It does not know AUTH, and says so.
    proxy.refuse(
        &["AUTH"],
        "ERR unknown command 'AUTH', with args beginning with: 'limiter' 'canary-password' ",
    );
    let fresh = limiter_of(&config);
    limits(&fresh, &shown, &mut said).await;
    said.fails(RedisCache::new(&config).unwrap().warm_up().await);
    proxy.heal();
    // Away; then with another password.
    server.stop();
    limits(&limiter, &shown, &mut said).await;
    caches(&cache, &mut said).await;
    server.restart();
    let fresh = limiter_of(&config);
    let strict = budget().with_outage(Outage::Deny);
    let refused = fresh.try_check(&strict, &shown).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthorized);
    said.fails::<()>(Err(refused));
    limits(&limiter, &shown, &mut said).await;
    caches(&cache, &mut said).await;
    assert!(logs.lines().len() > 10);
    said.has_none_of_them_in(&logs);
}

/// D2: settings that cannot be used are told without what they hold.
#[test]
fn settings_that_are_refused_are_not_repeated() {
    let logs = Logs::capture();
    let mut said = Said::default();
    for url in [
        "redis://user:canary-password@",
        "redis://user:canary-password@host:port",
        "redis://user:canary-/password@host",
        "redis://user:canary-password@host/db",
        "redis://user:canary-password@host?db=3",
        "redis://user:canary-password@host?canary-password",
        "rediss://user:canary-password@host/#insecure",
        "redis+cluster://user:canary-password@host,",
        "redis+cluster://user:canary-password@host?canary-password=1",
        "redis+sentinel://user:canary-password@host",
        "https://user:canary-password@host",
        "canary-password",
        "",
    ] {
        said.fails(RedisConfig::new(url));
        for name in [
            "REDIS_URL",
            "KV_URL",
            "UPSTASH_REDIS_URL",
            "CACHE_REDIS_URL",
        ] {
            let get = |asked: &str| (asked == name).then(|| url.to_owned());
            said.fails(RedisEnv::from_lookup(get));
            // Each with a setting of its own that cannot be used.
            let all = |asked: &str| match asked {
                "REDIS_SENTINEL_PASSWORD" => Some(PASSWORD.to_owned()),
                "UPSTASH_REDIS_REST_TOKEN" | "KV_REST_API_TOKEN" => Some(PASSWORD.to_owned()),
                _ => get(asked),
            };
            said.fails(RedisEnv::from_lookup(all));
        }
    }
    said.has_none_of_them_in(&logs);
}
