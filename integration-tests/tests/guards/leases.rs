//! N6: leases that renew themselves, and what an outage admits.

use std::time::Duration;

use integration_tests::Fault;
use limiter_core::limit::{Acquired, Charge, LeaseStatus, Outage};
use tokio::time::{Instant, sleep, timeout};

use super::{TTL, World, daily, key, reserve, settle_down, streams};

/// Known fault: leases of a fixed length stop counting streams that are longer.
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
