//! N2, N3: a thousand reservations at once, over memory and Redis, of every algorithm that takes them.
//! Calls are sent twice, and replies are lost and asked for again under the same id. In the end exactly
//! what was settled is charged.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::time::Duration;

use integration_tests::{Bench, policy};
use limiter_core::limit::{
    Action, Calendar, Group, LimitStore, Observed, OperationId, Period, Policy, Quota, Step,
};
use limiter_core::{Error, ErrorKind, Key};

const RESERVATIONS: u64 = 1_000;
const WORKERS: usize = 40;
const TTL: Duration = Duration::from_secs(60);

/// What a reservation's owner does with it.
#[derive(Clone, Copy, Debug)]
struct Plan {
    number: u64,
    estimate: u64,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    /// To less, as much or more.
    Settled(u64),
    Cancelled,
    /// Nobody says.
    Left,
}

impl Plan {
    /// Spread over all cases; a log holds a thousand units, one for each.
    fn new(number: u64) -> Self {
        let estimate = 1;
        let end = match number % 8 {
            0..=2 => End::Cancelled,
            3 => End::Left,
            rest => End::Settled(rest - 4),
        };
        Self {
            number,
            estimate,
            end,
        }
    }

    fn id(self) -> OperationId {
        OperationId::new(format!("reservation-{}", self.number))
    }

    /// What becomes of its calls.
    fn chance(self) -> u64 {
        self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40
    }

    fn charged(self) -> u64 {
        match self.end {
            End::Settled(actual) => actual,
            End::Cancelled => 0,
            End::Left => self.estimate,
        }
    }
}

struct Owner {
    store: Arc<dyn LimitStore>,
    policy: Policy,
    key: Key,
}

impl Owner {
    async fn apply(&self, action: &Action<'_>) -> Result<Observed, Error> {
        let steps = [Step::new(&self.policy, &self.key, action.clone())];
        let group = Group::new(&steps, &self.store.capabilities())?;
        let mut observed = [Observed::default()];
        self.store.apply(&group, &mut observed).await?;
        Ok(observed[0])
    }

    /// Sends it once, twice at once, or again after the reply was lost.
    async fn send(&self, action: Action<'_>, chance: u64) -> Observed {
        match chance % 4 {
            0 => self.apply(&action).await.unwrap(),
            1 => {
                let (one, other) = tokio::join!(self.apply(&action), self.apply(&action));
                let (one, other) = (one.unwrap(), other.unwrap());
                assert_eq!(one.charged, other.charged, "{action:?}");
                one
            }
            _ => {
                self.lose(&action, chance / 4 % 6).await;
                self.apply(&action).await.unwrap()
            }
        }
    }

    /// Drops the call after so many polls: unsent, on its way, or with its answer unread.
    async fn lose(&self, action: &Action<'_>, polls: u64) {
        let mut lost = std::pin::pin!(self.apply(action));
        for _ in 0..polls {
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(lost.as_mut().poll(context).is_ready())
            });
            if polled.await {
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn run(&self, plan: Plan) {
        let (id, ttl, estimate) = (&plan.id(), TTL, plan.estimate);
        let reserve = Action::Reserve { id, estimate, ttl };
        let reserved = self.send(reserve, plan.chance()).await;
        assert!(reserved.is_admitted(), "{plan:?}: {reserved:?}");
        assert_eq!(reserved.charged, estimate);
        self.end(plan).await;
    }

    async fn end(&self, plan: Plan) {
        let (id, chance) = (&plan.id(), plan.chance() / 24);
        let ended = match plan.end {
            End::Settled(actual) => self.send(Action::Settle { id, actual }, chance).await,
            End::Cancelled => self.send(Action::Cancel { id, ttl: TTL }, chance).await,
            End::Left => return,
        };
        assert_eq!(ended.charged, plan.charged(), "{plan:?}");
    }

    /// Retries that come when all is over: they are answered what became of the reservation.
    async fn run_again(&self, plan: Plan) {
        let (id, ttl, estimate) = (&plan.id(), TTL, plan.estimate);
        let reserved = self.apply(&Action::Reserve { id, estimate, ttl }).await;
        match (plan.end, reserved) {
            (End::Cancelled, reserved) => {
                let kind = reserved.map_err(|error| error.kind());
                assert_eq!(kind, Err(ErrorKind::Conflict), "nothing is held any more");
            }
            (_, reserved) => assert_eq!(reserved.unwrap().charged, plan.charged()),
        }
        self.end(plan).await;
    }
}

/// The clock stands still, so that nothing flows back but what is given back.
async fn a_thousand(quota: Quota) {
    let bench = Bench::new().await;
    let policy = policy(Ok(quota));
    let memory: Arc<dyn LimitStore> = Arc::new(bench.memory.clone());
    let stores: [(&str, Vec<Arc<dyn LimitStore>>); 2] = [
        ("memory", vec![memory]),
        (
            "redis",
            (0..4)
                .map(|_| -> Arc<dyn LimitStore> { Arc::new(bench.redis().clone()) })
                .collect(),
        ),
    ];
    for (name, stores) in stores {
        let key = Key::new(["ratelimit", "reserved", name]);
        let workers: Vec<_> = (0..)
            .zip(stores.iter().cycle())
            .take(WORKERS)
            .map(|(worker, store)| {
                let owner = Owner {
                    store: store.clone(),
                    policy: policy.clone(),
                    key: key.clone(),
                };
                tokio::spawn(async move {
                    for number in (worker..RESERVATIONS).step_by(WORKERS) {
                        owner.run(Plan::new(number)).await;
                    }
                    owner
                })
            })
            .collect();
        let mut owners = Vec::new();
        for worker in workers {
            owners.push(worker.await.unwrap());
        }
        let charged: u64 = (0..RESERVATIONS)
            .map(|number| Plan::new(number).charged())
            .sum();
        let looked = owners[0].apply(&Action::Peek { cost: 0 }).await.unwrap();
        assert_eq!(looked.used, charged, "{name}");
        // A retry that comes late changes nothing.
        for number in (0..RESERVATIONS).step_by(51) {
            owners[0].run_again(Plan::new(number)).await;
        }
        let looked = owners[0].apply(&Action::Peek { cost: 0 }).await.unwrap();
        assert_eq!(looked.used, charged, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_fixed_window() {
    a_thousand(Quota::fixed_window(10_000, Period::HOUR).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_calendar_window() {
    a_thousand(Quota::calendar_window(10_000, Calendar::Day).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_sliding_window() {
    a_thousand(Quota::sliding_window(10_000, Period::HOUR).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_sliding_log() {
    a_thousand(Quota::sliding_log(1_000, Period::HOUR).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_token_bucket() {
    a_thousand(Quota::token_bucket(10_000, 7, Period::MINUTE).unwrap()).await;
}
