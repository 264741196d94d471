//! Reserve, settle and cancel.

use std::time::Duration;

use super::{Case, LimitHarness, act, apply, limiter, portion, used};
use crate::error::{Effect, ErrorKind};
use crate::key::Key;
use crate::limit::{
    Action, Charge, OperationId, Outcome, Period, Policy, Quota, Replay, Reserved, Step,
};

const TTL: Duration = Duration::from_secs(10);

pub(super) async fn settles_to_what_was_used(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key, unit) = (case.policy(), case.key("settle"), portion(case));
    for (index, (actual, expected)) in [(0, 0), (unit, unit), (3 * unit, 4 * unit)]
        .into_iter()
        .enumerate()
    {
        let id = &OperationId::new(format!("settle-{index}"));
        let estimate = 2 * unit;
        let before = used(harness, &policy, &key).await;
        let reserve = Action::Reserve {
            id,
            estimate,
            ttl: TTL,
        };
        let held = act(harness, &policy, &key, reserve).await.unwrap();
        assert_eq!(
            (held.used, held.charged),
            (before + estimate, estimate),
            "{}",
            case.name
        );
        let settled = act(harness, &policy, &key, Action::Settle { id, actual })
            .await
            .unwrap();
        assert_eq!(
            (settled.used, settled.charged),
            (expected, actual),
            "{}",
            case.name
        );
    }
}

/// I-R4.
pub(super) async fn cancels_once(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key, unit) = (case.policy(), case.key("cancel"), portion(case));
    let (id, other) = (&OperationId::new("cancel"), &OperationId::new("keep"));
    for id in [id, other] {
        let reserve = Action::Reserve {
            id,
            estimate: unit,
            ttl: TTL,
        };
        act(harness, &policy, &key, reserve).await.unwrap();
    }
    for _ in 0..3 {
        let cancelled = act(harness, &policy, &key, Action::Cancel { id, ttl: TTL })
            .await
            .unwrap();
        assert_eq!(
            (cancelled.used, cancelled.charged),
            (unit, 0),
            "{}",
            case.name
        );
    }
    let (settle, again) = (
        Action::Settle { id, actual: unit },
        Action::Reserve {
            id,
            estimate: unit,
            ttl: TTL,
        },
    );
    // Nothing is charged any more, so nothing is admitted.
    for action in [settle, again] {
        let conflict = act(harness, &policy, &key, action).await.unwrap_err();
        assert_eq!(conflict.kind(), ErrorKind::Conflict, "{}", case.name);
    }
    let settle = Action::Settle {
        id: other,
        actual: unit,
    };
    act(harness, &policy, &key, settle).await.unwrap();
    let cancel = Action::Cancel {
        id: other,
        ttl: TTL,
    };
    let conflict = act(harness, &policy, &key, cancel).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict, "{}", case.name);
    assert_eq!(used(harness, &policy, &key).await, unit, "{}", case.name);
}

/// I-R4: what a bucket's refill has paid of a charge is given back by no cancel, and so not by a second one either.
pub(super) async fn a_second_cancel_gives_nothing_back(harness: &dyn LimitHarness) {
    let quota = Quota::token_bucket(100, 100, Period::MINUTE).unwrap();
    let policy = Policy::new("paid", quota).unwrap();
    let (key, id) = (policy.key(["cancel"]), &OperationId::new("paid"));
    let reserve = Action::Reserve {
        id,
        estimate: 50,
        ttl: Duration::from_secs(600),
    };
    act(harness, &policy, &key, reserve).await.unwrap();
    harness.advance(Duration::from_secs(24)).await;
    let charge = Action::Charge { cost: 60 };
    act(harness, &policy, &key, charge).await.unwrap();
    for _ in 0..3 {
        let ttl = Duration::from_secs(600);
        let cancelled = act(harness, &policy, &key, Action::Cancel { id, ttl }).await;
        let cancelled = cancelled.unwrap();
        assert_eq!((cancelled.used, cancelled.charged), (60, 40));
    }
}

/// Never refused, and paid for afterwards.
pub(super) async fn an_overrun_leaves_debt(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy, key) = (limiter(harness), case.policy(), case.key("overrun"));
    let (id, most) = (&OperationId::new("overrun"), case.capacity());
    let reserve = Action::Reserve {
        id,
        estimate: most,
        ttl: TTL,
    };
    act(harness, &policy, &key, reserve).await.unwrap();
    let settle = Action::Settle {
        id,
        actual: most + most / 2,
    };
    let settled = act(harness, &policy, &key, settle).await.unwrap();
    assert_eq!(settled.charged, most + most / 2, "{}", case.name);
    assert_eq!(settled.used, most + most / 2, "{}", case.name);

    let denied = limiter.try_check(&policy, &key).await.unwrap();
    let Outcome::Denied { retry_after } = denied.outcome else {
        panic!("{}: expected a denial, got {denied:?}", case.name);
    };
    harness.advance(retry_after - case.unit).await;
    let early = limiter.try_check(&policy, &key).await.unwrap();
    assert!(!early.is_allowed(), "{}: {early:?}", case.name);
    harness.advance(case.unit).await;
    let due = limiter.try_check(&policy, &key).await.unwrap();
    assert!(due.is_allowed(), "{}: {due:?}", case.name);
}

