//! A primary under sentinels: found, and followed when it is another one.

use std::time::{Duration, Instant};

use integration_tests::{
    Proxy, RedisSentinels, ReplyProxy, eventually, needs, policy, redis_limiter,
};
use limiter_core::limit::{Limiter, Period, Policy, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{Credentials, RedisConfig};

fn monthly() -> Policy {
    policy(Quota::fixed_window(1_000_000, Period::MONTH))
}

fn key() -> Key {
    Key::new(["ratelimit", "user", "42"])
}

/// What a server has counted.
fn counted(sentinels: &RedisSentinels, server: usize) -> u64 {
    let count: Option<u64> = sentinels.servers[server].command(&["GET", key().as_str()]);
    count.unwrap_or(0)
}

/// Checks until one is answered; how many before it are of unknown outcome.
async fn recovers(limiter: &Limiter) -> u64 {
    let mut unknown = 0;
    eventually("a check after the failover", async || {
        let answer = limiter.try_check(&monthly(), &key()).await;
        unknown += u64::from(
            answer
                .as_ref()
                .is_err_and(|error| error.effect() == Effect::Unknown),
        );
        answer.ok().filter(|decision| !decision.degraded)
    })
    .await;
    unknown
}

/// Known fault: "a pool keeps a demoted primary": the old primary dies; nothing is restarted here, and every charge is at the new one.
#[tokio::test]
async fn a_failover_is_followed() {
    let mut sentinels = RedisSentinels::start();
    let config = sentinels.config();
    let limiter = redis_limiter(&config.with_check_deadline(Duration::from_millis(200)));
    recovers(&limiter).await;
    let before = counted(&sentinels, 0);
    // What the replica has when the primary dies is what counts on.
    sentinels.servers[0].command::<u64>(&["WAIT", "1", "1000"]);
    eventually("the replica has it", async || {
        (counted(&sentinels, 1) == before).then_some(())
    })
    .await;
    sentinels.servers[0].stop();
    let start = Instant::now();
    let unknown = recovers(&limiter).await;
    println!("recovered in {:?}", start.elapsed());
    assert!(sentinels.is_primary(1));
    let counted = counted(&sentinels, 1);
    assert!(
        (before + 1..=before + 1 + unknown).contains(&counted),
        "{counted}"
    );
    let health = eventually("health", async || {
        let health = limiter.health().await;
        health.connected.then_some(health)
    });
    assert!(health.await.message.contains("mine"));
}

/// I-F1: cut off from its sentinels and its replica, the old primary goes on for those on its side; they follow the new one when
/// the sentinels name it, though the old one still answers. Until then each admits what its own limit says.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_was_replaced_behind_its_back_is_left() {
    let mut proxy = None;
    let sentinels = tokio::task::block_in_place(|| {
        RedisSentinels::start_behind(|primary| {
            let started = tokio::runtime::Handle::current().block_on(Proxy::start(primary.port()));
            proxy.insert(started).port()
        })
    });
    let proxy = proxy.unwrap();
    let (near, behind) = (sentinels.servers[0].port(), proxy.port());
    let config = sentinels.config().with_resolver(move |_: &str, port: u16| {
        (port == behind).then(|| ("127.0.0.1".to_owned(), near))
    });
    let limiter = redis_limiter(&config);
    recovers(&limiter).await;
    proxy.freeze();
    sentinels.wait_for_failover();
    assert!(sentinels.is_primary(0), "nobody has told it");
    let old = counted(&sentinels, 0);
    let start = Instant::now();
    let follows = async || {
        limiter.try_check(&monthly(), &key()).await.unwrap();
        let count: Option<u64> = sentinels.servers[1].command(&["GET", key().as_str()]);
        // The pace of a load: sentinels are asked while there are checks.
        tokio::time::sleep(Duration::from_millis(20)).await;
        (count > Some(1)).then_some(())
    };
    eventually("the new primary counts", follows).await;
    let took = start.elapsed();
    println!("followed in {took:?}");
    // It asks at most three seconds apart.
    assert!(took < Duration::from_secs(8), "{took:?}");
    let old = counted(&sentinels, 0) - old;
    limiter.try_check(&monthly(), &key()).await.unwrap();
    assert!(counted(&sentinels, 1) >= 2 && old > 0);
}

/// D2: the sentinels' credentials are their own; an error names neither password.
#[tokio::test]
async fn sentinels_have_a_password_of_their_own() {
    let sentinels = RedisSentinels::start();
    let config = |password: Option<&str>| {
        let config = RedisConfig::new(&sentinels.url()).unwrap();
        let config = config.with_check_deadline(Duration::from_secs(10));
        match password {
            Some(password) => {
                let credentials = Credentials::of_password(password);
                config.with_sentinel_credentials(credentials).unwrap()
            }
            None => config,
        }
    };
    for wrong in [None, Some("wrong-secret")] {
        let limiter = redis_limiter(&config(wrong));
        let error = limiter.try_check(&monthly(), &key()).await.unwrap_err();
        let found = (error.kind(), error.effect());
        assert_eq!(found, (ErrorKind::Unauthorized, Effect::No), "{error}");
        assert!(!format!("{error:?}").contains("-secret"), "{error:?}");
    }
    let limiter = redis_limiter(&config(Some(sentinels.password())));
    limiter.try_check(&monthly(), &key()).await.unwrap();
    let plain = RedisConfig::new("redis://localhost").unwrap();
    let refused = plain.with_sentinel_credentials(Credentials::of_password("x"));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Config);
}

/// One sentinel was cut off from the others and still names the old primary, and it answers first: those who know of a later
/// failover are believed.
#[tokio::test]
async fn a_sentinel_that_missed_the_failover_is_not_believed() {
    let mut sentinels = RedisSentinels::start();
    let mut networks = Vec::new();
    let mut replies = Vec::new();
    for port in sentinels.ports() {
        let network = Proxy::start(port).await;
        replies.push(ReplyProxy::start(network.port()).await);
        networks.push(network);
    }
    let ports: Vec<u16> = replies.iter().map(ReplyProxy::port).collect();
    let config = sentinels.config_of(&sentinels.url_at(&ports));
    let limiter = redis_limiter(&config.with_check_deadline(Duration::from_millis(500)));
    recovers(&limiter).await;
    // It answers at once, and the others do not.
    replies[0].repeat(&["SENTINEL"]);
    for network in &networks[1..] {
        network.delay(Duration::from_millis(10));
    }
    sentinels.servers[0].stop();
    recovers(&limiter).await;
    assert!(sentinels.is_primary(1) && counted(&sentinels, 1) > 0);
    assert!(replies[0].answered() > 0, "it was asked");
}

/// D2, sentinels, a primary and a replica that speak TLS only: found, and followed.
#[tokio::test]
async fn a_failover_over_tls_is_followed() {
    needs!(TLS);
    let mut sentinels = RedisSentinels::start_tls();
    let config = sentinels.config();
    assert!(config.uses_tls());
    let limiter = redis_limiter(&config.with_check_deadline(Duration::from_millis(500)));
    recovers(&limiter).await;
    sentinels.servers[0].stop();
    recovers(&limiter).await;
    assert!(sentinels.is_primary(1) && counted(&sentinels, 1) > 0);
    // Nobody vouches for the sentinels: nothing is asked in the clear.
    let untrusted = RedisConfig::new(&sentinels.url()).unwrap();
    let limiter = redis_limiter(&untrusted.with_check_deadline(Duration::from_secs(10)));
    let error = limiter.try_check(&monthly(), &key()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
    assert!(error.message().contains("certificate"), "{error}");
}
