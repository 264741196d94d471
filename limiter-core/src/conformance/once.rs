//! Refunds and operation ids: what is applied once, however often it is asked for.

use std::time::Duration;

use super::{Case, LimitHarness, act, fill, limiter, portion, used};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::limit::{
    Action, Charge, Charged, Group, MAX_HOLD, OPERATION_TTL, Observed, OperationId, Period, Policy,
    Quota, Receipt, Replay, Step,
};

/// I-R4.
pub(super) async fn a_refund_gives_back_once(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key, cost) = (case.policy(), case.key("refund"), portion(case));
    let charge = Action::Charge { cost };
    let charged = act(harness, &policy, &key, charge.clone()).await.unwrap();
    assert_eq!(charged.charged, cost, "{}", case.name);
    act(harness, &policy, &key, charge).await.unwrap();
    assert_eq!(used(harness, &policy, &key).await, 2 * cost);

    let receipt = Receipt::new(OperationId::random(), charged.mark, cost);
    let refund = || Action::Refund { receipt: &receipt };
    for _ in 0..3 {
        let refunded = act(harness, &policy, &key, refund()).await.unwrap();
        assert_eq!(
            (refunded.used, refunded.charged),
            (cost, 0),
            "{}",
            case.name
        );
    }
    fill_rest(harness, case, &key, cost).await;
    let late = act(harness, &policy, &key, refund()).await.unwrap();
    assert_eq!(late.used, case.capacity(), "{}: once", case.name);
    // A key without a state has nothing to give back.
    let other = case.key("refund-other");
    act(harness, &policy, &other, refund()).await.unwrap();
    assert_eq!(used(harness, &policy, &other).await, 0, "{}", case.name);
}

/// A charge that counts no more is not given back out of those that do.
pub(super) async fn a_late_refund_gives_back_nothing(harness: &dyn LimitHarness, case: &Case) {
    let (policy, key) = (case.policy(), case.key("late-refund"));
    let cost = case.capacity();
    let charged = act(harness, &policy, &key, Action::Charge { cost })
        .await
        .unwrap();
    harness.advance(charged.reset_after).await;
    fill(&limiter(harness), case, &key).await;
    let receipt = Receipt::new(OperationId::random(), charged.mark, cost);
    let late = act(harness, &policy, &key, Action::Refund { receipt: &receipt }).await;
    match late {
        Ok(late) => assert_eq!(late.used, cost, "{}: {late:?}", case.name),
        Err(late) => {
            assert_eq!(late.kind(), ErrorKind::Expired, "{}: {late}", case.name);
            assert!(charged.reset_after >= MAX_HOLD, "{}: {late}", case.name);
        }
    }
    assert_eq!(used(harness, &policy, &key).await, cost, "{}", case.name);
}

/// However long it counts: what is remembered of it ends some time.
pub(super) async fn a_charge_is_given_back_for_a_week(harness: &dyn LimitHarness) {
    let long = Period::new(4 * MAX_HOLD).unwrap();
    for (name, quota) in [
        ("window", Quota::fixed_window(10, long)),
        ("counter", Quota::sliding_window(10, long)),
        ("log", Quota::sliding_log(10, long)),
        ("bucket", Quota::token_bucket(10, 1, long)),
    ] {
        let policy = Policy::new(name, quota.unwrap()).unwrap();
        let key = Key::new(["ratelimit", "conformance", "week", name]);
        let mut receipts = Vec::new();
        for _ in 0..2 {
            let charge = Action::Charge { cost: 2 };
            let charged = act(harness, &policy, &key, charge).await.unwrap();
            receipts.push(Receipt::new(OperationId::random(), charged.mark, 2));
        }
        let refund = async |receipt| {
            let refunded = act(harness, &policy, &key, Action::Refund { receipt }).await;
            refunded.map(|observed| (observed.used, observed.replayed))
        };
        harness.advance(MAX_HOLD - Duration::from_secs(1)).await;
        // The newer one first: of a bucket, the refill has paid nothing of it yet.
        assert_eq!(refund(&receipts[1]).await.unwrap(), (2, None), "{name}");
        harness.advance(Duration::from_secs(1)).await;
        let late = refund(&receipts[0]).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Expired, "{name}: {late}");
        // It is remembered for a while still.
        let again = refund(&receipts[1]).await.unwrap();
        assert_eq!(again, (2, Some(Replay::Done)), "{name}");
        harness.advance(OPERATION_TTL).await;
        let late = refund(&receipts[1]).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Expired, "{name}: {late}");
        assert_eq!(used(harness, &policy, &key).await, 2, "{name}");
    }
}

