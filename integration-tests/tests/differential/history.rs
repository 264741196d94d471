//! Random histories: quotas before and after a deploy, groups of every action, and a clock that goes
//! forward, waits, and steps back.

use std::time::Duration;

use limiter_core::clock::MAX_INTEGER;
use limiter_core::limit::{Calendar, Period, Quota};
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) const KEYS: usize = 2;
/// So few that they meet.
pub(crate) const IDS: usize = 2;

/// A history: for each key two quotas (before and after a deploy) and whether it is a shadow.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) quotas: Vec<(Quota, Quota, bool)>,
    pub(crate) start: u64,
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Group(Planned),
    /// The last group once more, as a client sends it that got no answer; perhaps from an instance of
    /// the other side of the deploy.
    Again {
        new: bool,
    },
    /// Time goes on.
    Advance(Duration),
    /// Time goes on until just before, or exactly until, the last denial said, or until the last answer
    /// said that all is free.
    Wait {
        early: bool,
        reset: bool,
    },
    /// The clock steps back.
    StepBack(Duration),
}

/// A group: whether under the second quotas, for each step which key and what to do, and the operation's id.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) new: bool,
    pub(crate) steps: Vec<(usize, Do)>,
    pub(crate) operation: Option<(usize, Duration)>,
}

/// What a step does; on a concurrency quota its counterpart for leases, and the other way round.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Do {
    Take {
        cost: Cost,
    },
    Peek {
        cost: Cost,
    },
    Reset,
    /// Of one of the key's last charges.
    Refund {
        back: usize,
    },
    /// Of a receipt that no store gave: `shift` microseconds and as many numbers from the last one.
    Forged {
        shift: i64,
        number: Option<u64>,
        cost: u64,
    },
    /// Or acquire.
    Hold {
        id: usize,
        cost: Cost,
        ttl: Duration,
    },
    /// Or renew.
    Settle {
        id: usize,
        actual: Cost,
        ttl: Duration,
    },
    /// Or release.
    Cancel {
        id: usize,
        ttl: Duration,
    },
    /// Or a peek.
    Debit {
        cost: Cost,
        life: Duration,
    },
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
    prop_oneof![6 => 1u64..12, 1 => 20u64..5_000, 1 => 1_000_000u64..20_000_000]
}

fn calendar() -> impl Strategy<Value = Calendar> {
    prop_oneof![
        Just(Calendar::Minute),
        Just(Calendar::Hour),
        Just(Calendar::Day),
        Just(Calendar::Month),
    ]
}

const ALGORITHMS: usize = 6;

/// One of the algorithms; what the constructor refuses is drawn again.
fn quota(algorithm: usize) -> BoxedStrategy<Quota> {
    let few = prop_oneof![6 => 1u64..12, 1 => 20u64..=1_000];
    match algorithm {
        3 => (few, period())
            .prop_map(|(limit, window)| Quota::sliding_log(limit, window).unwrap())
            .boxed(),
        4 => few
            .prop_map(|limit| Quota::concurrency(limit).unwrap())
            .boxed(),
        5 => (limit(), calendar())
            .prop_map(|(limit, unit)| Quota::calendar_window(limit, unit).unwrap())
            .boxed(),
        _ => (limit(), limit(), period())
            .prop_filter_map("refused", move |(limit, refill, period)| {
                match algorithm {
                    0 => Quota::fixed_window(limit, period),
                    1 => Quota::sliding_window(limit, period),
                    _ => Quota::token_bucket(limit, refill, period),
                }
                .ok()
            })
            .boxed(),
    }
}

/// Mostly one algorithm for both quotas of a key, sometimes a change of algorithm.
fn quotas() -> impl Strategy<Value = (Quota, Quota, bool)> {
    let change = prop_oneof![9 => Just(0usize), 1 => 1usize..ALGORITHMS];
    (0usize..ALGORITHMS, change).prop_flat_map(|(algorithm, change)| {
        (
            quota(algorithm),
            quota((algorithm + change) % ALGORITHMS),
            prop::bool::weighted(0.15),
        )
    })
}

