//! The suite that every backend calls from its tests, also a third party's.
//!
//! A backend is conformant if [`limits`] (or [`caches`]) returns; a failure panics with the case
//! and the values. What a backend lacks it declares, and then the suite checks that it is refused.
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//! use limiter_core::clock::ManualClock;
//! use limiter_core::conformance::{LimitHarness, limits};
//! use limiter_core::limit::LimitStore;
//!
//! struct Mine { store: Arc<dyn LimitStore>, clock: ManualClock }
//!
//! #[async_trait::async_trait]
//! impl LimitHarness for Mine {
//!     fn store(&self) -> Arc<dyn LimitStore> {
//!         self.store.clone()
//!     }
//!     async fn advance(&self, by: Duration) {
//!         self.clock.advance(by);
//!     }
//! }
//! # async fn test(mine: Mine) {
//! limits(&mine).await;
//! # }
//! ```
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test suite: its failures are panics"
)]

mod cache;
mod contract;
mod debit;
mod group;
#[cfg(test)]
mod itself;
mod lease;
mod once;
mod reserve;
mod single;
#[cfg(test)]
mod wrong;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::cache::CacheStore;
use crate::error::Error;
use crate::key::Key;
use crate::limit::{
    Action, Calendar, Group, LimitStore, Limiter, Observed, Period, Policy, Quota, Step,
};

/// A limit store whose time the suite can move.
#[async_trait]
pub trait LimitHarness: Sync {
    /// The store. Every call gives the same counters.
    fn store(&self) -> Arc<dyn LimitStore>;

    /// Moves the store's clock forward.
    async fn advance(&self, by: Duration);

    /// Whether the store's answers are degraded now: it answers in place of one that is away. A store of its own never
    /// is.
    fn degraded(&self) -> bool {
        false
    }

    /// A case begins, with keys of its own: the moment to change what the store has behind it.
    fn next_case(&self) {}
}

/// A cache store whose time the suite can move.
#[async_trait]
pub trait CacheHarness: Sync {
    /// The store. Every call gives the same values.
    fn store(&self) -> Arc<dyn CacheStore>;

    /// Moves the store's clock forward, or waits where it cannot be moved.
    async fn advance(&self, by: Duration);
}

