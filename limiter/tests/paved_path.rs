//! What the paved path returns is found in the facade, under one name each.
#![cfg(feature = "memory")]

use std::time::Duration;

use limiter::{
    Acquired, CacheKey, Charge, Event, GiveBackStats, Key, KeyBuilder, Lease, LeaseStatus,
    Observer, Policy, Quota, Reserved, Settled, Unit, UnitName,
};

#[derive(Debug)]
struct Count(std::sync::Arc<std::sync::atomic::AtomicU64>);

impl Observer for Count {
    fn observe(&self, event: &Event<'_>) {
        let steps = limiter::events::all(event).count() as u64;
        self.0
            .fetch_add(steps, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test]
async fn all_that_it_returns_has_a_name_here() {
    let steps = std::sync::Arc::default();
    let backends = limiter::Builder::new()
        .observe(Count(std::sync::Arc::clone(&steps)))
        .connect("memory:")
        .await
        .unwrap();
    let limiter = backends.limiter;
    let key: KeyBuilder = Key::builder().segment("ratelimit").segment("streams");
    let key: Key = key.build();

    let tokens = Policy::new("tokens", Quota::per_minute(100).unwrap()).unwrap();
    let charge = [Charge::new(&tokens, &key).with_cost(10)];
    let held = limiter.reserve(&charge, Duration::from_secs(1)).await;
    let Ok(Reserved::Held(reservation)) = held else {
        panic!("{held:?}");
    };
    let settled: Settled = reservation.settle(&[7]).await.unwrap();
    assert_eq!(settled.charged, [7]);

    let streams = Policy::new("streams", Quota::concurrency(1).unwrap()).unwrap();
    let streams_key = streams.key(["42"]);
    let places = [Charge::new(&streams, &streams_key)];
    let acquired = limiter.acquire(&places, Duration::from_secs(60)).await;
    let Ok(Acquired::Held(lease)) = acquired else {
        panic!("{acquired:?}");
    };
    let lease: Lease = lease;
    let status: LeaseStatus = lease.status();
    assert!(matches!(status, LeaseStatus::Held), "{status:?}");
    lease.release().await.unwrap();

    let stats: GiveBackStats = limiter.give_back_stats();
    assert_eq!(stats.waiting, 0);
    let _: CacheKey = CacheKey::new(&Key::new(["cache", "a"]), "b");
    let unit: Unit = Unit::named("pages").unwrap();
    let Unit::Named(name) = unit else { panic!() };
    let name: UnitName = name;
    assert_eq!(name.as_str(), "pages");
    assert!(steps.load(std::sync::atomic::Ordering::Relaxed) >= 4);
}
