//! Random histories through three implementations: the algorithms over a plain map, the memory
//! store, and Redis (through two instances). Every observation must be equal.
//!
//! `LIMITER_SEED` repeats a run; the seed is printed.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::collections::HashMap;
use std::time::Duration;

use integration_tests::Bench;
use limiter_core::Key;
use limiter_core::clock::{Clock as _, Timestamp};
use limiter_core::limit::algorithm::State;
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, MapStates, Observed, Period, Policy, Quota, Source,
    Step, Verdict, apply_group,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

const HISTORIES: u32 = 4_000;

/// One event of a history.
#[derive(Clone, Debug)]
enum Event {
    /// A group: for each step which key, whether the key's second quota, and what to do.
    Group(Vec<(usize, bool, Do)>),
    /// Time goes on.
    Advance(Duration),
    /// Time goes on until just before, or exactly until, the last denial said.
    Wait { early: bool },
    /// The clock steps back.
    StepBack(Duration),
}

#[derive(Clone, Copy, Debug)]
enum Do {
    Charge(Cost),
    Peek(Cost),
    Reset,
}

#[derive(Clone, Copy, Debug)]
enum Cost {
    Units(u64),
    /// Quarters of the capacity.
    Quarters(u64),
}

impl Cost {
    fn of(self, quota: &Quota) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::Quarters(quarters) => quota.capacity().div_ceil(4) * quarters,
        }
    }
}

const KEYS: usize = 3;

/// A history: for each key two quotas (before and after a deploy) and whether it is a shadow.
#[derive(Clone, Debug)]
struct History {
    quotas: Vec<(Quota, Quota, bool)>,
    start: u64,
    events: Vec<Event>,
}

fn period() -> impl Strategy<Value = Period> {
    prop_oneof![
        Just(Period::SECOND),
        Just(Period::MINUTE),
        Just(Period::DAY),
        Just(Period::MONTH),
        (1u64..5_000).prop_map(|millis| Period::new(Duration::from_millis(millis)).unwrap()),
        (1u64..5_000_000).prop_map(|micros| Period::new(Duration::from_micros(micros)).unwrap()),
    ]
}

fn limit() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1u64..20, 1 => 20u64..5_000, 1 => 1_000_000u64..20_000_000]
}

/// One of three algorithms; what the constructor refuses is drawn again.
fn quota(algorithm: usize) -> impl Strategy<Value = Quota> {
    (limit(), limit(), period()).prop_filter_map("refused", move |(limit, refill, period)| {
        match algorithm {
            0 => Quota::fixed_window(limit, period),
            1 => Quota::sliding_window(limit, period),
            _ => Quota::token_bucket(limit, refill, period),
        }
        .ok()
    })
}

