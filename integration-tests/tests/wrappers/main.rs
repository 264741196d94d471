//! The wrappers around a store keep its contract with what is behind them healthy, down and flapping; and so does one that is
//! written from public items alone, the proof that the contract admits others.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod denials;
mod everywhere;
mod switch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::{Fault, Faulty, eventually, policy};
use limiter_core::Key;
use limiter_core::breaker::{Breaker, BreakerConfig};
use limiter_core::clock::{ManualClock, Timestamp};
use limiter_core::conformance::{LimitHarness, limits};
use limiter_core::limit::wrap::{Breaking, OutageRules, Switch};
use limiter_core::limit::{
    Action, Charge, Group, Issuer, LimitStore, Limiter, Observed, Outage, Outcome, Period, Quota,
    Reserved, Share, Source, Step,
};
use limiter_memory::{MemoryConfig, MemoryStore};

use denials::Denials;
use everywhere::Everywhere;

/// How the store behind the wrappers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Healthy,
    Down,
    /// Another way at each case.
    Flapping,
}

struct World {
    clock: ManualClock,
    primary: MemoryStore,
    local: MemoryStore,
    faults: Faulty,
    store: Arc<dyn LimitStore>,
    weather: Weather,
    cases: AtomicUsize,
}

impl World {
    fn new(weather: Weather, share: Share, with_denials: bool) -> Self {
        let clock = ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456));
        let config = MemoryConfig::default().with_clock(clock.clone());
        let [primary, local] = [(); 2].map(|()| MemoryStore::with_config(&config));
        let faults = Faulty::new(primary.clone());
        // One that stays open for a while would not flap.
        let failures = match weather {
            Weather::Flapping => u32::MAX,
            Weather::Healthy | Weather::Down => 1,
        };
        let breaker = BreakerConfig::default().without_failure_rate();
        let breaker = Breaker::new("primary", breaker.with_failures_in_a_row(failures));
        let rules = OutageRules::new(Breaking::new(faults.clone(), breaker));
        let fallback = Everywhere {
            inner: rules.with_local(Arc::new(local.clone())),
            rule: Outage::Local { share },
            local: issuer_of(&local),
            switch: Switch::new(""),
        };
        let store: Arc<dyn LimitStore> = if with_denials {
            Arc::new(Denials::new(fallback, clock.clone()))
        } else {
            Arc::new(fallback)
        };
        let world = Self {
            clock,
            primary,
            local,
            faults,
            store,
            weather,
            cases: AtomicUsize::new(0),
        };
        world.set_down(weather == Weather::Down);
        world
    }

    fn set_down(&self, down: bool) {
        self.faults
            .set(if down { Fault::Request } else { Fault::None });
    }

    fn limiter(&self) -> Limiter {
        Limiter::new(self.store.clone())
    }
}

fn issuer_of(store: &MemoryStore) -> Issuer {
    let policy = policy(Quota::fixed_window(1, Period::HOUR));
    let key = policy.key(["who"]);
    let steps = [Step::new(&policy, &key, Action::Peek { cost: 0 })];
    let group = Group::new(&steps, &store.capabilities()).unwrap();
    let mut observed = [Observed::default()];
    store.try_apply_now(&group, &mut observed).unwrap().unwrap();
    observed[0].issuer.unwrap()
}

#[async_trait]
impl LimitHarness for World {
    fn store(&self) -> Arc<dyn LimitStore> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    fn degraded(&self) -> bool {
        match self.weather {
            Weather::Healthy => false,
            Weather::Down => true,
            Weather::Flapping => self.cases.load(Ordering::SeqCst) % 2 == 1,
        }
    }

    fn next_case(&self) {
        self.cases.fetch_add(1, Ordering::SeqCst);
        if self.weather == Weather::Flapping {
            self.set_down(self.degraded());
        }
    }
}

fn whole() -> Share {
    Share::WHOLE
}

