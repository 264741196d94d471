//! Debits: what is taken at once, and spent elsewhere until the end of a life.

use std::time::Duration;

use super::{Case, LimitHarness, act, apply, limiter, used};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::limit::{
    Action, Group, OPERATION_TTL, OperationId, Outcome, Period, Policy, Quota, Receipt, Step,
    Verdict,
};

const LIFE: Duration = Duration::from_secs(1);

fn debit(at_most: u64) -> Action<'static> {
    Action::Debit {
        at_most,
        life: LIFE,
    }
}

/// As much as is free, and never more than was asked for.
pub(super) async fn takes_what_is_free(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key) = (case.policy(), case.key("debit"));
    let most = case.capacity();
    let half = act(harness, &policy, &key, debit(most / 2)).await.unwrap();
    assert!(half.is_admitted(), "{}: {half:?}", case.name);
    assert_eq!(half.charged, most / 2, "{}", case.name);
    assert!(
        !half.life.is_zero() && half.life <= LIFE,
        "{}: {half:?}",
        case.name
    );
    let rest = act(harness, &policy, &key, debit(u64::MAX)).await.unwrap();
    assert!(rest.is_admitted(), "{}: {rest:?}", case.name);
    assert!(rest.charged <= most - most / 2, "{}: {rest:?}", case.name);
    assert!(
        rest.charged + most / 2 + 1 >= most,
        "{}: {rest:?}",
        case.name
    );
    // Then there is nothing, and a time at which there is.
    let denied = act(harness, &policy, &key, debit(3)).await.unwrap();
    let Verdict::Deny { retry_after } = denied.verdict else {
        panic!("{}: expected a denial, got {denied:?}", case.name);
    };
    assert_eq!(
        (denied.charged, denied.life),
        (0, Duration::ZERO),
        "{}",
        case.name
    );
    harness.advance(retry_after - case.unit).await;
    let early = act(harness, &policy, &key, debit(3)).await.unwrap();
    assert!(!early.is_admitted(), "{}: {early:?}", case.name);
    harness.advance(case.unit).await;
    let due = act(harness, &policy, &key, debit(3)).await.unwrap();
    assert!(
        due.is_admitted() && due.charged >= 1,
        "{}: {due:?}",
        case.name
    );
}

/// I-H1 to I-H4: what is spent at the end of a life, and what the store admits then, together keep the limit's bound.
pub(super) async fn keeps_the_bound_until_the_end(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key) = (case.policy(), case.key("debit-bound"));
    let most = case.capacity();
    let taken = act(harness, &policy, &key, debit(most)).await.unwrap();
    // It is spent at the last moment; what the store has by then comes on top.
    harness.advance(taken.life - case.unit).await;
    let limiter = limiter(harness);
    let mut admitted = taken.charged;
    let left = limiter.peek(&policy, &key).await.unwrap().remaining;
    if left > 0 {
        limiter.try_check_n(&policy, &key, left).await.unwrap();
        admitted += left;
    }
    assert!(admitted <= most, "{}: {admitted} at once", case.name);
}

/// A bucket is charged on top of what it regains in the life: 10 tokens, 1 a second, for 4 seconds.
pub(super) async fn a_bucket_is_charged_as_of_the_end(harness: &dyn LimitHarness) {
    let quota = Quota::token_bucket(10, 1, Period::SECOND).unwrap();
    let policy = Policy::new("debit-bucket", quota).unwrap();
    let key = |test| Key::new(["ratelimit", "conformance", "debit-bucket", test]);
    let seconds = Duration::from_secs;
    let debit = |at_most, life| Action::Debit {
        at_most,
        life: seconds(life),
    };
    let fresh = key("fresh");
    let six = act(harness, &policy, &fresh, debit(9, 4)).await.unwrap();
    assert_eq!((six.charged, six.used, six.life), (6, 10, seconds(4)));
    // At the end of the life all that is still owed is what was debited.
    harness.advance(seconds(4)).await;
    assert_eq!(used(harness, &policy, &fresh).await, 6);

    // On a bucket that owes more than the life regains, nothing is added.
    let owing = key("owing");
    limiter(harness)
        .try_check_n(&policy, &owing, 7)
        .await
        .unwrap();
    let three = act(harness, &policy, &owing, debit(9, 4)).await.unwrap();
    assert_eq!((three.charged, three.used), (3, 10));
    let denied = act(harness, &policy, &owing, debit(9, 4)).await.unwrap();
    let retry_after = seconds(1);
    assert_eq!(denied.verdict, Verdict::Deny { retry_after });
    // A life in which the whole bucket comes back leaves nothing to take ahead.
    let never = act(harness, &policy, &key("never"), debit(1, 10)).await;
    assert_eq!(never.unwrap().verdict, Verdict::Never);
    let last = act(harness, &policy, &key("last"), debit(9, 9)).await;
    assert_eq!(last.unwrap().charged, 1);

    if harness.store().capabilities().refunds {
        // What was not spent comes back, in part.
        let key = key("returned");
        let taken = act(harness, &policy, &key, debit(6, 4)).await.unwrap();
        harness.advance(seconds(4)).await;
        let receipt = &Receipt::new(OperationId::random(), taken.mark, 5);
        let refund = Action::Refund { receipt };
        let returned = act(harness, &policy, &key, refund).await.unwrap();
        assert_eq!((returned.used, returned.charged), (1, 0));
    }
}

