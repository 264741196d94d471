//! What servers refuse with, in their own words: what kind of error each is, whether it opens the breaker, and whose rule decides.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::{Duration, Instant};

use integration_tests::{RedisServer, ReplyProxy, eventually, policy};
use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{Limiter, Outage, Period, Policy, Quota, Share};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_memory::MemoryStore;
use limiter_redis::{RedisCache, RedisConfig, RedisStore};

/// What a reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The server cannot serve: the breaker opens, and the rule for outages decides.
    Away,
    /// The rule for outages decides, but it is nothing of the whole server.
    Unserved,
    /// No outage: the caller is told.
    Misuse,
}

use Meaning::{Away, Misuse, Unserved};

/// From the sources of Redis 6.2 to 8, Valkey 9, and of Upstash.
const REPLIES: [(&str, ErrorKind, Effect, Meaning); 24] = {
    use Effect::{No, Unknown};
    use ErrorKind::{Foreign, Protocol, Server, Unauthorized, Unsupported};
    [
        (
            "LOADING Redis is loading the dataset in memory",
            Server,
            No,
            Away,
        ),
        (
            "READONLY You can't write against a read only replica.",
            Server,
            No,
            Away,
        ),
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            Server,
            No,
            Away,
        ),
        (
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            Server,
            No,
            Away,
        ),
        (
            "MISCONF Errors writing to the AOF file: No space left on device",
            Server,
            No,
            Away,
        ),
        ("CLUSTERDOWN The cluster is down", Server, No, Away),
        (
            "CLUSTERDOWN The cluster is down and only accepts read commands",
            Server,
            No,
            Away,
        ),
        ("CLUSTERDOWN Hash slot not served", Server, No, Unserved),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            Server,
            No,
            Away,
        ),
        (
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            Server,
            No,
            Away,
        ),
        (
            "NOREPLICAS Not enough good replicas to write.",
            Server,
            No,
            Away,
        ),
        (
            "TRYAGAIN Multiple keys request during rehashing of slot",
            Server,
            No,
            Unserved,
        ),
        ("ERR max number of clients reached", Server, No, Away),
        (
            "ERR max daily request limit exceeded. Limit: 10000, Usage: 10000.",
            Server,
            Unknown,
            Away,
        ),
        ("NOAUTH Authentication required.", Unauthorized, No, Away),
        (
            "WRONGPASS invalid username-password pair or user is disabled.",
            Unauthorized,
            No,
            Away,
        ),
        (
            "DENIED Redis is running in protected mode because protected mode is enabled and no password is set",
            Unauthorized,
            No,
            Away,
        ),
        (
            "NOPERM this user has no permissions to run the 'evalsha' command",
            Unauthorized,
            No,
            Away,
        ),
        (
            "NOPERM User limiter has no permissions to run the 'evalsha' command",
            Unauthorized,
            No,
            Away,
        ),
        (
            "NOPERM this user has no permissions to access one of the keys used as arguments",
            Unauthorized,
            Unknown,
            Unserved,
        ),
        (
            "ERR unknown command 'EVALSHA', with args beginning with: ",
            Unsupported,
            No,
            Misuse,
        ),
        (
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            Foreign,
            No,
            Misuse,
        ),
        (
            "CROSSSLOT Keys in request don't hash to the same slot",
            Unsupported,
            No,
            Misuse,
        ),
        (
            "ERR something that nobody has seen before",
            Protocol,
            Unknown,
            Away,
        ),
    ]
};

struct World {
    server: RedisServer,
    errors: ReplyProxy,
    config: RedisConfig,
    key: Key,
    policy: Policy,
}

impl World {
    async fn new() -> Self {
        let server = RedisServer::start_tcp();
        let errors = ReplyProxy::start(server.port()).await;
        let config = RedisConfig::new(&server.url_at(errors.port())).unwrap();
        let local = Outage::Local {
            share: Share::WHOLE,
        };
        let policy = policy(Quota::fixed_window(1_000_000, Period::MONTH)).with_outage(local);
        Self {
            key: policy.key(["42"]),
            config: config.with_check_deadline(Duration::from_secs(2)),
            server,
            errors,
            policy,
        }
    }