pub(super) async fn a_late_settlement_is_expired(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key) = (case.policy(), case.key("late-settle"));
    let id = &OperationId::new("late");
    let settle = Action::Settle { id, actual: 0 };
    let unknown = act(harness, &policy, &key, settle.clone())
        .await
        .unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Expired, "{}", case.name);
    let reserve = Action::Reserve {
        id,
        estimate: 1,
        ttl: TTL,
    };
    act(harness, &policy, &key, reserve.clone()).await.unwrap();
    harness.advance(TTL - Duration::from_micros(1)).await;
    act(harness, &policy, &key, reserve).await.unwrap();
    harness.advance(Duration::from_micros(1)).await;
    let late = act(harness, &policy, &key, settle).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Expired, "{}: ran out", case.name);
}

/// A cancellation that overtakes its own reservation: what arrives after it charges nothing, for its time to live.
pub(super) async fn a_cancel_overtakes_its_reservation(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key, unit) = (case.policy(), case.key("overtaken"), portion(case));
    let id = &OperationId::new("overtaken");
    let reserve = Action::Reserve {
        id,
        estimate: unit,
        ttl: TTL,
    };
    // Again and for less, it is not forgotten sooner.
    for ttl in [TTL / 2, TTL, TTL / 2] {
        let cancel = Action::Cancel { id, ttl };
        let cancelled = act(harness, &policy, &key, cancel).await.unwrap();
        assert_eq!((cancelled.used, cancelled.charged), (0, 0), "{}", case.name);
    }
    for wait in [Duration::ZERO, TTL - Duration::from_micros(1)] {
        harness.advance(wait).await;
        let late = act(harness, &policy, &key, reserve.clone())
            .await
            .unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict, "{}: {wait:?}", case.name);
        assert_eq!(late.effect(), Effect::No, "{}", case.name);
        assert_eq!(used(harness, &policy, &key).await, 0, "{}", case.name);
    }
    harness.advance(Duration::from_micros(1)).await;
    let held = act(harness, &policy, &key, reserve).await.unwrap();
    assert_eq!(held.charged, unit, "{}: forgotten in time", case.name);
}

/// A retry knows that it is one, and what stands.
pub(super) async fn a_replay_is_told_apart(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key, unit) = (case.policy(), case.key("replay"), portion(case));
    let id = &OperationId::new("replay");
    let reserve = || Action::Reserve {
        id,
        estimate: 2 * unit,
        ttl: TTL,
    };
    let first = act(harness, &policy, &key, reserve()).await.unwrap();
    assert_eq!(first.replayed, None, "{}", case.name);
    let again = act(harness, &policy, &key, reserve()).await.unwrap();
    assert_eq!(again.replayed, Some(Replay::Held), "{}", case.name);
    assert_eq!(again.charged, 2 * unit, "{}", case.name);
    let settle = || Action::Settle { id, actual: unit };
    let settled = act(harness, &policy, &key, settle()).await.unwrap();
    assert_eq!(settled.replayed, None, "{}", case.name);
    let again = act(harness, &policy, &key, settle()).await.unwrap();
    assert_eq!(again.replayed, Some(Replay::Done), "{}", case.name);
    let late = act(harness, &policy, &key, reserve()).await.unwrap();
    let expected = Some(Replay::Settled { actual: unit });
    assert_eq!(
        (late.replayed, late.charged),
        (expected, unit),
        "{}",
        case.name
    );
}

/// What a job under a name of the caller's holds, no other holder takes from under it; and once it is settled, a job that
/// runs again is not paid for again.
pub(super) async fn a_named_holder_does_not_cancel(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    let quota = Quota::fixed_window(100, Period::HOUR).unwrap();
    let policy = Policy::new("named", quota).unwrap();
    let key = policy.key(["conformance"]);
    let charges = [Charge::new(&policy, &key).with_cost(40)];
    let reserve = async || {
        let id = OperationId::new("job 7");
        limiter.reserve_as(id, &charges, TTL).await.unwrap()
    };
    let first = reserve().await.held().unwrap();
    let second = reserve().await.held().unwrap();
    assert!(!first.is_replay() && second.is_replay());
    drop(first);
    assert_eq!(
        used(harness, &policy, &key).await,
        40,
        "the second one works"
    );
    let settled = second.settle(&[30]).await.unwrap();
    assert_eq!(settled.charged, [30]);
    match reserve().await {
        Reserved::Settled(settled) => assert_eq!(settled.charged, [30]),
        other => panic!("the job was done and paid for, and not {other:?}"),
    }
    assert_eq!(used(harness, &policy, &key).await, 30);
}

