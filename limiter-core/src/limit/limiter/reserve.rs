//! Reservations: an estimate is charged before the work, and settled to what was used after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::charge::Charge;
use super::check::Limiter;
use super::decision::GroupDecision;
use super::deliver::{Give, What, deadline, deliver, deliver_detached};
use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, LimitStore, Observed, OperationId, Step};

/// The answer to [`Limiter::reserve`].
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "held or not held are all there is")]
pub enum Reserved {
    /// The estimates are charged.
    Held(Reservation),
    /// Nothing was charged.
    Denied(GroupDecision),
}

impl Reserved {
    /// The reservation, if it was admitted.
    pub fn held(self) -> Option<Reservation> {
        match self {
            Self::Held(reservation) => Some(reservation),
            Self::Denied(_) => None,
        }
    }
}

/// A charged estimate. [`settle`](Self::settle) it to what was used, or [`cancel`](Self::cancel) it.
///
/// Dropped before [`started`](Self::started), it is cancelled. Dropped after that, it stays charged: a
/// client that disconnects must not get back what was spent. It can be settled for its time to live,
/// then the estimate stands.
#[derive(Debug)]
#[must_use = "dropped at once, the reservation is cancelled"]
pub struct Reservation {
    store: Arc<dyn LimitStore>,
    id: OperationId,
    parts: Vec<(Policy, Key)>,
    decision: GroupDecision,
    until: Instant,
    /// What a drop does.
    on_drop: OnDrop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnDrop {
    Cancel,
    Nothing,
}

/// What a settled reservation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// What stands charged for each charge of the reservation, in its order. Less than what was used if
    /// the window of the reservation was over or the debt would have been too large: more than that
    /// cannot be charged after the fact.
    pub charged: Vec<u64>,
}

