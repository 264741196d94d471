//! Concurrency leases that renew themselves while their guard lives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::charge::Charge;
use super::check::Limiter;
use super::decision::GroupDecision;
use super::give_back::{Give, What};
use crate::error::{Effect, Error, ErrorKind};
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, Issuer, Observed, OperationId, Step};
use crate::sync::{AbortHandle, sleep, spawn};

#[cfg(all(test, shuttle))]
mod interleavings;

/// The answer to [`Limiter::acquire`].
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "held or not held are all there is")]
pub enum Acquired {
    /// The lease is held.
    Held(Lease),
    /// Nothing was taken.
    Denied(GroupDecision),
}

impl Acquired {
    /// The lease, if it was admitted.
    pub fn held(self) -> Option<Lease> {
        match self {
            Self::Held(lease) => Some(lease),
            Self::Denied(_) => None,
        }
    }
}

/// How a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseStatus {
    /// Held: the last renewal is younger than the time to live.
    Held,
    /// Not confirmed for a whole time to live, because the store does not answer. It is still being
    /// renewed, and taken again if there is room.
    Unconfirmed,
    /// Gone, and there was no room to take it again: others hold its place.
    Lost,
}

/// What is held while a stream runs. It renews itself in the background, and is released when it is
/// dropped; if the process dies, it frees itself within its time to live.
#[derive(Debug)]
#[must_use = "dropped at once, the lease is released"]
pub struct Lease {
    holder: Option<Arc<Holder>>,
    renewal: AbortHandle,
    status: watch::Receiver<LeaseStatus>,
    decision: GroupDecision,
}

#[derive(Debug)]
struct Holder {
    limiter: Limiter,
    id: OperationId,
    parts: Vec<Part>,
    ttl: Duration,
    /// Set before the release is sent: a renewal that is under way then takes nothing again.
    released: AtomicBool,
}

#[derive(Debug)]
struct Part {
    policy: Policy,
    key: Key,
    cost: u64,
    /// Who keeps it, once it was acquired: another one, perhaps, once it was taken again.
    issuer: Mutex<Option<Issuer>>,
}

impl Part {
    fn issuer(&self) -> Option<Issuer> {
        *self.lock()
    }

