//! Checks that come at once share calls: nobody starves, nobody's leaving or error is another's, and every charge is accounted for.

#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration_tests::{Proxy, RedisCluster, RedisServer, eventually, policy};
use limiter_core::limit::{LimitStore, Limiter, Outage, Period, Policy, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{ClusterStore, RedisConfig, RedisStore};

fn plenty() -> Policy {
    policy(Quota::fixed_window(1_000_000_000, Period::DAY))
}

async fn proxied(server: &RedisServer, delay: Duration) -> (Proxy, RedisConfig) {
    let proxy = Proxy::start(server.port()).await;
    proxy.delay(delay);
    let url = server.url_at(proxy.port());
    (proxy, RedisConfig::new(&url).unwrap())
}

/// What waits while a call is under way goes in the next one; a check alone is one command.
#[tokio::test]
async fn what_waits_shares_a_call() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    store.warm_up().await.unwrap();
    let limiter = Limiter::new(store);
    let (policy, before) = (plenty(), server.calls("evalsha"));
    let key = Key::new(["ratelimit", "alone"]);
    for used in 1..=10 {
        assert_eq!(limiter.try_check(&policy, &key).await.unwrap().used, used);
    }
    assert_eq!(server.calls("evalsha") - before, 10);
    assert_eq!(server.calls("role"), 4, "one for each connection");

    let checks: Vec<_> = (0..1_000)
        .map(|caller| {
            let (limiter, policy) = (limiter.clone(), policy.clone());
            let key = Key::new(["ratelimit", "many", &caller.to_string()]);
            tokio::spawn(async move { limiter.try_check(&policy, &key).await.unwrap().used })
        })
        .collect();
    for check in checks {
        assert_eq!(check.await.unwrap(), 1);
    }
    let shared = server.calls("evalsha") - before - 10;
    assert!((8..=64).contains(&shared), "1,000 checks in {shared} calls");
    assert_eq!(server.calls("ping"), 0);
}

