//! What a limiter answers for a store that cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::health::Health;
use crate::key::Key;
use crate::limit::wrap::Stack;
use crate::limit::{
    Acquired, Capabilities, Charge, Group, Issuer, LeaseStatus, LimitStore, Limiter, Observed,
    OperationId, Outage, Outcome, Period, Policy, Quota, Reserved, Share, Source,
};
use crate::outage_log::{OutageLog, Substitute};
use crate::testing::MapStore;

/// A store that is never there.
#[derive(Debug)]
struct Broken(ErrorKind);

#[async_trait::async_trait]
impl LimitStore for Broken {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn is_issuer(&self, _: Issuer) -> bool {
        false
    }

    fn try_apply_now(
        &self,
        _group: &Group<'_>,
        _observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, _group: &Group<'_>, _: &mut [Observed]) -> Result<(), Error> {
        Err(Error::new(self.0, "limit.apply", "not there"))
    }

    async fn health(&self) -> Health {
        Health::new("broken", false, None, "not there")
    }
}

fn policy(outage: Outage) -> Policy {
    let quota = Quota::fixed_window(5, Period::HOUR).unwrap();
    Policy::new("p", quota).unwrap().with_outage(outage)
}

/// C2: fail closed or open, as the policy says; misuse is neither.
#[tokio::test]
async fn outage_rules_apply_to_outages_only() {
    let key = Key::new(["ratelimit", "a"]);
    let down = Limiter::new(Broken(ErrorKind::Connection));
    let denied = down.check(&policy(Outage::Deny), &key).await;
    let kind = ErrorKind::Connection;
    assert_eq!(denied.outcome, Outcome::Unavailable { kind });
    let allowed = down.check(&policy(Outage::Allow), &key).await;
    assert!(allowed.is_allowed() && allowed.degraded);
    assert_eq!(allowed.source, Source::Outage);
    let never = down.check_n(&policy(Outage::Allow), &key, 6).await;
    assert_eq!(
        never.outcome,
        Outcome::Never,
        "an outage does not raise a limit"
    );
    assert!(down.reset(&policy(Outage::Allow), &key).await.is_err());
    assert!(!down.is_healthy().await);

    let (allow, deny) = (policy(Outage::Allow), policy(Outage::Deny));
    let other = Key::new(["ratelimit", "b"]);
    let mixed = [Charge::new(&allow, &key), Charge::new(&deny, &other)];
    assert!(!down.check_all(&mixed).await.is_allowed(), "Deny wins");

    let misused = Limiter::new(Broken(ErrorKind::Unsupported));
    let refused = misused.check(&policy(Outage::Allow), &key).await;
    assert!(!refused.is_allowed(), "misuse is no outage");
}

#[tokio::test]
async fn a_shadow_never_blocks_and_misuse_never_admits() {
    let broken = Limiter::new(Broken(ErrorKind::Unsupported));
    let key = Key::new(["ratelimit", "a"]);
    let shadow = policy(Outage::Deny).with_shadow(true);
    let watched = broken.check(&shadow, &key).await;
    assert!(watched.is_allowed());
    assert!(matches!(watched.shadow, Some(Outcome::Unavailable { .. })));
    assert!(
        broken
            .check_all(&[Charge::new(&shadow, &key)])
            .await
            .is_allowed()
    );
    assert!(!broken.check_all(&[]).await.is_allowed());
}

