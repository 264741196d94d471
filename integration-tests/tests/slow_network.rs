//! Connections live: through distance, callers that leave, stalls, networks that forget, and idle spells.

#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration_tests::{Proxy, RedisServer, eventually, policy};
use limiter_core::limit::{LimitStore, Limiter, Period, Policy, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{RedisConfig, RedisStore};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

const POOL: u64 = 4;

/// A server behind a network that takes so long for a round trip.
struct Distant {
    server: RedisServer,
    proxy: Proxy,
}

impl Distant {
    async fn new(round_trip: Duration) -> Self {
        let server = RedisServer::start_tcp();
        let proxy = Proxy::start(server.port()).await;
        proxy.delay(round_trip / 2);
        Self { server, proxy }
    }

    fn config(&self, deadline: Duration) -> RedisConfig {
        let url = self.server.url_at(self.proxy.port());
        let config = RedisConfig::new(&url).unwrap();
        config.with_check_deadline(deadline)
    }

    async fn store(&self, deadline: Duration) -> RedisStore {
        let store = RedisStore::new(&self.config(deadline)).unwrap();
        store.warm_up().await.unwrap();
        store
    }

    fn charged(&self, key: &Key) -> u64 {
        let charged: Option<u64> = self.server.command(&["GET", key.as_str()]);
        charged.unwrap_or(0)
    }
}

fn plenty() -> Policy {
    policy(Quota::fixed_window(1_000_000_000, Period::DAY))
}

fn key() -> Key {
    Key::new(["ratelimit", "distant"])
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Connecting takes five round trips, more than the deadline. (Five of eight checks failed just after `warm_up`.)
#[tokio::test]
async fn what_was_warmed_up_is_ready() {
    let distant = Distant::new(millis(100)).await;
    let limiter = Limiter::new(distant.store(millis(350)).await);
    assert_eq!(distant.proxy.connected(), POOL);
    let checks: Vec<_> = (0..500)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.try_check(&plenty(), &key()).await })
        })
        .collect();
    for check in checks {
        check.await.unwrap().unwrap();
    }
    assert_eq!(distant.charged(&key()), 500);
    assert_eq!(distant.proxy.connected(), POOL);
}

/// A server, or a network, that ends what is idle: the connections are back before anybody asks. (Each check after a pause failed.)
#[tokio::test]
async fn an_idle_spell_ends_with_an_answer() {
    let distant = Distant::new(millis(100)).await;
    let limiter = Limiter::new(distant.store(millis(350)).await);
    limiter.try_check(&plenty(), &key()).await.unwrap();
    for round in 0..2 {
        let before = distant.server.connections();
        if round == 0 {
            distant.proxy.cut();
        } else {
            distant
                .server
                .command::<()>(&["CONFIG", "SET", "timeout", "1"]);
        }
        eventually("new connections", async || {
            // The pause of the poll: the network is a task beside it.
            sleep(millis(10)).await;
            let open = distant.server.connections();
            let new = open.iter().filter(|id| !before.contains(id));
            (new.count() >= 2).then_some(())
        })
        .await;
        limiter.try_check(&plenty(), &key()).await.unwrap();
    }
    assert_eq!(distant.charged(&key()), 3);
}

fn impatient_key() -> Key {
    Key::new(["ratelimit", "impatient"])
}

/// Callers that give up, 300 a second. (Each cost a connection, and a connection five round trips: everybody had half.)
#[tokio::test]
async fn callers_that_leave_cost_no_connection() {
    let distant = Distant::new(millis(10)).await;
    let store = distant.store(Duration::from_secs(20)).await;
    let limiter = Limiter::new(store.clone());
    let is_over = Arc::new(AtomicBool::new(false));
    let impatient: Vec<_> = (0..3)
        .map(|_| {
            let (limiter, is_over) = (limiter.clone(), is_over.clone());
            tokio::spawn(async move {
                let (policy, mut left, mut heard) = (plenty(), 0_u64, 0_u64);
                while !is_over.load(Ordering::Relaxed) {
                    let key = impatient_key();
                    let check = limiter.try_check(&policy, &key);
                    match tokio::time::timeout(millis(5), check).await {
                        Ok(answer) => heard += u64::from(answer.is_ok()),
                        Err(_) => left += 1,
                    }
                    // The pace of a load: 300 a second.
                    sleep(millis(5)).await;
                }
                (left, heard)
            })
        })
        .collect();
    for used in 1..=100 {
        let decision = limiter.try_check(&plenty(), &key()).await.unwrap();
        assert_eq!(decision.used, used);
    }
    is_over.store(true, Ordering::Relaxed);
    let (mut left, mut heard) = (0, 0);
    for impatient in impatient {
        let ended = impatient.await.unwrap();
        (left, heard) = (left + ended.0, heard + ended.1);
    }
    assert!(left > 50, "{left} left");
    assert_eq!(distant.proxy.connected(), POOL);
    eventually("what was sent for those who left is counted", async || {
        (distant.charged(&impatient_key()) == store.unheard() + heard).then_some(())
    })
    .await;
}

