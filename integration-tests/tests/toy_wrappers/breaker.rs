//! A toy breaker with a fallback in this process, from public items alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed, Policy, Share, Step};
use limiter_core::{Error, ErrorKind, Health};

/// Asks `primary`, and `local` while that is not there; what `local` answers is degraded. What was charged somewhere is
/// settled and given back there.
#[derive(Clone, Debug)]
pub(crate) struct Fallback {
    primary: Arc<dyn LimitStore>,
    local: Arc<dyn LimitStore>,
    share: Share,
    open: Arc<AtomicBool>,
}

impl Fallback {
    pub(crate) fn new(
        primary: impl LimitStore + 'static,
        local: impl LimitStore + 'static,
        share: Share,
    ) -> Self {
        Self {
            primary: Arc::new(primary),
            local: Arc::new(local),
            share,
            open: Arc::default(),
        }
    }

    /// Opens the breaker, or lets it try again.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }

    async fn ask_primary(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        if self.open.load(Ordering::SeqCst) {
            let open = "the breaker is open; the store is not asked";
            return Err(Error::new(ErrorKind::BreakerOpen, "limit.apply", open));
        }
        let answer = self.primary.apply(group, observed).await;
        if answer
            .as_ref()
            .is_err_and(|error| error.kind().blames_the_server())
        {
            self.set_open(true);
        }
        answer
    }

    /// The same group under a share of each quota.
    async fn ask_local(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let policies: Result<Vec<Policy>, Error> = group
            .steps()
            .iter()
            .map(|step| {
                let quota = step.policy.quota().scaled(self.share)?;
                Ok(step.policy.clone().with_quota(quota))
            })
            .collect();
        let policies = policies?;
        let steps = group.steps().iter().zip(&policies);
        let steps: Vec<Step<'_>> = steps
            .map(|(step, policy)| {
                Step::new(policy, step.key(), step.action.clone()).at(step.issuer)
            })
            .collect();
        let capabilities = self.local.capabilities();
        let mut local = Group::new(&steps, &capabilities)?;
        if let Some((id, ttl)) = group.operation() {
            local = local.with_operation(id, ttl, &capabilities)?;
        }
        if let Some(deadline) = group.deadline() {
            local = local.with_deadline(deadline);
        }
        self.local.apply(&local, observed).await?;
        for observed in observed {
            *observed = observed.degrade();
        }
        Ok(())
    }
}

#[async_trait]
impl LimitStore for Fallback {
    fn capabilities(&self) -> Capabilities {
        self.primary.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.primary.is_issuer(issuer) || self.local.is_issuer(issuer)
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        group.check_deadline()?;
        group.check_issuer(|issuer| self.is_issuer(issuer))?;
        if group.issuers().any(|issuer| self.local.is_issuer(issuer)) {
            return self.ask_local(group, observed).await;
        }
        let answer = self.ask_primary(group, observed).await;
        // What was issued there is given back there, whenever that is.
        let follows_up = group.issuers().next().is_some();
        match answer {
            Err(error) if error.kind().is_outage() && !follows_up => {
                self.ask_local(group, observed).await
            }
            answer => answer,
        }
    }

    async fn health(&self) -> Health {
        self.primary.health().await
    }
}
