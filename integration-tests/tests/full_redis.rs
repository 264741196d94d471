//! A Redis that is out of memory and evicts nothing: what is given back is taken back all the same, where the server can
//! (Redis 7); what would take more is refused, and nothing of it is done.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{RedisServer, eventually, policy, redis_limiter};
use limiter_core::limit::{
    Action, Capabilities, Charge, Group, LimitStore, Limiter, Observed, OperationId, Outage,
    Outcome, Period, Policy, Quota, Step,
};
use limiter_core::{Effect, Error, ErrorKind, Key};
use limiter_redis::RedisStore;

const TTL: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(5);

struct World {
    server: RedisServer,
    limiter: Limiter,
}

impl World {
    fn new() -> Self {
        let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]);
        let limiter = redis_limiter(&server.config());
        Self { server, limiter }
    }

    /// From now on the server is full: it keeps what it holds, and takes no more.
    fn fill(&self) {
        self.server
            .command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    }

    fn make_room(&self) {
        self.server
            .command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    }

    /// Whether the server runs scripts that say that they may write when it is full.
    fn can_give(&self) -> bool {
        let info: String = self.server.command(&["INFO", "server"]);
        let version = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"))
            .unwrap();
        version.split('.').next().unwrap().parse::<u32>().unwrap() >= 7
    }

    async fn used(&self, policy: &Policy, name: &str) -> u64 {
        let key = policy.key([name]);
        self.limiter.peek(policy, &key).await.unwrap().used
    }
}

fn budgets() -> [Policy; 4] {
    [
        policy(Quota::fixed_window(100, Period::DAY)),
        policy(Quota::sliding_window(100, Period::DAY)),
        policy(Quota::sliding_log(100, Period::DAY)),
        policy(Quota::token_bucket(100, 1, Period::DAY)),
    ]
}

#[tokio::test]
async fn what_is_given_back_is_taken_back() {
    let world = World::new();
    if !world.can_give() {
        // Older servers refuse: docs/redis-setup.md says so. What is refused is retried and logged.
        return;
    }
    let streams = policy(Quota::concurrency(2));
    let mut held = Vec::new();
    for budget in budgets() {
        let key = |name| budget.key([name]);
        let refund = key("refund");
        let charge = [Charge::new(&budget, &refund).with_cost(40)];
        let charged = world.limiter.charge(&charge).await.unwrap().1.unwrap();
        let mut reserved = Vec::new();
        for key in [key("settle"), key("cancel")] {
            let estimate = [Charge::new(&budget, &key).with_cost(40)];
            let reservation = world.limiter.reserve(&estimate, TTL).await.unwrap();
            reserved.push(reservation.held().unwrap());
        }
        held.push((budget.clone(), charged, reserved));
    }
    let key = streams.key(["all"]);
    let stream = [Charge::new(&streams, &key)];
    let lease = world
        .limiter
        .acquire(&stream, TTL)
        .await
        .unwrap()
        .held()
        .unwrap();

    world.fill();
    for (budget, charged, reserved) in held {
        let name = budget.name();
        let refused = world
            .limiter
            .try_check(&budget, &budget.key(["refund"]))
            .await
            .unwrap_err();
        let expected = (ErrorKind::Server, Effect::No);
        assert_eq!((refused.kind(), refused.effect()), expected, "{refused}");
        charged.refund().await.unwrap();
        assert_eq!(world.used(&budget, "refund").await, 0, "{name}");
        let [settle, cancel] = <[_; 2]>::try_from(reserved).unwrap();
        assert_eq!(settle.settle(&[10]).await.unwrap().charged, [10], "{name}");
        assert_eq!(world.used(&budget, "settle").await, 10, "{name}");
        cancel.cancel().await.unwrap();
        assert_eq!(world.used(&budget, "cancel").await, 0, "{name}");
    }
    lease.release().await.unwrap();
    assert_eq!(world.used(&streams, "all").await, 0);
    // An instance that connects to a full server gives back too.
    let other = redis_limiter(&world.server.config());
    other.reset(&streams, &key).await.unwrap();
}

/// A lease more is refused, also where older ones that have run out could make room for it.
#[tokio::test]
async fn a_full_redis_takes_no_lease() {
    let world = World::new();
    let streams = policy(Quota::concurrency(10));
    let (idle, over, mixed) = ("idle", "over", "mixed");
    let keys = [idle, over, mixed].map(|name| streams.key([name]));
    let store = RedisStore::new(&world.server.config().without_breaker()).unwrap();
    // No guard, which would renew it.
    let acquire = async |key: &Key, name: &str, ttl, cost| {
        let lease = &OperationId::new(name);
        let steps = [Step::new(
            &streams,
            key,
            Action::Acquire { lease, cost, ttl },
        )];
        let group = Group::new(&steps, &Capabilities::ALL).unwrap();
        let mut observed = [Observed::default()];
        store.apply(&group, &mut observed).await?;
        Ok::<_, Error>(observed[0])
    };
    for (key, name, cost) in [(1, "a", 1), (2, "b", 1), (2, "c", 3)] {
        acquire(&keys[key], name, SHORT, cost).await.unwrap();
    }
    acquire(&keys[2], "d", TTL, 2).await.unwrap();
    eventually("the short ones have run out", async || {
        let left = [
            world.used(&streams, over).await,
            world.used(&streams, mixed).await,
        ];
        (left == [0, 2]).then_some(())
    })
    .await;
    world.fill();
    for key in &keys {
        for cost in [1, 2] {
            let refused = acquire(key, "more", TTL, cost).await.unwrap_err();
            let expected = (ErrorKind::Server, Effect::No);
            assert_eq!((refused.kind(), refused.effect()), expected, "{refused}");
        }
    }
    // Nor after the denial of a shadow, which forgets what has run out.
    let shadow = streams.clone().with_shadow(true);
    let ids = ["shadow", "more"].map(OperationId::new);
    let take = |lease, cost| Action::Acquire {
        lease,
        cost,
        ttl: TTL,
    };
    let steps = [
        Step::new(&shadow, &keys[2], take(&ids[0], 9)),
        Step::new(&streams, &keys[0], take(&ids[1], 1)),
    ];
    let group = Group::new(&steps, &Capabilities::ALL).unwrap();
    let refused = store.apply(&group, &mut [Observed::default(); 2]).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Server);
    world.make_room();
    for (name, used) in [(idle, 0), (over, 0), (mixed, 2)] {
        assert_eq!(world.used(&streams, name).await, used, "{name}");
    }
    for key in &keys {
        assert!(acquire(key, "more", TTL, 8).await.unwrap().is_admitted());
    }
}

/// C2: full is an outage to a policy, and the next charge finds room again.
#[tokio::test]
async fn what_would_take_more_is_an_outage() {
    let world = World::new();
    let [budget, ..] = budgets();
    let allow = budget.clone().with_outage(Outage::Allow);
    let key = budget.key(["42"]);
    world.limiter.try_check(&budget, &key).await.unwrap();
    world.fill();
    let denied = world.limiter.check(&budget, &key).await;
    let kind = ErrorKind::Server;
    assert_eq!(denied.outcome, Outcome::Unavailable { kind });
    let allowed = world.limiter.check(&allow, &key).await;
    assert!(allowed.is_allowed() && allowed.degraded && !allowed.seen);
    assert_eq!(world.limiter.peek(&budget, &key).await.unwrap().used, 1);
    world.make_room();
    assert_eq!(
        world.limiter.try_check(&budget, &key).await.unwrap().used,
        2
    );
}