/// A network that drops flows and tells nobody: what is under way until that is noticed fails, and all the rest is answered.
#[tokio::test]
async fn a_network_that_forgets_is_noticed() {
    const CALLERS: usize = 16;
    let deadline = millis(300);
    let distant = Distant::new(millis(10)).await;
    let limiter = Limiter::new(distant.store(deadline).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let failures = Arc::new(AtomicU64::new(0));
    let answers: Arc<[AtomicU64; CALLERS]> = Arc::default();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (limiter, is_over) = (limiter.clone(), is_over.clone());
            let (failures, answers) = (failures.clone(), answers.clone());
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    match limiter.try_check(&plenty(), &key()).await {
                        Ok(_) => answers[caller].fetch_add(1, Ordering::Relaxed),
                        // Not sent: the breaker has noticed.
                        Err(error) if error.kind() == ErrorKind::BreakerOpen => 0,
                        Err(_) => failures.fetch_add(1, Ordering::Relaxed),
                    };
                }
            })
        })
        .collect();
    // Everybody has had so many more answers.
    let more = async |answers_each: u64| {
        let so_far = || {
            answers
                .iter()
                .map(|answers| answers.load(Ordering::Relaxed))
        };
        let before: Vec<u64> = so_far().collect();
        eventually("answers for everybody", async || {
            let mut now = so_far().zip(&before);
            now.all(|(now, before)| now >= before + answers_each)
                .then_some(())
        })
        .await;
    };
    more(10).await;
    distant.proxy.forget();
    // On what was forgotten nobody has an answer any more.
    more(1).await;
    let noticed = failures.load(Ordering::Relaxed);
    more(100).await;
    assert!(noticed > 0, "nothing was under way");
    assert_eq!(failures.load(Ordering::Relaxed), noticed);
    // In the two deadlines until it is noticed, and the one in which a connection is made.
    assert!(noticed <= 4 * CALLERS as u64, "{noticed} failed");
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    // One that showed it, and a new pool.
    let made = distant.proxy.connected() - POOL;
    assert!((1..=POOL + 2).contains(&made), "{made} new connections");
}

/// A server that stalls for longer than a deadline: nobody connects anew. (160 connections came back at once.)
#[tokio::test]
async fn a_stall_is_no_herd() {
    const INSTANCES: u64 = 20;
    let deadline = millis(300);
    let distant = Distant::new(millis(2)).await;
    let mut limiters = Vec::new();
    for _ in 0..INSTANCES {
        limiters.push(Limiter::new(distant.store(deadline).await));
    }
    let made = distant.proxy.connected();
    assert_eq!(made, INSTANCES * POOL);
    for stall in [450, 1_500] {
        let stalled = distant.server.stall();
        let checks: Vec<_> = limiters
            .iter()
            .flat_map(|limiter| std::iter::repeat_n(limiter.clone(), 8))
            .map(|limiter| tokio::spawn(async move { limiter.try_check(&plenty(), &key()).await }))
            .collect();
        // What must not happen, a connection, has no moment to poll for: the length of the stall is what is tested.
        sleep(millis(stall)).await;
        drop(stalled);
        for check in checks {
            assert!(check.await.unwrap().is_err());
        }
        for limiter in &limiters {
            eventually("an answer", async || {
                limiter.try_check(&plenty(), &key()).await.ok()
            })
            .await;
        }
        let again = distant.proxy.connected() - made;
        // A short one is over before anybody tries; in a long one each instance tries one connection.
        let most = if stall < 600 { 0 } else { 2 * INSTANCES };
        assert!(again <= most, "{again} connections after {stall} ms");
    }
}

