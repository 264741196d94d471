//! Reservations: an estimate is charged before the work, and settled to what was used after it.

use std::time::Duration;

use tokio::time::Instant;

use super::charge::Charge;
use super::check::Limiter;
use super::decision::GroupDecision;
use super::give_back::{Give, GiveBackQueue, What, deadline};
use crate::error::{Effect, Error, ErrorKind};
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, Issuer, Observed, OperationId, Replay, Step};

/// The answer to [`Limiter::reserve`].
#[derive(Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "held, settled or not held are all there is"
)]
pub enum Reserved {
    /// The estimates are charged.
    Held(Reservation),
    /// The reservation of this id was settled before: the work is done, and paid for. Nothing is held. Only
    /// [`Limiter::reserve_as`] answers so.
    Settled(Settled),
    /// Nothing was charged.
    Denied(GroupDecision),
}

impl Reserved {
    /// The reservation, if one is held.
    pub fn held(self) -> Option<Reservation> {
        match self {
            Self::Held(reservation) => Some(reservation),
            Self::Settled(_) | Self::Denied(_) => None,
        }
    }
}

/// A charged estimate. [`settle`](Self::settle) it to what was used, or [`cancel`](Self::cancel) it.
///
/// Dropped before [`started`](Self::started), it is cancelled. Dropped after that, it stays charged: a
/// client that disconnects must not get back what was spent. It can be settled for its time to live,
/// then the estimate stands.
///
/// One under an id of the caller's ([`Limiter::reserve_as`]) is never cancelled by a drop: others may hold it too, and
/// what one of them drops another may be working on.
#[derive(Debug)]
#[must_use = "dropped at once, the reservation is cancelled"]
pub struct Reservation {
    give_backs: GiveBackQueue,
    id: OperationId,
    parts: Vec<Part>,
    decision: GroupDecision,
    ttl: Duration,
    until: Instant,
    /// What a drop does.
    on_drop: OnDrop,
}

#[derive(Clone, Debug)]
struct Part {
    policy: Policy,
    key: Key,
    issuer: Option<Issuer>,
    /// Whether nothing is held of it: a charge of 0 only looks.
    looks: bool,
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
    /// Charges estimates, all or nothing, to be settled within `ttl` (1 ms to 7 days). A charge of 0 only looks, as in
    /// [`check_all`](Self::check_all): nothing is held of it, and it settles to 0.
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
    ///     Reserved::Settled(_) => unreachable!("a random id was never settled"),
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
    /// is the same reservation, and says so ([`Reservation::is_replay`]). Once it was settled, the answer is
    /// [`Reserved::Settled`]: a job that runs twice spends once.
    ///
    /// Nothing is cancelled behind the caller's back, which would take it from under whoever else holds it: neither by a
    /// drop, nor if the answer does not come. Ask again, and cancel what is not needed.
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