impl Limiter {
    /// Charges estimates, all or nothing, to be settled within `ttl` (1 ms to 7 days).
    ///
    /// ```
    /// # async fn call_model() -> u64 { 812 }
    /// # async fn example(limiter: limiter_core::limit::Limiter, policy: limiter_core::limit::Policy, key: limiter_core::Key) -> Result<(), limiter_core::Error> {
    /// use std::time::Duration;
    /// use limiter_core::limit::{Charge, Reserved};
    ///
    /// let estimate = [Charge::new(&policy, &key).with_cost(2_000)];
    /// match limiter.reserve(&estimate, Duration::from_secs(300)).await? {
    ///     Reserved::Held(mut reservation) => {
    ///         reservation.started();
    ///         let used = call_model().await;
    ///         reservation.settle(&[used]).await?;
    ///     }
    ///     Reserved::Denied(decision) => println!("wait {:?}", decision.outcome),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`try_check_all`](Self::try_check_all). Whatever an answer that did not come had charged is
    /// cancelled in the background.
    pub async fn reserve(&self, charges: &[Charge<'_>], ttl: Duration) -> Result<Reserved, Error> {
        let id = OperationId::random();
        self.reserve_or(OnDrop::Cancel, id, charges, ttl).await
    }

    /// As [`reserve`](Self::reserve), under an id of the caller's: asked again with the same charges, it
    /// is the same reservation. So one whose answer did not come is not cancelled in the background, which
    /// would take it from under the retry: ask again, and cancel what is not needed.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve); `Conflict` if the id holds another amount or was cancelled.
    pub async fn reserve_as(
        &self,
        id: OperationId,
        charges: &[Charge<'_>],
        ttl: Duration,
    ) -> Result<Reserved, Error> {
        self.reserve_or(OnDrop::Nothing, id, charges, ttl).await
    }

    /// `unanswered` is what becomes of the reservation if nobody hears whether it was made.
    async fn reserve_or(
        &self,
        unanswered: OnDrop,
        id: OperationId,
        charges: &[Charge<'_>],
        ttl: Duration,
    ) -> Result<Reserved, Error> {
        let steps: Vec<Step<'_>> = charges
            .iter()
            .map(|charge| {
                let action = Action::Reserve {
                    id: &id,
                    estimate: charge.cost(),
                    ttl,
                };
                Step::new(charge.policy(), charge.key(), action)
            })
            .collect();
        // From here on a drop of this future counts as one of the reservation.
        let mut reservation = Reservation {
            store: self.store().clone(),
            id: id.clone(),
            parts: charges
                .iter()
                .map(|charge| (charge.policy().clone(), charge.key().clone()))
                .collect(),
            decision: GroupDecision::new(Vec::new()),
            // A time to live that is too long is refused below.
            until: deadline(ttl),
            on_drop: unanswered,
        };
        let mut observed = vec![Observed::default(); steps.len()];
        if let Err(error) = self.apply(&steps, None, &mut observed).await {
            if error.effect() == crate::error::Effect::No {
                reservation.on_drop = OnDrop::Nothing;
            }
            return Err(error);
        }
        let decision = GroupDecision::of(&steps, &observed);
        if !decision.is_allowed() {
            reservation.on_drop = OnDrop::Nothing;
            return Ok(Reserved::Denied(decision));
        }
        reservation.decision = decision;
        reservation.on_drop = OnDrop::Cancel;
        Ok(Reserved::Held(reservation))
    }
}

impl Reservation {
    /// Under which it can be found again with [`Limiter::reserve_as`].
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// What the charge of the estimates answered.
    pub fn decision(&self) -> &GroupDecision {
        &self.decision
    }

    /// Says that the work has begun: from here on a drop leaves the estimates charged.
    pub fn started(&mut self) {
        self.on_drop = OnDrop::Nothing;
    }

    /// Replaces the estimates by what was used, `actual` for each charge in its order. More than the
    /// estimate may leave debt; it never fails for that.
    ///
    /// # Errors
    /// `InvalidInput` if the number of amounts is not that of the charges, or one is 2^51 or more; the
    /// estimates then stand. `Expired` after the time to live. After an outage it is retried in the
    /// background until then.
    pub async fn settle(mut self, actual: &[u64]) -> Result<Settled, Error> {
        self.started();
        if actual.len() != self.parts.len() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "limit.settle",
                format!(
                    "{} amounts for {} charges; give one for each",
                    actual.len(),
                    self.parts.len()
                ),
            ));
        }
        let amounts = actual.iter();
        let gives = self
            .parts
            .iter()
            .zip(amounts)
            .map(|((policy, key), actual)| Give {
                policy: policy.clone(),
                key: key.clone(),
                what: What::Settle {
                    id: self.id.clone(),
                    actual: *actual,
                },
            });
        let result = deliver(&self.store, gives.collect(), self.until).await;
        match result {
            // Admitted by an outage's rule: there is nothing to settle.
            Err(error) if error.kind() == ErrorKind::Expired && self.is_degraded() => Ok(Settled {
                charged: vec![0; actual.len()],
            }),
            result => Ok(Settled {
                charged: result?.iter().map(|observed| observed.charged).collect(),
            }),
        }
    }

    /// Gives the estimates back.
    ///
    /// # Errors
    /// `Expired` after the time to live. After an outage it is retried in the background until then.
    pub async fn cancel(mut self) -> Result<(), Error> {
        self.on_drop = OnDrop::Nothing;
        match deliver(&self.store, self.cancels(), self.until).await {
            Err(error) if error.kind() == ErrorKind::Expired && self.is_degraded() => Ok(()),
            result => result.map(drop),
        }
    }

    fn cancels(&self) -> Vec<Give> {
        let parts = self.parts.iter();
        parts
            .map(|(policy, key)| Give {
                policy: policy.clone(),
                key: key.clone(),
                what: What::Cancel(self.id.clone()),
            })
            .collect()
    }

    fn is_degraded(&self) -> bool {
        self.decision.decisions.iter().any(|part| part.degraded)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Cancel {
            deliver_detached(&self.store, self.cancels(), self.until);
        }
    }
}
