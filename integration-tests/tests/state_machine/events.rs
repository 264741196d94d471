//! What happens in a history.

use std::collections::HashMap;
use std::time::Duration;

use limiter_core::limit::{Action, OperationId, Quota, Receipt};
use proptest::collection::vec;
use proptest::prelude::*;

/// One step of a history.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A group: for each step which key, and what to do; under which operation id, if any.
    Group(Vec<(usize, Do)>, Option<u8>),
    /// The last group once more.
    Again,
    /// Time goes on.
    Advance(Duration),
    /// Time goes on until exactly, or until one grain before, the last denial said.
    Wait { early: bool },
    /// The clock steps back.
    StepBack(Duration),
}

/// What a step does. Reservations, leases and receipts are a few of each key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Do {
    Charge(Cost),
    Peek(Cost),
    Reset,
    Refund(usize),
    Reserve(u8, Cost, Duration),
    Settle(u8, Cost),
    Cancel(u8, Duration),
    Acquire(u8, Cost, Duration),
    Renew(u8, Duration),
    Release(u8, Duration),
    Debit(Cost, Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Cost {
    Units(u64),
    /// Quarters of the capacity.
    Quarters(u64),
}

impl Cost {
    pub(crate) fn of(self, quota: &Quota) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::Quarters(quarters) => quota.capacity().div_ceil(4) * quarters,
        }
    }
}

/// A step as it is sent.
#[derive(Clone, Debug)]
pub(crate) enum Sent {
    Charge(u64),
    Peek(u64),
    Reset,
    Refund(String),
    Reserve(OperationId, u64, Duration),
    Settle(OperationId, u64),
    Cancel(OperationId, Duration),
    Acquire(OperationId, u64, Duration),
    Renew(OperationId, Duration),
    Release(OperationId, Duration),
    Debit(u64, Duration),
}

impl Sent {
    /// The action; each store has given receipts of its own.
    pub(crate) fn action<'a>(&'a self, receipts: &'a HashMap<String, Receipt>) -> Action<'a> {
        match self {
            Self::Charge(cost) => Action::Charge { cost: *cost },
            Self::Peek(cost) => Action::Peek { cost: *cost },
            Self::Reset => Action::Reset,
            Self::Refund(id) => Action::Refund {
                receipt: &receipts[id],
            },
            Self::Reserve(id, estimate, ttl) => Action::Reserve {
                id,
                estimate: *estimate,
                ttl: *ttl,
            },
            Self::Settle(id, actual) => Action::Settle {
                id,
                actual: *actual,
            },
            Self::Cancel(id, ttl) => Action::Cancel { id, ttl: *ttl },
            Self::Acquire(lease, cost, ttl) => Action::Acquire {
                lease,
                cost: *cost,
                ttl: *ttl,
            },
            Self::Renew(lease, ttl) => Action::Renew { lease, ttl: *ttl },
            Self::Release(lease, ttl) => Action::Release { lease, ttl: *ttl },
            Self::Debit(at_most, life) => Action::Debit {
                at_most: *at_most,
                life: *life,
            },
        }
    }
}

fn cost() -> impl Strategy<Value = Cost> {
    prop_oneof![
        6 => (1u64..4).prop_map(Cost::Units),
        6 => (1u64..4).prop_map(Cost::Quarters),
        1 => (0u64..30).prop_map(Cost::Units),
    ]
}

fn any_cost() -> impl Strategy<Value = Cost> {
    prop_oneof![30 => cost(), 1 => Just(Cost::Units(u64::MAX))]
}

fn ttl() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1u64..3_000).prop_map(Duration::from_millis),
        (1_000u64..90_000_000).prop_map(Duration::from_micros),
    ]
}

/// Of a debit.
fn life() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1_000u64..3_000_000).prop_map(Duration::from_micros),
        (1u64..3_600).prop_map(Duration::from_secs),
    ]
}

const IDS: u8 = 3;

/// What is done to a key: leases are for concurrency, and concurrency is for leases.
fn action(concurrency: bool) -> BoxedStrategy<Do> {
    let looks = prop_oneof![
        4 => any_cost().prop_map(Do::Peek),
        1 => Just(Do::Reset),
    ];
    if concurrency {
        return prop_oneof![
            10 => (0..IDS + 3, any_cost(), ttl()).prop_map(|(id, cost, ttl)| Do::Acquire(id, cost, ttl)),
            3 => (0..IDS + 3, ttl()).prop_map(|(id, ttl)| Do::Renew(id, ttl)),
            3 => (0..IDS + 3, ttl()).prop_map(|(id, ttl)| Do::Release(id, ttl)),
            2 => looks,
        ]
        .boxed();
    }
    prop_oneof![
        12 => any_cost().prop_map(Do::Charge),
        3 => any::<prop::sample::Index>().prop_map(|index| Do::Refund(index.index(1 << 16))),
        4 => (0..IDS, any_cost(), ttl()).prop_map(|(id, cost, ttl)| Do::Reserve(id, cost, ttl)),
        3 => (0..IDS, cost()).prop_map(|(id, cost)| Do::Settle(id, cost)),
        2 => (0..IDS, ttl()).prop_map(|(id, ttl)| Do::Cancel(id, ttl)),
        3 => (any_cost(), life()).prop_map(|(cost, life)| Do::Debit(cost, life)),
        3 => looks,
    ]
    .boxed()
}

/// An event over keys of these quotas.
pub(crate) fn event(quotas: &[Quota]) -> BoxedStrategy<Event> {
    let actions: Vec<_> = quotas
        .iter()
        .map(|quota| action(quota.is_concurrency()))
        .collect();
    let step = (0..quotas.len()).prop_flat_map(move |key| (Just(key), actions[key].clone()));
    let operation = prop::option::weighted(0.15, 0u8..4);
    let group = (
        prop_oneof![3 => vec(step.clone(), 1), 2 => vec(step, 2..4)],
        operation,
    );
    prop_oneof![
        24 => group.prop_map(|(steps, operation)| Event::Group(steps, operation)),
        2 => Just(Event::Again),
        4 => (0u64..3_000_000).prop_map(|micros| Event::Advance(Duration::from_micros(micros))),
        1 => (0u64..300_000).prop_map(|seconds| Event::Advance(Duration::from_secs(seconds))),
        7 => any::<bool>().prop_map(|early| Event::Wait { early }),
        1 => (0u64..100_000_000).prop_map(|micros| Event::StepBack(Duration::from_micros(micros))),
    ]
    .boxed()
}