    /// `on_drop` is what becomes of the reservation if its holder is dropped, or if nobody hears whether it was made.
    async fn reserve_or(
        &self,
        on_drop: OnDrop,
        id: OperationId,
        charges: &[Charge<'_>],
        ttl: Duration,
    ) -> Result<Reserved, Error> {
        let steps: Vec<Step<'_>> = charges
            .iter()
            .map(|charge| {
                let action = match charge.cost() {
                    0 => Action::Charge { cost: 0 },
                    estimate => Action::Reserve {
                        id: &id,
                        estimate,
                        ttl,
                    },
                };
                Step::new(charge.policy(), charge.key(), action)
            })
            .collect();
        // From here on a drop of this future counts as one of the reservation.
        let mut reservation = Reservation {
            give_backs: self.give_backs().clone(),
            id: id.clone(),
            parts: charges
                .iter()
                .map(|charge| Part {
                    policy: charge.policy().clone(),
                    key: charge.key().clone(),
                    issuer: None,
                    looks: charge.cost() == 0,
                })
                .collect(),
            decision: GroupDecision::new(Vec::new()),
            ttl,
            // A time to live that is too long is refused below.
            until: deadline(ttl),
            on_drop,
        };
        let mut observed = vec![Observed::default(); steps.len()];
        if let Err(error) = self.apply(&steps, None, &mut observed).await {
            if error.effect() == Effect::No {
                reservation.on_drop = OnDrop::Nothing;
            }
            return Err(error);
        }
        let decision = GroupDecision::of(&steps, &observed);
        if !decision.is_allowed() {
            reservation.on_drop = OnDrop::Nothing;
            return Ok(Reserved::Denied(decision));
        }
        for (part, observed) in reservation.parts.iter_mut().zip(&observed) {
            part.issuer = observed.issuer;
        }
        let settled =
            |observed: &Observed| matches!(observed.replayed, Some(Replay::Settled { .. }));
        if observed.iter().any(settled) {
            reservation.on_drop = OnDrop::Nothing;
            // A part that was not asked for then has nobody to hold it now.
            let parts = reservation.parts.iter().zip(&observed);
            let fresh = parts.filter(|(part, observed)| {
                !part.looks && observed.seen && observed.replayed.is_none()
            });
            let fresh: Vec<Give> = fresh
                .map(|(part, _)| {
                    let id = id.clone();
                    reservation.give(part, What::Cancel { id, ttl })
                })
                .collect();
            if !fresh.is_empty() {
                self.give_backs().deliver_detached(fresh);
            }
            return Ok(Reserved::Settled(Settled {
                charged: observed.iter().map(|observed| observed.charged).collect(),
            }));
        }
        reservation.decision = decision;
        Ok(Reserved::Held(reservation))
    }
}

impl Reservation {
    /// Under which it can be found again with [`Limiter::reserve_as`].
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// Whether an earlier call under the same id made the reservation, and not the one that answered with this holder:
    /// somebody else may hold it, and work on it.
    pub fn is_replay(&self) -> bool {
        self.decision.is_replay()
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
        let gives = self.settlements(actual)?;
        let nothing = Settled {
            charged: vec![0; actual.len()],
        };
        if gives.is_empty() {
            return Ok(nothing);
        }
        match self.give_backs.deliver(gives).await {
            // Admitted by an outage's rule: there is nothing to settle.
            Err(error) if error.kind() == ErrorKind::Expired && self.decision.is_degraded() => {
                Ok(nothing)
            }
            result => {
                let settled = result?;
                let mut held = settled.iter().map(|observed| observed.charged);
                let charged = self.parts.iter().map(|part| match part.looks {
                    true => 0,
                    false => held.next().unwrap_or_default(),
                });
                Ok(Settled {
                    charged: charged.collect(),
                })
            }
        }
    }

    /// Settles in the background, as [`settle`](Self::settle) does, without an answer: from a destructor, or where nobody
    /// waits for it. [`Limiter::give_back_stats`] counts what could not be delivered.
    ///
    /// # Errors
    /// `InvalidInput` if the number of amounts is not that of the charges; the estimates then stand.
    pub fn settle_detached(mut self, actual: &[u64]) -> Result<(), Error> {
        let gives = self.settlements(actual)?;
        self.give_backs.deliver_detached(gives);
        Ok(())
    }

    /// Gives the estimates back. After the time to live there is nothing left to give back.
    ///
    /// # Errors
    /// `Conflict` if another holder of the same id has settled it. After an outage it is retried in the background until
    /// the time to live is over.
    pub async fn cancel(mut self) -> Result<(), Error> {
        self.on_drop = OnDrop::Nothing;
        let cancels = self.cancels();
        if cancels.is_empty() {
            return Ok(());
        }
        self.give_backs.deliver(cancels).await.map(drop)
    }

    /// Gives the estimates back in the background, as [`cancel`](Self::cancel) does, without an answer: also those whose work
    /// has [started](Self::started).
    pub fn cancel_detached(mut self) {
        self.on_drop = OnDrop::Nothing;
        self.give_backs.deliver_detached(self.cancels());
    }

    /// From here on a drop leaves the estimates charged.
    fn settlements(&mut self, actual: &[u64]) -> Result<Vec<Give>, Error> {
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
        if let Some((part, _)) = self
            .parts
            .iter()
            .zip(actual)
            .find(|(part, actual)| part.looks && **actual > 0)
        {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "limit.settle",
                format!(
                    "policy {} was only looked at, so nothing can be settled of it; reserve at least 1",
                    part.policy.name()
                ),
            ));
        }
        let held = self
            .parts
            .iter()
            .zip(actual)
            .filter(|(part, _)| !part.looks);
        let gives = held.map(|(part, actual)| {
            let (id, actual) = (self.id.clone(), *actual);
            self.give(part, What::Settle { id, actual })
        });
        Ok(gives.collect())
    }

    fn cancels(&self) -> Vec<Give> {
        let held = self.parts.iter().filter(|part| !part.looks);
        let gives = held.map(|part| {
            let (id, ttl) = (self.id.clone(), self.ttl);
            self.give(part, What::Cancel { id, ttl })
        });
        gives.collect()
    }

    fn give(&self, part: &Part, what: What) -> Give {
        Give {
            policy: part.policy.clone(),
            key: part.key.clone(),
            issuer: part.issuer,
            what,
            until: self.until,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.on_drop == OnDrop::Cancel {
            self.give_backs.deliver_detached(self.cancels());
        }
    }
}
