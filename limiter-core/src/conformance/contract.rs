//! What wrappers and deploys rely on: deadlines, issuers, strangers, versions.

use std::time::Duration;

use tokio::time::Instant;

use super::{Case, LimitHarness, act, apply, cases, limiter, used};
use crate::error::{Effect, ErrorKind};
use crate::key::Key;
use crate::limit::{
    Action, Calendar, Charge, Group, Issuer, LimitStore, Observed, OperationId, Period, Policy,
    Quota, Receipt, Step, Verdict,
};

fn key(test: &str) -> Key {
    Key::new(["ratelimit", "conformance", "contract", test])
}

/// I-R5: what is not begun by the deadline is not begun, and says so.
pub(super) async fn a_deadline_is_kept(harness: &dyn LimitHarness) {
    let store = harness.store();
    let policy = Policy::new("deadline", Quota::fixed_window(5, Period::HOUR).unwrap()).unwrap();
    let key = key("deadline");
    let steps = [Step::new(&policy, &key, Action::Charge { cost: 1 })];
    let group = Group::new(&steps, &store.capabilities()).unwrap();
    let mut observed = [Observed::default()];
    let late = group.with_deadline(Instant::now());
    let refused = match store.try_apply_now(&late, &mut observed) {
        Some(answer) => answer.unwrap_err(),
        None => store.apply(&late, &mut observed).await.unwrap_err(),
    };
    let expected = (ErrorKind::Timeout, Effect::No);
    assert_eq!((refused.kind(), refused.effect()), expected, "{refused}");
    let refused = store.apply(&late, &mut observed).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), expected, "{refused}");
    assert_eq!(used(harness, &policy, &key).await, 0);
    let in_time = group.with_deadline(Instant::now() + Duration::from_secs(60));
    store.apply(&in_time, &mut observed).await.unwrap();
    assert_eq!(observed[0].used, 1);
}

/// What is charged says who keeps it, and is settled and given back there; another's is refused, and nothing is done.
pub(super) async fn an_issuer_is_asked_for_its_own(harness: &dyn LimitHarness, case: &Case) {
    let store = harness.store();
    let capabilities = store.capabilities();
    let (policy, key) = (case.policy(), case.key("issuer"));
    let charge = |issuer| Step::new(&policy, &key, Action::Charge { cost: 1 }).at(issuer);
    let charged = apply(harness, &[charge(None)]).await.unwrap()[0];
    let own = charged.issuer.unwrap();
    assert!(store.is_issuer(own), "{}", case.name);
    let stranger = Issuer::unique();
    assert!(!store.is_issuer(stranger), "{}", case.name);
    assert_ne!(own, stranger);

    let again = apply(harness, &[charge(Some(own))]).await.unwrap()[0];
    assert_eq!((again.used, again.issuer), (2, Some(own)), "{}", case.name);
    let peek = act(harness, &policy, &key, Action::Peek { cost: 1 }).await;
    assert_eq!(peek.unwrap().issuer, Some(own), "{}", case.name);
    let other = case.key("issuer-other");
    let mixed = [
        Step::new(&policy, &other, Action::Charge { cost: 1 }),
        charge(Some(stranger)),
    ];
    let (id, ttl) = (&OperationId::new("of another"), Duration::from_secs(60));
    let receipt = &Receipt::new(id.clone(), charged.mark, 1);
    let follow_ups = [
        Action::Refund { receipt },
        Action::Settle { id, actual: 1 },
        Action::Cancel { id, ttl },
    ];
    let follow_ups = follow_ups
        .into_iter()
        .filter(|action| capabilities.supports(action))
        .map(|action| vec![Step::new(&policy, &key, action).at(Some(stranger))]);
    for steps in follow_ups.chain([mixed.to_vec(), vec![charge(Some(stranger))]]) {
        let refused = apply(harness, &steps).await.unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::Misdirected,
            "{}: {refused}",
            case.name
        );
        assert_eq!(refused.effect(), Effect::No, "{}", case.name);
    }
    assert_eq!(used(harness, &policy, &key).await, 2, "{}", case.name);
    assert_eq!(used(harness, &policy, &other).await, 0, "{}", case.name);
    if capabilities.refunds {
        let refund = Step::new(&policy, &key, Action::Refund { receipt }).at(Some(own));
        apply(harness, &[refund]).await.unwrap();
        assert_eq!(used(harness, &policy, &key).await, 1, "{}", case.name);
    }
}

