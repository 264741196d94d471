//! What overtakes its own request on a network that holds packets back: nothing is charged that nobody holds, and nothing
//! is held that nobody knows of.
//!
//! `SOAK_SECONDS` makes the random run longer or shorter; `LIMITER_SEED` repeats its choices.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test: its failures are panics"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use integration_tests::{Proxy, RedisServer, eventually, policy};
use limiter_core::clock::{Clock, SystemClock};
use limiter_core::limit::{
    Acquired, Charge, Limiter, OperationId, Period, Policy, Quota, Reservation, Reserved,
};
use limiter_core::{ErrorKind, Key};
use limiter_redis::{RedisConfig, RedisStore};

const HELD: Duration = Duration::from_millis(400);
const TTL: Duration = Duration::from_secs(3_600);

struct World {
    server: RedisServer,
    proxy: Proxy,
    limiter: Limiter,
}

impl World {
    /// A limiter behind a network, with connections that are open already.
    async fn new(deadline: Duration) -> Self {
        let server = RedisServer::start_tcp();
        let proxy = Proxy::start(server.port()).await;
        let url = server.url_at(proxy.port());
        let config = RedisConfig::new(&url)
            .unwrap()
            .with_check_deadline(deadline)
            .with_pool_size(128);
        let limiter = Limiter::new(RedisStore::new(&config).unwrap());
        let world = Self {
            server,
            proxy,
            limiter,
        };
        let warm = policy(Quota::fixed_window(1_000_000, Period::DAY));
        let key = warm.key(["warm"]);
        eventually("a connection", async || {
            world.limiter.try_check(&warm, &key).await.ok()
        })
        .await;
        world
    }

    /// What is used, asked directly: the answer cannot be late.
    async fn used(&self, policy: &Policy, key: &Key) -> u64 {
        let direct = Limiter::new(RedisStore::new(&self.server.config()).unwrap());
        direct.peek(policy, key).await.unwrap().used
    }

    /// Waits until what was held back has reached the server, which reads it before what is asked from here on.
    async fn arrived(&self) {
        eventually("nothing is under way", async || {
            (self.proxy.under_way() == 0).then_some(())
        })
        .await;
    }
}

/// 5,000 of a day's 10,000 stay nobody's if a cancellation that arrives first is forgotten.
#[tokio::test]
async fn a_reservation_that_its_cancel_overtook_charges_nothing() {
    let world = World::new(Duration::from_millis(100)).await;
    let policy = policy(Quota::fixed_window(10_000, Period::DAY));
    let key = policy.key(["42"]);
    let estimate = [Charge::new(&policy, &key).with_cost(5_000)];
    world.proxy.hold_next(b"ratelimit:%reservation", HELD);
    let late = world.limiter.reserve(&estimate, TTL).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout, "{late}");
    world.arrived().await;
    assert_eq!(world.proxy.held(), 1);
    assert_eq!(world.used(&policy, &key).await, 0);
    // The day's budget is there, all of it.
    let all = [Charge::new(&policy, &key).with_cost(10_000)];
    let held = world.limiter.reserve(&all, TTL).await.unwrap().held();
    held.unwrap().cancel().await.unwrap();
}

/// A place is lost for an hour if a release that arrives first is forgotten.
#[tokio::test]
async fn a_lease_that_its_release_overtook_is_not_held() {
    let world = World::new(Duration::from_millis(100)).await;
    let policy = policy(Quota::concurrency(1));
    let key = policy.key(["42"]);
    let stream = [Charge::new(&policy, &key)];
    world.proxy.hold_next(b"ratelimit:%lease", HELD);
    let late = world.limiter.acquire(&stream, TTL).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout, "{late}");
    world.arrived().await;
    assert_eq!(world.used(&policy, &key).await, 0);
    let held = world.limiter.acquire(&stream, TTL).await.unwrap().held();
    held.unwrap().release().await.unwrap();
}

/// A network that takes 60 ms each way, frozen and cut: the answers are late, and right.
#[tokio::test]
async fn a_slow_network_is_no_fault() {
    let world = World::new(Duration::from_secs(20)).await;
    let policy = policy(Quota::fixed_window(5, Period::DAY));
    let key = policy.key(["42"]);
    world.proxy.delay(Duration::from_millis(30));
    let begun = Instant::now();
    assert_eq!(
        world.limiter.try_check(&policy, &key).await.unwrap().used,
        1
    );
    assert!(begun.elapsed() >= Duration::from_millis(60));
    world.proxy.freeze();
    let mut frozen = {
        let (limiter, policy, key) = (world.limiter.clone(), policy.clone(), key.clone());
        tokio::spawn(async move { limiter.try_check(&policy, &key).await })
    };
    // Several times as long as both ways take.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut frozen).await;
    assert!(early.is_err(), "{early:?}");
    world.proxy.thaw();
    assert_eq!(frozen.await.unwrap().unwrap().used, 2);
    world.proxy.delay(Duration::ZERO);
    world.proxy.cut();
    // The connections are gone; what was sent on them is unknown, and counts once at most.
    let after = eventually("a new connection", async || {
        world.limiter.try_check(&policy, &key).await.ok()
    })
    .await;
    assert!((3..=5).contains(&after.used), "{after:?}");
}

/// Splitmix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What is to stand charged in the end, and how often each thing was done.
#[derive(Debug, Default)]
struct Ledger {
    stands: AtomicU64,
    settled: AtomicU64,
    cancelled: AtomicU64,
    dropped: AtomicU64,
    unanswered: AtomicU64,
    retried: AtomicU64,
    streams: AtomicU64,
}

