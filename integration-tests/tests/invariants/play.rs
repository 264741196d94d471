//! Random plays over both stores, and the admissions that are recorded.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use integration_tests::{Bench, random};
use limiter_core::clock::Timestamp;
use limiter_core::limit::{
    Action, Group, LimitStore, Observed, OperationId, Policy, Quota, Receipt, Step, Verdict,
};
use limiter_core::{Error, Key};
use proptest::prelude::*;

/// How long a reservation or a lease of these tests lives at most.
pub(crate) const LIFE: Duration = Duration::from_secs(90);

/// The last moment of a play (2112): a debt may take up to 2^52 us to be paid off, and its end has to be a moment, below 2^53 us.
const LAST: u64 = 1 << 52;

/// One of the two stores, through all of its instances.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    instances: Vec<Arc<dyn LimitStore>>,
    next: AtomicUsize,
}

impl Side {
    /// One of the instances; the next call gives another.
    pub(crate) fn store(&self) -> &Arc<dyn LimitStore> {
        &self.instances[self.next.fetch_add(1, Ordering::Relaxed) % self.instances.len()]
    }

    /// A key of this case on this side.
    pub(crate) fn key(&self, case: usize, key: usize) -> Key {
        Key::new(["ratelimit", self.name, &case.to_string(), &key.to_string()])
    }

    /// One step, through one of the instances.
    pub(crate) async fn one(
        &self,
        policy: &Policy,
        key: &Key,
        action: Action<'_>,
    ) -> Result<Observed, Error> {
        let observed = self.group(&[Step::new(policy, key, action)]).await?;
        Ok(observed[0])
    }

    pub(crate) async fn group(&self, steps: &[Step<'_>]) -> Result<Vec<Observed>, Error> {
        apply(self.store(), steps).await
    }

    /// What is used.
    pub(crate) async fn used(&self, policy: &Policy, key: &Key) -> u64 {
        let looked = self.one(policy, key, Action::Peek { cost: 0 }).await;
        looked.unwrap().used
    }

    /// Takes `cost`: a charge, or a lease where leases are taken.
    pub(crate) async fn take(
        &self,
        policy: &Policy,
        key: &Key,
        lease: &OperationId,
        cost: u64,
    ) -> Observed {
        let taken = self.one(policy, key, taking(policy.quota(), lease, cost));
        taken.await.unwrap()
    }
}

pub(crate) async fn apply(
    store: &Arc<dyn LimitStore>,
    steps: &[Step<'_>],
) -> Result<Vec<Observed>, Error> {
    let group = Group::new(steps, &store.capabilities())?;
    let mut observed = vec![Observed::default(); steps.len()];
    store.apply(&group, &mut observed).await?;
    Ok(observed)
}

/// A charge, or a lease where leases are taken.
pub(crate) fn taking<'a>(quota: &Quota, lease: &'a OperationId, cost: u64) -> Action<'a> {
    if quota.is_concurrency() {
        let ttl = LIFE;
        Action::Acquire { lease, cost, ttl }
    } else {
        Action::Charge { cost }
    }
}

/// Both stores under one clock that the test moves.
pub(crate) struct Table {
    pub(crate) bench: Bench,
    start: Timestamp,
    pub(crate) sides: Vec<Side>,
    cases: AtomicUsize,
}

impl Table {
    pub(crate) async fn new() -> Self {
        let bench = Bench::new().await;
        let memory: Arc<dyn LimitStore> = Arc::new(bench.memory.clone());
        let side = |name, instances| Side {
            name,
            instances,
            next: AtomicUsize::new(0),
        };
        let redis = (0..4).map(|_| -> Arc<dyn LimitStore> { Arc::new(bench.redis().clone()) });
        let sides = vec![
            side("memory", vec![memory; 4]),
            side("redis", redis.collect()),
        ];
        Self {
            start: bench.now(),
            bench,
            sides,
            cases: AtomicUsize::new(0),
        }
    }

    /// A number that no other case has.
    pub(crate) fn case(&self) -> usize {
        self.cases.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.bench.now()
    }

    /// Goes to a moment; whether a play may go that far.
    async fn reaches(&self, to: u64) -> bool {
        if to > LAST {
            return false;
        }
        self.bench.set(Timestamp::from_micros(to)).await;
        true
    }

    pub(crate) async fn advance(&self, by: Duration) {
        self.bench.set(self.now().saturating_add(by)).await;
    }

    pub(crate) async fn step_back(&self, by: Duration) {
        let back = u64::try_from(by.as_micros()).unwrap();
        let to = Timestamp::from_micros(self.now().as_micros() - back);
        self.bench.set(to).await;
    }
}

/// Runs a property on so many cases, all over one table.
pub(crate) fn property<T: Debug>(
    cases: u32,
    values: impl Strategy<Value = T>,
    case: impl AsyncFn(&Table, T),
) {
    let config = random::config(cases);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let table = runtime.block_on(Table::new());
    random::check(&config, &values, |value| {
        runtime.block_on(async {
            // The cases before this one do not take its time.
            table.bench.set(table.start).await;
            case(&table, value).await;
        });
        Ok(())
    });
}

pub(crate) fn policy(quota: Quota) -> Policy {
    Policy::new("p", quota).unwrap()
}

/// What a client of one key does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Move {
    /// Charges so many quarters of the capacity, or so many units.
    Charge { quarters: u64, units: u64 },
    /// Gives a charge back.
    Refund(usize),
    /// Settles a charge, which was then a reservation, to a part (of 4) of it.
    Settle(usize, u64),
    /// So many 64ths of a window, and microseconds, go by.
    Advance(u64, u64),
    /// To the next multiple of the window, and so many microseconds more or less.
    Border(i64),
    /// As long as the last denial said.
    Wait,
}

