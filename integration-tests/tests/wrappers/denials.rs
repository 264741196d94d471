//! A toy cache of denials over groups, from public items alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use limiter_core::clock::{Clock, ManualClock, Timestamp};
use limiter_core::limit::{
    Action, Capabilities, Group, Issuer, LimitStore, Observed, Quota, Source, Step, Verdict,
};
use limiter_core::{Error, Fingerprint, Health};

/// What was denied: of which counter, under which quota, and at which cost.
type Denied = (Fingerprint, Quota, u64);

/// Remembers until when a charge is denied. A group that holds such a charge is denied without a question; its other steps
/// are unseen, and so are all numbers.
#[derive(Clone, Debug)]
pub(crate) struct Denials {
    inner: Arc<dyn LimitStore>,
    clock: ManualClock,
    until: Arc<Mutex<HashMap<Denied, Timestamp>>>,
}

impl Denials {
    pub(crate) fn new(inner: impl LimitStore + 'static, clock: ManualClock) -> Self {
        Self {
            inner: Arc::new(inner),
            clock,
            until: Arc::default(),
        }
    }

    fn name(step: &Step<'_>) -> Option<Denied> {
        match step.action {
            Action::Charge { cost: cost @ 1.. } if !step.policy.is_shadow() => {
                Some((step.counter.fingerprint(), *step.policy.quota(), cost))
            }
            _ => None,
        }
    }

    /// Only charges, each of another counter, that no operation's retry may already have made.
    fn is_plain(group: &Group<'_>) -> bool {
        let steps = group.steps();
        let charge = |step: &Step<'_>| matches!(step.action, Action::Charge { .. });
        let once = |(index, step): (usize, &Step<'_>)| {
            steps[..index]
                .iter()
                .all(|other| other.counter != step.counter)
        };
        group.operation().is_none()
            && group.issuers().next().is_none()
            && steps.iter().all(charge)
            && steps.iter().enumerate().all(once)
    }

    fn recall(&self, group: &Group<'_>, observed: &mut [Observed]) -> bool {
        let now = self.clock.now();
        let until = self.until.lock().unwrap();
        let wait = |step: &Step<'_>| -> Option<Duration> {
            let until = until.get(&Self::name(step)?)?;
            Some(until.saturating_since(now)).filter(|wait| !wait.is_zero())
        };
        let waits: Vec<Option<Duration>> = group.steps().iter().map(wait).collect();
        if waits.iter().all(Option::is_none) {
            return false;
        }
        for (observed, wait) in observed.iter_mut().zip(waits) {
            *observed = match wait {
                Some(retry_after) => {
                    Observed::blind(Verdict::Deny { retry_after }, Source::DenialCache)
                }
                None => Observed::unseen(Source::DenialCache),
            };
        }
        true
    }

    fn learn(&self, group: &Group<'_>, observed: &[Observed]) {
        let now = self.clock.now();
        let mut until = self.until.lock().unwrap();
        for (step, observed) in group.steps().iter().zip(observed) {
            if let (Verdict::Deny { retry_after }, false, Some(name)) =
                (observed.verdict, observed.degraded, Self::name(step))
            {
                until.insert(name, now.saturating_add(retry_after));
            }
        }
    }

    /// What is given back, or forgotten, makes room.
    fn forget(&self, group: &Group<'_>) {
        let mut until = self.until.lock().unwrap();
        for step in group.steps() {
            if step.action.follows_up() || step.action == Action::Reset {
                let counter = step.counter.fingerprint();
                until.retain(|(known, ..), _| *known != counter);
            }
        }
    }
}

#[async_trait]
impl LimitStore for Denials {
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
        group.check_deadline()?;
        let plain = Self::is_plain(group);
        if plain && self.recall(group, observed) {
            return Ok(());
        }
        self.forget(group);
        self.inner.apply(group, observed).await?;
        if plain {
            self.learn(group, observed);
        }
        Ok(())
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}
