//! N2, N3, N6: reservations, refunds and leases as their guards keep them, over a store whose requests
//! and replies get lost, in tokio's paused time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: its failures are panics"
)]

use std::time::Duration;

use integration_tests::{Fault, Faulty, TokioClock, policy};
use limiter_core::limit::{
    Acquired, Calendar, Charge, LeaseStatus, Limiter, ModelCallReserved, OperationId, Outage,
    Outcome, Period, Policy, Quota, Reserved, TokenUsage, Unit, wrap::Stack,
};
use limiter_core::{ErrorKind, Key};
use limiter_memory::{MemoryConfig, MemoryStore};
use tokio::time::{Instant, sleep, timeout};

const TTL: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    /// Through the faults.
    limiter: Limiter,
    /// Around them.
    direct: Limiter,
    faults: Faulty,
}

impl World {
    fn new() -> Self {
        let config = MemoryConfig::default().with_clock(TokioClock::new());
        let memory = MemoryStore::with_config(&config);
        let faults = Faulty::new(memory.clone());
        Self {
            limiter: Limiter::new(Stack::new(faults.clone()).build()),
            direct: Limiter::new(memory),
            faults,
        }
    }

    async fn used(&self, policy: &Policy, key: &Key) -> u64 {
        self.direct.peek(policy, key).await.unwrap().used
    }
}

fn key(name: &str) -> Key {
    Key::new(["ratelimit", "guards", name])
}

fn daily(limit: u64) -> Policy {
    policy(Quota::fixed_window(limit, Period::DAY))
}

fn streams(limit: u64) -> Policy {
    policy(Quota::concurrency(limit))
}