pub(crate) fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        10 => (0u64..4, 0u64..4).prop_map(|(quarters, units)| Move::Charge { quarters, units }),
        2 => any::<prop::sample::Index>().prop_map(|index| Move::Refund(index.index(1 << 16))),
        2 => (any::<prop::sample::Index>(), 0u64..4)
            .prop_map(|(index, part)| Move::Settle(index.index(1 << 16), part)),
        3 => (0u64..64, 0u64..3_000).prop_map(|(part, micros)| Move::Advance(part, micros)),
        2 => (-2_500i64..2_500).prop_map(Move::Border),
        4 => Just(Move::Wait),
    ];
    prop::collection::vec(one, 10..60)
}

/// What was admitted, as its client knows it.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// Microseconds since the epoch.
    pub(crate) at: u64,
    /// What stands of it.
    pub(crate) net: u64,
    /// When it was given back, and how much.
    pub(crate) given: Option<(u64, u64)>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Charge(Receipt),
    Reservation(OperationId, u64),
    Closed,
}

/// Which give-backs a play makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GiveBacks {
    InAnyOrder,
    /// The newest charge that stands first.
    NewestFirst,
}

/// Plays the moves of one client, and has `check` look at what was admitted so far after every
/// admission, on each side.
pub(crate) async fn play(
    table: &Table,
    quota: Quota,
    window: Duration,
    moves: &[Move],
    give_backs: GiveBacks,
    check: impl Fn(&[Admission], &str),
) {
    let policy = policy(quota);
    let case = table.case();
    let mut admissions: Vec<Vec<Admission>> = table.sides.iter().map(|_| Vec::new()).collect();
    let mut wait = Duration::ZERO;
    for (number, action) in moves.iter().enumerate() {
        match *action {
            Move::Advance(part, micros) => {
                let by = window / 64 * u32::try_from(part).unwrap();
                let by = u64::try_from(by.as_micros()).unwrap() + micros;
                if !table.reaches(table.now().as_micros() + by).await {
                    break;
                }
                continue;
            }
            Move::Border(micros) => {
                let length = u64::try_from(window.as_micros()).unwrap();
                let now = table.now().as_micros();
                let border = (now / length + 1) * length;
                let to = border.saturating_add_signed(micros).max(now);
                if !table.reaches(to).await {
                    break;
                }
                continue;
            }
            Move::Wait => {
                let by = u64::try_from(wait.as_micros()).unwrap();
                if !table.reaches(table.now().as_micros() + by).await {
                    break;
                }
                continue;
            }
            _ => {}
        }
        for (side, admissions) in table.sides.iter().zip(&mut admissions) {
            let key = side.key(case, 0);
            match *action {
                Move::Charge { quarters, units } => {
                    let cost = quota.capacity() * quarters / 4 + units;
                    let id = OperationId::new(format!("{case}-{number}"));
                    // Every third one is reserved.
                    let reserves = number % 3 == 0 && cost > 0;
                    let asked = if reserves {
                        let (id, ttl) = (&id, LIFE);
                        let estimate = cost;
                        Action::Reserve { id, estimate, ttl }
                    } else {
                        Action::Charge { cost }
                    };
                    let observed = side.one(&policy, &key, asked).await.unwrap();
                    assert!(
                        observed.used <= quota.capacity(),
                        "{}: {observed:?}",
                        side.name
                    );
                    match observed.verdict {
                        Verdict::Admit if cost > 0 => {
                            let kind = if reserves {
                                Kind::Reservation(id, cost)
                            } else {
                                Kind::Charge(Receipt::new(id, observed.mark, cost))
                            };
                            let at = table.now().as_micros();
                            admissions.push(Admission {
                                at,
                                net: cost,
                                given: None,
                                kind,
                            });
                            check(admissions, side.name);
                        }
                        Verdict::Deny { retry_after } => wait = retry_after,
                        _ => {}
                    }
                }
                Move::Refund(index) | Move::Settle(index, _) => {
                    let open = |admission: &&mut Admission| !matches!(admission.kind, Kind::Closed);
                    let mut open: Vec<_> = admissions.iter_mut().filter(open).collect();
                    let index = match give_backs {
                        GiveBacks::NewestFirst => open.len().checked_sub(1),
                        GiveBacks::InAnyOrder => index.checked_rem(open.len()),
                    };
                    let Some(admission) = index.map(|index| &mut *open[index]) else {
                        continue;
                    };
                    let asked = match (&admission.kind, *action) {
                        (Kind::Charge(receipt), _) => Action::Refund { receipt },
                        (Kind::Reservation(id, cost), Move::Settle(_, part)) => {
                            let actual = cost * part / 4;
                            Action::Settle { id, actual }
                        }
                        (Kind::Reservation(id, _), _) => Action::Cancel {
                            id,
                            ttl: Duration::from_secs(60),
                        },
                        (Kind::Closed, _) => continue,
                    };
                    // One that came too late is no give-back.
                    if let Ok(observed) = side.one(&policy, &key, asked).await {
                        assert!(observed.charged <= admission.net);
                        let given = admission.net - observed.charged;
                        admission.given = Some((table.now().as_micros(), given));
                        admission.net = observed.charged;
                    }
                    admission.kind = Kind::Closed;
                }
                Move::Advance(..) | Move::Border(_) | Move::Wait => {}
            }
        }
    }
}
