//! N3, I-R4: what is delivered in the end, and once.

use std::time::Duration;

use integration_tests::Fault;
use limiter_core::ErrorKind;
use limiter_core::limit::{Charge, OperationId};
use tokio::time::sleep;

use super::{MINUTE, World, daily, key, reserve};

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

    let charged = charged.unwrap();
    assert!(charged.is_replay(), "the first answer was lost");
    sleep(2 * MINUTE).await;
    let (_, again) = world.limiter.charge_once(&id, &charges).await.unwrap();
    assert!(!again.unwrap().is_replay(), "forgotten after a minute");
    assert_eq!(world.used(&policy, &key).await, 10);
    charged.refund().await.unwrap();
    assert_eq!(world.used(&policy, &key).await, 5);
}

/// Charged, given back, and asked for again: the id is used up, and nothing is admitted without a charge. That holds for
/// as long as the refund is remembered: until the charge would have counted no more, at least a minute.
#[tokio::test(start_paused = true)]
async fn an_operation_that_was_given_back_is_used_up() {
    let world = World::new();
    let (policy, key) = (daily(100), key("again"));
    let charges = [Charge::new(&policy, &key).with_cost(5)];
    let id = OperationId::new("again");
    let (_, charged) = world.limiter.charge_once(&id, &charges).await.unwrap();
    charged.unwrap().refund().await.unwrap();
    for pause in [MINUTE / 2, 10 * MINUTE] {
        let conflict = world.limiter.charge_once(&id, &charges).await.unwrap_err();
        assert_eq!(conflict.kind(), ErrorKind::Conflict);
        assert_eq!(world.used(&policy, &key).await, 0);
        sleep(pause).await;
    }
    sleep(24 * 60 * MINUTE).await;
    let (_, charged) = world.limiter.charge_once(&id, &charges).await.unwrap();
    charged.unwrap().refund().await.unwrap();
    assert_eq!(
        world.used(&policy, &key).await,
        0,
        "and can be given back again"
    );
}

/// The end of a process: what is still held is dropped, and given back while somebody waits for it.
#[tokio::test(start_paused = true)]
async fn a_drain_gives_back_what_is_held() {
    let world = World::new();
    let (policy, key) = (daily(1_000), key("drain"));
    let charge = [Charge::new(&policy, &key).with_cost(10)];
    let drain = || world.limiter.drain(MINUTE);
    assert_eq!(drain().await.waiting, 0, "there is nothing");
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(reserve(&world.limiter, &charge).await);
    }
    world.faults.set(Fault::Request);
    drop(held);
    let begin = tokio::time::Instant::now();
    let away = drain().await;
    assert_eq!(
        (away.waiting, begin.elapsed()),
        (50, MINUTE),
        "not for ever"
    );
    let (back, ()) = tokio::join!(drain(), async {
        sleep(MINUTE / 4).await;
        world.faults.set(Fault::None);
    });
    assert_eq!((back.waiting, back.delivered, back.dropped), (0, 50, 0));
    assert!(begin.elapsed() < 2 * MINUTE, "no longer than it takes");
    assert_eq!(world.used(&policy, &key).await, 0);

    // Who waits for it does not wait out a pause that an outage has made long.
    let held = reserve(&world.limiter, &charge).await;
    world.faults.set(Fault::Request);
    drop(held);
    sleep(MINUTE).await;
    world.faults.set(Fault::None);
    let quick = world.limiter.drain(Duration::from_millis(1)).await;
    assert_eq!((quick.waiting, quick.delivered), (0, 51));
}
