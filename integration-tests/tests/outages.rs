//! Redis goes away, stalls, restarts, becomes a replica, fills up: errors say whether the call took
//! effect, come within the deadline, and the same objects work again afterwards.

use std::time::{Duration, Instant};

use integration_tests::{RedisServer, eventually, policy, redis_limiter};
use limiter_core::cache::{CacheKey, CacheStore};
use limiter_core::limit::{Charge, Limiter, Period, Policy, Quota};
use limiter_core::{Effect, Error, ErrorKind, Key};
use limiter_redis::RedisCache;

/// Long, so that a prompt answer cannot be the deadline's.
const LONG: Duration = Duration::from_secs(10);

/// What a busy machine may add to a deadline.
const MARGIN: Duration = Duration::from_secs(2);

fn monthly() -> Policy {
    policy(Quota::fixed_window(1_000, Period::MONTH))
}

fn key() -> Key {
    Key::new(["ratelimit", "user", "42", "coverLetter"])
}

/// Charges once more, asking until it is admitted; how many charges on the way have an unknown outcome.
async fn recovers(limiter: &Limiter) -> u64 {
    let mut unknown = 0;
    let check = async || match limiter.try_check(&monthly(), &key()).await {
        Ok(_) => Some(()),
        Err(error) => {
            unknown += u64::from(error.effect() == Effect::Unknown);
            None
        }
    };
    eventually("a check after the outage", check).await;
    unknown
}

/// What Redis holds.
fn counted(server: &RedisServer) -> u64 {
    let count: Option<u64> = server.command(&["GET", key().as_str()]);
    count.unwrap_or(0)
}

/// A server that refuses connections is found out at once, by one caller or by many.
#[tokio::test]
async fn nobody_waits_for_a_server_that_is_not_there() {
    let mut server = RedisServer::start_tcp();
    server.stop();
    let config = server.config().with_check_deadline(LONG);
    let limiter = redis_limiter(&config);
    let start = Instant::now();
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.try_check(&monthly(), &key()).await })
        })
        .collect();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Connection, Effect::No)
        );
        assert!(error.message().contains(&config.host()), "{error}");
    }
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
}

/// D3, B8: stopped and started again at its address, without new objects. The script is gone too.
#[tokio::test]
async fn a_restart_is_survived() {
    let mut server = RedisServer::start_tcp();
    let limiter = redis_limiter(&server.config().with_check_deadline(LONG));
    limiter.try_check(&monthly(), &key()).await.unwrap();
    server.stop();
    // A connection that was open may have taken the bytes; a new one cannot be made.
    let start = Instant::now();
    let refused = async || {
        let error = limiter.try_check(&monthly(), &key()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        (error.effect() == Effect::No).then_some(())
    };
    eventually("a refused connection", refused).await;
    assert!(start.elapsed() < LONG / 2, "{:?}", start.elapsed());
    server.restart();
    // An empty server counts from the start.
    let unknown = recovers(&limiter).await;
    let counted = counted(&server);
    assert!((1..=1 + unknown).contains(&counted), "{counted}, {unknown}");
}

/// I-R3, I-R5, D3: a server that takes the bytes and does not answer.
#[tokio::test]
async fn a_stalled_server_is_given_up_at_the_deadline() {
    let deadline = Duration::from_millis(200);
    let server = RedisServer::start_tcp();
    // One call under way at a time.
    let config = server.config().with_pool_size(1).with_batches(1);
    let limiter = redis_limiter(&config.with_check_deadline(deadline));
    recovers(&limiter).await;
    let before = counted(&server);
    let mut unknown = 0;
    let stalled = server.stall();
    for _ in 0..5 {
        let start = Instant::now();
        let error = limiter.try_check(&monthly(), &key()).await.unwrap_err();
        assert!(start.elapsed() < deadline + MARGIN, "{:?}", start.elapsed());
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.message().contains("200 ms"), "{error}");
        unknown += u64::from(error.effect() == Effect::Unknown);
    }
    drop(stalled);
    // While the one that is under way has no answer, nothing else is sent.
    assert!(unknown <= 1, "{unknown}");
    unknown += recovers(&limiter).await;
    // What the server reads now was sent before. Nothing of it was sent twice.
    let since = counted(&server) - before;
    assert!((1..=1 + unknown).contains(&since), "{since}, {unknown}");
}