/// I-R2. Each caller has a key and a cost of its own, so an answer that belongs to another shows. The rest is arithmetic: what was
/// charged is what was told, and what nobody was there to hear.
async fn cancelled(limiter: &Limiter, unheard: impl Fn() -> u64, used: impl Fn(&Key) -> u64) {
    const CALLERS: u64 = 100;
    const ROUNDS: u64 = 1_000;
    let policy = plenty();
    let key = |caller: u64| Key::new(["ratelimit", "cancelled", &caller.to_string()]);
    let (told, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (limiter, policy, key) = (limiter.clone(), policy.clone(), key(caller));
            let (told, done) = (told.clone(), done.clone());
            tokio::spawn(async move {
                let cost = caller + 1;
                for round in 1..=ROUNDS {
                    // From never polled to nearly always answered; and every eighth is.
                    let patience = match round % 8 {
                        0 => Duration::from_secs(20),
                        _ => Duration::from_micros((round * 37 + caller * 101) % 3_000),
                    };
                    let check = limiter.try_check_n(&policy, &key, cost);
                    let checked = tokio::time::timeout(patience, check).await;
                    done.fetch_add(1, Ordering::Relaxed);
                    let Ok(decision) = checked else { continue };
                    let decision = decision.unwrap();
                    assert!(decision.is_allowed());
                    let used = decision.used;
                    assert!(used % cost == 0 && used <= round * cost, "{used} of {cost}");
                    told.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    // Behind everything that was sent before.
    let probe = Key::new(["ratelimit", "cancelled", "probe"]);
    let told = told.load(Ordering::Relaxed);
    assert_eq!(done.load(Ordering::Relaxed), CALLERS * ROUNDS);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        limiter.try_check(&policy, &probe).await.unwrap();
        let charged: u64 = (0..CALLERS)
            .map(|caller| used(&key(caller)) / (caller + 1))
            .sum();
        let unheard = unheard();
        if charged == told + unheard {
            assert!(told > 10_000 && unheard > 100, "{told} told, {unheard} not");
            return;
        }
        let message = format!("{charged} charged, {told} told, {unheard} unheard");
        assert!(Instant::now() < deadline, "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_cancelled_checks_are_accounted_for() {
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    store.warm_up().await.unwrap();
    let used = |key: &Key| {
        let used: Option<u64> = server.command(&["GET", key.as_str()]);
        used.unwrap_or(0)
    };
    cancelled(&Limiter::new(store.clone()), || store.unheard(), used).await;
    let clients: String = server.command(&["INFO", "stats"]);
    let made = clients
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:"));
    // Ours, and those of this test's own questions; each cancelled check would have cost one.
    let made: u64 = made.unwrap().parse().unwrap();
    assert!(made < 10_000, "{made} connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_cancelled_checks_are_accounted_for_in_a_cluster() {
    let cluster = RedisCluster::start();
    let store = ClusterStore::new(&cluster.config()).unwrap();
    store.warm_up().await.unwrap();
    let used = |key: &Key| {
        let node = cluster.home(cluster.slot(key.as_str()));
        let used: Option<u64> = cluster.nodes[node].command(&["GET", key.as_str()]);
        used.unwrap_or(0)
    };
    cancelled(&Limiter::new(store.clone()), || store.unheard(), used).await;
}

/// A closed loop of many: everybody gets about as many answers. (With bb8's own queue: 1 to 6,093.)
#[tokio::test]
async fn nobody_starves() {
    const CALLERS: u64 = 256;
    let server = RedisServer::start();
    let store = RedisStore::new(&server.config()).unwrap();
    store.warm_up().await.unwrap();
    let (limiter, policy) = (Limiter::new(store), plenty());
    let (is_over, all) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (limiter, policy) = (limiter.clone(), policy.clone());
            let (is_over, all) = (is_over.clone(), all.clone());
            let key = Key::new(["ratelimit", "fair", &caller.to_string()]);
            tokio::spawn(async move {
                let mut answers = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    limiter.try_check(&policy, &key).await.unwrap();
                    answers += 1;
                    all.fetch_add(1, Ordering::Relaxed);
                }
                answers
            })
        })
        .collect();
    eventually("a hundred answers each", async || {
        (all.load(Ordering::Relaxed) >= 100 * CALLERS).then_some(())
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    let mut answers = Vec::new();
    for caller in callers {
        answers.push(caller.await.unwrap());
    }
    let (least, most) = (answers.iter().min().unwrap(), answers.iter().max().unwrap());
    assert!(least * 10 >= most * 8, "{least} to {most} answers");
}

/// A flood under one policy does not keep another's few checks waiting behind it.
#[tokio::test]
async fn policies_take_turns() {
    let server = RedisServer::start_tcp();
    let (_proxy, config) = proxied(&server, Duration::from_millis(10)).await;
    let config = config
        .with_batches(1)
        .with_check_deadline(Duration::from_secs(20));
    let store = RedisStore::new(&config).unwrap();
    store.warm_up().await.unwrap();
    let limiter = Limiter::new(store);
    let window = Quota::fixed_window(1_000_000, Period::DAY).unwrap();
    let (flood, few) = (
        Policy::new("flood", window).unwrap(),
        Policy::new("few", window).unwrap(),
    );
    const FLOOD: u64 = 2_000;
    let (waiting, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let flooding: Vec<_> = (0..FLOOD)
        .map(|caller| {
            let (limiter, flood) = (limiter.clone(), flood.clone());
            let (waiting, done) = (waiting.clone(), done.clone());
            let key = Key::new(["ratelimit", "flood", &caller.to_string()]);
            tokio::spawn(async move {
                waiting.fetch_add(1, Ordering::Relaxed);
                limiter.try_check(&flood, &key).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            })
        })
        .collect();
    // On one thread, who counts itself has entered before anybody else runs.
    eventually("the flood waits", async || {
        (waiting.load(Ordering::Relaxed) == FLOOD).then_some(())
    })
    .await;
    let key = Key::new(["ratelimit", "few"]);
    limiter.try_check(&few, &key).await.unwrap();
    let before = done.load(Ordering::Relaxed);
    assert!(before <= 3 * 128, "{before} of the flood were first");
    for flooding in flooding {
        flooding.await.unwrap();
    }
}

/// Above what can be done, latecomers are refused at once, before anything is sent, and those before them are answered.
#[tokio::test]
async fn overload_is_refused_at_once() {
    let server = RedisServer::start_tcp();
    // A call every 100 ms takes 128: not more than 1,280 a second.
    let (_proxy, config) = proxied(&server, Duration::from_millis(50)).await;
    let deadline = Duration::from_secs(2);
    let config = config.with_batches(1).with_check_deadline(deadline);
    let store = RedisStore::new(&config).unwrap();
    store.warm_up().await.unwrap();
    let (limiter, policy) = (Limiter::new(store.clone()), plenty());
    let key = Key::new(["ratelimit", "overload"]);
    let start = Instant::now();
    let mut checks = Vec::new();
    // Three times as many, for longer than a deadline.
    while start.elapsed() < 2 * deadline {
        for _ in 0..40 {
            let (limiter, policy, key) = (limiter.clone(), policy.clone(), key.clone());
            checks.push(tokio::spawn(async move {
                let begun = Instant::now();
                let result = limiter.try_check(&policy, &key).await;
                (result, begun.elapsed())
            }));
        }
        // The pace of a load, which is what is tested; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (mut admitted, mut at_once, mut later) = (0_u64, 0_u64, 0_u64);
    for check in checks {
        let (result, took) = check.await.unwrap();
        match result {
            Ok(_) => admitted += 1,
            Err(error) => {
                let found = (error.kind(), error.effect());
                assert_eq!(found, (ErrorKind::Saturated, Effect::No), "{error}");
                assert!(error.message().contains("ask less at once"), "{error}");
                at_once += u64::from(took < deadline / 4);
                later += u64::from(took >= deadline / 4);
            }
        }
    }
    // A call every 100 ms, give or take what the machine was busy with.
    assert!(admitted > 1_000, "{admitted} admitted");
    assert!(
        at_once > 1_000 && later * 20 < at_once,
        "{at_once} at once, {later} later"
    );
    let charged: u64 = server.command(&["GET", key.as_str()]);
    assert_eq!((charged, store.unheard()), (admitted, 0));
}

/// Callers that ask again as soon as they are refused leave the runtime to others: to timers, and to those who carry the answers.
#[test]
fn who_is_refused_lets_others_run() {
    const PATIENCE: Duration = Duration::from_secs(30);
    let (done, is_done) = std::sync::mpsc::channel();
    // Ends with the test, whatever becomes of the thread.
    let server = RedisServer::start_tcp();
    let port = server.port();
    // Without that nothing in the runtime would end, so it is waited for from without.
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let proxy = Proxy::start(port).await;
            proxy.delay(Duration::from_millis(50));
            let url = format!("redis://limiter:limiter-secret@127.0.0.1:{}", proxy.port());
            let deadline = Duration::from_millis(500);
            let config = RedisConfig::new(&url).unwrap().with_batches(1);
            let config = config.with_check_deadline(deadline);
            let limiter = Limiter::new(RedisStore::new(&config).unwrap());
            let is_over = Arc::<AtomicBool>::default();
            let counts = Arc::new([const { AtomicU64::new(0) }; 2]);
            let hasty = limiter.clone().with_deadline(Duration::ZERO);
            let callers: Vec<_> = (0..2_100)
                .map(|caller| {
                    // Some are refused, some are allowed in the store's place, and a few have no time at all.
                    let (limiter, outage) = match caller {
                        0..100 => (hasty.clone(), Outage::Deny),
                        100..1_100 => (limiter.clone(), Outage::Deny),
                        _ => (limiter.clone(), Outage::Allow),
                    };
                    let is_over = is_over.clone();
                    let counts = counts.clone();
                    tokio::spawn(async move {
                        let policy = plenty().with_outage(outage);
                        let key = Key::new(["ratelimit", "loop"]);
                        while !is_over.load(Ordering::SeqCst) {
                            let answer = limiter.try_check(&policy, &key).await;
                            let is_answered = answer.is_ok_and(|decision| !decision.degraded);
                            let count = &counts[usize::from(is_answered)];
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            // The first call takes 128. Those after it come to answers only if sockets and timers are looked at all the while.
            eventually("refusals and answers", async || {
                let [refused, answered] =
                    counts.each_ref().map(|count| count.load(Ordering::SeqCst));
                (refused > 10_000 && answered > 1_000).then_some(())
            })
            .await;
            is_over.store(true, Ordering::SeqCst);
            for caller in callers {
                caller.await.unwrap();
            }
        });
        let _ = done.send(());
    });
    // More than `eventually` has.
    is_done.recv_timeout(PATIENCE).unwrap();
}

/// A user that may not use every key: who asks for such a key is told, and nobody else.
#[tokio::test]
async fn a_forbidden_key_is_its_own_groups_error() {
    let server = RedisServer::start();
    // Rights for one pattern of keys, and for the probe.
    let acl = [
        "ACL",
        "SETUSER",
        "limiter",
        "resetkeys",
        "~ratelimit:%*",
        "~ratelimit:mine:*",
    ];
    server.command::<()>(&acl);
    let store = RedisStore::new(&server.config()).unwrap();
    store.warm_up().await.unwrap();
    let (limiter, policy) = (Limiter::new(store), plenty());
    let checks: Vec<_> = (0..200)
        .map(|caller| {
            let (limiter, policy) = (limiter.clone(), policy.clone());
            let whose = if caller % 10 == 0 { "theirs" } else { "mine" };
            let key = Key::new(["ratelimit", whose, &caller.to_string()]);
            tokio::spawn(async move { (whose, limiter.try_check(&policy, &key).await) })
        })
        .collect();
    for check in checks {
        match check.await.unwrap() {
            ("mine", told) => assert_eq!(told.unwrap().used, 1),
            (_, told) => assert_eq!(told.unwrap_err().kind(), ErrorKind::Unauthorized),
        }
    }
}
