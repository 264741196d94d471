//! I-B1: a fleet whose store comes and goes, for each instance at other times, admits no more than the limit and each instance's
//! share.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::time::Duration;

use integration_tests::{Fault, Faulty, random};
use limiter_core::Key;
use limiter_core::clock::{Clock, ManualClock, Timestamp};
use limiter_core::limit::wrap::OutageRules;
use limiter_core::limit::{Limiter, Outage, Policy, Quota, Share};
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

/// A running instance, and which start of all it was.
struct Instance {
    faulty: Faulty,
    limiter: Limiter,
    is_away: bool,
    start: u64,
}

struct Fleet {
    clock: ManualClock,
    shared: MemoryStore,
    instances: Vec<Instance>,
    starts: u64,
}

impl Instance {
    fn set_away(&mut self, is_away: bool) {
        self.is_away = is_away;
        self.faulty.set(match is_away {
            true => Fault::Request,
            false => Fault::None,
        });
    }
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

    fn started(&mut self) -> Instance {
        self.starts += 1;
        let faulty = Faulty::new(self.shared.clone());
        let config = MemoryConfig::default().with_clock(self.clock.clone());
        let rules = OutageRules::new(faulty.clone());
        let rules = rules.with_local(Arc::new(MemoryStore::with_config(&config)));
        Instance {
            faulty,
            limiter: Limiter::raw(Arc::new(rules)),
            is_away: false,
            start: self.starts,
        }
    }
}

/// When so much was admitted, and by which start of an instance; `None` by the shared store.
type Admitted = (u64, u64, Option<u64>);

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
                started.set_away(fleet.instances[instance].is_away);
                fleet.instances[instance] = started;
            }
            Event::Toggle(instance) => {
                let instance = &mut fleet.instances[instance];
                instance.set_away(!instance.is_away);
            }
            Event::Check(instance, cost) => {
                let instance = &fleet.instances[instance];
                let decision = instance.limiter.check_n(policy, key, cost).await;
                assert_eq!(decision.degraded, instance.is_away, "{decision:?}");
                if decision.is_allowed() {
                    let now = fleet.clock.now().as_micros();
                    let by = instance.is_away.then_some(instance.start);
                    admitted.push((now, cost, by));
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
        let share = share.of(window.limit());
        let most = 2 * window.limit() + starts * 2 * share;
        let stores = (1..=starts).map(Some).chain([None]);
        for (from, ..) in &admitted {
            let inside = || {
                let inside = admitted.iter();
                inside.filter(|(at, ..)| (*from..from + length).contains(at))
            };
            let taken: u64 = inside().map(|(_, cost, _)| cost).sum();
            prop_assert!(taken <= most, "{taken} of {most}: {admitted:?}");
            for store in stores.clone() {
                let own = inside().filter(|(.., by)| *by == store);
                let taken: u64 = own.map(|(_, cost, _)| cost).sum();
                let most = 2 * store.map_or(window.limit(), |_| share);
                prop_assert!(
                    taken <= most,
                    "{taken} of {most} by {store:?}: {admitted:?}"
                );
            }
        }
        Ok(())
    });
}
