//! Waiting until a charge is admitted.

use std::time::Duration;

use integration_tests::policy;
use limiter_core::ErrorKind;
use limiter_core::limit::{Charge, Outcome, Period, Quota};
use tokio::time::Instant;

use super::{MINUTE, World, daily, key, streams};

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
