//! Counting in this process, or nowhere, because an operator says so (C6).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::{RedisServer, eventually, policy, random, ten_years};
use limiter_core::Key;
use limiter_core::clock::{ManualClock, Timestamp};
use limiter_core::conformance::{LimitHarness, limits};
use limiter_core::limit::wrap::{Portion, Route, Routing, Stack, Switch, Switched};
use limiter_core::limit::{
    Charge, LimitStore, Limiter, OperationId, Outage, Outcome, Period, Policy, Quota, Share, Source,
};
use limiter_memory::{MemoryConfig, MemoryStore};
use limiter_redis::RedisStore;
use proptest::prelude::*;

use super::everywhere::Everywhere;
use super::issuer_of;

/// One instance: a store that others share, its own memory, and its switch.
struct Instance {
    limiter: Limiter,
    local: MemoryStore,
    switch: Switch,
}

impl Instance {
    fn new(name: &str, shared: impl LimitStore + 'static, clock: &ManualClock) -> Self {
        let local = MemoryStore::with_config(&MemoryConfig::default().with_clock(clock.clone()));
        let switch = Switch::new(name);
        let stack = Stack::new(shared).switch(switch.clone(), Some(Arc::new(local.clone())));
        Self {
            limiter: Limiter::raw(stack.build()),
            local,
            switch,
        }
    }
}

fn now() -> ManualClock {
    ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456))
}

fn memory(clock: &ManualClock) -> MemoryStore {
    MemoryStore::with_config(&MemoryConfig::default().with_clock(clock.clone()))
}

fn half() -> Share {
    Share::new(1, 2).unwrap()
}

struct Thrown {
    clock: ManualClock,
    store: Arc<dyn LimitStore>,
    switch: Switch,
    /// To the other side at each case.
    flaps: bool,
    is_local: AtomicBool,
}

#[async_trait]
impl LimitHarness for Thrown {
    fn store(&self) -> Arc<dyn LimitStore> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    fn degraded(&self) -> bool {
        false
    }