/// One key, one policy: a live count of another algorithm is misuse, and never a fresh start.
pub(super) async fn a_stranger_is_a_conflict(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    let streams = Policy::new("streams", Quota::concurrency(2).unwrap()).unwrap();
    let ttl = Duration::from_secs(600);
    let leases = harness.store().capabilities().leases;
    for first in cases() {
        for second in cases() {
            let (own, other) = (first.quota.algorithm(), second.quota.algorithm());
            if own == other || is_window(own) && is_window(other) {
                continue;
            }
            let key = key(&format!("{}-{}", first.name, second.name));
            let (policy, stranger) = (first.policy(), second.policy());
            limiter.try_check_n(&policy, &key, 2).await.unwrap();
            let asked = limiter.try_check(&stranger, &key).await.unwrap_err();
            assert_eq!(asked.kind(), ErrorKind::Conflict, "{own} then {other}");
            assert_eq!(asked.effect(), Effect::No);
            // A calendar window's count is a fixed window's.
            let kept = if is_window(own) { "fixed_window" } else { own };
            for name in [stranger.name(), kept] {
                assert!(asked.message().contains(name), "{asked} names {name}");
            }
            // Alone or in a group, charged or looked at; only what is not enforced does not mind.
            let group = [Charge::new(&stranger, &key), Charge::new(&stranger, &key)];
            let asked = limiter.try_check_all(&group).await.unwrap_err();
            assert_eq!(asked.kind(), ErrorKind::Conflict, "{own} then {other}");
            let asked = limiter.peek(&stranger, &key).await.unwrap_err();
            assert_eq!(asked.kind(), ErrorKind::Conflict, "{own} then {other}");
            let shadow = stranger.clone().with_shadow(true);
            let charge = Action::Charge { cost: 1 };
            let watched = act(harness, &shadow, &key, charge).await.unwrap();
            assert_eq!(watched.verdict, Verdict::Unseen, "{own} then {other}");
            assert!(!watched.seen && watched.used == 0 && watched.charged == 0);
            if leases {
                let lease = &OperationId::new("a");
                let acquire = Action::Acquire {
                    lease,
                    cost: 1,
                    ttl,
                };
                let asked = act(harness, &streams, &key, acquire).await.unwrap_err();
                assert_eq!(asked.kind(), ErrorKind::Conflict, "{own} then concurrency");
            }
            assert_eq!(used(harness, &policy, &key).await, 2, "nothing was lost");
            // A version of its own is a counter of its own.
            let next = stranger.clone().with_version(2);
            assert_eq!(limiter.try_check(&next, &key).await.unwrap().used, 1);
            // A reset frees the key, whoever asks.
            limiter.reset(&stranger, &key).await.unwrap();
            assert_eq!(limiter.try_check(&stranger, &key).await.unwrap().used, 1);
        }
    }
    if leases {
        let (key, lease) = (key("leases-first"), &OperationId::new("a"));
        let acquire = Action::Acquire {
            lease,
            cost: 1,
            ttl,
        };
        act(harness, &streams, &key, acquire).await.unwrap();
        for case in cases() {
            let asked = limiter.try_check(&case.policy(), &key).await.unwrap_err();
            assert_eq!(asked.kind(), ErrorKind::Conflict, "{}", case.name);
        }
        // Over, it is nobody's.
        harness.advance(ttl).await;
        let bucket = Quota::token_bucket(5, 5, Period::MINUTE).unwrap();
        let policy = Policy::new("bucket", bucket).unwrap();
        assert_eq!(limiter.try_check(&policy, &key).await.unwrap().used, 1);
    }
}

fn is_window(algorithm: &str) -> bool {
    matches!(algorithm, "fixed_window" | "calendar_window")
}

