//! Charges that can be given back, and charges that are made once however often they are asked for.

use std::sync::Arc;

use tokio::time::Instant;

use super::charge::Charge;
use super::check::Limiter;
use super::decision::GroupDecision;
use super::deliver::{Give, What, deliver_all};
use crate::error::Error;
use crate::limit::store::{
    Action, LimitStore, MAX_HOLD, Mark, OPERATION_TTL, Observed, OperationId, Receipt, Step,
};

/// An admitted group of charges, by which it can be given back.
#[derive(Clone, Debug)]
pub struct Charged {
    store: Arc<dyn LimitStore>,
    gives: Vec<Give>,
}

impl Charged {
    /// What a store observed of an admitted group of charges. For stores that make one group of several;
    /// users call [`Limiter::charge`]. `id` names the group: under it each charge is given back once.
    pub fn of(
        store: Arc<dyn LimitStore>,
        id: &OperationId,
        steps: &[Step<'_>],
        observed: &[Observed],
    ) -> Self {
        let parts = steps.iter().zip(observed).enumerate();
        let charged = parts.filter(|(_, (_, observed))| observed.charged > 0);
        let gives = charged.map(|(index, (step, observed))| {
            // An operation's id may be used again when it is forgotten; this charge's may not.
            let Mark { at, number } = observed.mark;
            let at = at.as_micros();
            let id = OperationId::new(format!("{}#{index}@{at}:{number}", id.as_str()));
            Give {
                policy: step.policy.clone(),
                key: step.key.clone(),
                what: What::Refund(Receipt::new(id, observed.mark, observed.charged)),
            }
        });
        Self {
            store,
            gives: gives.collect(),
        }
    }

    /// Gives the charges back, as far as they still count: a window that has ended, an entry that has
    /// left its log and a debt that was paid off have nothing to give. Applies once: again, and from a
    /// clone, it does nothing. One that an outage keeps from being delivered is retried in the
    /// background.
    ///
    /// # Errors
    /// What the store reports; after an outage it is being retried.
    pub async fn refund(&self) -> Result<(), Error> {
        // A key that was charged twice needs two groups.
        let mut groups: Vec<Vec<Give>> = Vec::new();
        for give in &self.gives {
            let lacks_key =
                |group: &&mut Vec<Give>| group.iter().all(|other| other.key != give.key);
            match groups.iter_mut().find(lacks_key) {
                Some(group) => group.push(give.clone()),
                None => groups.push(vec![give.clone()]),
            }
        }
        deliver_all(&self.store, groups, Instant::now() + MAX_HOLD).await
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

    /// Charges a group once: asked again under the same id within [`OPERATION_TTL`] (60 s), it is
    /// admitted and charges nothing more. That makes a retry safe after an answer that did not come. A
    /// denied group is not remembered. The id belongs to the key of the first charge.
    ///
    /// # Errors
    /// As [`try_check_all`](Self::try_check_all); `Conflict` if the id was used for other charges.
    pub async fn charge_once(
        &self,
        operation: &OperationId,
        charges: &[Charge<'_>],
    ) -> Result<(GroupDecision, Option<Charged>), Error> {
        self.charge_as(charges, Some(operation)).await
    }

    async fn charge_as(
        &self,
        charges: &[Charge<'_>],
        operation: Option<&OperationId>,
    ) -> Result<(GroupDecision, Option<Charged>), Error> {
        let steps: Vec<Step<'_>> = charges
            .iter()
            .map(|charge| {
                let cost = charge.cost();
                Step::new(charge.policy(), charge.key(), Action::Charge { cost })
            })
            .collect();
        let mut observed = vec![Observed::default(); steps.len()];
        let remembered = operation.map(|operation| (operation, OPERATION_TTL));
        self.apply(&steps, remembered, &mut observed).await?;
        let decision = GroupDecision::of(&steps, &observed);
        if !decision.is_allowed() {
            return Ok((decision, None));
        }
        let random;
        let id = match operation {
            Some(operation) => operation,
            None => {
                random = OperationId::random();
                &random
            }
        };
        let charged = Charged::of(self.store().clone(), id, &steps, &observed);
        Ok((decision, Some(charged)))
    }
}
