//! What users call.

use std::sync::Arc;
use std::time::Duration;

use super::charge::Charge;
use super::decision::{Decision, GroupDecision};
use super::queues::Queues;
use crate::error::Error;
use crate::health::Health;
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, Group, LimitStore, Observed, OperationId, Step};

/// Asks a store for decisions. Cheap to clone; clones share the store.
///
/// `check` and its sisters always answer with a decision: where the store gives an error, the
/// outcome is `Unavailable` and the error is logged. The `try_` forms return the error itself.
#[derive(Clone, Debug)]
pub struct Limiter {
    store: Arc<dyn LimitStore>,
    queues: Arc<Queues>,
}

impl Limiter {
    /// A limiter over a store.
    pub fn new(store: impl LimitStore + 'static) -> Self {
        Self {
            store: Arc::new(store),
            queues: Arc::default(),
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn LimitStore> {
        &self.store
    }

    /// Charges 1.
    pub async fn check(&self, policy: &Policy, key: &Key) -> Decision {
        self.check_n(policy, key, 1).await
    }

    /// Charges `cost`; 0 is a peek. A cost above the limit is answered with `Never`.
    pub async fn check_n(&self, policy: &Policy, key: &Key, cost: u64) -> Decision {
        self.try_check_n(policy, key, cost)
            .await
            .unwrap_or_else(|error| {
                report([policy.name()].into_iter(), &error);
                Decision::unavailable(policy, &error)
            })
    }

    /// Charges 1.
    ///
    /// # Errors
    /// What the store reports; misuse is `InvalidInput` or `Unsupported`. A denial is no error.
    pub async fn try_check(&self, policy: &Policy, key: &Key) -> Result<Decision, Error> {
        self.try_check_n(policy, key, 1).await
    }

    /// Charges `cost`; 0 is a peek.
    ///
    /// # Errors
    /// As [`try_check`](Self::try_check).
    pub async fn try_check_n(
        &self,
        policy: &Policy,
        key: &Key,
        cost: u64,
    ) -> Result<Decision, Error> {
        self.one(policy, key, Action::Charge { cost }).await
    }

    /// Charges a group: all of it, or, if any enforced policy denies, nothing.
    pub async fn check_all(&self, charges: &[Charge<'_>]) -> GroupDecision {
        self.try_check_all(charges).await.unwrap_or_else(|error| {
            let policies = || charges.iter().map(|charge| charge.policy());
            report(policies().map(Policy::name), &error);
            GroupDecision::unavailable(policies(), &error)
        })
    }

    /// Charges a group: all of it, or, if any enforced policy denies, nothing.
    ///
    /// # Errors
    /// As [`try_check`](Self::try_check), and `InvalidInput` for what [`Group::new`] refuses.
    pub async fn try_check_all(&self, charges: &[Charge<'_>]) -> Result<GroupDecision, Error> {
        let steps: Vec<Step<'_>> = charges
            .iter()
            .map(|charge| {
                let cost = charge.cost();
                Step::new(charge.policy(), charge.key(), Action::Charge { cost })
            })
            .collect();
        let mut observed = vec![Observed::default(); steps.len()];
        self.apply(&steps, None, &mut observed).await?;
        Ok(GroupDecision::of(&steps, &observed))
    }

    /// What is used, without charging anything. `outcome` says whether a charge of 1 would pass.
    ///
    /// # Errors
    /// As [`try_check`](Self::try_check).
    pub async fn peek(&self, policy: &Policy, key: &Key) -> Result<Decision, Error> {
        self.peek_n(policy, key, 1).await
    }

    /// What is used, without charging anything. `outcome` says whether a charge of `cost` would pass.
    ///
    /// # Errors
    /// As [`try_check`](Self::try_check).
    pub async fn peek_n(&self, policy: &Policy, key: &Key, cost: u64) -> Result<Decision, Error> {
        self.one(policy, key, Action::Peek { cost }).await
    }

    /// Forgets what was charged to a key.
    ///
    /// # Errors
    /// As [`try_check`](Self::try_check).
    pub async fn reset(&self, policy: &Policy, key: &Key) -> Result<(), Error> {
        self.one(policy, key, Action::Reset).await.map(drop)
    }

    /// How the store is: for `/health`. Never fails.
    pub async fn health(&self) -> Health {
        self.store.health().await
    }

    /// Whether the store answers. Never fails.
    pub async fn is_healthy(&self) -> bool {
        self.health().await.connected
    }

    async fn one(&self, policy: &Policy, key: &Key, action: Action<'_>) -> Result<Decision, Error> {
        let steps = [Step::new(policy, key, action)];
        let mut observed = [Observed::default()];
        self.apply(&steps, None, &mut observed).await?;
        Ok(Decision::new(policy, &observed[0]))
    }

    pub(super) fn queues(&self) -> &Arc<Queues> {
        &self.queues
    }

    /// Applies a group, under an operation id that is remembered for a while if there is one.
    pub(super) async fn apply(
        &self,
        steps: &[Step<'_>],
        operation: Option<(&OperationId, Duration)>,
        observed: &mut [Observed],
    ) -> Result<(), Error> {
        let capabilities = self.store.capabilities();
        let mut group = Group::new(steps, &capabilities)?;
        if let Some((id, ttl)) = operation {
            group = group.with_operation(id, ttl, &capabilities)?;
        }
        match self.store.try_apply_now(&group, observed) {
            Some(answer) => answer,
            None => self.store.apply(&group, observed).await,
        }
    }
}

/// What became of a request that no store answered.
fn report<'a>(policies: impl Iterator<Item = &'a str>, error: &Error) {
    let policies: Vec<_> = policies.collect();
    if error.kind().is_outage() {
        tracing::warn!(?policies, %error, "limit not checked");
    } else {
        tracing::error!(?policies, %error, "limit refused");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::limit::wrap::Stack;
    use crate::limit::{Capabilities, Group, Outage, Outcome, Period, Quota, Source};

    /// A store that is never there.
    #[derive(Debug)]
    struct Broken(ErrorKind);

    #[async_trait::async_trait]
    impl LimitStore for Broken {
        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }

        fn try_apply_now(
            &self,
            _group: &Group<'_>,
            _observed: &mut [Observed],
        ) -> Option<Result<(), Error>> {
            None
        }

        async fn apply(&self, _group: &Group<'_>, _: &mut [Observed]) -> Result<(), Error> {
            Err(Error::new(self.0, "limit.apply", "not there"))
        }

        async fn health(&self) -> Health {
            Health::new("broken", false, None, "not there")
        }
    }

    fn policy(outage: Outage) -> Policy {
        let quota = Quota::fixed_window(5, Period::HOUR).unwrap();
        Policy::new("p", quota).unwrap().with_outage(outage)
    }

    /// C2: fail closed or open, as the policy says; misuse is neither.
    #[tokio::test]
    async fn outage_rules_apply_to_outages_only() {
        let key = Key::new(["ratelimit", "a"]);
        let down = Limiter::new(Stack::new(Broken(ErrorKind::Connection)).build());
        let denied = down.check(&policy(Outage::Deny), &key).await;
        let kind = ErrorKind::Connection;
        assert_eq!(denied.outcome, Outcome::Unavailable { kind });
        let allowed = down.check(&policy(Outage::Allow), &key).await;
        assert!(allowed.is_allowed() && allowed.degraded);
        assert_eq!(allowed.source, Source::Outage);
        let never = down.check_n(&policy(Outage::Allow), &key, 6).await;
        assert_eq!(
            never.outcome,
            Outcome::Never,
            "an outage does not raise a limit"
        );
        assert!(down.reset(&policy(Outage::Allow), &key).await.is_err());
        assert!(!down.is_healthy().await);

        let (allow, deny) = (policy(Outage::Allow), policy(Outage::Deny));
        let other = Key::new(["ratelimit", "b"]);
        let mixed = [Charge::new(&allow, &key), Charge::new(&deny, &other)];
        assert!(!down.check_all(&mixed).await.is_allowed(), "Deny wins");

        let misused = Limiter::new(Stack::new(Broken(ErrorKind::Unsupported)).build());
        let refused = misused.check(&policy(Outage::Allow), &key).await;
        assert!(!refused.is_allowed(), "misuse is no outage");
    }

    #[tokio::test]
    async fn a_shadow_never_blocks_and_misuse_never_admits() {
        let broken = Limiter::new(Broken(ErrorKind::Unsupported));
        let key = Key::new(["ratelimit", "a"]);
        let shadow = policy(Outage::Deny).with_shadow(true);
        let watched = broken.check(&shadow, &key).await;
        assert!(watched.is_allowed());
        assert!(matches!(watched.shadow, Some(Outcome::Unavailable { .. })));
        assert!(
            broken
                .check_all(&[Charge::new(&shadow, &key)])
                .await
                .is_allowed()
        );
        assert!(!broken.check_all(&[]).await.is_allowed());
    }
}