/// What a bucket has paid off flows in once, whatever else was given back, and a reset forgets it.
pub(super) async fn a_refill_is_not_given_back(harness: &dyn LimitHarness) {
    let policy = Policy::new(
        "refill",
        Quota::token_bucket(20, 1, Period::SECOND).unwrap(),
    );
    let policy = policy.unwrap();
    let key = |test| Key::new(["ratelimit", "conformance", "refill", test]);
    let charge = async |key: &Key| {
        let charge = Action::Charge { cost: 10 };
        let charged = act(harness, &policy, key, charge).await.unwrap();
        assert!(charged.is_admitted());
        Receipt::new(OperationId::random(), charged.mark, 10)
    };
    let refund = async |key: &Key, receipt: &Receipt| {
        let refunded = act(harness, &policy, key, Action::Refund { receipt }).await;
        refunded.unwrap().used
    };
    let paid = key("paid");
    let (first, second) = (charge(&paid).await, charge(&paid).await);
    assert_eq!(refund(&paid, &first).await, 10);
    // The second one is paid off, and then there is a third one.
    harness.advance(Duration::from_secs(10)).await;
    charge(&paid).await;
    harness.advance(Duration::from_secs(2)).await;
    assert_eq!(refund(&paid, &second).await, 8);

    let reset = key("reset");
    let before = charge(&reset).await;
    harness.advance(Duration::from_secs(1)).await;
    limiter(harness).reset(&policy, &reset).await.unwrap();
    charge(&reset).await;
    assert_eq!(refund(&reset, &before).await, 10);
}

/// N3.
pub(super) async fn an_operation_charges_once(harness: &dyn LimitHarness, case: &Case) {
    let (limiter, policy) = (limiter(harness), case.policy());
    let (key, other) = (case.key("operation"), case.key("operation-other"));
    let cost = portion(case);
    let charges = [
        Charge::new(&policy, &key).with_cost(cost),
        Charge::new(&policy, &other).with_cost(2 * cost),
    ];
    let id = OperationId::new("retry me");
    let mut receipts = Vec::new();
    for _ in 0..3 {
        let (decision, charged) = limiter.charge_once(&id, &charges).await.unwrap();
        assert!(decision.is_allowed(), "{}: {decision:?}", case.name);
        let of_each: Vec<_> = decision.decisions.iter().map(|part| part.used).collect();
        assert_eq!(of_each, [cost, 2 * cost], "{}", case.name);
        receipts.push(charged.unwrap());
    }
    let replays: Vec<_> = receipts.iter().map(Charged::is_replay).collect();
    assert_eq!(replays, [false, true, true], "{}", case.name);
    let other_cost = [charges[0], charges[1].with_cost(cost)];
    let conflict = limiter.charge_once(&id, &other_cost).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict, "{}", case.name);
    // In another order it is the same operation, and each charge stands where it stood.
    let turned = [charges[1], charges[0]];
    let (decision, charged) = limiter.charge_once(&id, &turned).await.unwrap();
    assert!(decision.is_replay(), "{}: {decision:?}", case.name);
    receipts.push(charged.unwrap());
    // Every answer's receipt is the same one.
    for receipt in receipts {
        receipt.refund().await.unwrap();
    }
    assert_eq!(used(harness, &policy, &other).await, 0, "{}", case.name);
    assert_eq!(used(harness, &policy, &key).await, 0, "{}", case.name);
    // What was given back is not charged again under its id, and so not admitted either.
    for charges in [&charges, &turned] {
        let conflict = limiter.charge_once(&id, charges).await.unwrap_err();
        assert_eq!(conflict.kind(), ErrorKind::Conflict, "{}", case.name);
    }
    assert_eq!(used(harness, &policy, &key).await, 0, "{}", case.name);
}

