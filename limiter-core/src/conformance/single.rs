//! Cases of one key.

use std::time::Duration;

use super::{Case, LimitHarness, act, fill, limiter, portion};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::limit::{
    Action, Calendar, Decision, Group, Mark, OPERATION_TTL, Observed, OperationId, Outcome, Period,
    Policy, Quota, Receipt, Step,
};

pub(super) async fn counts_down_to_a_denial(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy, key) = (limiter(harness), case.policy(), case.key("countdown"));
    let cost = portion(case);
    let mut used = 0;
    while used + cost <= case.capacity() {
        used += cost;
        let decision = limiter.try_check_n(&policy, &key, cost).await.unwrap();
        assert!(decision.is_allowed(), "{}: {decision:?}", case.name);
        assert_eq!(decision.limit, case.capacity(), "{}", case.name);
        assert_eq!(decision.used, used, "{}", case.name);
        assert_eq!(decision.remaining, case.capacity() - used, "{}", case.name);
        assert!(!decision.reset_after.is_zero(), "{}", case.name);
        assert_eq!(decision.degraded, harness.degraded(), "{}", case.name);
    }
    let denied = limiter.try_check_n(&policy, &key, cost).await.unwrap();
    assert!(
        matches!(denied.outcome, Outcome::Denied { retry_after } if !retry_after.is_zero()),
        "{}: {denied:?}",
        case.name
    );
    // Another key is another counter.
    let other = limiter
        .try_check(&policy, &case.key("countdown-other"))
        .await
        .unwrap();
    assert_eq!(other.used, 1, "{}", case.name);
}

pub(super) async fn a_denial_charges_nothing(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy, key) = (limiter(harness), case.policy(), case.key("denial"));
    let most = case.capacity() - 1;
    limiter.try_check_n(&policy, &key, most).await.unwrap();
    for _ in 0..5 {
        let denied = limiter.try_check_n(&policy, &key, 2).await.unwrap();
        assert!(!denied.is_allowed(), "{}", case.name);
        // A wrapper may remember a denial, and then has no numbers.
        if denied.seen {
            assert_eq!((denied.used, denied.remaining), (most, 1), "{}", case.name);
        }
    }
    let last = limiter.try_check(&policy, &key).await.unwrap();
    assert!(last.is_allowed(), "{}: the denials took nothing", case.name);
}

/// I-H6: admitted after exactly `retry_after`, and not one unit earlier.
pub(super) async fn retry_after_is_exact(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy) = (limiter(harness), case.policy());
    let costs = [1, portion(case), case.capacity() - 1, case.capacity()];
    for (index, cost) in costs.into_iter().enumerate() {
        let key = case.key(&format!("retry-{index}"));
        fill(&limiter, case, &key).await;
        // Not at a moment that flatters a rounding.
        harness.advance(Duration::from_micros(1_234_567)).await;
        let taken = limiter.peek(&policy, &key).await.unwrap().remaining;
        if taken > 0 {
            limiter.try_check_n(&policy, &key, taken).await.unwrap();
        }
        let denied = limiter.try_check_n(&policy, &key, cost).await.unwrap();
        let retry_after = wait(case, &denied);
        harness.advance(retry_after - case.unit).await;
        let early = limiter.try_check_n(&policy, &key, cost).await.unwrap();
        assert_eq!(wait(case, &early), case.unit, "{} cost {cost}", case.name);
        harness.advance(case.unit).await;
        let due = limiter.try_check_n(&policy, &key, cost).await.unwrap();
        assert!(due.is_allowed(), "{} cost {cost}: {due:?}", case.name);
    }
}

pub(super) async fn reset_after_frees_everything(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy, key) = (limiter(harness), case.policy(), case.key("reset-after"));
    let decision = limiter
        .try_check_n(&policy, &key, portion(case))
        .await
        .unwrap();
    harness.advance(decision.reset_after - case.unit).await;
    let early = limiter.peek(&policy, &key).await.unwrap();
    assert!(
        early.remaining < case.capacity(),
        "{}: {early:?}",
        case.name
    );
    harness.advance(case.unit).await;
    let due = limiter.peek(&policy, &key).await.unwrap();
    assert_eq!(due.remaining, case.capacity(), "{}", case.name);
    assert_eq!(due.reset_after, Duration::ZERO, "{}", case.name);
    fill(&limiter, case, &key).await;
}

/// I-H7, and 0 is a peek.
pub(super) async fn costs_out_of_range_never_reach_the_state(
    harness: &dyn LimitHarness,
    case: &Case,
) {
    let (limiter, policy, key) = (limiter(harness), case.policy(), case.key("never"));
    limiter.try_check(&policy, &key).await.unwrap();
    for cost in [case.capacity() + 1, 1 << 53, u64::MAX] {
        let never = limiter.try_check_n(&policy, &key, cost).await.unwrap();
        assert_eq!(never.outcome, Outcome::Never, "{} cost {cost}", case.name);
        assert_eq!(never.used, 1, "{} cost {cost}", case.name);
    }
    let free = limiter.try_check_n(&policy, &key, 0).await.unwrap();
    assert!(
        free.is_allowed() && free.used == 1,
        "{}: {free:?}",
        case.name
    );
}