/// Checks a limit store. Needs a tokio runtime.
///
/// # Panics
/// If the store breaks its contract.
pub async fn limits(harness: &dyn LimitHarness) {
    for case in cases() {
        run(
            harness,
            contract::an_issuer_is_asked_for_its_own(harness, &case),
        )
        .await;
        run(harness, contract::versions_never_meet(harness, &case)).await;
        run(harness, contract::an_answer_is_its_own(harness, &case)).await;
        run(harness, single::counts_down_to_a_denial(harness, &case)).await;
        run(harness, single::a_denial_charges_nothing(harness, &case)).await;
        run(harness, single::retry_after_is_exact(harness, &case)).await;
        run(
            harness,
            single::reset_after_frees_everything(harness, &case),
        )
        .await;
        run(
            harness,
            single::costs_out_of_range_never_reach_the_state(harness, &case),
        )
        .await;
        run(harness, single::a_peek_changes_nothing(harness, &case)).await;
        run(harness, single::a_reset_forgets(harness, &case)).await;
        run(
            harness,
            single::concurrent_charges_admit_exactly_the_limit(harness, &case),
        )
        .await;
        run(
            harness,
            single::a_lowered_quota_keeps_the_count(harness, &case),
        )
        .await;
        run(harness, group::a_key_twice_adds_up(harness, &case)).await;
        run(harness, group::a_peek_takes_no_part(harness, &case)).await;
        run(harness, group::a_shadow_never_blocks(harness, &case)).await;
        if harness.store().capabilities().refunds {
            run(harness, once::a_refund_gives_back_once(harness, &case)).await;
            run(
                harness,
                once::a_late_refund_gives_back_nothing(harness, &case),
            )
            .await;
        }
        if harness.store().capabilities().operation_ids {
            run(harness, once::an_operation_charges_once(harness, &case)).await;
        }
        if harness.store().capabilities().reservations {
            run(harness, reserve::settles_to_what_was_used(harness, &case)).await;
            run(harness, reserve::cancels_once(harness, &case)).await;
            run(harness, reserve::an_overrun_leaves_debt(harness, &case)).await;
            run(
                harness,
                reserve::a_late_settlement_is_expired(harness, &case),
            )
            .await;
            run(
                harness,
                reserve::a_lost_reply_changes_nothing(harness, &case),
            )
            .await;
            run(
                harness,
                reserve::a_cancel_overtakes_its_reservation(harness, &case),
            )
            .await;
            run(harness, reserve::a_replay_is_told_apart(harness, &case)).await;
        }
        if harness.store().capabilities().debits {
            run(harness, debit::takes_what_is_free(harness, &case)).await;
            run(
                harness,
                debit::keeps_the_bound_until_the_end(harness, &case),
            )
            .await;
        }
        run(harness, single::leases_do_not_fit(harness, &case)).await;
    }
    if harness.store().capabilities().leases {
        run(harness, lease::holds_at_most_the_limit(harness)).await;
        run(harness, lease::runs_out_unless_renewed(harness)).await;
        run(
            harness,
            lease::waits_for_the_earliest_that_are_enough(harness),
        )
        .await;
        run(harness, lease::is_recognised_by_its_id(harness)).await;
        run(harness, lease::a_release_overtakes_its_acquisition(harness)).await;
        run(harness, lease::stands_in_groups(harness)).await;
        run(harness, lease::takes_no_charges(harness)).await;
    }
    if harness.store().capabilities().operation_ids {
        run(harness, once::a_denied_operation_is_not_remembered(harness)).await;
        run(harness, once::an_operation_belongs_to_its_key(harness)).await;
        run(harness, once::an_operation_that_lost_its_hold(harness)).await;
    }
    if harness.store().capabilities().debits {
        run(harness, debit::a_bucket_is_charged_as_of_the_end(harness)).await;
        run(harness, debit::a_log_dates_it_at_the_end(harness)).await;
        run(harness, debit::a_window_ends_it(harness)).await;
        run(harness, debit::misuse_is_refused(harness)).await;
    }
    run(harness, contract::a_deadline_is_kept(harness)).await;
    run(harness, contract::a_stranger_is_a_conflict(harness)).await;
    run(harness, contract::a_window_lasts_as_it_was_opened(harness)).await;
    if harness.store().capabilities().refunds {
        run(harness, once::a_refill_is_not_given_back(harness)).await;
        run(harness, once::a_charge_is_given_back_for_a_week(harness)).await;
    }
    if harness.store().capabilities().reservations {
        run(harness, reserve::groups_are_settled_whole(harness)).await;
        run(harness, reserve::a_shadow_never_fails(harness)).await;
        run(harness, reserve::a_named_holder_does_not_cancel(harness)).await;
        run(
            harness,
            reserve::a_second_cancel_gives_nothing_back(harness),
        )
        .await;
    }
    run(harness, group::all_or_nothing(harness)).await;
    run(harness, group::the_largest_wait_is_enough(harness)).await;
    run(harness, group::misuse_is_refused(harness)).await;
    run(harness, single::a_faster_quota_keeps_its_word(harness)).await;
    run(
        harness,
        single::two_quotas_side_by_side_grant_nothing(harness),
    )
    .await;
    run(harness, single::large_quotas_are_exact(harness)).await;
    run(harness, single::lacking_actions_are_refused(harness)).await;
    let health = harness.store().health().await;
    assert!(
        health.connected || harness.degraded(),
        "the store under test is healthy: {health:?}"
    );
}

async fn run(harness: &dyn LimitHarness, case: impl Future<Output = ()>) {
    harness.next_case();
    case.await;
}

