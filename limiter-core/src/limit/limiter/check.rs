//! What users call.

use std::sync::Arc;
use std::time::Duration;

use super::charge::Charge;
use super::decision::{Decision, GroupDecision};
use super::give_back::{GIVE_BACKS, GiveBackQueue, GiveBackStats, deadline};
use super::queues::Queues;
use crate::error::Error;
use crate::figures::Figure;
use crate::health::Health;
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, Group, LimitStore, Observed, OperationId, Step};
use crate::limit::wrap::Stack;

/// Asks a store for decisions. Cheap to clone; clones share the store.
///
/// `check` and its sisters always answer with a decision: where the store gives an error, the
/// outcome is `Unavailable` and the error is logged. The `try_` forms return the error itself.
#[derive(Clone, Debug)]
pub struct Limiter {
    store: Arc<dyn LimitStore>,
    queues: Arc<Queues>,
    give_backs: GiveBackQueue,
    deadline: Option<Duration>,
}

impl Limiter {
    /// A limiter over a store, which keeps the policies' rules for outages.
    pub fn new(store: impl LimitStore + 'static) -> Self {
        Self::raw(Stack::new(store).build())
    }

    /// A limiter over a store as it is: nothing but what is in it keeps the policies' rules for outages. For stores that
    /// a [`Stack`] built, and for tests that want to see every error.
    pub fn raw(store: Arc<dyn LimitStore>) -> Self {
        Self {
            give_backs: GiveBackQueue::new(store.clone(), GIVE_BACKS),
            store,
            queues: Arc::default(),
            deadline: None,
        }
    }

    /// The same limiter with a deadline for each call, counted from when it is asked. What is not begun by then is not
    /// begun: `Timeout`, with `Effect::No`. A store with a shorter deadline of its own keeps that.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self {
            deadline: Some(deadline),
            ..self
        }
    }

    /// A limiter over the same store, where at most so many refunds, settlements, cancellations and releases wait while
    /// the store is away; [`GIVE_BACKS`] unless this says otherwise. Set it before the limiter is cloned.
    #[must_use]
    pub fn with_give_backs(self, most: usize) -> Self {
        Self {
            give_backs: GiveBackQueue::new(self.store.clone(), most),
            ..self
        }
    }

    /// What became of refunds, settlements, cancellations and releases that were not delivered at once: for metrics and
    /// alerts.
    pub fn give_back_stats(&self) -> GiveBackStats {
        self.give_backs.stats()
    }

    /// Waits until what is to be given back was given back, at most so long: for the end of a process, once its requests are
    /// answered and so what they held is dropped. What waits then is lost to the process: reservations and leases end by
    /// themselves, refunds are not made.
    pub async fn drain(&self, within: Duration) -> GiveBackStats {
        self.give_backs.drain(within).await
    }

    /// How many charges were made so far of which nobody was told (I-R2): the caller had left when the answer came, or its
    /// deadline was over. Charges of which no answer came at all are not among them.
    pub fn unheard(&self) -> u64 {
        self.store.unheard()
    }

    /// What the store tells of itself for metrics, without I/O.
    pub fn figures(&self) -> Vec<Figure> {
        self.store.figures()
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
        let steps: Vec<Step<'_>> = charges.iter().map(Charge::step).collect();
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

    pub(super) fn give_backs(&self) -> &GiveBackQueue {
        &self.give_backs
    }

    /// Applies a group, under an operation id that is remembered for a while if there is one.
    pub(super) async fn apply(
        &self,
        steps: &[Step<'_>],
        operation: Option<(&OperationId, Duration)>,
        observed: &mut [Observed],
    ) -> Result<(), Error> {
        let capabilities = self.store.capabilities();
        let group = Group::new(steps, &capabilities).and_then(|group| match operation {
            Some((id, ttl)) => group.with_operation(id, ttl, &capabilities),
            None => Ok(group),
        });
        let mut group = group.inspect_err(|error| self.store.as_ref().note(steps, Err(error)))?;
        if let Some(after) = self.deadline {
            group = group.with_deadline(deadline(after));
        }
        let answer = match self.store.try_apply_now(&group, observed) {
            Some(answer) => answer,
            // The store itself: an Arc of it would put the future into a box once more.
            None => self.store.as_ref().apply(&group, observed).await,
        };
        if answer.is_err() {
            // Who asks again and again still lets others run, who may be those that bring the store back.
            tokio::task::yield_now().await;
        }
        answer
    }
}

/// What became of a request that no store answered.
fn report<'a>(policies: impl Iterator<Item = &'a str>, error: &Error) {
    let policies: Vec<_> = policies.collect();
    if error.kind().is_outage() {
        // The rules for outages tell of it, once a second.
        tracing::debug!(?policies, %error, "limit not checked");
    } else {
        tracing::error!(?policies, %error, "limit refused");
    }
}