pub(super) async fn a_peek_changes_nothing(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy, key) = (limiter(harness), case.policy(), case.key("peek"));
    for _ in 0..3 {
        let fresh = limiter.peek(&policy, &key).await.unwrap();
        assert!(fresh.is_allowed(), "{}", case.name);
        assert_eq!((fresh.used, fresh.remaining), (0, case.capacity()));
        assert_eq!(fresh.reset_after, Duration::ZERO, "{}", case.name);
    }
    fill(&limiter, case, &key).await;
    for _ in 0..3 {
        let full = limiter.peek(&policy, &key).await.unwrap();
        assert_eq!((full.used, full.remaining), (case.capacity(), 0));
        assert!(!wait(case, &full).is_zero(), "{}", case.name);
    }
}

pub(super) async fn a_reset_forgets(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy, key) = (limiter(harness), case.policy(), case.key("reset"));
    limiter.reset(&policy, &key).await.unwrap();
    fill(&limiter, case, &key).await;
    limiter.reset(&policy, &key).await.unwrap();
    let fresh = limiter.peek(&policy, &key).await.unwrap();
    assert_eq!((fresh.used, fresh.remaining), (0, case.capacity()));
}

/// A4: however many ask at once, the limit is the limit.
pub(super) async fn concurrent_charges_admit_exactly_the_limit(
    harness: &dyn LimitHarness,
    case: &Case,
) {
    let (policy, key, cost) = (case.policy(), case.key("concurrent"), portion(case));
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (limiter, policy, key) = (limiter(harness), policy.clone(), key.clone());
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..4 {
                    let decision = limiter.try_check_n(&policy, &key, cost).await.unwrap();
                    admitted += u64::from(decision.is_allowed());
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.unwrap();
    }
    assert_eq!(admitted, case.capacity() / cost, "{}", case.name);
}

/// A deploy with a lower quota does not forget what was used, and grants nothing.
pub(super) async fn a_lowered_quota_keeps_the_count(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, key) = (limiter(harness), case.key("lowered"));
    let half = Policy::new(case.name, case.half).unwrap();
    let used = case.half.capacity() + 1;
    let policy = case.policy();
    limiter.try_check_n(&policy, &key, used).await.unwrap();
    let lowered = limiter.peek(&half, &key).await.unwrap();
    assert_eq!(
        (lowered.used, lowered.remaining),
        (used, 0),
        "{}",
        case.name
    );
    let denied = limiter.try_check(&half, &key).await.unwrap();
    harness.advance(wait(case, &denied) - case.unit).await;
    let early = limiter.try_check(&half, &key).await.unwrap();
    assert_eq!(wait(case, &early), case.unit, "{}", case.name);
    harness.advance(case.unit).await;
    let due = limiter.try_check(&half, &key).await.unwrap();
    assert!(due.is_allowed(), "{}: {due:?}", case.name);
}

/// And one with a shorter period waits no longer than the new one asks for.
pub(super) async fn a_faster_quota_keeps_its_word(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    type Make = fn(Period) -> Quota;
    let cases: [(&str, Make, Duration); 3] = [
        (
            "fixed",
            |period| Quota::fixed_window(10, period).unwrap(),
            Duration::from_millis(1),
        ),
        (
            "sliding",
            |period| Quota::sliding_window(10, period).unwrap(),
            Duration::from_micros(1),
        ),
        (
            "bucket",
            |period| Quota::token_bucket(10, 7, period).unwrap(),
            Duration::from_micros(1),
        ),
    ];
    let changes = [
        (Period::HOUR, Period::MINUTE),
        (Period::MINUTE, Period::HOUR),
    ];
    for (name, quota, unit) in cases {
        for (index, (old, new)) in changes.into_iter().enumerate() {
            let key = Key::new([
                "ratelimit",
                "conformance",
                "deploy",
                name,
                &index.to_string(),
            ]);
            let [old, new] = [old, new].map(|period| Policy::new(name, quota(period)).unwrap());
            limiter.try_check_n(&old, &key, 10).await.unwrap();
            harness.advance(Duration::from_millis(1_234)).await;
            let denied = limiter.try_check(&new, &key).await.unwrap();
            let Outcome::Denied { retry_after } = denied.outcome else {
                panic!("{name}: a deploy forgot the count: {denied:?}");
            };
            harness.advance(retry_after - unit).await;
            let early = limiter.try_check(&new, &key).await.unwrap();
            assert!(!early.is_allowed(), "{name} {index}: {early:?}");
            harness.advance(unit).await;
            let due = limiter.try_check(&new, &key).await.unwrap();
            assert!(due.is_allowed(), "{name} {index}: {due:?}");
        }
    }
}