/// I-R2, I-R3: as many charges as were sent, at most, with many connections in use.
#[tokio::test]
async fn charges_of_unknown_outcome_count_once_at_most() {
    const CALLS: u64 = 8;
    let server = RedisServer::start();
    let limiter = redis_limiter(
        &server
            .config()
            .with_check_deadline(Duration::from_millis(500)),
    );
    let all = async || -> Vec<Result<_, Error>> {
        let calls: Vec<_> = (0..CALLS)
            .map(|_| {
                let limiter = limiter.clone();
                tokio::spawn(async move { limiter.try_check(&monthly(), &key()).await })
            })
            .collect();
        let mut results = Vec::new();
        for call in calls {
            results.push(call.await.unwrap());
        }
        results
    };
    // Until every call has a connection that is open.
    for _ in 0..20 {
        all().await;
    }
    let before = counted(&server);
    let stalled = server.stall();
    let errors: Vec<Error> = all().await.into_iter().map(Result::unwrap_err).collect();
    drop(stalled);
    let mut unknown = errors
        .iter()
        .filter(|error| error.effect() == Effect::Unknown)
        .count() as u64;
    assert!(unknown > 0, "{errors:?}");
    // An answer on a later connection: what was sent before has been read.
    unknown += recovers(&limiter).await;
    let since = counted(&server) - before;
    assert!((1..=1 + unknown).contains(&since), "{since}, {unknown}");
}

/// I-R5: also when there is no connection yet: the kernel accepts, the server does not answer.
#[tokio::test]
async fn connecting_counts_against_the_deadline() {
    let deadline = Duration::from_millis(200);
    let server = RedisServer::start_tcp();
    let config = server
        .config()
        .with_check_deadline(deadline)
        .with_cache_deadline(deadline);
    let limiter = redis_limiter(&config);
    let cache = RedisCache::new(&config).unwrap();
    let stalled = server.stall();
    let start = Instant::now();
    let error = limiter.try_check(&monthly(), &key()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Timeout, Effect::No),
        "{error}"
    );
    let cached = CacheKey::new(&Key::new(["cache", "op"]), "a");
    let error = cache.get(&cached).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Timeout, Effect::No),
        "{error}"
    );
    let health = limiter.health().await;
    assert!(!health.connected && health.latency.is_none(), "{health:?}");
    assert!(
        start.elapsed() < 3 * deadline + MARGIN,
        "{:?}",
        start.elapsed()
    );
    drop(stalled);
    let unknown = recovers(&limiter).await;
    let counted = counted(&server);
    assert!((1..=1 + unknown).contains(&counted), "{counted}, {unknown}");
    eventually("the cache", async || cache.get(&cached).await.ok()).await;
}

/// Known fault: "a pool keeps a demoted primary": connections to it are given up, new ones refused.
#[tokio::test]
async fn a_demoted_primary_is_left_and_taken_back() {
    let server = RedisServer::start_tcp();
    let limiter = redis_limiter(&server.config().without_breaker());
    limiter.try_check(&monthly(), &key()).await.unwrap();
    let old = server.connections();
    // Port 1 is never a Redis: the primary that it follows from now on is away.
    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    for _ in 0..20 {
        let error = limiter.try_check(&monthly(), &key()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Server, Effect::No),
            "{error}"
        );
        assert!(
            error.message().contains("connect to the primary"),
            "{error}"
        );
    }
    let gone = async || {
        let open = server.connections();
        old.iter().all(|id| !open.contains(id)).then_some(())
    };
    eventually("an end of the old connections", gone).await;
    assert_eq!(counted(&server), 1);
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    let unknown = recovers(&limiter).await;
    assert!((2..=2 + unknown).contains(&counted(&server)));
}

/// A server without memory refuses a charge before it changes anything; what stands can be read.
#[tokio::test]
async fn a_full_server_charges_nothing() {
    let server = RedisServer::start();
    let limiter = redis_limiter(&server.config().with_pool_size(1));
    let (window, bucket) = (monthly(), policy(Quota::token_bucket(10, 1, Period::DAY)));
    let (user, tenant) = (key(), Key::new(["ratelimit", "tenant"]));
    let group = [Charge::new(&window, &user), Charge::new(&bucket, &tenant)];
    limiter.try_check_all(&group).await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = limiter.try_check(&window, &user).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Server, Effect::No),
        "{error}"
    );
    let error = limiter.try_check_all(&group).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Server, Effect::No),
        "{error}"
    );
    for (policy, key) in [(&window, &user), (&bucket, &tenant)] {
        assert_eq!(limiter.peek(policy, key).await.unwrap().used, 1, "{key}");
    }
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    limiter.try_check_all(&group).await.unwrap();
    assert_eq!(limiter.peek(&bucket, &tenant).await.unwrap().used, 2);
}
