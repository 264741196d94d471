//! Charges that can be given back, and charges that are made once however often they are asked for.

use std::time::Duration;

use super::charge::Charge;
use super::check::Limiter;
use super::decision::GroupDecision;
use super::give_back::{Give, GiveBackQueue, What, deadline};
use crate::error::Error;
use crate::limit::algorithm::counts_until;
use crate::limit::store::{MAX_HOLD, OPERATION_TTL, Observed, OperationId, Receipt, Step, places};

/// An admitted group of charges, by which it can be given back.
#[derive(Clone, Debug)]
pub struct Charged {
    give_backs: GiveBackQueue,
    gives: Vec<Give>,
    replay: bool,
}

impl Charged {
    /// What a store observed of an admitted group of charges. For stores that make one group of several;
    /// users call [`Limiter::charge`]. `id` names the group: under it each charge is given back once. What cannot be
    /// delivered at once waits in `queue`.
    pub fn of(
        queue: &GiveBackQueue,
        id: &OperationId,
        steps: &[Step<'_>],
        observed: &[Observed],
    ) -> Self {
        let parts = steps.iter().zip(observed).zip(places(steps));
        let charged = parts.filter(|((_, observed), _)| observed.charged > 0);
        let gives = charged.map(|((step, observed), place)| {
            let ends = counts_until(step.policy.quota(), observed.mark);
            // A charge to a log that was debited counts from the debit's end.
            let counts = ends
                .saturating_since(observed.mark.at)
                .max(observed.reset_after);
            Give {
                policy: step.policy.clone(),
                key: step.key().clone(),
                issuer: observed.issuer,
                what: What::Refund(Receipt::new(
                    id.charge(place),
                    observed.mark,
                    observed.charged,
                )),
                until: deadline(counts.min(MAX_HOLD)),
            }
        });
        Self {
            gives: gives.collect(),
            give_backs: queue.clone(),
            replay: observed.iter().any(|observed| observed.replayed.is_some()),
        }
    }

    /// Whether the charges were made by an earlier call under the same id, and not by this one.
    pub fn is_replay(&self) -> bool {
        self.replay
    }

    /// Gives the charges back, as far as they still count: a window that has ended, an entry that has
    /// left its log and a debt that was paid off have nothing to give. Applies once: again, and from a
    /// clone, it does nothing. What an outage keeps from being delivered waits in the limiter's queue, until it counts no
    /// more.
    ///
    /// A charge that was made [once](Limiter::charge_once) and given back stays given back: its id is used up, and
    /// charging again under it is a `Conflict` for as long as the refund is remembered.
    ///
    /// # Errors
    /// What the store reports; `Expired` if the charges are 7 days old. After an outage it is tried again, unless too many wait already: then the error is
    /// `Saturated`, of the operation `limit.give_back`.
    pub async fn refund(&self) -> Result<(), Error> {
        self.give_backs.deliver_all(self.groups()).await
    }

    /// Gives the charges back in the background, as [`refund`](Self::refund) does, without an answer: from a destructor.
    pub fn refund_detached(&self) {
        for gives in self.groups() {
            self.give_backs.deliver_detached(gives);
        }
    }

    /// A key that was charged twice needs two groups, and so does another store.
    fn groups(&self) -> Vec<Vec<Give>> {
        let mut groups: Vec<Vec<Give>> = Vec::new();
        for give in &self.gives {
            let fits = |group: &&mut Vec<Give>| {
                group
                    .iter()
                    .all(|other| other.key != give.key && other.issuer == give.issuer)
            };
            match groups.iter_mut().find(fits) {
                Some(group) => group.push(give.clone()),
                None => groups.push(vec![give.clone()]),
            }
        }
        groups
    }
}

impl Limiter {
    /// Charges a group, like [`try_check_all`](Self::try_check_all), and gives what a refund needs, if
    /// it was admitted.
    ///
    /// ```
    /// # async fn example(limiter: limiter_core::limit::Limiter, policy: limiter_core::limit::Policy, key: limiter_core::Key) -> Result<(), limiter_core::Error> {
    /// use limiter_core::limit::Charge;
    ///
    /// let (decision, charged) = limiter.charge(&[Charge::new(&policy, &key).with_cost(3)]).await?;
    /// if let Some(charged) = charged {
    ///     // The work turned out not to be needed.
    ///     charged.refund().await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`try_check_all`](Self::try_check_all).
    pub async fn charge(
        &self,
        charges: &[Charge<'_>],
    ) -> Result<(GroupDecision, Option<Charged>), Error> {
        self.charge_as(charges, None).await
    }

    /// Charges a group once: asked again under the same id within [`OPERATION_TTL`] (60 s), in whatever order, it is
    /// admitted and charges nothing more, and says so ([`GroupDecision::is_replay`], [`Charged::is_replay`]). That makes
    /// a retry safe after an answer that did not come. A
    /// denied group is not remembered. The id belongs to one of the keys, the first by their texts.
    ///
    /// # Errors
    /// As [`try_check_all`](Self::try_check_all); `Conflict` if the id was used for other charges, or if its charges were
    /// given back.
    pub async fn charge_once(
        &self,
        operation: &OperationId,
        charges: &[Charge<'_>],
    ) -> Result<(GroupDecision, Option<Charged>), Error> {
        self.charge_as(charges, Some((operation, OPERATION_TTL)))
            .await
    }

    /// As [`charge_once`](Self::charge_once), remembered for another time than 60 s, 1 ms to 7 days: for messages that may come
    /// again for so long. Whether one came before is told by [`GroupDecision::is_replay`].
    ///
    /// # Errors
    /// As [`charge_once`](Self::charge_once); `InvalidInput` for another time.
    pub async fn charge_once_within(
        &self,
        operation: &OperationId,
        remembered: Duration,
        charges: &[Charge<'_>],
    ) -> Result<(GroupDecision, Option<Charged>), Error> {
        self.charge_as(charges, Some((operation, remembered))).await
    }

    async fn charge_as(
        &self,
        charges: &[Charge<'_>],
        operation: Option<(&OperationId, Duration)>,
    ) -> Result<(GroupDecision, Option<Charged>), Error> {
        let steps: Vec<Step<'_>> = charges.iter().map(Charge::step).collect();
        let mut observed = vec![Observed::default(); steps.len()];
        self.apply(&steps, operation, &mut observed).await?;
        let decision = GroupDecision::of(&steps, &observed);
        if !decision.is_allowed() {
            return Ok((decision, None));
        }
        let random;
        let id = match operation {
            Some((operation, _)) => operation,
            None => {
                random = OperationId::random();
                &random
            }
        };
        let charged = Charged::of(self.give_backs(), id, &steps, &observed);
        Ok((decision, Some(charged)))
    }
}