fn ttl() -> impl Strategy<Value = Duration> {
    prop_oneof![
        1 => Just(Duration::from_millis(1)),
        2 => (1u64..3_000_000).prop_map(|micros| Duration::from_micros(1_000 + micros)),
        2 => (1u64..3_600).prop_map(Duration::from_secs),
        2 => Just(Duration::from_secs(7 * 86_400)),
    ]
}

/// Of a debit.
fn life() -> impl Strategy<Value = Duration> {
    prop_oneof![
        2 => (1_000u64..3_000_000).prop_map(Duration::from_micros),
        2 => (1u64..3_600).prop_map(Duration::from_secs),
        1 => Just(Duration::from_secs(86_400)),
    ]
}

fn action() -> impl Strategy<Value = Do> {
    let cost = prop_oneof![
        6 => (1u64..4).prop_map(Cost::Units),
        6 => (1u64..4).prop_map(Cost::Quarters),
        1 => (0u64..30).prop_map(Cost::Units),
        1 => Just(Cost::Units(u64::MAX)),
    ];
    let held = prop_oneof![
        2 => (1u64..3).prop_map(Cost::Units),
        1 => (1u64..4).prop_map(Cost::Quarters),
    ];
    let actual = prop_oneof![
        4 => (0u64..5).prop_map(Cost::Units),
        4 => (0u64..8).prop_map(Cost::Quarters),
        1 => Just(Cost::Units((1 << 51) - 1)),
    ];
    let number = prop::option::of(prop_oneof![0u64..100, 0..=MAX_INTEGER]);
    prop_oneof![
        20 => cost.clone().prop_map(|cost| Do::Take { cost }),
        4 => (cost.clone(), life()).prop_map(|(cost, life)| Do::Debit { cost, life }),
        2 => cost.prop_map(|cost| Do::Peek { cost }),
        1 => Just(Do::Reset),
        5 => (0..IDS).prop_map(|back| Do::Refund { back }),
        1 => (-5_000_000i64..5_000_000, number, 0u64..1 << 51)
            .prop_map(|(shift, number, cost)| Do::Forged { shift, number, cost }),
        12 => (0..IDS, held, ttl()).prop_map(|(id, cost, ttl)| Do::Hold { id, cost, ttl }),
        6 => (0..IDS, actual, ttl()).prop_map(|(id, actual, ttl)| Do::Settle { id, actual, ttl }),
        4 => (0..IDS, ttl()).prop_map(|(id, ttl)| Do::Cancel { id, ttl }),
    ]
}

fn group() -> impl Strategy<Value = Event> {
    let steps = prop_oneof![
        3 => vec((0..KEYS, action()), 1..=1),
        1 => vec((0..KEYS, action()), 2..=4),
    ];
    let operation = prop_oneof![
        5 => Just(None),
        1 => (0..IDS, ttl()).prop_map(Some),
    ];
    (prop::bool::weighted(0.1), steps, operation).prop_map(|(new, steps, operation)| {
        Event::Group(Planned {
            new,
            steps,
            operation,
        })
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => group(),
        3 => prop::bool::weighted(0.1).prop_map(|new| Event::Again { new }),
        3 => (0u64..3_000_000).prop_map(|micros| Event::Advance(Duration::from_micros(micros))),
        1 => (0u64..3_000_000).prop_map(|seconds| Event::Advance(Duration::from_secs(seconds))),
        4 => (any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(early, reset)| Event::Wait { early, reset }),
        1 => (0u64..100_000_000).prop_map(|micros| Event::StepBack(Duration::from_micros(micros))),
    ]
}

pub(crate) fn history() -> impl Strategy<Value = History> {
    (
        vec(quotas(), KEYS),
        1_700_000_000_000_000u64..1_900_000_000_000_000,
        vec(event(), 1..50),
    )
        .prop_map(|(quotas, start, events)| History {
            quotas,
            start,
            events,
        })
}