/// A store with I/O that can be switched off.
#[derive(Clone, Debug)]
struct Switched {
    inner: MapStore,
    is_away: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl LimitStore for Switched {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.inner.is_issuer(issuer)
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        if self.is_away.load(Ordering::SeqCst) {
            let error = Error::new(ErrorKind::Connection, "limit.apply", "not there");
            return Err(error);
        }
        self.inner.apply(group, observed).await
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}

/// A limiter whose store can be away, and its local store.
struct World {
    limiter: Limiter,
    store: Switched,
    local: MapStore,
    log: OutageLog,
}

impl World {
    fn new() -> Self {
        let store = Switched {
            inner: MapStore::new(Capabilities::ALL),
            is_away: Arc::default(),
        };
        let local = MapStore::new(Capabilities::ALL);
        let log = OutageLog::new();
        let stack = Stack::new(store.clone())
            .local(local.clone())
            .log(log.clone());
        Self {
            limiter: Limiter::raw(stack.build()),
            store,
            local,
            log,
        }
    }

    fn set_away(&self, is_away: bool) {
        self.store.is_away.store(is_away, Ordering::SeqCst);
    }

    /// What the store and the local one have counted.
    async fn used(&self, policy: &Policy, key: &Key) -> (u64, u64) {
        let used = async |store: MapStore| {
            let limiter = Limiter::new(store);
            limiter.peek(policy, key).await.unwrap().used
        };
        let store = used(self.store.inner.clone()).await;
        (store, used(self.local.clone()).await)
    }
}

fn shared(name: &str, limit: u64, part: u32, of: u32) -> Policy {
    let share = Share::new(part, of).unwrap();
    let quota = Quota::fixed_window(limit, Period::HOUR).unwrap();
    Policy::new(name, quota)
        .unwrap()
        .with_outage(Outage::Local { share })
}

/// N5, I-B1: the share, rounded down, counted on from one outage to the next; a dearer request is not told that it never will be
/// admitted.
#[tokio::test]
async fn a_local_share_is_counted_here() {
    let world = World::new();
    let policy = shared("p", 10, 1, 3);
    let key = policy.key(["a"]);
    let check = async |cost| world.limiter.check_n(&policy, &key, cost).await;
    assert!(!check(4).await.degraded);
    for expected in [1, 2] {
        world.set_away(true);
        let local = check(1).await;
        assert!(local.is_allowed() && local.degraded, "{local:?}");
        assert_eq!((local.limit, local.used), (3, expected));
        assert_eq!(local.source, Source::Memory);
        assert_eq!(local.substitute(), Some(Substitute::Local));
        world.set_away(false);
        assert_eq!(check(0).await.used, 4);
    }
    world.set_away(true);
    assert!(check(1).await.is_allowed());
    let denied = check(1).await;
    assert!(denied.retry_after().is_some(), "{denied:?}");
    let kind = ErrorKind::Connection;
    assert_eq!(check(4).await.outcome, Outcome::Unavailable { kind });
    assert_eq!(check(11).await.outcome, Outcome::Never);
    assert_eq!(world.used(&policy, &key).await, (4, 3));
    // A reset of what cannot be reached is none; what is counted here is forgotten.
    assert!(world.limiter.reset(&policy, &key).await.is_err());
    assert_eq!(world.used(&policy, &key).await, (4, 0));
    let nothing = shared("q", 2, 1, 3);
    let denied = world.limiter.check(&nothing, &nothing.key(["a"])).await;
    assert_eq!(denied.outcome, Outcome::Unavailable { kind });
    let totals: Vec<u64> = world.log.totals().map(|(_, count)| count).collect();
    assert_eq!(totals[..3], [2, 0, 5], "denied, allowed, local");
}

/// N5: in a mixed group Deny wins, then Local, then Allow. Nothing is charged in part.
#[tokio::test]
async fn the_strictest_rule_of_a_group_decides() {
    let world = World::new();
    world.set_away(true);
    let (local, allow, deny) = (
        shared("local", 4, 1, 2),
        policy(Outage::Allow),
        policy(Outage::Deny).with_scope("admin").unwrap(),
    );
    let keys = [local.key(["a"]), allow.key(["b"]), deny.key(["c"])];
    let charges = [&local, &allow, &deny].into_iter().zip(&keys);
    let charges: Vec<Charge<'_>> = charges
        .map(|(policy, key)| Charge::new(policy, key))
        .collect();
    let all = world.limiter.check_all(&charges).await;
    assert!(matches!(all.outcome, Outcome::Unavailable { .. }));
    assert_eq!(world.used(&local, &keys[0]).await, (0, 0), "Deny wins");
    for admitted in [true, true, false] {
        let two = world.limiter.check_all(&charges[..2]).await;
        assert_eq!(two.is_allowed(), admitted, "{two:?}");
        assert_eq!(two.decisions[1].source, Source::Outage);
        let names: Vec<_> = two.violated().map(|part| part.policy.name()).collect();
        assert_eq!(names.is_empty(), admitted);
    }
    assert_eq!(world.used(&local, &keys[0]).await, (0, 2));
    // A shadow never blocks, whatever its rule is.
    let shadow = deny.clone().with_shadow(true);
    let watched = [Charge::new(&shadow, &keys[2]), charges[1]];
    assert!(world.limiter.check_all(&watched).await.is_allowed());
    let refused = world.limiter.check_n(&allow, &keys[1], 6).await;
    assert_eq!(refused.outcome, Outcome::Never);
}

/// What was made here is settled, cancelled, renewed and given back here, also once the store is back; and a retry under its id
/// finds it.
#[tokio::test(start_paused = true)]
async fn what_was_made_locally_ends_locally() {
    const TTL: Duration = Duration::from_secs(60);
    let world = World::new();
    let limiter = &world.limiter;
    let policy = shared("p", 100, 1, 1);
    let key = policy.key(["a"]);
    let charge = [Charge::new(&policy, &key).with_cost(10)];
    let streams = Policy::new("streams", Quota::concurrency(1).unwrap())
        .unwrap()
        .with_outage(Outage::Local {
            share: Share::WHOLE,
        });
    let stream = streams.key(["a"]);
    let id = |name: &str| OperationId::new(name);
    world.set_away(true);
    let held = async |id| {
        let reserved = limiter.reserve_as(id, &charge, TTL).await.unwrap();
        reserved.held().unwrap()
    };
    let (settled, cancelled, again) = (
        held(id("a")).await,
        held(id("b")).await,
        held(id("c")).await,
    );
    let (_, charged) = limiter.charge_once(&id("once"), &charge).await.unwrap();
    let lease = limiter
        .acquire(&[Charge::new(&streams, &stream)], TTL)
        .await;
    let lease = lease.unwrap().held().unwrap();
    assert_eq!(world.used(&policy, &key).await, (0, 40));
    world.set_away(false);
    // Once more, as after an answer that did not come.
    let replay = limiter.charge_once(&id("once"), &charge).await.unwrap().0;
    assert!(replay.is_replay() && replay.is_allowed());
    assert!(held(id("c")).await.is_replay());
    assert_eq!(world.used(&policy, &key).await, (0, 40));
    assert_eq!(settled.settle(&[3]).await.unwrap().charged, [3]);
    cancelled.cancel().await.unwrap();
    again.cancel().await.unwrap();
    charged.unwrap().refund().await.unwrap();
    assert_eq!(world.used(&policy, &key).await, (0, 3));
    // It goes on being renewed here. The sleeps are of paused time: unlike `advance`, they let the renewals run.
    world.local.clock.advance(TTL / 2);
    tokio::time::sleep(TTL / 2).await;
    world.local.clock.advance(TTL / 2);
    tokio::time::sleep(TTL).await;
    assert_eq!(lease.status(), LeaseStatus::Held);
    assert_eq!(world.used(&streams, &stream).await, (0, 1));
    lease.release().await.unwrap();
    assert_eq!(world.used(&streams, &stream).await, (0, 0));
    // Others are made at the store.
    assert!(matches!(
        limiter.reserve_as(id("d"), &charge, TTL).await.unwrap(),
        Reserved::Held(_)
    ));
    let other = limiter
        .acquire(&[Charge::new(&streams, &stream)], TTL)
        .await;
    assert!(matches!(other.unwrap(), Acquired::Held(_)));
    assert_eq!(world.used(&policy, &key).await, (10, 3));
}

/// A group that an outage's rules admitted in part unseen and in part here ends as one.
#[tokio::test]
async fn a_mixed_reservation_ends_as_one() {
    let world = World::new();
    world.set_away(true);
    let (local, allow) = (shared("local", 100, 1, 1), policy(Outage::Allow));
    let keys = [local.key(["a"]), allow.key(["b"])];
    let charges = [
        Charge::new(&local, &keys[0]).with_cost(10),
        Charge::new(&allow, &keys[1]),
    ];
    let ttl = Duration::from_secs(60);
    let reserved = world.limiter.reserve(&charges, ttl).await.unwrap();
    let reservation = reserved.held().unwrap();
    assert_eq!(world.used(&local, &keys[0]).await, (0, 10));
    world.set_away(false);
    let settled = reservation.settle(&[4, 1]).await.unwrap();
    assert_eq!(settled.charged, [4, 0]);
    assert_eq!(world.used(&local, &keys[0]).await, (0, 4));
}

/// Known fault: "a safety rule that holds only if a wrapper was stacked by hand": it is told at once, and not first in an outage.
#[tokio::test]
async fn a_local_rule_without_a_local_store_is_refused() {
    let store = Switched {
        inner: MapStore::new(Capabilities::ALL),
        is_away: Arc::default(),
    };
    let policy = shared("p", 10, 1, 3);
    let key = policy.key(["a"]);
    let limiter = Limiter::new(store);
    let refused = limiter.try_check(&policy, &key).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.message().contains("Stack::local"), "{refused}");
    // A store in this process needs none.
    let limiter = Limiter::new(MapStore::new(Capabilities::ALL));
    assert!(limiter.check(&policy, &key).await.is_allowed());
}

