//! A client in a world whose clock it moves, and what it was given there.

use std::time::Duration;

use integration_tests::{Bench, policy};
use limiter_core::clock::{ManualClock, Timestamp};
use limiter_core::limit::{Decision, Limiter, Period, Policy, Quota};
use limiter_core::{Error, Key};
use limiter_memory::{MemoryConfig, MemoryStore};

pub(crate) const SECOND: u128 = 1_000_000;
pub(crate) const DAY: u128 = 86_400 * SECOND;

/// An amount, its period in microseconds, and how long to watch it.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) amount: u64,
    pub(crate) period: u128,
    pub(crate) span: u128,
}

pub(crate) const RATES: [Rate; 4] = [
    Rate {
        amount: 7,
        period: 60 * SECOND,
        span: DAY,
    },
    Rate {
        amount: 3_000_000,
        period: SECOND,
        span: DAY,
    },
    Rate {
        amount: 10_000_000,
        period: DAY,
        span: DAY,
    },
    Rate {
        amount: 1,
        period: 30 * DAY,
        span: 900 * DAY,
    },
];

impl Rate {
    pub(crate) fn length(self) -> Period {
        Period::new(micros(self.period)).unwrap()
    }
}

enum Store {
    Memory(MemoryStore, ManualClock),
    Redis(Box<Bench>),
}

/// An admitted charge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    /// Microseconds since the epoch.
    pub(crate) at: u128,
    pub(crate) cost: u128,
}

pub(crate) struct World {
    store: Store,
    policy: Policy,
    key: Key,
    start: u128,
    now: u128,
    random: u64,
    pub(crate) admitted: Vec<Admitted>,
    pub(crate) denied: u64,
}

impl World {
    pub(crate) async fn new(redis: bool, quota: Result<Quota, Error>) -> Self {
        // 2026-11-21 00:00:00.123456 UTC: not at a boundary of anything.
        let start = Timestamp::from_micros(1_795_219_200_123_456);
        let store = if redis {
            let bench = Bench::new().await;
            bench.set(start).await;
            Store::Redis(Box::new(bench))
        } else {
            let clock = ManualClock::at(start);
            let config = MemoryConfig::default().with_clock(clock.clone());
            Store::Memory(MemoryStore::with_config(&config), clock)
        };
        let policy = policy(quota);
        Self {
            store,
            key: Key::new(["ratelimit", "simulated", policy.name()]),
            policy,
            start: start.as_micros().into(),
            now: start.as_micros().into(),
            random: 88_172_645_463_325_252,
            admitted: Vec::new(),
            denied: 0,
        }
    }

    /// Microseconds since the epoch.
    pub(crate) fn now(&self) -> u128 {
        self.now
    }

    /// Microseconds since the world began.
    pub(crate) fn elapsed(&self) -> u128 {
        self.now - self.start
    }

    pub(crate) async fn advance(&mut self, by: u128) {
        self.now += by;
        let now = Timestamp::from_micros(self.now.try_into().unwrap());
        match &self.store {
            Store::Memory(_, clock) => clock.set(now),
            Store::Redis(bench) => bench.set(now).await,
        }
    }

    /// Asks for `cost`, and keeps what was admitted.
    pub(crate) async fn charge(&mut self, cost: u128) -> Decision {
        let limiter = match &self.store {
            Store::Memory(store, _) => Limiter::new(store.clone()),
            Store::Redis(bench) => Limiter::new(bench.redis().clone()),
        };
        let cost_asked = u64::try_from(cost).unwrap();
        let check = limiter.try_check_n(&self.policy, &self.key, cost_asked);
        let decision = check.await.unwrap();
        if decision.is_allowed() {
            self.admitted.push(Admitted { at: self.now, cost });
        } else {
            self.denied += 1;
        }
        decision
    }

    /// I-H6: waits exactly `retry_after`, asking once when all but `grain` of it is over; then the
    /// same charge is admitted.
    pub(crate) async fn wait(&mut self, denied: &Decision, cost: u128, grain: u128) {
        let wait = denied.retry_after().unwrap().as_micros();
        self.advance(wait - grain).await;
        let early = self.charge(cost).await;
        assert_eq!(early.retry_after(), Some(micros(grain)), "{early:?}");
        self.advance(grain).await;
        let due = self.charge(cost).await;
        assert!(due.is_allowed(), "not admitted after {wait} us: {due:?}");
    }

    /// The same numbers in every run: xorshift64.
    pub(crate) fn random(&mut self, below: u128) -> u128 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        u128::from(self.random) % below
    }

    pub(crate) fn total(&self) -> u128 {
        self.admitted.iter().map(|charge| charge.cost).sum()
    }
}

pub(crate) fn micros(micros: u128) -> Duration {
    Duration::from_micros(micros.try_into().unwrap())
}