async fn reserve(limiter: &Limiter, charges: &[Charge<'_>]) -> limiter_core::limit::Reservation {
    let reserved = limiter.reserve(charges, 10 * MINUTE).await.unwrap();
    reserved.held().expect("there is room")
}

/// Two budgets at once, settled each to its own amount; once.
#[tokio::test(start_paused = true)]
async fn a_reservation_is_settled_to_what_was_used() {
    let world = World::new();
    let (minute, day) = (
        policy(Quota::token_bucket(5_000, 1, Period::DAY)),
        daily(10_000),
    );
    let (a, b) = (key("minute"), key("day"));
    let estimate = [
        Charge::new(&minute, &a).with_cost(2_000),
        Charge::new(&day, &b).with_cost(2_000),
    ];
    let mut reservation = reserve(&world.limiter, &estimate).await;
    assert_eq!(world.used(&minute, &a).await, 2_000);
    reservation.started();
    let settled = reservation.settle(&[812, 2_500]).await.unwrap();
    assert_eq!(settled.charged, [812, 2_500]);
    assert_eq!(world.used(&minute, &a).await, 812);
    assert_eq!(world.used(&day, &b).await, 2_500);

    let denied = [
        Charge::new(&minute, &a).with_cost(4_188),
        Charge::new(&day, &b).with_cost(7_501),
    ];
    let Reserved::Denied(denied) = world.limiter.reserve(&denied, MINUTE).await.unwrap() else {
        panic!("the day has no room");
    };
    assert_eq!(denied.violated().count(), 1);
    assert_eq!(world.used(&minute, &a).await, 812, "all or nothing");
}

/// Requests count one, tokens count what the provider reports.
#[tokio::test(start_paused = true)]
async fn a_model_call_is_settled_to_what_the_provider_reports() {
    let world = World::new();
    let tokens = |quota| policy(quota).with_unit(Unit::Tokens);
    let limits = [
        daily(2),
        tokens(Quota::token_bucket(5_000, 1, Period::DAY)),
        tokens(Quota::calendar_window(6_000, Calendar::Month)),
    ];
    let keys = ["requests", "minute", "month"].map(key);
    let each: Vec<_> = limits.iter().zip(&keys).collect();
    let reserve = async |estimate| {
        world
            .limiter
            .reserve_model_call(&each, estimate, MINUTE)
            .await
            .unwrap()
    };
    let used = async || {
        let mut all = Vec::new();
        for (policy, key) in &each {
            all.push(world.used(policy, key).await);
        }
        all
    };
    let ModelCallReserved::Held(mut call) = reserve(4_000).await else {
        panic!("there is room");
    };
    assert_eq!(used().await, [1, 4_000, 4_000]);
    call.started();
    let usage = TokenUsage {
        prompt: 700,
        completion: 500,
    };
    assert_eq!(call.settle(usage).await.unwrap().charged, [1, 1_200, 1_200]);
    assert_eq!(used().await, [1, 1_200, 1_200]);

    let ModelCallReserved::Denied(denied) = reserve(3_801).await else {
        panic!("the bucket has 3,800");
    };
    assert_eq!(denied.violated().count(), 1);
    let ModelCallReserved::Held(call) = reserve(3_800).await else {
        panic!("there is room");
    };
    call.cancel().await.unwrap();
    assert_eq!(used().await, [1, 1_200, 1_200]);
}

/// The client that disconnects must not get back what was spent; the one that never began does.
#[tokio::test(start_paused = true)]
async fn a_dropped_reservation_stays_charged_once_it_started() {
    let world = World::new();
    let (policy, key) = (daily(100), key("dropped"));
    let estimate = [Charge::new(&policy, &key).with_cost(40)];
    drop(reserve(&world.limiter, &estimate).await);
    settle_down().await;
    assert_eq!(
        world.used(&policy, &key).await,
        0,
        "never begun: given back"
    );

    let mut reservation = reserve(&world.limiter, &estimate).await;
    reservation.started();
    drop(reservation);
    settle_down().await;
    assert_eq!(world.used(&policy, &key).await, 40, "begun: charged");

    reserve(&world.limiter, &estimate)
        .await
        .cancel()
        .await
        .unwrap();
    assert_eq!(world.used(&policy, &key).await, 40, "cancelled: given back");
}

/// Requests and replies get lost; what arrives twice is applied once.
#[tokio::test(start_paused = true)]
async fn settlements_are_delivered_in_the_end_and_once() {
    for fault in [Fault::Request, Fault::Reply] {
        let world = World::new();
        let (policy, key) = (daily(1_000), key("delivery"));
        let mut reservation =
            reserve(&world.limiter, &[Charge::new(&policy, &key).with_cost(500)]).await;
        reservation.started();
        world.faults.set(fault);
        let error = reservation.settle(&[120]).await.unwrap_err();
        assert!(error.kind().is_outage(), "{error}");
        sleep(MINUTE).await;
        world.faults.set(Fault::None);
        sleep(MINUTE).await;
        assert_eq!(world.used(&policy, &key).await, 120, "{fault:?}");

        let (_, charged) = world
            .limiter
            .charge(&[Charge::new(&policy, &key).with_cost(7)])
            .await
            .unwrap();
        let charged = charged.unwrap();
        world.faults.set(fault);
        assert!(charged.refund().await.is_err());
        world.faults.set(Fault::None);
        sleep(MINUTE).await;
        charged.refund().await.unwrap();
        charged.clone().refund().await.unwrap();
        assert_eq!(
            world.used(&policy, &key).await,
            120,
            "{fault:?}: refunded once"
        );
        let calls = world.faults.calls();
        sleep(MINUTE).await;
        assert_eq!(world.faults.calls(), calls, "nobody goes on asking");
    }
}

/// A key that a group charges twice is refunded twice, also after an outage.
#[tokio::test(start_paused = true)]
async fn all_of_a_group_is_refunded() {
    let world = World::new();
    let (policy, key) = (daily(100), key("refund-twice"));
    let charge = Charge::new(&policy, &key);
    let charges = [charge.with_cost(3), charge.with_cost(4)];
    let (_, charged) = world.limiter.charge(&charges).await.unwrap();
    world.faults.set(Fault::Request);
    charged.unwrap().refund().await.unwrap_err();
    world.faults.set(Fault::None);
    sleep(MINUTE).await;
    assert_eq!(world.used(&policy, &key).await, 0);
}

/// A reservation whose answer never came has no owner: it is cancelled.
#[tokio::test(start_paused = true)]
async fn a_reservation_without_an_answer_is_cancelled() {
    let world = World::new();
    let (policy, key) = (daily(100), key("unanswered"));
    world.faults.set(Fault::Reply);
    let estimate = [Charge::new(&policy, &key).with_cost(40)];
    world
        .limiter
        .reserve(&estimate, 10 * MINUTE)
        .await
        .unwrap_err();
    assert_eq!(world.used(&policy, &key).await, 40);
    world.faults.set(Fault::None);
    sleep(MINUTE).await;
    assert_eq!(world.used(&policy, &key).await, 0);
}

/// One with a name is asked for again, and the retry must not lose its charge to a late cancellation.
#[tokio::test(start_paused = true)]
async fn a_named_reservation_without_an_answer_waits_for_its_retry() {
    for pause in [Duration::ZERO, MINUTE] {
        let world = World::new();
        let (policy, key) = (daily(100), key("retried"));
        let estimate = [Charge::new(&policy, &key).with_cost(40)];
        let id = OperationId::random();
        let reserve = async || {
            let reserved = world.limiter.reserve_as(id.clone(), &estimate, 10 * MINUTE);
            reserved.await
        };
        world.faults.set(Fault::Reply);
        reserve().await.unwrap_err();
        world.faults.set(Fault::None);
        sleep(pause).await;
        let mut reservation = reserve().await.unwrap().held().unwrap();
        reservation.started();
        sleep(MINUTE).await;
        assert_eq!(world.used(&policy, &key).await, 40, "it is at work");
        assert_eq!(reservation.settle(&[30]).await.unwrap().charged, [30]);
        assert_eq!(world.used(&policy, &key).await, 30);
    }

    // What was cancelled is not held.
    let world = World::new();
    let (policy, key) = (daily(100), key("cancelled"));
    let (id, estimate) = (OperationId::random(), [Charge::new(&policy, &key)]);
    let reserve = || world.limiter.reserve_as(id.clone(), &estimate, MINUTE);
    drop(reserve().await.unwrap());
    settle_down().await;
    assert_eq!(reserve().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_reservation_ends_with_its_time() {
    let world = World::new();
    let (policy, key) = (daily(100), key("late"));
    let mut reservation =
        reserve(&world.limiter, &[Charge::new(&policy, &key).with_cost(40)]).await;
    reservation.started();
    sleep(11 * MINUTE).await;
    let error = reservation.settle(&[1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Expired);
    assert_eq!(world.used(&policy, &key).await, 40, "the estimate stands");
}

/// N3: the retry of an answer that did not come charges nothing more.
#[tokio::test(start_paused = true)]
async fn a_charge_is_made_once_under_its_operation_id() {
    let world = World::new();
    let (policy, key) = (daily(100), key("once"));
    let charges = [Charge::new(&policy, &key).with_cost(5)];
    let id = OperationId::random();
    world.faults.set(Fault::Reply);
    let lost = world.limiter.charge_once(&id, &charges).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Timeout);
    world.faults.set(Fault::None);
    let (decision, charged) = world.limiter.charge_once(&id, &charges).await.unwrap();
    assert!(decision.is_allowed());
    assert_eq!(world.used(&policy, &key).await, 5);

    let other = [Charge::new(&policy, &key).with_cost(6)];
    let conflict = world.limiter.charge_once(&id, &other).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);

    charged.unwrap().refund().await.unwrap();
    let (_, again) = world.limiter.charge_once(&id, &charges).await.unwrap();
    again.unwrap().refund().await.unwrap();
    assert_eq!(world.used(&policy, &key).await, 0, "one charge, one refund");
    sleep(2 * MINUTE).await;
    world.limiter.charge_once(&id, &charges).await.unwrap();
    assert_eq!(
        world.used(&policy, &key).await,
        5,
        "forgotten after a minute"
    );
}

/// A forgotten id names another charge, with a refund of its own.
#[tokio::test(start_paused = true)]
async fn an_operation_id_that_is_used_again_can_be_refunded_again() {
    let world = World::new();
    let (policy, key) = (daily(100), key("again"));
    let charges = [Charge::new(&policy, &key).with_cost(5)];
    let id = OperationId::new("again");
    for _ in 0..3 {
        let (_, charged) = world.limiter.charge_once(&id, &charges).await.unwrap();
        assert_eq!(world.used(&policy, &key).await, 5);
        charged.unwrap().refund().await.unwrap();
        assert_eq!(world.used(&policy, &key).await, 0);
        sleep(2 * MINUTE).await;
    }
}

/// LESSONS: leases of a fixed length stop counting streams that are longer.
#[tokio::test(start_paused = true)]
async fn a_stream_of_three_lease_lengths_stays_counted() {
    let world = World::new();
    let (policy, key) = (streams(1), key("stream"));
    let charges = [Charge::new(&policy, &key)];
    let lease = world
        .limiter
        .acquire(&charges, TTL)
        .await
        .unwrap()
        .held()
        .unwrap();
    let end = Instant::now() + 3 * TTL;
    while Instant::now() < end {
        sleep(Duration::from_secs(1)).await;
        let other = world.limiter.acquire(&charges, TTL).await.unwrap();
        assert!(matches!(other, Acquired::Denied(_)), "it is held");
    }
    assert_eq!(lease.status(), LeaseStatus::Held);
    lease.release().await.unwrap();
    assert!(
        world
            .limiter
            .acquire(&charges, TTL)
            .await
            .unwrap()
            .held()
            .is_some()
    );
    settle_down().await;
    assert_eq!(world.used(&policy, &key).await, 0, "dropped: released");
}

/// The holder dies: its runtime, its renewals, everything.
#[tokio::test(start_paused = true)]
async fn a_killed_holders_lease_frees_itself() {
    let world = World::new();
    let (policy, key) = (streams(1), key("killed"));
    let charges = [Charge::new(&policy, &key)];
    let lease = world
        .limiter
        .acquire(&charges, TTL)
        .await
        .unwrap()
        .held()
        .unwrap();
    // Nothing of it arrives any more.
    world.faults.set(Fault::Request);
    assert_eq!(world.used(&policy, &key).await, 1);
    sleep(TTL - Duration::from_secs(1)).await;
    assert_eq!(world.used(&policy, &key).await, 1);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.used(&policy, &key).await, 0);
    sleep(TTL).await;
    assert_eq!(lease.status(), LeaseStatus::Unconfirmed);

    // The store is back and there is room: taken again.
    world.faults.set(Fault::None);
    sleep(TTL).await;
    assert_eq!(lease.status(), LeaseStatus::Held);
    assert_eq!(world.used(&policy, &key).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_place_is_taken_is_reported_lost() {
    let world = World::new();
    let (policy, key) = (streams(1), key("lost"));
    let charges = [Charge::new(&policy, &key)];
    let mut lease = world
        .limiter
        .acquire(&charges, TTL)
        .await
        .unwrap()
        .held()
        .unwrap();
    world.faults.set(Fault::Request);
    sleep(2 * TTL).await;
    let other = world
        .direct
        .acquire(&charges, 10 * TTL)
        .await
        .unwrap()
        .held()
        .unwrap();
    world.faults.set(Fault::None);
    timeout(TTL, lease.lost()).await.expect("it is reported");
    assert_eq!(lease.status(), LeaseStatus::Lost);
    assert_eq!(world.used(&policy, &key).await, 1, "the other one's");
    drop(lease);
    settle_down().await;
    assert_eq!(
        world.used(&policy, &key).await,
        1,
        "its release takes nothing from others"
    );
    other.release().await.unwrap();
}

/// Fail-open holds for everything that takes; there is nothing to give back then.
#[tokio::test(start_paused = true)]
async fn an_outage_that_is_allowed_admits_reservations_and_leases() {
    let world = World::new();
    let (budget, key) = (daily(100).with_outage(Outage::Allow), key("open"));
    world.faults.set(Fault::Request);
    let reservation = reserve(&world.limiter, &[Charge::new(&budget, &key).with_cost(5)]).await;
    assert!(reservation.decision().decisions[0].degraded);
    world.faults.set(Fault::None);
    assert_eq!(reservation.settle(&[3]).await.unwrap().charged, [0]);

    let streams = streams(1).with_outage(Outage::Allow);
    let charges = [Charge::new(&streams, &key)];
    world.faults.set(Fault::Request);
    let lease = world
        .limiter
        .acquire(&charges, TTL)
        .await
        .unwrap()
        .held()
        .unwrap();
    assert!(lease.decision().decisions[0].degraded);
    world.faults.set(Fault::None);
    sleep(TTL).await;
    assert_eq!(
        world.used(&streams, &key).await,
        1,
        "counted as soon as the store is back"
    );
}

/// In the order of arrival, each at its time, and nobody longer than it would.
#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order() {
    let world = World::new();
    let bucket = policy(Quota::token_bucket(1, 1, Period::SECOND));
    let key = key("ready");
    let start = Instant::now();
    let mut waiting = Vec::new();
    for number in 0..5_u64 {
        let (limiter, bucket, key) = (world.limiter.clone(), bucket.clone(), key.clone());
        waiting.push(tokio::spawn(async move {
            let ready = limiter.until_ready(&bucket, &key, 1, MINUTE).await.unwrap();
            assert!(ready.is_allowed());
            (number, start.elapsed().as_secs())
        }));
        // Each joins the queue before the next one does.
        tokio::task::yield_now().await;
    }
    for (number, waiting) in (0..).zip(waiting) {
        assert_eq!(waiting.await.unwrap(), (number, number));
    }

    let short = Duration::from_millis(300);
    let asked = Instant::now();
    let denied = world
        .limiter
        .until_ready(&bucket, &key, 1, short)
        .await
        .unwrap();
    assert!(matches!(denied.outcome, Outcome::Denied { retry_after } if retry_after > short));
    assert_eq!(
        asked.elapsed(),
        Duration::ZERO,
        "it says at once that it will take longer"
    );
    let never = world
        .limiter
        .until_ready(&bucket, &key, 2, MINUTE)
        .await
        .unwrap();
    assert_eq!(never.outcome, Outcome::Never);
}

/// Times are what callers give, also the largest.
#[tokio::test(start_paused = true)]
async fn no_time_is_too_long_to_be_answered() {
    let world = World::new();
    let (window, stream, key) = (daily(1), streams(1), key("for-ever"));
    let charges = [Charge::new(&window, &key)];
    let refused = world.limiter.reserve(&charges, Duration::MAX).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    let leases = [Charge::new(&stream, &key)];
    let refused = world.limiter.acquire(&leases, Duration::MAX).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    let first = world.limiter.try_check(&window, &key).await.unwrap();
    assert!(first.is_allowed());
    let patient = world
        .limiter
        .until_ready(&window, &key, 1, Duration::MAX)
        .await;
    assert!(patient.unwrap().is_allowed(), "the next day");
}

/// Lets background tasks run.
async fn settle_down() {
    sleep(Duration::from_millis(1)).await;
}