/// An operation's id is that of its group: what was made locally admits nothing else, and a denial was not made at all.
#[tokio::test]
async fn a_local_operation_admits_nothing_but_itself() {
    let world = World::new();
    let limiter = &world.limiter;
    let (local, admin) = (shared("local", 2, 1, 1), policy(Outage::Deny));
    let keys = [local.key(["a"]), admin.key(["a"])];
    let once = |name: &str| OperationId::new(name);
    let user = Charge::new(&local, &keys[0]);
    world.set_away(true);
    let made = limiter.charge_once(&once("k"), &[user]).await.unwrap().0;
    assert!(made.is_allowed() && made.is_degraded());
    world.set_away(false);
    // With a policy more, which nobody has asked for.
    let both = [user, Charge::new(&admin, &keys[1])];
    let error = limiter.charge_once(&once("k"), &both).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    // The same group, under a rule that denies by now.
    let strict = local.clone().with_outage(Outage::Deny);
    let user = Charge::new(&strict, &keys[0]);
    let now = limiter.charge_once(&once("k"), &[user]).await.unwrap().0;
    assert!(!now.is_degraded() && !now.is_replay(), "{now:?}");
    // Denied here, it is asked for again at the store.
    world.set_away(true);
    let dear = [Charge::new(&local, &keys[0]).with_cost(2)];
    let denied = limiter.charge_once(&once("d"), &dear).await.unwrap().0;
    assert!(!denied.is_allowed() && denied.is_degraded());
    world.set_away(false);
    let other = local.key(["b"]);
    let dear = [Charge::new(&local, &other).with_cost(2)];
    let asked = limiter.charge_once(&once("d"), &dear).await.unwrap().0;
    assert!(asked.is_allowed() && !asked.is_degraded(), "{asked:?}");
}