impl Ledger {
    fn count(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    /// Ends a reservation in one of the ways there are. One with a name is not cancelled by a drop.
    async fn end(&self, mut held: Reservation, estimate: u64, named: bool, random: &mut Random) {
        match random.below(4) {
            0 => {
                let actual = random.below(200);
                held.started();
                // What is not delivered now is delivered later.
                let settled = held.settle(&[actual]).await;
                match settled {
                    Ok(settled) => assert_eq!(settled.charged, [actual]),
                    Err(error) => assert!(error.kind().is_outage(), "{error}"),
                }
                Self::count(&self.stands, actual);
                Self::count(&self.settled, 1);
            }
            1 => {
                let _ = held.cancel().await;
                Self::count(&self.cancelled, 1);
            }
            2 => {
                held.started();
                drop(held);
                Self::count(&self.stands, estimate);
                Self::count(&self.dropped, 1);
            }
            _ => {
                drop(held);
                Self::count(&self.stands, if named { estimate } else { 0 });
                Self::count(&self.dropped, 1);
            }
        }
    }
}

async fn task(
    number: u64,
    limiter: Limiter,
    budget: (Policy, Key),
    streams: (Policy, Key),
    ledger: Arc<Ledger>,
    until: Instant,
    seed: u64,
) {
    let mut random = Random(seed ^ (number << 32));
    let mut turn = 0;
    while Instant::now() < until {
        turn += 1;
        let estimate = 1 + random.below(100);
        let charge = [Charge::new(&budget.0, &budget.1).with_cost(estimate)];
        match random.below(3) {
            0 => match limiter.reserve(&charge, TTL).await {
                Ok(Reserved::Held(held)) => ledger.end(held, estimate, false, &mut random).await,
                Ok(other) => panic!("the budget is large: {other:?}"),
                Err(_) => Ledger::count(&ledger.unanswered, 1),
            },
            1 => {
                let id = OperationId::new(format!("job {number}-{turn}"));
                // A job asks until it has an answer, and perhaps once more.
                let mut asked = 0;
                let held = loop {
                    asked += 1;
                    match limiter.reserve_as(id.clone(), &charge, TTL).await {
                        Ok(Reserved::Held(held)) => break held,
                        Ok(other) => panic!("{id:?}: {other:?}"),
                        Err(error) => assert!(error.kind().is_outage(), "{error}"),
                    }
                };
                Ledger::count(&ledger.retried, asked - 1);
                if random.below(3) == 0
                    && let Ok(Reserved::Held(second)) =
                        limiter.reserve_as(id.clone(), &charge, TTL).await
                {
                    assert!(second.is_replay());
                    drop(second);
                }
                ledger.end(held, estimate, true, &mut random).await;
            }
            _ => {
                let stream = [Charge::new(&streams.0, &streams.1)];
                match limiter.acquire(&stream, TTL).await {
                    Ok(Acquired::Held(lease)) => {
                        Ledger::count(&ledger.streams, 1);
                        if random.below(2) == 0 {
                            let _ = lease.release().await;
                        }
                    }
                    Ok(Acquired::Denied(_)) => {}
                    Err(_) => Ledger::count(&ledger.unanswered, 1),
                }
            }
        }
    }
}

/// I-R2, I-R4: 64 tasks reserve, settle, cancel, drop and retry under names of their own, while packets are held back at
/// random. What is charged in the end is what was settled and the estimates of dropped holders, exactly; and nobody holds
/// a place.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_kept_when_packets_are_held_back() {
    let seconds = std::env::var("SOAK_SECONDS").map_or(15, |text| text.parse().unwrap());
    let seed = std::env::var("LIMITER_SEED").map_or_else(
        |_| SystemClock.now().as_micros(),
        |text| text.parse().unwrap(),
    );
    println!("LIMITER_SEED={seed}");
    let world = World::new(Duration::from_millis(150)).await;
    let budget = policy(Quota::fixed_window(1 << 50, Period::DAY));
    let streams = policy(Quota::concurrency(500));
    let (spent, places) = (budget.key(["all"]), streams.key(["all"]));
    world.proxy.hold_at_random(12, HELD, seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let ledger = Arc::new(Ledger::default());
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            tokio::spawn(task(
                number,
                world.limiter.clone(),
                (budget.clone(), spent.clone()),
                (streams.clone(), places.clone()),
                ledger.clone(),
                until,
                seed,
            ))
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    world.proxy.hold_at_random(0, Duration::ZERO, 0);
    eventually("all give-backs are delivered", async || {
        (world.limiter.give_back_stats().waiting == 0).then_some(())
    })
    .await;
    world.arrived().await;
    let stats = world.limiter.give_back_stats();
    println!(
        "{ledger:?}, {} packets held back, {stats:?}",
        world.proxy.held()
    );
    assert_eq!((stats.expired, stats.refused, stats.dropped), (0, 0, 0));
    let stands = ledger.stands.load(Ordering::Relaxed);
    assert_eq!(
        world.used(&budget, &spent).await,
        stands,
        "LIMITER_SEED={seed}"
    );
    assert_eq!(
        world.used(&streams, &places).await,
        0,
        "LIMITER_SEED={seed}"
    );
    // Everything happened, or nothing was shown.
    for counter in [
        &ledger.settled,
        &ledger.cancelled,
        &ledger.dropped,
        &ledger.unanswered,
        &ledger.retried,
        &ledger.streams,
    ] {
        assert!(counter.load(Ordering::Relaxed) > 20, "{ledger:?}");
    }
}