/// During a deploy some instances have the lower quota and others the higher one. What the lower one
/// denies must not make room under the higher one.
pub(super) async fn two_quotas_side_by_side_grant_nothing(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    type Make = fn(u64) -> Quota;
    let cases: [(&str, Make); 5] = [
        ("fixed", |limit| {
            Quota::fixed_window(limit, Period::HOUR).unwrap()
        }),
        ("calendar", |limit| {
            Quota::calendar_window(limit, Calendar::Month).unwrap()
        }),
        ("sliding", |limit| {
            Quota::sliding_window(limit, Period::HOUR).unwrap()
        }),
        ("log", |limit| {
            Quota::sliding_log(limit, Period::HOUR).unwrap()
        }),
        ("bucket", |limit| {
            Quota::token_bucket(limit, limit, Period::DAY).unwrap()
        }),
    ];
    for (name, quota) in cases {
        let key = Key::new(["ratelimit", "conformance", "side-by-side", name]);
        let [low, high] = [10, 100].map(|limit| Policy::new(name, quota(limit)).unwrap());
        let mut admitted = 0;
        for _ in 0..3 {
            while limiter
                .try_check_n(&high, &key, 10)
                .await
                .unwrap()
                .is_allowed()
            {
                admitted += 10;
            }
            let denied = limiter.try_check(&low, &key).await.unwrap();
            assert!(!denied.is_allowed(), "{name}: {denied:?}");
        }
        assert_eq!(admitted, 100, "{name}");
    }
}

/// Quotas whose numbers a float or a rounded interval would lose.
pub(super) async fn large_quotas_are_exact(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    let quotas = [
        Quota::token_bucket(10_000_000, 10_000_000, Period::DAY),
        Quota::token_bucket(3_000_000, 3_000_000, Period::SECOND),
        Quota::sliding_window(3_000_000, Period::SECOND),
        Quota::fixed_window((1 << 51) - 1, Period::DAY),
    ];
    for (index, quota) in quotas.into_iter().enumerate() {
        let quota = quota.unwrap();
        let policy = Policy::new("large", quota).unwrap();
        let key = Key::new(["ratelimit", "conformance", "large", &index.to_string()]);
        let all_but_one = quota.capacity() - 1;
        let decision = limiter
            .try_check_n(&policy, &key, all_but_one)
            .await
            .unwrap();
        assert_eq!(
            (decision.used, decision.remaining),
            (all_but_one, 1),
            "{quota}"
        );
        assert!(
            limiter.try_check(&policy, &key).await.unwrap().is_allowed(),
            "{quota}"
        );
        assert!(
            !limiter.try_check(&policy, &key).await.unwrap().is_allowed(),
            "{quota}"
        );
    }
}

pub(super) async fn lacking_actions_are_refused(harness: &dyn LimitHarness) {
    let store = harness.store();
    let capabilities = store.capabilities();
    let policy = Policy::new("lack", Quota::fixed_window(5, Period::HOUR).unwrap()).unwrap();
    let key = Key::new(["ratelimit", "conformance", "lack"]);
    let id = OperationId::new("op");
    let receipt = Receipt::new(OperationId::new("receipt"), Mark::default(), 1);
    let ttl = Duration::from_secs(60);
    let actions = [
        Action::Refund { receipt: &receipt },
        Action::Reserve {
            id: &id,
            estimate: 1,
            ttl,
        },
        Action::Settle { id: &id, actual: 1 },
        Action::Cancel { id: &id, ttl },
        Action::Acquire {
            lease: &id,
            cost: 1,
            ttl,
        },
        Action::Renew { lease: &id, ttl },
        Action::Release { lease: &id, ttl },
    ];
    for action in actions {
        if capabilities.supports(&action) {
            continue;
        }
        let steps = [Step::new(&policy, &key, action)];
        let refused = Group::new(&steps, &capabilities).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
    let steps = [Step::new(&policy, &key, Action::Charge { cost: 1 })];
    let group = Group::new(&steps, &capabilities).unwrap();
    if !capabilities.operation_ids {
        let refused = group
            .with_operation(&id, OPERATION_TTL, &capabilities)
            .unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
    // The two ways to ask count the same.
    let mut observed = [Observed::default()];
    store.apply(&group, &mut observed).await.unwrap();
    assert_eq!(observed[0].used, 1);
    if let Some(answer) = store.try_apply_now(&group, &mut observed) {
        answer.unwrap();
        assert_eq!(observed[0].used, 2);
    }
}

/// A lease is for concurrency, and nothing else is.
pub(super) async fn leases_do_not_fit(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key) = (case.policy(), case.key("misfit"));
    let lease = &OperationId::new("misfit");
    let ttl = Duration::from_secs(60);
    let actions = [
        Action::Acquire {
            lease,
            cost: 1,
            ttl,
        },
        Action::Renew { lease, ttl },
        Action::Release { lease, ttl },
    ];
    for action in actions {
        let supported = harness.store().capabilities().supports(&action);
        let refused = act(harness, &policy, &key, action).await.unwrap_err();
        let kind = if supported {
            ErrorKind::InvalidInput
        } else {
            ErrorKind::Unsupported
        };
        assert_eq!(refused.kind(), kind, "{}: {refused}", case.name);
    }
}

fn wait(case: &Case, decision: &Decision) -> Duration {
    match decision.outcome {
        Outcome::Denied { retry_after } => retry_after,
        _ => panic!("{}: expected a denial, got {decision:?}", case.name),
    }
}
