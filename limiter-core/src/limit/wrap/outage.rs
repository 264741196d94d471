//! Answers for a store that cannot, by the rule of each policy.

use async_trait::async_trait;

use crate::error::{Effect, Error, ErrorKind};
use crate::health::Health;
use crate::limit::policy::Outage;
use crate::limit::store::{
    Action, Capabilities, Group, Issuer, LimitStore, Observed, Source, Step, Verdict,
};

/// A store that applies the [`Outage`] rules of the policies when the inner store gives no answer. What it answers is
/// marked as degraded, and no number is in it.
///
/// What it admitted though nothing was sent to the store, nobody keeps: it is the issuer, and says that there is nothing
/// to settle or to give back. What may have been done is settled and given back at the store, by its id; a plain charge
/// without an answer has none.
///
/// Only outages count ([`ErrorKind::is_outage`](crate::ErrorKind::is_outage)): misuse stays an
/// error. In a group one `Deny` wins, so a group is admitted only if every enforced policy allows
/// it. Only what takes or looks is answered (charges, reservations, leases, peeks): a reset or a
/// give-back that did not happen is an error under any rule.
#[derive(Debug)]
pub struct OutageRules<S> {
    inner: S,
    issuer: Issuer,
}

impl<S: LimitStore> OutageRules<S> {
    /// Applies the rules around `inner`.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            issuer: Issuer::unique(),
        }
    }

    fn answer(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
        result: Result<(), Error>,
    ) -> Result<(), Error> {
        let Err(error) = result else { return Ok(()) };
        let allowed = group.steps().iter().all(|step| {
            let answered = step.action.takes()
                || matches!(step.action, Action::Charge { .. } | Action::Peek { .. });
            answered && (step.policy.is_shadow() || step.policy.outage() == Outage::Allow)
        });
        if !error.kind().is_outage() || !allowed {
            return Err(error);
        }
        tracing::warn!(
            policy = group.steps().first().map(|step| step.policy.name()),
            effect_unknown = error.effect() == Effect::Unknown,
            %error,
            "allowed without a check: the policy allows in an outage"
        );
        for (index, (step, observed)) in group.steps().iter().zip(observed).enumerate() {
            // What can never be admitted is not admitted by an outage either.
            let verdict = if group.total_cost(index) > step.policy.quota().capacity() {
                Verdict::Never
            } else {
                Verdict::Admit
            };
            *observed = Observed::blind(verdict, Source::Outage).degrade();
            // A lease is renewed, and taken again, at the store when it is back.
            let nothing_sent = error.effect() == Effect::No;
            if nothing_sent && !matches!(step.action, Action::Acquire { .. }) {
                *observed = observed.issued_by(self.issuer);
            }
        }
        Ok(())
    }

    /// Answers a group that follows up on what an outage's rule admitted: there is nothing to settle or to give back.
    fn follow_up(&self, group: &Group<'_>, observed: &mut [Observed]) -> Option<Result<(), Error>> {
        let own = |step: &Step<'_>| step.issuer == Some(self.issuer);
        if !group.steps().iter().any(own) {
            return None;
        }
        if !group.steps().iter().all(own) {
            return Some(Err(Error::new(
                ErrorKind::Misdirected,
                "limit.apply",
                "what an outage's rule admitted stands in one group with what it did not; give it a group of its own",
            )));
        }
        observed.fill(
            Observed::blind(Verdict::Admit, Source::Outage)
                .degrade()
                .issued_by(self.issuer),
        );
        Some(Ok(()))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LimitStore> LimitStore for OutageRules<S> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        issuer == self.issuer || self.inner.is_issuer(issuer)
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        if let Some(answer) = self.follow_up(group, observed) {
            return Some(answer);
        }
        let result = self.inner.try_apply_now(group, observed)?;
        Some(self.answer(group, observed, result))
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        if let Some(answer) = self.follow_up(group, observed) {
            return answer;
        }
        let result = self.inner.apply(group, observed).await;
        self.answer(group, observed, result)
    }

    fn unheard(&self) -> u64 {
        self.inner.unheard()
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}
