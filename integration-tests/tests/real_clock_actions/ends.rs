//! What is held and remembered ends when it said.

use std::time::{Duration, Instant};

use integration_tests::policy;
use limiter_core::ErrorKind;
use limiter_core::clock::Timestamp;
use limiter_core::limit::{Action, Calendar, Period, Quota, Verdict};

use crate::{Answer, HOUR, TTL, World, acquire, id};

#[tokio::test]
async fn a_lease_that_nobody_renews_ends() {
    let mut world = World::new();
    let policy = policy(Quota::concurrency(2));
    let (one, two, three) = (id("one"), id("two"), id("three"));
    let kept = world.apply(&policy, acquire(&two, HOUR)).await;
    assert_eq!(kept.result.unwrap().used, 1);
    let made = world.apply(&policy, acquire(&one, TTL)).await;
    assert_eq!(made.result.as_ref().unwrap().used, 2);
    let denied = world.apply(&policy, acquire(&three, HOUR)).await;
    if let Verdict::Deny { retry_after } = denied.result.unwrap().verdict {
        assert!(retry_after <= TTL, "{retry_after:?}");
        let at = denied.after.saturating_add(retry_after);
        assert!(at >= made.before.saturating_add(TTL), "{retry_after:?}");
    }
    world
        .ends(&made, &policy, acquire(&three, HOUR), |answer| {
            answer.as_ref().unwrap().is_admitted()
        })
        .await;
    // The first one is gone, and there is no room for it again.
    let ttl = HOUR;
    let renewed = world.apply(&policy, Action::Renew { lease: &one, ttl });
    assert_eq!(renewed.await.result.unwrap_err().kind(), ErrorKind::Expired);
    let again = world.apply(&policy, acquire(&one, HOUR)).await;
    assert!(!again.result.unwrap().is_admitted());
}

#[tokio::test]
async fn a_reservation_can_be_settled_until_its_time_is_over() {
    let mut world = World::new();
    let policy = policy(Quota::token_bucket(10, 1, Period::DAY));
    let name = id("reservation");
    let reserve = Action::Reserve {
        id: &name,
        estimate: 4,
        ttl: TTL,
    };
    let made = world.apply(&policy, reserve).await;
    assert_eq!(made.result.as_ref().unwrap().used, 4);
    let settle = Action::Settle {
        id: &name,
        actual: 1,
    };
    // Settled again and again to the same, it stands; then nothing is known of it.
    world
        .ends(&made, &policy, settle, |answer| match answer {
            Ok(observed) => {
                assert_eq!((observed.charged, observed.used), (1, 1));
                false
            }
            Err(error) => error.kind() == ErrorKind::Expired,
        })
        .await;
}

#[tokio::test]
async fn an_operation_is_remembered_until_its_time_is_over() {
    let mut world = World::new();
    let policy = policy(Quota::fixed_window(10, Period::HOUR));
    let name = id("operation");
    let operation = Some((&name, TTL));
    let charge = Action::Charge { cost: 3 };
    let made = world.apply_as(&policy, charge.clone(), operation).await;
    assert_eq!(made.result.unwrap().used, 3);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = world.apply_as(&policy, charge.clone(), operation).await;
        let observed = answer.result.unwrap();
        if observed.used == 6 {
            assert!(answer.after >= made.before.saturating_add(TTL), "too early");
            return;
        }
        assert_eq!((observed.used, observed.charged), (3, 3));
        assert!(answer.before < made.after.saturating_add(TTL), "and still");
        assert!(Instant::now() < deadline, "never");
    }
}

/// A minute is too long to wait for; where it ends is told by the answers and by the key's expiry.
#[tokio::test]
async fn a_calendar_window_ends_with_its_unit() {
    const GRAIN: Duration = Duration::from_millis(2);
    for (unit, length) in [
        (Calendar::Minute, 60),
        (Calendar::Hour, 3_600),
        (Calendar::Day, 86_400),
    ] {
        let mut world = World::new();
        let policy = policy(Quota::calendar_window(2, unit));
        let first = world.apply(&policy, Action::Charge { cost: 2 }).await;
        let second = world.apply(&policy, Action::Charge { cost: 1 }).await;
        let micros = length * 1_000_000;
        let end = |at: Timestamp| (at.as_micros() / micros + 1) * micros;
        if end(first.before) != end(second.after) {
            // The unit ended meanwhile.
            continue;
        }
        let Verdict::Deny { retry_after } = second.result.as_ref().unwrap().verdict else {
            panic!("admitted beyond the limit");
        };
        let end = Timestamp::from_micros(end(first.before));
        // Redis counts an expiry from the script's begin; a script that is held up reads its TIME later.
        let spent = |answer: &Answer| answer.after.saturating_since(answer.before);
        let grain = GRAIN + spent(&first) + spent(&second);
        assert!(second.before.saturating_add(retry_after) <= end.saturating_add(grain));
        assert!(second.after.saturating_add(retry_after + grain) >= end);
        let left: u64 = world.server.command(&["PTTL", world.key.as_str()]);
        let after = world
            .time()
            .saturating_add(Duration::from_millis(left) + grain);
        assert!(after >= end && left <= length * 1_000);
    }
}