/// Checks a cache store. Needs a tokio runtime.
///
/// # Panics
/// If the store breaks its contract.
pub async fn caches(harness: &dyn CacheHarness) {
    cache::keeps_bytes(harness).await;
    cache::expires(harness).await;
    cache::increments(harness).await;
    cache::clears_one_namespace(harness).await;
    cache::refuses_bad_input(harness).await;
    let health = harness.store().health().await;
    assert!(
        health.connected,
        "the store under test is healthy: {health:?}"
    );
}

/// A quota to run every single-key case with.
struct Case {
    name: &'static str,
    quota: Quota,
    /// The same algorithm and period at half the limit.
    half: Quota,
    /// The grain of `retry_after`.
    unit: Duration,
}

impl Case {
    fn policy(&self) -> Policy {
        Policy::new(self.name, self.quota).unwrap()
    }

    fn capacity(&self) -> u64 {
        self.quota.capacity()
    }

    fn key(&self, test: &str) -> Key {
        Key::new(["ratelimit", "conformance", self.name, test])
    }
}

fn cases() -> Vec<Case> {
    let micro = Duration::from_micros(1);
    let case = |name, quota: fn(u64) -> Quota, limit, unit| Case {
        name,
        quota: quota(limit),
        half: quota(limit / 2),
        unit,
    };
    vec![
        case(
            "fixed-window",
            |limit| Quota::fixed_window(limit, Period::MINUTE).unwrap(),
            6,
            Duration::from_millis(1),
        ),
        case(
            "calendar-window",
            |limit| Quota::calendar_window(limit, Calendar::Hour).unwrap(),
            6,
            Duration::from_millis(1),
        ),
        case(
            "sliding-window",
            |limit| Quota::sliding_window(limit, Period::MINUTE).unwrap(),
            6,
            micro,
        ),
        // Counted in milliseconds, because 10 million times a day's microseconds pass 2^53.
        case(
            "sliding-window-coarse",
            |limit| Quota::sliding_window(limit, Period::DAY).unwrap(),
            10_000_000,
            micro,
        ),
        case(
            "sliding-log",
            |limit| Quota::sliding_log(limit, Period::MINUTE).unwrap(),
            6,
            micro,
        ),
        case(
            "token-bucket",
            |limit| Quota::token_bucket(limit, 7, Period::MINUTE).unwrap(),
            6,
            micro,
        ),
        // Counted in milliseconds, with a fraction that no period divides.
        case(
            "token-bucket-coarse",
            |limit| Quota::token_bucket(limit, 7, Period::MONTH).unwrap(),
            1_800,
            micro,
        ),
    ]
}

/// One at a time up to the limit for small quotas; in six steps for large ones.
fn portion(case: &Case) -> u64 {
    (case.capacity() / 6).max(1)
}

async fn fill(limiter: &Limiter, case: &Case, key: &Key) {
    let decision = limiter
        .try_check_n(&case.policy(), key, case.capacity())
        .await
        .unwrap();
    assert!(decision.is_allowed(), "{}: a fresh key has room", case.name);
}

/// Applies one group past the limiter, as its guards do.
async fn apply(harness: &dyn LimitHarness, steps: &[Step<'_>]) -> Result<Vec<Observed>, Error> {
    let store = harness.store();
    let group = Group::new(steps, &store.capabilities())?;
    let mut observed = vec![Observed::default(); steps.len()];
    match store.try_apply_now(&group, &mut observed) {
        Some(answer) => answer?,
        None => store.apply(&group, &mut observed).await?,
    }
    Ok(observed)
}

/// Applies one action.
async fn act(
    harness: &dyn LimitHarness,
    policy: &Policy,
    key: &Key,
    action: Action<'_>,
) -> Result<Observed, Error> {
    Ok(apply(harness, &[Step::new(policy, key, action)]).await?[0])
}

/// What is used of a key.
async fn used(harness: &dyn LimitHarness, policy: &Policy, key: &Key) -> u64 {
    limiter(harness).peek(policy, key).await.unwrap().used
}

fn limiter(harness: &dyn LimitHarness) -> Limiter {
    Limiter::new(harness.store())
}
