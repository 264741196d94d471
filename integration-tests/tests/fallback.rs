//! I-B1: a fleet whose store comes and goes, for each instance at other times, admits no more than the limit and each instance's
//! share.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::time::Duration;

use integration_tests::{Fault, Faulty, random};
use limiter_core::Key;
use limiter_core::clock::{Clock, ManualClock, Timestamp};
use limiter_core::limit::wrap::OutageRules;
use limiter_core::limit::{Limiter, Outage, Policy, Quota, Share, Source};
use limiter_memory::{MemoryConfig, MemoryStore};
use proptest::prelude::*;

const INSTANCES: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// An instance is asked for so much.
    Check(usize, u64),
    /// The store goes away from an instance, or comes back.
    Toggle(usize),
    /// An instance starts anew.
    Restart(usize),
    /// So many thousandths of the quota's period pass.
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..INSTANCES, 1u64..4).prop_map(|(instance, cost)| Event::Check(instance, cost)),
        2 => (0..INSTANCES).prop_map(Event::Toggle),
        1 => (0..INSTANCES).prop_map(Event::Restart),
        2 => (1u64..700).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 1..150)
}

struct Fleet {
    clock: ManualClock,
    shared: MemoryStore,
    instances: Vec<(Faulty, Limiter, bool)>,
    starts: u64,
}

impl Fleet {
    fn new() -> Self {
        let clock = ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456));
        let shared = MemoryStore::with_config(&MemoryConfig::default().with_clock(clock.clone()));
        let mut fleet = Self {
            clock,
            shared,
            instances: Vec::new(),
            starts: 0,
        };
        for _ in 0..INSTANCES {
            let instance = fleet.started();
            fleet.instances.push(instance);
        }
        fleet
    }

    fn started(&mut self) -> (Faulty, Limiter, bool) {
        self.starts += 1;
        let faulty = Faulty::new(self.shared.clone());
        let config = MemoryConfig::default().with_clock(self.clock.clone());
        let rules = OutageRules::new(faulty.clone());
        let rules = rules.with_local(Arc::new(MemoryStore::with_config(&config)));
        (faulty, Limiter::raw(Arc::new(rules)), false)
    }
}

/// What was admitted, when, and who counted it.
type Admitted = (u64, u64, Source);

async fn play(
    policy: &Policy,
    key: &Key,
    period: Duration,
    events: &[Event],
) -> (Vec<Admitted>, u64) {
    let mut fleet = Fleet::new();
    let mut admitted = Vec::new();
    for event in events {
        match *event {
            Event::Wait(thousandths) => {
                let thousandths = u32::try_from(thousandths).unwrap();
                fleet.clock.advance(period * thousandths / 1_000);
            }
            Event::Restart(instance) => {
                let mut started = fleet.started();
                started.2 = fleet.instances[instance].2;
                started.0.set(if started.2 {
                    Fault::Request
                } else {
                    Fault::None
                });
                fleet.instances[instance] = started;
            }
            Event::Toggle(instance) => {
                let (faulty, _, is_away) = &mut fleet.instances[instance];
                *is_away = !*is_away;
                faulty.set(if *is_away {
                    Fault::Request
                } else {
                    Fault::None
                });
            }
            Event::Check(instance, cost) => {
                let (_, limiter, is_away) = &fleet.instances[instance];
                let decision = limiter.check_n(policy, key, cost).await;
                assert_eq!(decision.degraded, *is_away, "{decision:?}");
                if decision.is_allowed() {
                    let now = fleet.clock.now().as_micros();
                    admitted.push((now, cost, decision.source));
                }
            }
        }
    }
    (admitted, fleet.starts)
}

fn share() -> impl Strategy<Value = Share> {
    (1u32..5, 1u32..5).prop_filter_map("no share", |(part, of)| Share::new(part, of).ok())
}

/// `(B + r * t) + N * (floor(s * B) + s * r * t)` in any interval of length t.
#[test]
fn i_b1_a_fleet_of_buckets_in_and_out_of_fallback() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let values = (random::token_bucket(), share(), events());
    random::check(&random::config(300), &values, |(quota, share, events)| {
        let Quota::TokenBucket(bucket) = quota else {
            unreachable!("a token bucket was drawn");
        };
        let policy = Policy::new("p", quota)
            .unwrap()
            .with_outage(Outage::Local { share });
        let key = policy.key(["a"]);
        let period = bucket.period().as_duration();
        let (admitted, starts) = runtime.block_on(play(&policy, &key, period, &events));
        let (part, of) = share.parts();
        // As exact fractions of a token, over the period's microseconds times the share's parts.
        let whole = u128::from(bucket.period().as_micros()) * u128::from(of);
        for (index, (from, ..)) in admitted.iter().enumerate() {
            let mut taken = 0;
            for (until, cost, _) in &admitted[index..] {
                taken += u128::from(*cost);
                let length = u128::from(until - from + bucket.unit_micros());
                let refill = u128::from(bucket.refill()) * length;
                let shared = u128::from(bucket.capacity()) * whole + refill * u128::from(of);
                let floor = u128::from(share.of(bucket.capacity()));
                let local = floor * whole + refill * u128::from(part);
                let bound = shared + u128::from(starts) * local;
                prop_assert!(
                    taken * whole <= bound,
                    "{taken} in {length} us, {starts} starts: {admitted:?}"
                );
            }
        }
        Ok(())
    });
}

/// `2L` in place of `B` for a fixed window, in any span of its length, for the shared count and for each instance's.
#[test]
fn i_b1_a_fleet_of_windows_in_and_out_of_fallback() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let values = (random::fixed_window(), share(), events());
    random::check(&random::config(300), &values, |(quota, share, events)| {
        let Quota::FixedWindow(window) = quota else {
            unreachable!("a window was drawn");
        };
        let policy = Policy::new("p", quota)
            .unwrap()
            .with_outage(Outage::Local { share });
        let key = policy.key(["a"]);
        let period = window.window().as_duration();
        let (admitted, starts) = runtime.block_on(play(&policy, &key, period, &events));
        let length = window.window().as_micros();
        let most = 2 * window.limit() + starts * 2 * share.of(window.limit());
        for (from, ..) in &admitted {
            let inside = admitted
                .iter()
                .filter(|(at, ..)| (*from..from + length).contains(at));
            let taken: u64 = inside.map(|(_, cost, _)| cost).sum();
            prop_assert!(taken <= most, "{taken} of {most}: {admitted:?}");
        }
        let of_store = |source: Source| source == Source::Memory;
        prop_assert!(admitted.iter().all(|(.., source)| of_store(*source)));
        Ok(())
    });
}
