//! What many callers see of one Redis at once, recorded (when a call was sent and answered, what came of
//! it, and the server's time) and judged afterwards: limits, sums, and the order of the calls.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::time::Duration;

use integration_tests::{RedisServer, policy, ten_years};
use limiter_core::Key;
use limiter_core::clock::{Clock, SystemClock, Timestamp};
use limiter_core::limit::{Action, Group, LimitStore, Mark, Observed, Period, Policy, Quota, Step};
use limiter_redis::RedisStore;
use tokio::sync::Barrier;

const INSTANCES: usize = 8;
const TASKS: usize = 32;
const CALLS: usize = 30;

/// All tasks call at once, maybe on a busy machine; a call of unknown outcome would prove nothing.
const PATIENCE: Duration = Duration::from_secs(60);

const USERS: usize = 16;
const TENANTS: usize = 4;

/// One call, as its caller saw it.
struct Call {
    sent: Timestamp,
    answered: Timestamp,
    user: usize,
    cost: u64,
    admitted: bool,
    /// Of which level, and what was answered.
    steps: Vec<(usize, Observed)>,
}

impl Call {
    fn at(&self, level: usize) -> Option<&Observed> {
        let mut steps = self.steps.iter();
        steps.find(|(of, _)| *of == level).map(|(_, step)| step)
    }
}

/// Calls `call` from every task of every instance at once; what they saw.
async fn hammer<F>(call: impl Fn(RedisStore, usize, usize) -> F) -> (RedisServer, Vec<Call>)
where
    F: Future<Output = Call> + Send + 'static,
{
    let server = RedisServer::start();
    let instances: Vec<RedisStore> = (0..INSTANCES)
        .map(|_| RedisStore::new(&server.config().with_check_deadline(PATIENCE)).unwrap())
        .collect();
    let start = Arc::new(Barrier::new(INSTANCES * TASKS));
    let tasks: Vec<_> = (0..INSTANCES * TASKS)
        .map(|task| {
            let store = instances[task % INSTANCES].clone();
            let calls: Vec<F> = (0..CALLS)
                .map(|round| call(store.clone(), task, round))
                .collect();
            let start = start.clone();
            tokio::spawn(async move {
                let mut seen = Vec::with_capacity(CALLS);
                start.wait().await;
                for call in calls {
                    seen.push(call.await);
                }
                seen
            })
        })
        .collect();
    let mut calls = Vec::new();
    for task in tasks {
        calls.extend(task.await.unwrap());
    }
    (server, calls)
}

async fn send(
    store: &RedisStore,
    user: usize,
    cost: u64,
    levels: &[(usize, &Policy, Key)],
) -> Call {
    let steps: Vec<_> = levels
        .iter()
        .map(|(_, policy, key)| Step::new(policy, key, Action::Charge { cost }))
        .collect();
    let group = Group::new(&steps, &store.capabilities()).unwrap();
    let mut observed = vec![Observed::default(); steps.len()];
    let sent = SystemClock.now();
    store.apply(&group, &mut observed).await.unwrap();
    let answered = SystemClock.now();
    Call {
        sent,
        answered,
        user,
        cost,
        admitted: observed.iter().all(Observed::is_admitted),
        steps: levels
            .iter()
            .map(|(level, ..)| *level)
            .zip(observed)
            .collect(),
    }
}

/// Limits that fill and free again many times in a run, one of each algorithm, and counters that keep the
/// sums.
struct Levels {
    user: Policy,
    tenant: Policy,
    global: Policy,
    everybody: Policy,
    sum: Policy,
    user_sum: Policy,
}

const WINDOW: Duration = Duration::from_millis(150);
const USER: u64 = 4;
const TENANT: u64 = 15;
const REFILL: u64 = 10;
const GLOBAL: u64 = 40;
const EVERYBODY: u64 = 40;
/// The levels that limit; the others keep sums.
const LIMITS: usize = 4;

impl Levels {
    fn new() -> Self {
        let window = Period::new(WINDOW).unwrap();
        Self {
            user: policy(Quota::sliding_log(USER, window)),
            tenant: policy(Quota::token_bucket(TENANT, REFILL, window)),
            global: policy(Quota::fixed_window(GLOBAL, window)),
            everybody: policy(Quota::sliding_window(EVERYBODY, window)),
            sum: policy(Quota::fixed_window(1_000_000, Period::MONTH)),
            user_sum: policy(Quota::sliding_window(10_000, ten_years())),
        }
    }