/// Mostly one algorithm for both quotas of a key, sometimes a change of algorithm.
fn quotas() -> impl Strategy<Value = (Quota, Quota, bool)> {
    (0usize..3, prop_oneof![9 => Just(0usize), 1 => 1usize..3]).prop_flat_map(
        |(algorithm, change)| {
            (
                quota(algorithm),
                quota((algorithm + change) % 3),
                prop::bool::weighted(0.15),
            )
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let cost = prop_oneof![
        6 => (1u64..4).prop_map(Cost::Units),
        6 => (1u64..4).prop_map(Cost::Quarters),
        1 => (0u64..30).prop_map(Cost::Units),
        1 => Just(Cost::Units(u64::MAX)),
    ];
    let action = prop_oneof![
        20 => cost.clone().prop_map(Do::Charge),
        3 => cost.prop_map(Do::Peek),
        1 => Just(Do::Reset),
    ];
    let step = (0..KEYS, prop::bool::weighted(0.1), action);
    prop_oneof![
        12 => vec(step, 1..4).prop_map(Event::Group),
        3 => (0u64..3_000_000).prop_map(|micros| Event::Advance(Duration::from_micros(micros))),
        1 => (0u64..3_000_000).prop_map(|seconds| Event::Advance(Duration::from_secs(seconds))),
        4 => any::<bool>().prop_map(|early| Event::Wait { early }),
        1 => (0u64..100_000_000).prop_map(|micros| Event::StepBack(Duration::from_micros(micros))),
    ]
}

fn history() -> impl Strategy<Value = History> {
    (
        vec(quotas(), KEYS),
        1_700_000_000_000_000u64..1_900_000_000_000_000,
        vec(event(), 1..40),
    )
        .prop_map(|(quotas, start, events)| History {
            quotas,
            start,
            events,
        })
}

/// The algorithms over a map: what an in-process store is without its table.
#[derive(Default)]
struct Model(HashMap<String, State>);

/// Runs one history; returns how many groups it compared and how many of them were denied.
async fn run(bench: &Bench, number: u32, history: &History) -> Result<(u64, u64), TestCaseError> {
    let mut model = Model::default();
    let mut waits = Duration::ZERO;
    let (mut groups, mut denied) = (0, 0);
    let keys: Vec<Key> = (0..KEYS)
        .map(|key| Key::new(["ratelimit", "differential", &format!("{number}-{key}")]))
        .collect();
    let policies: Vec<[Policy; 2]> = history
        .quotas
        .iter()
        .map(|(old, new, shadow)| {
            [old, new].map(|quota| Policy::new("p", *quota).unwrap().with_shadow(*shadow))
        })
        .collect();
    bench.set(Timestamp::from_micros(history.start)).await;
    for event in &history.events {
        let now = bench.now();
        match event {
            Event::Advance(by) => bench.set(now.saturating_add(*by)).await,
            Event::StepBack(by) => {
                let back = u64::try_from(by.as_micros()).unwrap();
                bench
                    .set(Timestamp::from_micros(now.as_micros() - back))
                    .await;
            }
            Event::Wait { early } => {
                let short = Duration::from_micros(u64::from(*early));
                bench
                    .set(now.saturating_add(waits.saturating_sub(short)))
                    .await;
            }
            Event::Group(steps) => {
                let steps: Vec<Step<'_>> = steps
                    .iter()
                    .map(|(key, new, action)| {
                        let policy = &policies[*key][usize::from(*new)];
                        let action = match *action {
                            Do::Charge(cost) => Action::Charge {
                                cost: cost.of(policy.quota()),
                            },
                            Do::Peek(cost) => Action::Peek {
                                cost: cost.of(policy.quota()),
                            },
                            Do::Reset => Action::Reset,
                        };
                        Step::new(policy, &keys[*key], action)
                    })
                    .collect();
                // Misuse (two policies for one key) is refused before any store sees it.
                let Ok(group) = Group::new(&steps, &Capabilities::default()) else {
                    continue;
                };
                let mut expected = vec![Observed::default(); steps.len()];
                apply_group(
                    &group,
                    &mut MapStates::new(&group, &mut model.0),
                    now,
                    &mut expected,
                )
                .unwrap();
                let mut memory = expected.clone();
                memory.fill(Observed::default());
                let mut redis = memory.clone();
                bench.memory.apply(&group, &mut memory).await.unwrap();
                bench.redis().apply(&group, &mut redis).await.unwrap();
                for observed in &mut memory {
                    prop_assert_eq!(observed.source, Source::Memory);
                    observed.source = Source::Store;
                }
                prop_assert_eq!(
                    &memory,
                    &expected,
                    "memory against the algorithms, {:?}",
                    steps
                );
                prop_assert_eq!(
                    &redis,
                    &expected,
                    "Redis against the algorithms, {:?}",
                    steps
                );
                groups += 1;
                let wait = expected
                    .iter()
                    .filter_map(|observed| match observed.verdict {
                        Verdict::Deny { retry_after } => Some(retry_after),
                        _ => None,
                    });
                if let Some(wait) = wait.max() {
                    denied += 1;
                    waits = wait;
                }
            }
        }
    }
    Ok((groups, denied))
}

#[test]
fn memory_and_redis_agree_with_the_algorithms() {
    let seed = std::env::var("LIMITER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| limiter_core::clock::SystemClock.now().as_micros());
    println!("LIMITER_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(Bench::new());
    let mut runner = TestRunner::new(Config {
        cases: HISTORIES,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_global_rejects: 1_000_000,
        ..Config::default()
    });
    let number = std::cell::Cell::new(0);
    let totals = std::cell::Cell::new((0, 0));
    let result = runner.run(&history(), |history| {
        number.set(number.get() + 1);
        let (groups, denied) = runtime.block_on(run(&bench, number.get(), &history))?;
        let (all_groups, all_denied) = totals.get();
        totals.set((all_groups + groups, all_denied + denied));
        Ok(())
    });
    if let Err(error) = result {
        panic!("LIMITER_SEED={seed}\n{error}");
    }
    let (groups, denied) = totals.get();
    println!(
        "{} histories, {groups} groups, {denied} denied",
        number.get()
    );
    assert!(number.get() >= HISTORIES);
    // The histories reach both answers, or they compare nothing.
    assert!(
        denied > groups / 10 && denied < groups / 2,
        "{denied} of {groups}"
    );
}
