//! A4, N1, I-H5: groups of user, tenant and global limits from several instances at once. Every
//! counter holds exactly what the admitted groups took: all of a group, or nothing of it.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;

use integration_tests::{RedisServer, policy, redis_limiter};
use limiter_core::Key;
use limiter_core::limit::{Charge, GroupDecision, Limiter, Period, Policy, Quota};
use limiter_memory::MemoryStore;
use tokio::sync::Barrier;

const INSTANCES: usize = 4;
const TASKS: usize = 32;
const USERS: usize = 8;
const TENANTS: usize = 2;
const CHARGES_A_TASK: usize = 60;

/// Eight users could take 480 requests, their two tenants 400, and everybody 300; each level denies.
const USER_LIMIT: u64 = 60;
const TENANT_LIMIT: u64 = 200;
const GLOBAL_LIMIT: u64 = 300;

struct Levels {
    user: Policy,
    tenant: Policy,
    global: Policy,
    users: Vec<Key>,
    tenants: Vec<Key>,
    everybody: Key,
}

impl Levels {
    fn new() -> Self {
        let keys = |level: &str, count: usize| -> Vec<Key> {
            (0..count)
                .map(|index| Key::new(["ratelimit", level, &index.to_string()]))
                .collect()
        };
        Self {
            // A sliding window would forget at midnight; both of these last from the first charge.
            user: policy(Quota::fixed_window(USER_LIMIT, Period::DAY)),
            tenant: policy(Quota::token_bucket(TENANT_LIMIT, 1, Period::DAY)),
            global: policy(Quota::fixed_window(GLOBAL_LIMIT, Period::MONTH)),
            users: keys("user", USERS),
            tenants: keys("tenant", TENANTS),
            everybody: Key::new(["ratelimit", "global"]),
        }
    }

    async fn charge(&self, limiter: &Limiter, user: usize, cost: u64) -> GroupDecision {
        let tenant = &self.tenants[user % TENANTS];
        let mut charges = [
            Charge::new(&self.user, &self.users[user]).with_cost(cost),
            Charge::new(&self.tenant, tenant).with_cost(cost),
            Charge::new(&self.global, &self.everybody).with_cost(cost),
        ];
        // Instances name the levels in different orders.
        charges.rotate_left(user % 3);
        limiter.try_check_all(&charges).await.unwrap()
    }

    async fn used(&self, limiter: &Limiter, policy: &Policy, keys: &[Key]) -> Vec<u64> {
        let mut used = Vec::new();
        for key in keys {
            used.push(limiter.peek(policy, key).await.unwrap().used);
        }
        used
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_four_instances() {
    let server = RedisServer::start();
    hammer([(); INSTANCES].map(|()| redis_limiter(&server.config()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_one_memory() {
    let store = MemoryStore::new();
    hammer([(); INSTANCES].map(|()| Limiter::new(store.clone()))).await;
}

async fn hammer(instances: [Limiter; INSTANCES]) {
    let levels = Arc::new(Levels::new());
    let start = Arc::new(Barrier::new(TASKS));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (levels, start) = (levels.clone(), start.clone());
            let limiter = instances[task % INSTANCES].clone();
            tokio::spawn(async move {
                let mut taken = [0; USERS];
                start.wait().await;
                for round in 0..CHARGES_A_TASK {
                    // Some users ask more than others, and for more.
                    let user = (task * round + round / 7) % USERS;
                    let cost = 1 + (round % 3) as u64;
                    let decision = levels.charge(&limiter, user, cost).await;
                    if decision.is_allowed() {
                        taken[user] += cost;
                    } else {
                        truthful(&decision, cost);
                    }
                }
                taken
            })
        })
        .collect();
    let mut taken = [0; USERS];
    for task in tasks {
        let mine = task.await.unwrap();
        for (sum, mine) in taken.iter_mut().zip(mine) {
            *sum += mine;
        }
    }

    let limiter = &instances[0];
    // What is left goes in ones.
    for (user, taken) in taken.iter_mut().enumerate() {
        while levels.charge(limiter, user, 1).await.is_allowed() {
            *taken += 1;
        }
    }
    let users = levels.used(limiter, &levels.user, &levels.users).await;
    assert_eq!(users, taken, "a user's counter is what the user was given");
    let mut by_tenant = [0; TENANTS];
    for (user, taken) in taken.iter().enumerate() {
        by_tenant[user % TENANTS] += taken;
    }
    let tenants = levels.used(limiter, &levels.tenant, &levels.tenants).await;
    assert_eq!(tenants, by_tenant, "a tenant's is the sum of its users'");
    let everybody = std::slice::from_ref(&levels.everybody);
    let global = levels.used(limiter, &levels.global, everybody).await;
    assert_eq!(global, [taken.iter().sum::<u64>()]);
    assert_eq!(global, [GLOBAL_LIMIT], "every unit was given out");
    assert!(taken.iter().all(|taken| *taken <= USER_LIMIT), "{taken:?}");
    assert!(by_tenant.iter().all(|taken| *taken <= TENANT_LIMIT));
}

/// A denial names each level that had no room, and only those.
fn truthful(decision: &GroupDecision, cost: u64) {
    for step in &decision.decisions {
        assert_eq!(
            step.is_allowed(),
            step.used + cost <= step.limit,
            "{step:?}"
        );
    }
    assert!(decision.violated().next().is_some());
}