/// Old and new instances of a deploy, or of a rollback, never meet: each version has a counter of its own.
pub(super) async fn versions_never_meet(harness: &dyn LimitHarness, case: &Case) {
    let limiter = limiter(harness);
    let key = case.key("versions");
    let versions = [1, 2, 3].map(|version| case.policy().with_version(version));
    for (index, policy) in versions.iter().enumerate() {
        let cost = index as u64 + 1;
        let decision = limiter.try_check_n(policy, &key, cost).await.unwrap();
        assert_eq!(decision.used, cost, "{}", case.name);
    }
    limiter.reset(&versions[1], &key).await.unwrap();
    let mut left = Vec::new();
    for policy in &versions {
        left.push(used(harness, policy, &key).await);
    }
    assert_eq!(left, [1, 0, 3], "{}", case.name);
    // A revision is no version.
    let revised = case.policy().with_revision(7);
    assert_eq!(used(harness, &revised, &key).await, 1, "{}", case.name);
}

/// A window ends when it was opened for: neither a shorter quota nor a second policy on its key ends it earlier.
pub(super) async fn a_window_lasts_as_it_was_opened(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    type Make = fn(u64, Period) -> Quota;
    let windows: [(&str, Make, Period); 3] = [
        (
            "fixed",
            |limit, period| Quota::fixed_window(limit, period).unwrap(),
            Period::HOUR,
        ),
        (
            "calendar",
            |limit, period| match period {
                Period::HOUR => Quota::calendar_window(limit, Calendar::Hour).unwrap(),
                _ => Quota::calendar_window(limit, Calendar::Minute).unwrap(),
            },
            Period::HOUR,
        ),
        (
            "counter",
            |limit, period| Quota::sliding_window(limit, period).unwrap(),
            Period::HOUR,
        ),
    ];
    for (name, quota, long) in windows {
        let key = key(&format!("lasts-{name}"));
        let hour = Policy::new("hour", quota(100, long)).unwrap();
        let minute = Policy::new("minute", quota(1_000, Period::MINUTE)).unwrap();
        let mut within_the_hour = 0;
        let mut hour_left = limiter.peek(&hour, &key).await.unwrap();
        assert_eq!(hour_left.used, 0, "{name}");
        let step = Duration::from_secs(61);
        let mut lasts = None;
        for round in 1..20 {
            // Each takes what it may; the hour's window is opened first.
            for policy in [&hour, &minute] {
                let left = limiter.peek(policy, &key).await.unwrap().remaining;
                if left > 0 {
                    let taken = limiter.try_check_n(policy, &key, left).await.unwrap();
                    assert!(taken.is_allowed(), "{name}: {taken:?}");
                    within_the_hour += left;
                    lasts.get_or_insert(taken.reset_after);
                }
            }
            hour_left = limiter.peek(&hour, &key).await.unwrap();
            if lasts.is_none_or(|lasts| step * (round + 1) >= lasts) {
                break;
            }
            harness.advance(step).await;
        }
        assert_eq!(within_the_hour, 1_000, "{name}: the larger limit, once");
        assert!(hour_left.used >= 1_000, "{name}: {hour_left:?}");
        // And in the end it is over.
        harness.advance(2 * long.as_duration()).await;
        assert_eq!(used(harness, &minute, &key).await, 0, "{name}");
    }
}

/// A store answers for itself: nothing is invented, and nothing degraded unless it is.
pub(super) async fn an_answer_is_its_own(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key) = (case.policy(), case.key("own-answer"));
    let most = case.capacity();
    for (cost, admitted) in [(most, true), (1, false), (most + 1, false)] {
        let seen = act(harness, &policy, &key, Action::Charge { cost })
            .await
            .unwrap();
        assert_eq!(seen.is_admitted(), admitted, "{}", case.name);
        assert!(seen.seen && seen.used == most, "{}: {seen:?}", case.name);
        assert_eq!(seen.degraded, harness.degraded(), "{}", case.name);
        assert_eq!(
            (seen.replayed, seen.life),
            (None, Duration::ZERO),
            "{}",
            case.name
        );
    }
}
