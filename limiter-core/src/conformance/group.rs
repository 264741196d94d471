//! Cases of several steps.

use std::time::Duration;

use super::{Case, LimitHarness, apply, fill, limiter, portion, used};
use crate::error::ErrorKind;
use crate::key::Key;
use crate::limit::{
    Action, Charge, GroupDecision, Limiter, Observed, Outcome, Period, Policy, Quota, Step,
};

/// User, tenant and everybody, under three algorithms.
struct Levels {
    policies: [Policy; 3],
    keys: [Key; 3],
}

impl Levels {
    fn new(test: &str, limits: [u64; 3]) -> Self {
        let policy = |name, quota: Result<Quota, _>| Policy::new(name, quota.unwrap()).unwrap();
        Self {
            policies: [
                policy("user", Quota::fixed_window(limits[0], Period::MINUTE)),
                policy("tenant", Quota::sliding_window(limits[1], Period::HOUR)),
                policy("global", Quota::token_bucket(limits[2], 1, Period::HOUR)),
            ],
            keys: ["user", "tenant", "global"]
                .map(|level| Key::new(["ratelimit", "conformance", test, level])),
        }
    }

    async fn charge(&self, limiter: &Limiter, costs: [u64; 3]) -> GroupDecision {
        let charges: Vec<_> = (0..3)
            .map(|i| Charge::new(&self.policies[i], &self.keys[i]).with_cost(costs[i]))
            .collect();
        limiter.try_check_all(&charges).await.unwrap()
    }

    async fn used(&self, limiter: &Limiter) -> [u64; 3] {
        let mut used = [0; 3];
        for (i, used) in used.iter_mut().enumerate() {
            let decision = limiter.peek(&self.policies[i], &self.keys[i]).await;
            *used = decision.unwrap().used;
        }
        used
    }
}

/// Which policies stood in the way: all of `expected`, but those that nobody looked at because another one's denial was
/// known.
fn assert_violated(decision: &GroupDecision, expected: &[&str]) {
    assert!(!decision.is_allowed(), "{decision:?}");
    let mut in_the_way = 0;
    for step in &decision.decisions {
        let name = step.policy.name();
        if step.outcome == Outcome::Unseen {
            continue;
        }
        in_the_way += usize::from(!step.is_allowed());
        assert_eq!(!step.is_allowed(), expected.contains(&name), "{decision:?}");
    }
    assert!(in_the_way > 0, "{decision:?}");
}

/// I-H5, and every violated policy is named.
pub(super) async fn all_or_nothing(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    let levels = Levels::new("all-or-nothing", [5, 4, 100]);
    let admitted = levels.charge(&limiter, [2, 3, 50]).await;
    assert!(admitted.is_allowed(), "{admitted:?}");
    assert_eq!(levels.used(&limiter).await, [2, 3, 50]);
    assert_eq!(
        admitted.binding().map(|step| step.policy.name()),
        Some("tenant")
    );

    // The first could pay; the second cannot, so nobody does.
    let denied = levels.charge(&limiter, [3, 2, 1]).await;
    assert!(
        matches!(denied.outcome, Outcome::Denied { .. }),
        "{denied:?}"
    );
    assert_violated(&denied, &["tenant"]);
    assert_eq!(levels.used(&limiter).await, [2, 3, 50]);
    let reported: Vec<_> = denied.decisions.iter().map(|step| step.used).collect();
    assert_eq!(reported, [2, 3, 50], "a denied group reports what stands");

    let denied = levels.charge(&limiter, [4, 2, 51]).await;
    assert_violated(&denied, &["user", "tenant", "global"]);
    let never = levels.charge(&limiter, [1, 5, 1]).await;
    assert_eq!(never.outcome, Outcome::Never);
    assert_eq!(levels.used(&limiter).await, [2, 3, 50]);

    let rest = levels.charge(&limiter, [3, 1, 50]).await;
    assert!(rest.is_allowed(), "the denials took nothing: {rest:?}");
}

pub(super) async fn the_largest_wait_is_enough(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    let levels = Levels::new("largest-wait", [5, 5, 5]);
    levels.charge(&limiter, [5, 5, 5]).await;
    let denied = levels.charge(&limiter, [1, 1, 2]).await;
    let Outcome::Denied { retry_after } = denied.outcome else {
        panic!("expected a denial, got {denied:?}");
    };
    let waits = denied
        .decisions
        .iter()
        .filter_map(|step| step.retry_after());
    assert_eq!(waits.max(), Some(retry_after));
    harness
        .advance(retry_after - Duration::from_micros(1))
        .await;
    assert!(!levels.charge(&limiter, [1, 1, 2]).await.is_allowed());
    harness.advance(Duration::from_micros(1)).await;
    assert!(levels.charge(&limiter, [1, 1, 2]).await.is_allowed());
}