/// What is asked again was not done twice.
pub(super) async fn a_lost_reply_changes_nothing(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key, unit) = (case.policy(), case.key("lost-reply"), portion(case));
    let id = &OperationId::new("lost");
    let reserve = |estimate| Action::Reserve {
        id,
        estimate,
        ttl: TTL,
    };
    for _ in 0..3 {
        let held = act(harness, &policy, &key, reserve(2 * unit))
            .await
            .unwrap();
        assert_eq!(
            (held.used, held.charged),
            (2 * unit, 2 * unit),
            "{}",
            case.name
        );
    }
    let conflict = act(harness, &policy, &key, reserve(unit))
        .await
        .unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict, "{}", case.name);
    for _ in 0..3 {
        let settle = Action::Settle { id, actual: unit };
        let settled = act(harness, &policy, &key, settle).await.unwrap();
        assert_eq!(
            (settled.used, settled.charged),
            (unit, unit),
            "{}",
            case.name
        );
    }
    let other = Action::Settle {
        id,
        actual: 2 * unit,
    };
    let conflict = act(harness, &policy, &key, other).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict, "{}", case.name);
    // The reservation itself, late: it was admitted once, and is settled.
    act(harness, &policy, &key, reserve(2 * unit))
        .await
        .unwrap();
    assert_eq!(used(harness, &policy, &key).await, unit, "{}", case.name);
}

/// Two budgets under one id; what one of them refuses, neither does.
pub(super) async fn groups_are_settled_whole(harness: &dyn LimitHarness) {
    let policy = |name, quota: Result<Quota, _>| Policy::new(name, quota.unwrap()).unwrap();
    let minute = policy("minute", Quota::token_bucket(1_000, 1, Period::HOUR));
    let day = policy("day", Quota::fixed_window(1_500, Period::DAY));
    let [a, b] =
        ["minute", "day"].map(|name| Key::new(["ratelimit", "conformance", "budget", name]));
    let (id, second) = (&OperationId::new("call-1"), &OperationId::new("call-2"));
    let reserve = |id, estimate| {
        let action = Action::Reserve {
            id,
            estimate,
            ttl: TTL,
        };
        [
            Step::new(&minute, &a, action.clone()),
            Step::new(&day, &b, action),
        ]
    };
    let all_used = async || {
        (
            used(harness, &minute, &a).await,
            used(harness, &day, &b).await,
        )
    };
    let held = apply(harness, &reserve(id, 900)).await.unwrap();
    assert!(held.iter().all(|part| part.is_admitted()));
    let denied = apply(harness, &reserve(second, 601)).await.unwrap();
    assert!(denied.iter().all(|part| !part.is_admitted()));
    assert_eq!(all_used().await, (900, 900));

    let settle = [
        Step::new(&minute, &a, Action::Settle { id, actual: 100 }),
        Step::new(
            &day,
            &b,
            Action::Settle {
                id: second,
                actual: 1,
            },
        ),
    ];
    let refused = apply(harness, &settle).await.unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::Expired,
        "the second one was never held"
    );
    assert_eq!(all_used().await, (900, 900), "neither");
    let settle = [
        Step::new(&minute, &a, Action::Settle { id, actual: 100 }),
        Step::new(&day, &b, Action::Settle { id, actual: 200 }),
    ];
    apply(harness, &settle).await.unwrap();
    assert_eq!(all_used().await, (100, 200));
}

/// A shadow that was not charged has nothing to settle, and says nothing.
pub(super) async fn a_shadow_never_fails(harness: &dyn LimitHarness) {
    let quota = Quota::fixed_window(5, Period::HOUR).unwrap();
    let enforced = Policy::new("enforced", quota).unwrap();
    let shadow = Policy::new("shadow", quota).unwrap().with_shadow(true);
    let [a, b] =
        ["enforced", "shadow"].map(|name| Key::new(["ratelimit", "conformance", "shadowed", name]));
    limiter(harness).try_check_n(&shadow, &b, 5).await.unwrap();
    let id = &OperationId::new("shadowed");
    let reserve = Action::Reserve {
        id,
        estimate: 2,
        ttl: TTL,
    };
    let steps = [
        Step::new(&enforced, &a, reserve.clone()),
        Step::new(&shadow, &b, reserve),
    ];
    let held = apply(harness, &steps).await.unwrap();
    assert!(held[0].is_admitted() && !held[1].is_admitted());
    let settle = Action::Settle { id, actual: 1 };
    let steps = [
        Step::new(&enforced, &a, settle.clone()),
        Step::new(&shadow, &b, settle),
    ];
    let settled = apply(harness, &steps).await.unwrap();
    assert_eq!((settled[0].charged, settled[1].charged), (1, 0));
    assert_eq!(used(harness, &shadow, &b).await, 5);
}