/// A log's entry is dated at the end of the life, and the entries after it no earlier.
pub(super) async fn a_log_dates_it_at_the_end(harness: &dyn LimitHarness) {
    let quota = Quota::sliding_log(10, Period::MINUTE).unwrap();
    let policy = Policy::new("debit-log", quota).unwrap();
    let key = Key::new(["ratelimit", "conformance", "debit-log"]);
    let seconds = Duration::from_secs;
    let limiter = limiter(harness);
    limiter.try_check_n(&policy, &key, 4).await.unwrap();
    let debit = Action::Debit {
        at_most: 5,
        life: seconds(30),
    };
    let taken = act(harness, &policy, &key, debit).await.unwrap();
    assert_eq!((taken.charged, taken.used, taken.life), (5, 9, seconds(30)));
    assert_eq!(taken.reset_after, seconds(90));
    let last = limiter.try_check(&policy, &key).await.unwrap();
    assert!(last.is_allowed());
    harness.advance(seconds(60)).await;
    // The first four have left.
    assert_eq!(used(harness, &policy, &key).await, 6);
    harness
        .advance(seconds(30) - Duration::from_micros(1))
        .await;
    assert_eq!(used(harness, &policy, &key).await, 6);
    harness.advance(Duration::from_micros(1)).await;
    assert_eq!(used(harness, &policy, &key).await, 0);
}

/// A window's debit ends with the window.
pub(super) async fn a_window_ends_it(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    for (name, quota) in [
        ("fixed", Quota::fixed_window(5, Period::MINUTE)),
        ("counter", Quota::sliding_window(5, Period::MINUTE)),
    ] {
        let policy = Policy::new(name, quota.unwrap()).unwrap();
        let key = Key::new(["ratelimit", "conformance", "debit-window", name]);
        let first = limiter.try_check(&policy, &key).await.unwrap();
        harness.advance(Duration::from_secs(1)).await;
        let debit = Action::Debit {
            at_most: 2,
            life: Duration::from_secs(3_600),
        };
        let taken = act(harness, &policy, &key, debit).await.unwrap();
        assert_eq!(taken.charged, 2, "{name}");
        assert!(taken.life <= Duration::from_secs(60), "{name}: {taken:?}");
        assert!(taken.life <= first.reset_after, "{name}: {taken:?}");
        if name == "fixed" {
            let left = first.reset_after - Duration::from_secs(1);
            assert!(
                left - taken.life < Duration::from_millis(2),
                "{name}: {taken:?}"
            );
        }
    }
}

/// Alone on its key, under no operation id, and within its bounds.
pub(super) async fn misuse_is_refused(harness: &dyn LimitHarness) {
    let capabilities = harness.store().capabilities();
    let policy = Policy::new("debit", Quota::fixed_window(5, Period::HOUR).unwrap()).unwrap();
    let streams = Policy::new("streams", Quota::concurrency(5).unwrap()).unwrap();
    let key = Key::new(["ratelimit", "conformance", "debit-misuse"]);
    let step = |action| Step::new(&policy, &key, action);
    let life = LIFE;
    let refused = [
        vec![step(debit(0))],
        vec![step(Action::Debit {
            at_most: 1,
            life: Duration::ZERO,
        })],
        vec![step(Action::Debit {
            at_most: 1,
            life: Duration::from_secs(86_401),
        })],
        vec![step(debit(1)), step(debit(1))],
        vec![step(Action::Charge { cost: 1 }), step(debit(1))],
        vec![Step::new(
            &streams,
            &key,
            Action::Debit { at_most: 1, life },
        )],
    ];
    for steps in refused {
        let error = apply(harness, &steps).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{steps:?}: {error}");
    }
    if capabilities.operation_ids {
        let steps = [step(debit(1))];
        let group = Group::new(&steps, &capabilities).unwrap();
        let id = OperationId::new("debit");
        let refused = group.with_operation(&id, OPERATION_TTL, &capabilities);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(used(harness, &policy, &key).await, 0);
    // In a group that is denied nothing is taken.
    let other = Key::new(["ratelimit", "conformance", "debit-group"]);
    let steps = [
        step(debit(2)),
        Step::new(&policy, &other, Action::Charge { cost: 6 }),
    ];
    let denied = apply(harness, &steps).await.unwrap();
    assert!(denied[0].is_admitted() && denied[0].charged == 0);
    assert_eq!(used(harness, &policy, &key).await, 0);
    let never = limiter(harness)
        .try_check_n(&policy, &other, 6)
        .await
        .unwrap();
    assert_eq!(never.outcome, Outcome::Never);
}