/// N5: a breaker, and the rule that counts locally.
#[tokio::test(flavor = "multi_thread")]
async fn a_breaker_with_a_fallback_conforms() {
    for weather in [Weather::Healthy, Weather::Down, Weather::Flapping] {
        limits(&World::new(weather, whole(), false)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_of_denials_conforms() {
    for weather in [Weather::Healthy, Weather::Down, Weather::Flapping] {
        limits(&World::new(weather, whole(), true)).await;
    }
}

/// N5: what the fallback answers says so, and is of the share.
#[tokio::test]
async fn a_fallback_says_so() {
    let world = World::new(Weather::Flapping, Share::new(1, 2).unwrap(), false);
    let (limiter, policy) = (
        world.limiter(),
        policy(Quota::fixed_window(4, Period::HOUR)),
    );
    let key = Key::new(["ratelimit", "toy"]);
    let own = limiter.check(&policy, &key).await;
    assert!(own.is_allowed() && !own.degraded);
    world.set_down(true);
    for expected in [true, true, false] {
        let local = limiter.check(&policy, &key).await;
        assert_eq!(local.is_allowed(), expected, "{local:?}");
        assert!(local.degraded && local.source == Source::Memory);
    }
    world.set_down(false);
    let back = limiter.check(&policy, &key).await;
    assert!(back.is_allowed() && !back.degraded && back.used == 2);
}

/// What was charged in the outage is settled where it was charged, and what was charged before is given back there,
/// whenever that is: never at the other store.
#[tokio::test(start_paused = true)]
async fn give_backs_find_their_store() {
    let world = World::new(Weather::Flapping, whole(), false);
    let (limiter, policy) = (
        world.limiter(),
        policy(Quota::fixed_window(100, Period::DAY)),
    );
    let key = Key::new(["ratelimit", "toy"]);
    let charge = [Charge::new(&policy, &key).with_cost(10)];
    let used = async |store: &MemoryStore| {
        let limiter = Limiter::new(store.clone());
        limiter.peek(&policy, &key).await.unwrap().used
    };
    let reserve = async || {
        let reserved = limiter.reserve(&charge, Duration::from_secs(600)).await;
        reserved.unwrap().held().unwrap()
    };
    let (before, refunded) = (reserve().await, limiter.charge(&charge).await.unwrap().1);
    world.set_down(true);
    let mut local = reserve().await;
    local.started();
    assert_eq!(
        (used(&world.primary).await, used(&world.local).await),
        (20, 10)
    );
    // Both belong to the store that is away, and wait for it.
    assert!(before.cancel().await.unwrap_err().kind().is_outage());
    assert!(
        refunded
            .unwrap()
            .refund()
            .await
            .unwrap_err()
            .kind()
            .is_outage()
    );
    assert_eq!(
        (used(&world.primary).await, used(&world.local).await),
        (20, 10)
    );
    world.set_down(false);
    assert_eq!(local.settle(&[4]).await.unwrap().charged, [4]);
    eventually("what was given back arrives", async || {
        // Of paused time, which moves on only while somebody sleeps.
        tokio::time::sleep(Duration::from_secs(1)).await;
        (used(&world.primary).await == 0).then_some(())
    })
    .await;
    assert_eq!(used(&world.local).await, 4);
    assert_eq!(limiter.give_back_stats().delivered, 2);
}

/// N7: a group that holds a known denial is answered without a question; nothing is made up for its other steps.
#[tokio::test]
async fn a_known_denial_leaves_the_others_unseen() {
    let world = World::new(Weather::Healthy, whole(), true);
    let limiter = world.limiter();
    let (narrow, wide) = (
        policy(Quota::fixed_window(1, Period::HOUR)),
        policy(Quota::token_bucket(100, 1, Period::HOUR)),
    );
    let (user, all) = (narrow.key(["42"]), wide.key(["all"]));
    limiter.check(&narrow, &user).await;
    let denied = limiter.check(&narrow, &user).await;
    assert!(denied.seen && denied.retry_after().is_some());
    let asked = world.faults.calls();
    let group = [Charge::new(&narrow, &user), Charge::new(&wide, &all)];
    let denied = limiter.check_all(&group).await;
    assert_eq!(world.faults.calls(), asked, "nobody was asked");
    let [first, second] = &denied.decisions[..] else {
        panic!("two decisions, and not {denied:?}");
    };
    assert!(matches!(first.outcome, Outcome::Denied { .. }));
    assert_eq!(first.source, Source::DenialCache);
    assert_eq!((second.outcome, second.seen), (Outcome::Unseen, false));
    assert_eq!(denied.violated().count(), 1);
    assert_eq!(
        denied.binding().map(|part| part.policy.name()),
        Some(narrow.name())
    );
    assert!(matches!(
        limiter
            .reserve(&group, Duration::from_secs(60))
            .await
            .unwrap(),
        Reserved::Denied(_)
    ));
}