    fn next_case(&self) {
        if self.flaps {
            let is_local = !self.is_local.fetch_xor(true, Ordering::Relaxed);
            let route = if is_local { Route::Local } else { Route::Store };
            self.switch.set(Routing::to(route));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_conforms_wherever_it_stands() {
    for flaps in [false, true] {
        let clock = now();
        let (switch, local) = (Switch::new("a"), memory(&clock));
        switch.set(Routing::to(Route::Local));
        let switched = Switched::new(
            memory(&clock),
            Some(Arc::new(local.clone())),
            switch.clone(),
        );
        let ours = Everywhere {
            inner: switched,
            rule: Outage::Deny,
            local: issuer_of(&local),
            switch: switch.clone(),
        };
        limits(&Thrown {
            clock,
            store: Arc::new(ours),
            switch,
            flaps,
            is_local: AtomicBool::new(true),
        })
        .await;
    }
}

#[derive(Clone, Debug)]
enum Event {
    Throw {
        route: Route,
        keys: u16,
        rest: Route,
    },
    Charge {
        instance: usize,
        key: usize,
        cost: u64,
    },
    Refund {
        nth: usize,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let route = || prop_oneof![Just(Route::Store), Just(Route::Local)];
    prop_oneof![
        1 => (route(), 0..=100_u16, route()).prop_map(|(route, keys, rest)| Event::Throw { route, keys, rest }),
        8 => (0..2_usize, 0..4_usize, 1..4_u64).prop_map(|(instance, key, cost)| Event::Charge { instance, key, cost }),
        2 => (0..64_usize).prop_map(|nth| Event::Refund { nth }),
    ]
}

/// What a change may cost a key is one capacity: the store grants its own, and the instances' shares together another one, however
/// often the switch is thrown; and what is given back goes where it was taken.
#[test]
fn a_switch_that_is_thrown_costs_one_capacity() {
    const LIMIT: u64 = 10;
    let values = proptest::collection::vec(event(), 1..120);
    random::check(&random::config(200), &values, |events| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let clock = now();
            let shared = memory(&clock);
            let instances = ["a", "b"].map(|name| Instance::new(name, shared.clone(), &clock));
            let policy = policy(Quota::fixed_window(LIMIT, Period::DAY));
            let keys = [0, 1, 2, 3].map(|n: u32| policy.key([n.to_string()]));
            // What stands charged to each key: in the store, and on each instance.
            let mut standing = [[0_u64; 3]; 4];
            let mut charged = Vec::new();
            for event in events {
                match event {
                    Event::Throw { route, keys, rest } => {
                        let keys = Portion::percent(keys).unwrap();
                        let next = Routing::to(route).with_keys(keys).with_rest(rest);
                        for instance in &instances {
                            instance.switch.set(next.with_share(half()));
                        }
                    }
                    Event::Charge {
                        instance,
                        key,
                        cost,
                    } => {
                        let own = &instances[instance];
                        let place = match own.switch.route(&keys[key]) {
                            Route::Store => 0,
                            _ => 1 + instance,
                        };
                        let most = if place == 0 { LIMIT } else { LIMIT / 2 };
                        let fits = standing[key][place] + cost <= most;
                        let charge = [Charge::new(&policy, &keys[key]).with_cost(cost)];
                        let (decision, made) = own.limiter.charge(&charge).await.unwrap();
                        prop_assert_eq!(decision.is_allowed(), fits, "{:?}", decision);
                        let part = &decision.decisions[0];
                        prop_assert!(!part.degraded && part.limit == most);
                        if let Some(made) = made {
                            standing[key][place] += cost;
                            charged.push((made, key, place, cost));
                        }
                    }
                    Event::Refund { nth } => {
                        if charged.is_empty() {
                            continue;
                        }
                        let (made, key, place, cost) = charged.swap_remove(nth % charged.len());
                        made.refund().await.unwrap();
                        standing[key][place] -= cost;
                    }
                }
                for (key, standing) in keys.iter().zip(standing) {
                    let places = [&shared, &instances[0].local, &instances[1].local];
                    for (store, standing) in places.into_iter().zip(standing) {
                        let used = Limiter::new(store.clone()).peek(&policy, key).await;
                        prop_assert_eq!(used.unwrap().used, standing);
                    }
                    prop_assert!(standing.iter().sum::<u64>() <= 2 * LIMIT);
                }
            }
            Ok(())
        })
    });
}

#[tokio::test]
async fn off_admits_and_counts_nothing() {
    let clock = now();
    let shared = memory(&clock);
    let instance = Instance::new("a", shared.clone(), &clock);
    let [hourly, streams] = [
        policy(Quota::fixed_window(2, Period::HOUR)),
        policy(Quota::concurrency(1)),
    ];
    let (key, stream) = (hourly.key(["u"]), streams.key(["u"]));
    let limiter = &instance.limiter;
    instance.switch.set(Routing::to(Route::Off));
    for _ in 0..5 {
        let decision = limiter.check(&hourly, &key).await;
        assert!(decision.is_allowed() && !decision.seen && !decision.degraded);
        assert_eq!(decision.source, Source::Switch);
    }
    // What waiting would not help is no matter of counting.
    assert_eq!(
        limiter.check_n(&hourly, &key, 3).await.outcome,
        Outcome::Never
    );
    let ttl = Duration::from_secs(60);
    let held = limiter
        .acquire(&[Charge::new(&streams, &stream)], ttl)
        .await;
    let held = held.unwrap().held().unwrap();
    let charge = [Charge::new(&hourly, &key)];
    let reserved = limiter.reserve(&charge, ttl).await.unwrap().held().unwrap();
    let (_, charged) = limiter.charge(&charge).await.unwrap();
    instance.switch.set(Routing::to(Route::Store));
    // Nobody keeps them, whoever counts by now.
    held.release().await.unwrap();
    reserved.settle(&[2]).await.unwrap();
    charged.unwrap().refund().await.unwrap();
    assert_eq!(limiter.peek(&hourly, &key).await.unwrap().used, 0);
    for expected in [true, true, false] {
        assert_eq!(limiter.check(&hourly, &key).await.is_allowed(), expected);
    }
    assert_eq!(
        Limiter::new(instance.local)
            .peek(&hourly, &key)
            .await
            .unwrap()
            .used,
        0
    );
}

/// N3: an operation that was made here is not made again there.
#[tokio::test]
async fn an_operation_is_made_once_across_a_change() {
    let clock = now();
    let shared = memory(&clock);
    let instance = Instance::new("a", shared.clone(), &clock);
    let limiter = &instance.limiter;
    let hourly = policy(Quota::fixed_window(5, Period::HOUR));
    let key = hourly.key(["u"]);
    let charge = [Charge::new(&hourly, &key)];
    let id = OperationId::new("once");
    instance.switch.set(Routing::to(Route::Local));
    limiter.charge_once(&id, &charge).await.unwrap();
    instance.switch.set(Routing::default());
    let (again, _) = limiter.charge_once(&id, &charge).await.unwrap();
    assert!(again.is_allowed() && again.is_replay());
    let used = async |store: &MemoryStore| {
        let limiter = Limiter::new(store.clone());
        limiter.peek(&hourly, &key).await.unwrap().used
    };
    assert_eq!((used(&instance.local).await, used(&shared).await), (1, 0));
    limiter.reset(&hourly, &key).await.unwrap();
    assert_eq!(used(&instance.local).await, 0, "a reset forgets both");
}

#[tokio::test]
async fn a_share_that_is_too_small_is_no_denial_for_ever() {
    let clock = now();
    let instance = Instance::new("a", memory(&clock), &clock);
    let hourly = policy(Quota::fixed_window(5, Period::HOUR));
    let key = hourly.key(["u"]);
    instance
        .switch
        .set(Routing::to(Route::Local).with_share(half()));
    let refused = instance
        .limiter
        .try_check_n(&hourly, &key, 3)
        .await
        .unwrap_err();
    assert!(refused.message().contains("share of 1/2"), "{refused}");
    assert!(
        instance
            .limiter
            .check_n(&hourly, &key, 2)
            .await
            .is_allowed()
    );
    let health = instance.limiter.health().await;
    assert!(
        health
            .message
            .ends_with("; switched: local with 1/2 of each limit"),
        "{}",
        health.message
    );
}

/// A rollout from 0 to 100 % and back in steps, under load, on two instances over a real Redis (C6).
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_under_load_costs_one_capacity() {
    const LIMIT: u64 = 50;
    const KEYS: usize = 40;
    let server = RedisServer::start();
    let instances: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let config = server.config();
            let switch = Switch::new(name);
            let local: Arc<dyn LimitStore> = Arc::new(MemoryStore::new());
            let stack = Stack::new(RedisStore::new(&config).unwrap());
            let stack = stack.switch(switch.clone(), Some(local));
            (Limiter::raw(stack.build()), switch)
        })
        .collect();
    let policy = Arc::new(policy(Quota::sliding_window(LIMIT, ten_years())));
    let admitted: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let denied = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for (limiter, _) in &instances {
        for caller in 0..8 {
            let (limiter, policy) = (limiter.clone(), Arc::clone(&policy));
            let (admitted, is_over) = (admitted.clone(), is_over.clone());
            let denied = denied.clone();
            callers.push(tokio::spawn(async move {
                let mut sources = [0_u64; 2];
                let mut at = caller * 5;
                while !is_over.load(Ordering::Relaxed) {
                    at = (at + 1) % KEYS;
                    let key = policy.key([at.to_string()]);
                    let decision = limiter.try_check(&policy, &key).await.unwrap();
                    sources[usize::from(decision.source == Source::Memory)] += 1;
                    let count = if decision.is_allowed() {
                        &admitted[at]
                    } else {
                        &*denied
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
                sources
            }));
        }
    }
    let calls = || {
        admitted
            .iter()
            .chain([&*denied])
            .map(|it| it.load(Ordering::Relaxed))
            .sum::<u64>()
    };
    let steps = [0, 1, 5, 25, 50, 100, 50, 25, 0, 100, 0, 100];
    for percent in steps {
        for (_, switch) in &instances {
            let keys = Portion::percent(percent).unwrap();
            let routing = Routing::to(Route::Store).with_keys(keys);
            switch.set(routing.with_rest(Route::Local).with_share(half()));
            // One instance after the other, as a file that is rolled out; each under load.
            let before = calls();
            eventually("some calls more", async || {
                (calls() > before + 200).then_some(())
            })
            .await;
        }
    }
    // At 100 % now: until Redis has admitted what it can.
    eventually("every key is used up in Redis", async || {
        for at in 0..KEYS {
            let key = policy.key([at.to_string()]);
            let seen = instances[0].0.peek(&policy, &key).await.unwrap();
            if seen.used < LIMIT {
                return None;
            }
        }
        Some(())
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    let mut sources = [0; 2];
    for caller in callers {
        let counted = caller.await.unwrap();
        sources = [sources[0] + counted[0], sources[1] + counted[1]];
    }
    assert!(sources[0] > 100 && sources[1] > 100, "{sources:?}");
    for (key, admitted) in admitted.iter().enumerate() {
        let admitted = admitted.load(Ordering::Relaxed);
        // Redis's own, and another one of the instances' halves.
        assert!(admitted <= 2 * LIMIT, "key {key}: {admitted}");
        assert!(
            admitted > LIMIT,
            "key {key} was counted in both places: {admitted}"
        );
    }
    let redis: Policy = (*policy).clone();
    for at in 0..KEYS {
        let key = redis.key([at.to_string()]);
        let used = instances[0]
            .0
            .peek(&redis, &Key::clone(&key))
            .await
            .unwrap()
            .used;
        assert_eq!(
            used, LIMIT,
            "Redis has counted to its limit, and not beyond"
        );
    }
}

/// A policy that fails open does so also where this process cannot count, and a shadow that it cannot count is in nobody's way, nor
/// in that of what follows.
#[tokio::test]
async fn where_this_process_cannot_count_the_rules_for_outages_decide() {
    let clock = now();
    let instance = Instance::new("a", memory(&clock), &clock);
    instance
        .switch
        .set(Routing::to(Route::Local).with_share(half()));
    let limiter = &instance.limiter;
    let open = policy(Quota::fixed_window(1, Period::HOUR)).with_outage(Outage::Allow);
    let key = open.key(["u"]);
    let charge = [Charge::new(&open, &key)];
    let (decision, charged) = limiter.charge(&charge).await.unwrap();
    assert!(decision.is_allowed() && decision.is_degraded());
    charged.unwrap().refund().await.unwrap();

    let streams = policy(Quota::concurrency(10));
    let shadow = policy(Quota::concurrency(1)).with_shadow(true);
    let (key, other) = (streams.key(["u"]), streams.key(["shadow"]));
    let charges = [Charge::new(&streams, &key), Charge::new(&shadow, &other)];
    let ttl = Duration::from_secs(60);
    let held = limiter
        .acquire(&charges, ttl)
        .await
        .unwrap()
        .held()
        .unwrap();
    assert_eq!(limiter.peek(&streams, &key).await.unwrap().used, 1);
    // A smaller share takes it back all the same.
    let none = Share::new(1, 100).unwrap();
    instance
        .switch
        .set(Routing::to(Route::Local).with_share(none));
    held.release().await.unwrap();
    instance.switch.set(Routing::to(Route::Local));
    assert_eq!(limiter.peek(&streams, &key).await.unwrap().used, 0);
}

/// A reset is of everything, wherever the switch stands.
#[tokio::test]
async fn a_reset_reaches_the_store_too() {
    let clock = now();
    let shared = memory(&clock);
    let instance = Instance::new("a", shared.clone(), &clock);
    let hourly = policy(Quota::fixed_window(5, Period::HOUR));
    let key = hourly.key(["u"]);
    for route in [Route::Store, Route::Local, Route::Off] {
        for of in [Route::Store, Route::Local] {
            instance.switch.set(Routing::to(of));
            instance.limiter.check(&hourly, &key).await;
        }
        instance.switch.set(Routing::to(route));
        instance.limiter.reset(&hourly, &key).await.unwrap();
        for store in [&shared, &instance.local] {
            let used = Limiter::new(store.clone()).peek(&hourly, &key).await;
            assert_eq!(used.unwrap().used, 0, "{route:?}");
        }
    }
}