    /// A limiter of an instance that has just started.
    fn limiter(&self) -> Limiter {
        let store = RedisStore::new(&self.config).unwrap();
        Limiter::raw(Stack::new(store).local(MemoryStore::new()).build())
    }

    /// Checks until the server answers; how many admissions it has counted in all of them.
    async fn until_answered(&self, limiter: &Limiter, what: &str) -> u64 {
        let start = Instant::now();
        let mut admitted = 0;
        eventually(what, async || {
            let decision = limiter.try_check(&self.policy, &self.key).await.ok()?;
            let is_of_store = !decision.degraded;
            admitted += u64::from(is_of_store);
            is_of_store.then_some(())
        })
        .await;
        // D3, N5.
        assert!(start.elapsed() < Duration::from_secs(2), "{what}");
        admitted
    }

    fn counted(&self) -> u64 {
        let count: Option<u64> = self.server.command(&["GET", self.key.as_str()]);
        count.unwrap_or(0)
    }
}

/// R-D, I-R2, I-F: what each reply comes to.
#[tokio::test]
async fn each_reply_has_its_meaning() {
    let world = World::new().await;
    let strict = world.policy.clone().with_outage(Outage::Deny);
    let limiter = world.limiter();
    let mut admitted = world.until_answered(&limiter, "the first check").await;
    for (reply, kind, effect, meaning) in REPLIES {
        // A breaker of its own, closed.
        let store = RedisStore::new(&world.config).unwrap();
        let raw = Limiter::raw(Stack::new(store).local(MemoryStore::new()).build());
        admitted += world.until_answered(&raw, reply).await;
        world.errors.refuse(&["EVALSHA", "EVAL"], reply);
        let mut is_open = false;
        for round in 0..20 {
            let error = raw.try_check(&strict, &world.key).await.unwrap_err();
            is_open = error.kind() == ErrorKind::BreakerOpen;
            if is_open {
                break;
            }
            let said = (error.kind(), error.effect());
            assert_eq!(said, (kind, effect), "{round}: {error}");
            let (_, words) = reply.split_once(' ').unwrap();
            // Without the arguments that it repeats.
            let words = words.split(", with").next().unwrap();
            assert!(error.message().contains(words), "{error}");
        }
        assert_eq!(is_open, meaning == Away, "{reply}");
        let local = raw.try_check(&world.policy, &world.key).await;
        match meaning {
            Misuse => assert_eq!(local.unwrap_err().kind(), kind, "{reply}"),
            Away | Unserved => {
                let local = local.unwrap();
                assert!(local.is_allowed() && local.degraded, "{reply}: {local:?}");
            }
        }
        world.errors.heal();
        admitted += world.until_answered(&raw, reply).await;
    }
    assert_eq!(world.counted(), admitted);
}

/// D1, D3: it answers everything so, also the handshake: the service starts in its degraded mode, and joins.
#[tokio::test]
async fn a_server_that_refuses_everything_is_joined_when_it_stops() {
    let world = World::new().await;
    for (reply, _, _, meaning) in REPLIES {
        world.errors.refuse(&[], reply);
        let limiter = world.limiter();
        let answer = limiter.try_check(&world.policy, &world.key).await;
        match answer {
            Ok(local) => assert!(local.is_allowed() && local.degraded, "{reply}: {local:?}"),
            Err(error) => assert!(meaning == Misuse, "{error}"),
        }
        assert!(!limiter.is_healthy().await, "{reply}");
        world.errors.heal();
        world.until_answered(&limiter, reply).await;
    }
}