/// An operation that holds something is not admitted again once it holds it no more.
pub(super) async fn an_operation_that_lost_its_hold(harness: &dyn LimitHarness) {
    let store = harness.store();
    let capabilities = store.capabilities();
    let ttl = Duration::from_secs(10);
    let key = |name| Key::new(["ratelimit", "conformance", "operation-holds", name]);
    let apply = async |steps: &[Step<'_>], id: &OperationId| {
        let group = Group::new(steps, &capabilities)?;
        let group = group.with_operation(id, OPERATION_TTL, &capabilities)?;
        let mut observed = vec![Observed::default(); steps.len()];
        store.apply(&group, &mut observed).await?;
        Ok::<_, Error>(observed)
    };
    let id = &OperationId::new("the hold");
    if capabilities.leases {
        let streams = Policy::new("streams", Quota::concurrency(2).unwrap()).unwrap();
        let (key, operation) = (key("lease"), OperationId::new("stream"));
        let acquire = Action::Acquire {
            lease: id,
            cost: 1,
            ttl,
        };
        let steps = [Step::new(&streams, &key, acquire)];
        apply(&steps, &operation).await.unwrap();
        let again = apply(&steps, &operation).await.unwrap();
        assert_eq!(again[0].replayed, Some(Replay::Held));
        harness.advance(ttl).await;
        let gone = apply(&steps, &operation).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Expired);
        assert_eq!(used(harness, &streams, &key).await, 0);
    }
    if capabilities.reservations {
        let quota = Quota::fixed_window(9, Period::HOUR).unwrap();
        let budget = Policy::new("budget", quota).unwrap();
        let (key, operation) = (key("reservation"), OperationId::new("call"));
        let reserve = Action::Reserve {
            id,
            estimate: 4,
            ttl,
        };
        let steps = [Step::new(&budget, &key, reserve)];
        apply(&steps, &operation).await.unwrap();
        let again = apply(&steps, &operation).await.unwrap();
        assert_eq!(
            (again[0].replayed, again[0].charged),
            (Some(Replay::Held), 4)
        );
        act(harness, &budget, &key, Action::Cancel { id, ttl })
            .await
            .unwrap();
        let cancelled = apply(&steps, &operation).await.unwrap_err();
        assert_eq!(cancelled.kind(), ErrorKind::Conflict);
        harness.advance(ttl).await;
        let gone = apply(&steps, &operation).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Expired);
        assert_eq!(used(harness, &budget, &key).await, 0);
    }
}

pub(super) async fn a_denied_operation_is_not_remembered(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    let quota = Quota::fixed_window(5, Period::MINUTE).unwrap();
    let policy = Policy::new("operation", quota).unwrap();
    let key = Key::new(["ratelimit", "conformance", "operation-denied"]);
    let id = OperationId::new("denied at first");
    limiter.try_check_n(&policy, &key, 5).await.unwrap();
    let charges = [Charge::new(&policy, &key).with_cost(2)];
    let (denied, charged) = limiter.charge_once(&id, &charges).await.unwrap();
    assert!(!denied.is_allowed() && charged.is_none());
    limiter.reset(&policy, &key).await.unwrap();
    let (admitted, _) = limiter.charge_once(&id, &charges).await.unwrap();
    assert!(admitted.is_allowed());
    assert_eq!(used(harness, &policy, &key).await, 2);

    // After its time the id is new.
    harness.advance(Duration::from_secs(60)).await;
    limiter.charge_once(&id, &charges).await.unwrap();
    assert_eq!(used(harness, &policy, &key).await, 2, "in the next window");
}

/// C4: what one tenant calls its operations is nothing to another.
pub(super) async fn an_operation_belongs_to_its_key(harness: &dyn LimitHarness) {
    let limiter = limiter(harness);
    let quota = Quota::fixed_window(5, Period::MINUTE).unwrap();
    let policy = Policy::new("operation", quota).unwrap();
    let id = OperationId::new("the same name");
    for tenant in ["acme", "other"] {
        let key = Key::new(["ratelimit", "conformance", "operation-of", tenant]);
        let charges = [Charge::new(&policy, &key)];
        limiter.charge_once(&id, &charges).await.unwrap();
        assert_eq!(used(harness, &policy, &key).await, 1, "{tenant}");
    }
}

/// Charges what is left above `taken`.
async fn fill_rest(harness: &dyn LimitHarness, case: &Case, key: &Key, taken: u64) {
    let cost = case.capacity() - taken;
    let policy = case.policy();
    let rest = act(harness, &policy, key, Action::Charge { cost })
        .await
        .unwrap();
    assert!(rest.is_admitted(), "{}: {rest:?}", case.name);
}