    /// The levels that a call charges: each limit alone in turn, so that none is idle behind another one, and
    /// all of them.
    fn steps(&self, user: usize, round: usize) -> Vec<(usize, &Policy, Key)> {
        let key = |level: &str, index: usize| Key::new(["ratelimit", level, &index.to_string()]);
        let mut steps = vec![
            (0, &self.user, key("user", user)),
            (1, &self.tenant, key("tenant", user % TENANTS)),
            (2, &self.global, key("global", 0)),
            (3, &self.everybody, key("everybody", 0)),
            (4, &self.sum, key("sum", 0)),
            (5, &self.user_sum, key("user-sum", user)),
        ];
        let turn = round % (LIMITS + 1);
        steps.retain(|(level, ..)| *level >= LIMITS || turn == LIMITS || turn == *level);
        steps
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_limit_is_exceeded_and_every_charge_is_an_admission() {
    let levels = Arc::new(Levels::new());
    let (server, mut calls) = hammer(|store, task, round| {
        let levels = levels.clone();
        async move {
            let user = (task * 7 + round * round) % USERS;
            let cost = 1 + (round % 3) as u64;
            send(&store, user, cost, &levels.steps(user, round + task)).await
        }
    })
    .await;
    // Every kind of limit has denied something on its own account, and let something through.
    for level in 0..LIMITS {
        let verdicts = calls.iter().filter_map(|call| call.at(level));
        let (admitted, denied): (Vec<&Observed>, Vec<_>) =
            verdicts.partition(|step| step.is_admitted());
        assert!(admitted.len() > 20 && denied.len() > 20, "level {level}");
    }
    calls.retain(|call| call.admitted);

    for call in &calls {
        let at = call.steps[0].1.mark.at;
        assert!(
            call.sent <= at && at <= call.answered,
            "served while it waited"
        );
    }
    for user in 0..USERS {
        let of_user = |call: &&Call| call.user == user;
        let log = charges(calls.iter().filter(of_user), 0);
        at_most_in_any(&log, WINDOW, USER);
    }
    for tenant in 0..TENANTS {
        let of_tenant = |call: &&Call| call.user % TENANTS == tenant;
        within_the_bucket(&charges(calls.iter().filter(of_tenant), 1));
    }
    // A window's end is told by its key's expiry, a moment after the time was read.
    let mut windows = charges(calls.iter(), 2);
    windows.sort_by_key(|(mark, _)| mark.number);
    let half = u64::try_from(WINDOW.as_millis()).unwrap() / 2;
    for window in windows.chunk_by(|a, b| b.0.number - a.0.number < half) {
        assert!(sum(window) <= GLOBAL, "{} in one window", sum(window));
    }
    let mut counted = charges(calls.iter(), 3);
    at_most_in_any(&counted, WINDOW, 2 * EVERYBODY);
    counted.sort_by_key(|(mark, _)| mark.number);
    for window in counted.chunk_by(|a, b| a.0.number == b.0.number) {
        assert!(sum(window) <= EVERYBODY, "{} in one window", sum(window));
    }

    // What Redis counted is what was admitted.
    let admitted: u64 = calls.iter().map(|call| call.cost).sum();
    let counted: u64 = server.command(&["GET", "ratelimit:sum:0"]);
    assert_eq!(counted, admitted);
    let store = RedisStore::new(&server.config()).unwrap();
    for user in 0..USERS {
        let of_user = calls.iter().filter(|call| call.user == user);
        let admitted: u64 = of_user.map(|call| call.cost).sum();
        let looked = send(&store, user, 0, &levels.steps(user, 0)[2..]).await;
        assert_eq!(looked.steps[0].1.used, admitted, "user {user}");
    }
}

/// Where each call's charge stands at a level, and what it is, in the order of time.
fn charges<'a>(calls: impl Iterator<Item = &'a Call>, level: usize) -> Vec<(Mark, u64)> {
    let mut charges: Vec<_> = calls
        .filter_map(|call| Some((call.at(level)?.mark, call.cost)))
        .collect();
    charges.sort_by_key(|(mark, _)| mark.at);
    charges
}

fn sum(charges: &[(Mark, u64)]) -> u64 {
    charges.iter().map(|(_, cost)| cost).sum()
}

fn at_most_in_any(charges: &[(Mark, u64)], window: Duration, most: u64) {
    for (index, (first, _)) in charges.iter().enumerate() {
        let end = first.at.saturating_add(window);
        let span = charges[index..]
            .iter()
            .take_while(|(mark, _)| mark.at < end);
        let taken: u64 = span.map(|(_, cost)| cost).sum();
        assert!(taken <= most, "{taken} from {:?} on", first.at);
    }
}

fn within_the_bucket(charges: &[(Mark, u64)]) {
    let window = u64::try_from(WINDOW.as_micros()).unwrap();
    for (index, (first, _)) in charges.iter().enumerate() {
        let mut taken = 0;
        for (mark, cost) in &charges[index..] {
            taken += cost;
            let micros = mark.at.as_micros() - first.at.as_micros() + 1;
            let bound = TENANT + REFILL * micros / window;
            assert!(taken <= bound, "{taken} in {micros} us");
        }
    }
}

/// Each admitted call of a plain counter takes one number, each number is taken once, and a call that was
/// answered before another was sent has the smaller one: the calls can be put in one order.
#[tokio::test(flavor = "multi_thread")]
async fn a_counter_is_linearizable() {
    const LIMIT: u64 = 3_000;
    let counter = Arc::new(policy(Quota::fixed_window(LIMIT, Period::DAY)));
    let (_server, mut calls) = hammer(|store, _, _| {
        let counter = counter.clone();
        async move {
            let key = Key::new(["ratelimit", "counter"]);
            send(&store, 0, 1, &[(0, &counter, key)]).await
        }
    })
    .await;
    let first_full = calls.iter().filter(|call| !call.admitted);
    let first_full = first_full.map(|call| call.answered).min().unwrap();
    for call in calls.iter().filter(|call| !call.admitted) {
        assert_eq!(call.steps[0].1.used, LIMIT, "denied only when it is full");
    }
    calls.retain(|call| call.admitted);
    calls.sort_by_key(|call| call.steps[0].1.used);
    let numbers = calls.iter().map(|call| call.steps[0].1.used);
    assert!(numbers.eq(1..=LIMIT), "distinct and consecutive");
    let mut earliest_later_answer = first_full;
    for call in calls.iter().rev() {
        assert!(call.sent <= earliest_later_answer, "a later call was over");
        earliest_later_answer = earliest_later_answer.min(call.answered);
    }
}