/// I-R1, I-R2: the server has done what it was asked, and what arrives is an error that nobody knows.
#[tokio::test]
async fn an_unknown_error_may_have_been_a_charge() {
    let world = World::new().await;
    let strict = world.policy.clone().with_outage(Outage::Deny);
    let limiter = world.limiter();
    world.until_answered(&limiter, "the first check").await;
    let before = world.counted();
    world
        .errors
        .spoil(&["EVALSHA"], "ERR connection to upstream lost");
    let mut unknown = 0;
    while unknown < 20 {
        let error = limiter.try_check(&strict, &world.key).await.unwrap_err();
        if error.kind() == ErrorKind::BreakerOpen {
            break;
        }
        assert_eq!(error.effect(), Effect::Unknown, "{error}");
        unknown += 1;
    }
    // Nothing is sent again.
    assert!(unknown > 0);
    assert_eq!(world.counted(), before + unknown);
}

/// To a cache each of them is an error, of the same kind, and over when it is over: on the same connections.
#[tokio::test]
async fn a_cache_tells_the_same() {
    let world = World::new().await;
    let namespace = Key::new(["cache", "errors"]);
    let key = CacheKey::new(&namespace, "a");
    for (reply, kind, _, meaning) in REPLIES {
        let cache = RedisCache::new(&world.config).unwrap();
        eventually("it is warm", async || cache.warm_up().await.ok()).await;
        let entry = NewEntry::new("value", Duration::from_secs(60));
        cache.set(&key, entry).await.unwrap();
        for refused in [&["GET", "PTTL", "MULTI", "EXEC"][..], &["MULTI"], &["GET"]] {
            world.errors.refuse(refused, reply);
            let error = cache.get(&key).await.unwrap_err();
            let is_open = error.kind() == ErrorKind::BreakerOpen && meaning == Away;
            assert!(error.kind() == kind || is_open, "{refused:?}: {error}");
            world.errors.heal();
            let get = async || cache.get(&key).await.ok().flatten();
            let value = eventually(reply, get).await.value;
            assert_eq!(value, "value", "{reply}");
        }
    }
}

/// EXEC is not let through, by a proxy say: what comes after on that connection is queued, so nothing does.
#[tokio::test]
async fn a_transaction_without_an_end_ends_its_connection() {
    let world = World::new().await;
    let config = world.config.clone().with_pool_size(1).without_breaker();
    let cache = RedisCache::new(&config).unwrap();
    let key = CacheKey::new(&Key::new(["cache", "exec"]), "a");
    let entry = || NewEntry::new("value", Duration::from_secs(60));
    cache.set(&key, entry()).await.unwrap();
    world.errors.refuse(&["EXEC"], "ERR unknown command 'EXEC'");
    let error = cache.get(&key).await.unwrap_err();
    let said = (error.kind(), error.effect());
    assert_eq!(said, (ErrorKind::Connection, Effect::Unknown), "{error}");
    assert!(error.message().contains("EXEC was refused"), "{error}");
    world.errors.heal();
    eventually("it is read", async || cache.get(&key).await.ok().flatten()).await;
    for _ in 0..10 {
        cache.set(&key, entry()).await.unwrap();
        assert_eq!(cache.get(&key).await.unwrap().unwrap().value, "value");
    }
}

/// Redis does not roll back: a value whose namespace has no index is deleted, and that is what is told.
#[tokio::test]
async fn what_is_deleted_is_said_to_be() {
    let world = World::new().await;
    let cache = RedisCache::new(&world.config).unwrap();
    let key = CacheKey::new(&Key::new(["cache", "index"]), "a");
    let entry = NewEntry::new("value", Duration::from_secs(60));
    cache.set(&key, entry).await.unwrap();
    world.server.set("cache:index:%index", b"no index");
    let error = cache.delete(&key).await.unwrap_err();
    let said = (error.kind(), error.effect());
    assert_eq!(said, (ErrorKind::Foreign, Effect::Yes), "{error}");
    assert_eq!(cache.get(&key).await.unwrap(), None);
}