/// I-H5: what another policy of the group can never admit is not counted here; and a shadow without a share keeps nobody out.
#[tokio::test]
async fn a_group_is_counted_locally_whole_or_not_at_all() {
    let world = World::new();
    world.set_away(true);
    let (local, allow) = (shared("local", 100, 1, 1), policy(Outage::Allow));
    let keys = [local.key(["a"]), allow.key(["b"])];
    let group = [
        Charge::new(&local, &keys[0]),
        Charge::new(&allow, &keys[1]).with_cost(6),
    ];
    let never = world.limiter.check_all(&group).await;
    assert_eq!(never.outcome, Outcome::Never);
    assert_eq!(world.used(&local, &keys[0]).await, (0, 0));
    let shadow = shared("shadow", 2, 1, 3).with_shadow(true);
    let watched = shadow.key(["a"]);
    let group = [group[0], Charge::new(&shadow, &watched)];
    assert!(world.limiter.check_all(&group).await.is_allowed());
    assert_eq!(world.used(&local, &keys[0]).await, (0, 1));
}

/// A lease over a limit that is counted here and one that is allowed unseen is renewed and released as one.
#[tokio::test(start_paused = true)]
async fn a_mixed_lease_is_held() {
    const TTL: Duration = Duration::from_secs(60);
    let world = World::new();
    let quota = Quota::concurrency(1).unwrap();
    let streams = |name: &str| Policy::new(name, quota).unwrap();
    let share = Share::WHOLE;
    let local = streams("local").with_outage(Outage::Local { share });
    let allow = streams("allow").with_outage(Outage::Allow);
    // A share of one, rounded down, is nothing.
    let share = Share::new(1, 2).unwrap();
    let shadow = streams("shadow").with_outage(Outage::Local { share });
    let shadow = shadow.with_shadow(true);
    let policies = [&local, &allow, &shadow];
    let keys = policies.map(|policy| policy.key(["a"]));
    let charges = policies.into_iter().zip(&keys);
    let charges: Vec<Charge<'_>> = charges
        .map(|(policy, key)| Charge::new(policy, key))
        .collect();
    world.set_away(true);
    let lease = world.limiter.acquire(&charges, TTL).await.unwrap().held();
    let lease = lease.unwrap();
    for _ in 0..3 {
        // Of paused time: unlike `advance`, it lets the renewals run.
        world.local.clock.advance(TTL / 2);
        tokio::time::sleep(TTL / 2).await;
        assert_eq!(lease.status(), LeaseStatus::Held);
    }
    world.set_away(false);
    assert_eq!(world.used(&local, &keys[0]).await, (0, 1));
    lease.release().await.unwrap();
    assert_eq!(world.used(&local, &keys[0]).await, (0, 0));
}