pub(super) async fn a_key_twice_adds_up(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy, key) = (limiter(harness), case.policy(), case.key("twice"));
    let most = case.capacity();
    let charge = |cost| Charge::new(&policy, &key).with_cost(cost);
    let both = limiter
        .try_check_all(&[charge(1), charge(2)])
        .await
        .unwrap();
    assert!(both.is_allowed(), "{}: {both:?}", case.name);
    assert_eq!(
        limiter.peek(&policy, &key).await.unwrap().used,
        3,
        "{}",
        case.name
    );

    let steps = [charge(most - 4), charge(2)];
    let denied = limiter.try_check_all(&steps).await.unwrap();
    let Outcome::Denied { retry_after } = denied.outcome else {
        panic!("{}: expected a denial, got {denied:?}", case.name);
    };
    assert_eq!(
        limiter.peek(&policy, &key).await.unwrap().used,
        3,
        "{}",
        case.name
    );
    harness.advance(retry_after - case.unit).await;
    let early = limiter.try_check_all(&steps).await.unwrap();
    assert!(!early.is_allowed(), "{}: {early:?}", case.name);
    harness.advance(case.unit).await;
    let due = limiter.try_check_all(&steps).await.unwrap();
    assert!(due.is_allowed(), "{}: {due:?}", case.name);

    let never = limiter.try_check_all(&[charge(most), charge(1)]).await;
    assert_eq!(never.unwrap().outcome, Outcome::Never, "{}", case.name);
}

/// A peek asks with what stands before it, and takes nothing from what comes after.
pub(super) async fn a_peek_takes_no_part(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key) = (case.policy(), case.key("peek-in-group"));
    let most = case.capacity();
    let peek = |cost| Step::new(&policy, &key, Action::Peek { cost });
    let charge = |cost| Step::new(&policy, &key, Action::Charge { cost });
    let steps = [peek(most), charge(most - 1), peek(1)];
    let observed = apply(harness, &steps).await.unwrap();
    assert!(
        observed.iter().all(Observed::is_admitted),
        "{}: {observed:?}",
        case.name
    );
    assert_eq!(
        used(harness, &policy, &key).await,
        most - 1,
        "{}",
        case.name
    );
    let observed = apply(harness, &[charge(1), peek(1)]).await.unwrap();
    assert!(!observed[1].is_admitted(), "{}: {observed:?}", case.name);
    assert_eq!(
        used(harness, &policy, &key).await,
        most - 1,
        "{}",
        case.name
    );
}

pub(super) async fn a_shadow_never_blocks(harness: &dyn LimitHarness, case: &Case) {
    let limiter = limiter(harness);
    let shadow = case.policy().with_shadow(true);
    let enforced = Policy::new("enforced", case.quota).unwrap();
    let (watched, counted) = (case.key("shadow"), case.key("enforced"));
    fill(&limiter, case, &watched).await;

    let over = limiter.try_check(&shadow, &watched).await.unwrap();
    assert!(over.is_allowed(), "{}", case.name);
    assert!(
        matches!(over.shadow, Some(Outcome::Denied { .. })),
        "{over:?}"
    );

    let group = [
        Charge::new(&shadow, &watched).with_cost(portion(case)),
        Charge::new(&enforced, &counted).with_cost(case.capacity()),
    ];
    let decision = limiter.try_check_all(&group).await.unwrap();
    assert!(decision.is_allowed(), "{}: {decision:?}", case.name);
    assert_eq!(decision.violated().count(), 0, "{}", case.name);
    assert_eq!(
        decision.binding().map(|step| step.policy.name()),
        Some("enforced")
    );

    // A shadow charges only when the enforced ones admit.
    limiter.reset(&shadow, &watched).await.unwrap();
    assert!(!limiter.try_check_all(&group).await.unwrap().is_allowed());
    assert_eq!(
        limiter.peek(&shadow, &watched).await.unwrap().used,
        0,
        "{}",
        case.name
    );
    limiter.reset(&enforced, &counted).await.unwrap();
    assert!(limiter.try_check_all(&group).await.unwrap().is_allowed());
    let used = limiter.peek(&shadow, &watched).await.unwrap().used;
    assert_eq!(used, portion(case), "{}", case.name);
}

pub(super) async fn misuse_is_refused(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    let quota = Quota::fixed_window(5, Period::HOUR).unwrap();
    let (one, two) = (
        Policy::new("one", quota).unwrap(),
        Policy::new("two", quota).unwrap(),
    );
    let key = Key::new(["ratelimit", "conformance", "misuse"]);
    let too_many = vec![Charge::new(&one, &key); 65];
    let same_key = [Charge::new(&one, &key), Charge::new(&two, &key)];
    let groups: [&[Charge<'_>]; 3] = [&[], &too_many, &same_key];
    for group in groups {
        let refused = limiter.try_check_all(group).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    }
    let empty = Key::new([""; 0]);
    let refused = limiter.try_check(&one, &empty).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput, "{refused}");
    assert_eq!(limiter.peek(&one, &key).await.unwrap().used, 0);
}
