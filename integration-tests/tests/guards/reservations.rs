//! N2: reservations and calls of AI models.

use std::time::Duration;

use integration_tests::{Fault, policy};
use limiter_core::ErrorKind;
use limiter_core::limit::{
    Calendar, Charge, ModelCallReserved, OperationId, Period, Quota, Reserved, TokenUsage, Unit,
};
use tokio::time::sleep;

use super::{MINUTE, World, daily, key, reserve, settle_down};

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
    reserve()
        .await
        .unwrap()
        .held()
        .unwrap()
        .cancel()
        .await
        .unwrap();
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

/// A job that was settled and is asked for again with one budget more does not charge that one for nobody.
#[tokio::test(start_paused = true)]
async fn a_settled_job_charges_no_new_budget() {
    let world = World::new();
    let (day, more) = (daily(100), daily(200));
    let (a, b) = (key("settled"), key("more"));
    let id = OperationId::new("job");
    let first = [Charge::new(&day, &a).with_cost(10)];
    let held = world.limiter.reserve_as(id.clone(), &first, MINUTE).await;
    held.unwrap().held().unwrap().settle(&[7]).await.unwrap();
    let both = [
        Charge::new(&day, &a).with_cost(10),
        Charge::new(&more, &b).with_cost(10),
    ];
    let again = world.limiter.reserve_as(id, &both, MINUTE).await.unwrap();
    assert!(matches!(again, Reserved::Settled(_)), "{again:?}");
    settle_down().await;
    assert_eq!(world.used(&day, &a).await, 7);
    assert_eq!(world.used(&more, &b).await, 0);
}