/// A reservation's id is that of its group too.
#[tokio::test]
async fn a_local_reservation_admits_nothing_but_itself() {
    const TTL: Duration = Duration::from_secs(60);
    let world = World::new();
    let (local, allow) = (shared("local", 10, 1, 1), policy(Outage::Allow));
    let keys = [local.key(["a"]), allow.key(["b"])];
    let charges = [Charge::new(&local, &keys[0]), Charge::new(&allow, &keys[1])];
    let reserve = async |charges: &[Charge<'_>]| {
        world
            .limiter
            .reserve_as(OperationId::new("job"), charges, TTL)
            .await
    };
    world.set_away(true);
    let held = reserve(&charges[..1]).await.unwrap().held().unwrap();
    world.set_away(false);
    let error = reserve(&charges).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(
        reserve(&charges[..1])
            .await
            .unwrap()
            .held()
            .unwrap()
            .is_replay()
    );
    held.cancel().await.unwrap();
    assert_eq!(world.used(&local, &keys[0]).await, (0, 0));
    // Never stays never, also where the share is nothing.
    world.set_away(true);
    let small = shared("small", 2, 1, 3);
    let never = world.limiter.check_n(&small, &small.key(["a"]), 3).await;
    assert_eq!(never.outcome, Outcome::Never);
}