/// Hosted plans count commands. (Nearly every check sent a ROLE first.)
#[tokio::test]
async fn an_idle_instance_sends_nothing_and_a_check_is_one_command() {
    let distant = Distant::new(millis(0)).await;
    let limiter = Limiter::new(distant.store(Duration::from_secs(20)).await);
    limiter.try_check(&plenty(), &key()).await.unwrap();
    let commands = || {
        let stats: String = distant.server.command(&["INFO", "commandstats"]);
        let calls = stats.lines().filter_map(|line| {
            let (name, calls) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            // What this test asks itself, and what connects to ask it.
            let ours = [
                "info",
                "hello",
                "auth",
                "client",
                "client|setinfo",
                "select",
            ];
            let calls = calls.split(',').next()?.parse::<u64>().ok()?;
            (!ours.contains(&name)).then_some(calls)
        });
        calls.sum::<u64>()
    };
    let before = commands();
    let seconds = std::env::var("IDLE_SECONDS").map_or(20, |text| text.parse().unwrap());
    // What must not happen, a command, has no moment to poll for.
    sleep(Duration::from_secs(seconds)).await;
    assert_eq!(commands() - before, 0, "while idle");
    for used in 2..=6 {
        // Longer than what made a connection idle once: then its role was asked first.
        sleep(millis(1_100)).await;
        assert_eq!(
            limiter.try_check(&plenty(), &key()).await.unwrap().used,
            used
        );
    }
    assert_eq!(distant.server.calls("role"), 4);
}

fn one_thread() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn two_threads() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// A store outlives the runtime that it was first used in.
#[test]
fn a_second_runtime_goes_on() {
    let server = RedisServer::start();
    let first = one_thread();
    // It needs none to be made in.
    let limiter = Limiter::new(RedisStore::new(&server.config()).unwrap());
    first.block_on(async {
        limiter.try_check(&plenty(), &key()).await.unwrap();
        // Ends in the middle of what it does.
        let cut_off = limiter.clone();
        tokio::spawn(async move { cut_off.try_check(&plenty(), &key()).await });
        tokio::task::yield_now().await;
    });
    drop(first);
    for _ in 0..3 {
        let next = one_thread();
        let start = Instant::now();
        let checked = next.block_on(limiter.try_check(&plenty(), &key()));
        if let Err(error) = checked {
            // The connections ended with their runtime; what was sent on one of them is not known.
            assert!(
                error.kind().is_outage() && error.effect() != Effect::Yes,
                "{error}"
            );
            next.block_on(limiter.try_check(&plenty(), &key())).unwrap();
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }
}

/// Each runtime has connections and batches of its own: one that nobody drives any more keeps nobody waiting.
#[test]
fn runtimes_do_not_wait_for_each_other() {
    let server = RedisServer::start();
    let busy = two_threads();
    let limiter = Limiter::new(RedisStore::new(&server.config()).unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let checking: Vec<_> = (0..32)
        .map(|_| {
            let (limiter, is_over) = (limiter.clone(), is_over.clone());
            busy.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    limiter.try_check(&plenty(), &key()).await.unwrap();
                }
            })
        })
        .collect();
    let mut undriven = Vec::new();
    for _ in 0..20 {
        let other = one_thread();
        let checked = other.block_on(limiter.try_check(&plenty(), &key()));
        checked.unwrap();
        undriven.push(other);
    }
    is_over.store(true, Ordering::Relaxed);
    for checking in checking {
        busy.block_on(checking).unwrap();
    }
}

/// In the middle of everything: a runtime that ends leaves nothing locked, and the next one goes on.
#[test]
fn a_runtime_may_end_under_load() {
    let (done, ended) = std::sync::mpsc::channel();
    // It ends with this test, whatever becomes of the thread.
    let server = RedisServer::start();
    let config = server.config();
    let test = std::thread::spawn(move || {
        runtimes_end_under_load(&config);
        done.send(())
    });
    // What is locked for ever would never fail by itself.
    let ended = ended.recv_timeout(Duration::from_secs(50));
    assert!(ended.is_ok(), "it failed or hangs: {ended:?}");
    test.join().unwrap().unwrap();
}

fn runtimes_end_under_load(config: &RedisConfig) {
    let limiter = Limiter::new(RedisStore::new(config).unwrap());
    for _ in 0..20 {
        let runtime = two_threads();
        runtime
            .block_on(limiter.try_check(&plenty(), &key()))
            .unwrap();
        let (done, answers) = std::sync::mpsc::channel();
        for _ in 0..64 {
            let (limiter, done) = (limiter.clone(), done.clone());
            runtime.spawn(async move {
                loop {
                    let _ = limiter.try_check(&plenty(), &key()).await;
                    let _ = done.send(());
                }
            });
        }
        // In full swing.
        for _ in 0..200 {
            answers.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        drop(runtime);
    }
}
