//! The same rule for outages under every policy.

use async_trait::async_trait;
use limiter_core::limit::wrap::{Route, Routing, Switch};
use limiter_core::limit::{
    Action, Capabilities, Group, Issuer, LimitStore, Observed, Outage, Policy, Step,
};
use limiter_core::{Error, Health};

/// A store to which each policy comes with one rule, whatever its own is.
#[derive(Clone, Debug)]
pub(crate) struct Everywhere<S> {
    pub(crate) inner: S,
    pub(crate) rule: Outage,
    /// Who keeps what is counted in an outage.
    pub(crate) local: Issuer,
    /// Says when the local store is asked first.
    pub(crate) switch: Switch,
}

impl<S: LimitStore> Everywhere<S> {
    async fn ask(
        &self,
        group: &Group<'_>,
        issuer: Option<Issuer>,
        observed: &mut [Observed],
    ) -> Result<(), Error> {
        let steps = group.steps().iter();
        let policies: Vec<Policy> = steps
            .clone()
            .map(|step| step.policy.clone().with_outage(self.rule))
            .collect();
        let steps: Vec<Step<'_>> = steps
            .zip(&policies)
            .map(|(step, policy)| {
                let ruled = Step::new(policy, step.key(), step.action.clone());
                ruled.at(step.issuer.or(issuer))
            })
            .collect();
        let capabilities = self.capabilities();
        let mut ruled = Group::new(&steps, &capabilities)?;
        if let Some((id, ttl)) = group.operation() {
            ruled = ruled.with_operation(id, ttl, &capabilities)?;
        }
        if let Some(deadline) = group.deadline() {
            ruled = ruled.with_deadline(deadline);
        }
        match self.inner.try_apply_now(&ruled, observed) {
            Some(answer) => answer,
            None => self.inner.apply(&ruled, observed).await,
        }
    }
}

#[async_trait]
impl<S: LimitStore> LimitStore for Everywhere<S> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.inner.is_issuer(issuer)
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let is_away = |error: &Error| error.kind().is_outage();
        let all = |of: fn(&Action<'_>) -> bool| group.steps().iter().all(|step| of(&step.action));
        // The suite does not always say whose charge it gives back. Only the suite knows that it is the local store's.
        let is_unsaid = all(|action| action.follows_up()) && group.issuers().next().is_none();
        if is_unsaid && self.switch.routing() == Routing::to(Route::Local) {
            return self.ask(group, Some(self.local), observed).await;
        }
        let answer = self.ask(group, None, observed).await;
        if !answer.as_ref().is_err_and(is_away) {
            return answer;
        }
        if all(|action| *action == Action::Reset) {
            // It has forgotten what it counts itself, which is all that there is here.
            return Ok(());
        }
        if is_unsaid {
            return self.ask(group, Some(self.local), observed).await;
        }
        answer
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}