    fn set_issuer(&self, issuer: Option<Issuer>) {
        *self.lock() = issuer;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Issuer>> {
        self.issuer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limiter {
    /// Takes leases of `ttl` (1 ms to 7 days), all or nothing, and renews them every third of it while
    /// the guard lives. Charges of other algorithms may stand in the group (a stream that is also a
    /// request); they are made once.
    ///
    /// ```
    /// # async fn stream() {}
    /// # async fn example(limiter: limiter_core::limit::Limiter, key: limiter_core::Key) -> Result<(), limiter_core::Error> {
    /// use std::time::Duration;
    /// use limiter_core::limit::{Acquired, Charge, Policy, Quota};
    ///
    /// let streams = Policy::new("streams", Quota::concurrency(3)?)?;
    /// match limiter.acquire(&[Charge::new(&streams, &key)], Duration::from_secs(30)).await? {
    ///     Acquired::Held(mut lease) => tokio::select! {
    ///         () = stream() => lease.release().await?,
    ///         () = lease.lost() => println!("the place was given to somebody else"),
    ///     },
    ///     Acquired::Denied(decision) => println!("{:?}", decision.outcome),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`try_check_all`](Self::try_check_all). Whatever an answer that did not come had taken is
    /// released in the background, or runs out.
    pub async fn acquire(&self, charges: &[Charge<'_>], ttl: Duration) -> Result<Acquired, Error> {
        let id = OperationId::random();
        let steps: Vec<Step<'_>> = charges
            .iter()
            .map(|charge| {
                let cost = charge.cost();
                let action = if charge.policy().quota().is_concurrency() {
                    let lease = &id;
                    Action::Acquire { lease, cost, ttl }
                } else {
                    Action::Charge { cost }
                };
                Step::new(charge.policy(), charge.key(), action)
            })
            .collect();
        let concurrent = charges
            .iter()
            .filter(|charge| charge.policy().quota().is_concurrency());
        let holder = Arc::new(Holder {
            limiter: self.clone(),
            id: id.clone(),
            parts: concurrent
                .map(|charge| Part {
                    policy: charge.policy().clone(),
                    key: charge.key().clone(),
                    cost: charge.cost(),
                    issuer: Mutex::default(),
                })
                .collect(),
            ttl,
            released: AtomicBool::new(false),
        });
        if holder.parts.is_empty() {
            let error = Error::new(
                ErrorKind::InvalidInput,
                "limit.acquire",
                "no policy of these limits concurrency; give one with Quota::concurrency",
            );
            self.store().note(&steps, Err(&error));
            return Err(error);
        }
        // From here on a drop of this future releases what may have been taken.
        let mut taken = Taken(Some(holder.clone()));
        let asked = Instant::now();
        let mut observed = vec![Observed::default(); steps.len()];
        if let Err(error) = self.apply(&steps, None, &mut observed).await {
            if error.effect() == Effect::No {
                taken.0 = None;
            }
            return Err(error);
        }
        let decision = GroupDecision::of(&steps, &observed);
        taken.0 = None;
        if !decision.is_allowed() {
            return Ok(Acquired::Denied(decision));
        }
        let concurrent = steps.iter().zip(&observed);
        let concurrent =
            concurrent.filter(|(step, _)| matches!(step.action, Action::Acquire { .. }));
        for (part, (_, observed)) in holder.parts.iter().zip(concurrent) {
            part.set_issuer(observed.issuer);
        }
        let (report, status) = watch::channel(LeaseStatus::Held);
        let renewal = spawn(renew(holder.clone(), report, asked)).abort_handle();
        Ok(Acquired::Held(Lease {
            holder: Some(holder),
            renewal,
            status,
            decision,
        }))
    }
}

impl Lease {
    /// What the acquisition answered.
    pub fn decision(&self) -> &GroupDecision {
        &self.decision
    }

    /// How the lease is, as far as this process knows.
    pub fn status(&self) -> LeaseStatus {
        *self.status.borrow()
    }

    /// Waits until the lease is lost; for ever, if it never is. May be dropped and called again.
    pub async fn lost(&mut self) {
        let lost = self.status.wait_for(|status| *status == LeaseStatus::Lost);
        if lost.await.is_err() {
            // The renewal has ended otherwise: the runtime shuts down.
            std::future::pending::<()>().await;
        }
    }

    /// Releases the lease.
    ///
    /// # Errors
    /// What the store reports. After an outage it is retried in the background until the lease has run
    /// out by itself.
    pub async fn release(mut self) -> Result<(), Error> {
        self.renewal.abort();
        let Some(holder) = self.holder.take() else {
            return Ok(());
        };
        holder.released.store(true, Ordering::SeqCst);
        let releases = holder.releases();
        holder
            .limiter
            .give_backs()
            .deliver(releases)
            .await
            .map(drop)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        if let Some(holder) = self.holder.take() {
            holder.release_detached();
        }
    }
}

/// Leases that may have been taken, with nobody yet to hold them.
struct Taken(Option<Arc<Holder>>);

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(holder) = self.0.take() {
            holder.release_detached();
        }
    }
}

impl Holder {
    fn releases(&self) -> Vec<Give> {
        let parts = self.parts.iter();
        parts
            .map(|part| Give {
                policy: part.policy.clone(),
                key: part.key.clone(),
                issuer: part.issuer(),
                what: What::Release {
                    lease: self.id.clone(),
                    ttl: self.ttl,
                },
                until: Instant::now() + self.ttl,
            })
            .collect()
    }

    fn release_detached(&self) {
        self.released.store(true, Ordering::SeqCst);
        let releases = self.releases();
        self.limiter.give_backs().deliver_detached(releases);
    }

    /// Takes every part again; whether all are held.
    async fn take_again(self: &Arc<Self>) -> Result<bool, Error> {
        // The release may come, or have come, before what is taken here: then it is given back here.
        let mut taken = Taken(Some(self.clone()));
        let result = self.hold(true).await;
        if !self.released.load(Ordering::SeqCst) {
            taken.0 = None;
        }
        result
    }

    /// Renews every part, or takes every part again; whether all are held.
    async fn hold(&self, again: bool) -> Result<bool, Error> {
        let steps: Vec<Step<'_>> = self
            .parts
            .iter()
            .map(|part| {
                let (lease, ttl, cost) = (&self.id, self.ttl, part.cost);
                let action = if again {
                    Action::Acquire { lease, cost, ttl }
                } else {
                    Action::Renew { lease, ttl }
                };
                Step::new(&part.policy, &part.key, action).at(part.issuer())
            })
            .collect();
        let mut observed = vec![Observed::default(); steps.len()];
        self.limiter.apply(&steps, None, &mut observed).await?;
        let decision = GroupDecision::of(&steps, &observed);
        // What this process counts itself is an answer; the rule that admits unseen is none.
        let is_unseen =
            |observed: &Observed| observed.degraded && !observed.seen && observed.issuer.is_none();
        if observed.iter().any(is_unseen) {
            return Err(Error::new(
                ErrorKind::Connection,
                "limit.renew",
                "the store does not answer",
            ));
        }
        if again && decision.is_allowed() {
            for (part, observed) in self.parts.iter().zip(&observed) {
                part.set_issuer(observed.issuer);
            }
        }
        Ok(decision.is_allowed())
    }
}

/// Renews until the task is aborted or the lease is lost.
async fn renew(holder: Arc<Holder>, report: watch::Sender<LeaseStatus>, mut held_since: Instant) {
    let mut pause = holder.ttl / 3;
    loop {
        sleep(pause).await;
        let asked = Instant::now();
        let mut result = holder.hold(false).await;
        if matches!(&result, Err(error) if error.kind() == ErrorKind::Expired) {
            if holder.released.load(Ordering::SeqCst) {
                return;
            }
            tracing::info!(
                policy = holder.parts[0].policy.name(),
                "a lease was gone and is taken again"
            );
            result = holder.take_again().await;
        }
        let status = match result {
            Ok(true) => {
                held_since = asked;
                LeaseStatus::Held
            }
            // Whoever denies it has given its place away.
            Ok(false) => LeaseStatus::Lost,
            Err(error) if error.kind().is_outage() || error.kind() == ErrorKind::Capacity => {
                tracing::warn!(policy = holder.parts[0].policy.name(), %error, "a lease was not renewed");
                if held_since.elapsed() >= holder.ttl {
                    LeaseStatus::Unconfirmed
                } else {
                    LeaseStatus::Held
                }
            }
            Err(error) => {
                tracing::error!(policy = holder.parts[0].policy.name(), %error, "a lease cannot be renewed");
                LeaseStatus::Lost
            }
        };
        let confirmed = held_since == asked;
        // Sooner after a failure, so that a short outage is survived.
        pause = if confirmed {
            holder.ttl / 3
        } else {
            holder.ttl / 12
        };
        pause = pause.max(Duration::from_millis(1));
        report.send_if_modified(|known| std::mem::replace(known, status) != status);
        if status == LeaseStatus::Lost {
            tracing::warn!(
                policy = holder.parts[0].policy.name(),
                "a lease was lost: it ran out, and others hold its place"
            );
            return;
        }
    }
}
