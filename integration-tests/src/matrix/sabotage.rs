//! Products that are broken on purpose: the checker has to find each.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed, Step};
use limiter_core::{Effect, Error, Health};
use limiter_memory::MemoryStore;
use tokio::time::Instant;

use super::faults::Fault;

/// What is broken. Never the log, never the checker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sabotage {
    /// Every call tries the server and waits out its deadline.
    BreakerNeverOpens,
    /// What was counted locally is forgotten whenever the store was back.
    FreshFallback,
    /// A call without an answer is sent once more.
    Resends,
    /// Nobody follows a failover.
    DemotedPrimaryKept,
    /// What was made locally is settled at the shared store.
    WrongStore,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::BreakerNeverOpens,
        Self::FreshFallback,
        Self::Resends,
        Self::DemotedPrimaryKept,
        Self::WrongStore,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::BreakerNeverOpens => "breaker never opens",
            Self::FreshFallback => "fallback fresh at each flap",
            Self::Resends => "resend after timeout",
            Self::DemotedPrimaryKept => "demoted primary kept",
            Self::WrongStore => "give back at the wrong store",
        }
    }

    /// The faults in which it shows; a quick run has the first.
    pub fn faults(self) -> &'static [Fault] {
        match self {
            Self::BreakerNeverOpens => &[Fault::Stopped, Fault::Frozen],
            Self::FreshFallback => &[Fault::Flapping],
            Self::Resends => &[Fault::HeldPackets, Fault::LostReplies],
            Self::DemotedPrimaryKept => &[Fault::Partition, Fault::PrimaryKilled],
            Self::WrongStore => &[Fault::Flapping, Fault::Killed],
        }
    }

    /// What the checker has to say of it.
    pub fn finding(self) -> &'static str {
        match self {
            Self::BreakerNeverOpens => "I-B3",
            Self::FreshFallback => "the bound of local",
            Self::Resends => "I-R2",
            Self::DemotedPrimaryKept => "I-R1",
            Self::WrongStore => "what was made locally is not settled",
        }
    }

    pub(super) fn store(it: Option<Self>, store: Arc<dyn LimitStore>) -> Arc<dyn LimitStore> {
        match it {
            Some(Self::Resends) => Arc::new(Resends(store)),
            _ => store,
        }
    }

    pub(super) fn local(it: Option<Self>, local: MemoryStore) -> Forgetful {
        Forgetful {
            forgets: it == Some(Self::FreshFallback),
            state: std::sync::Mutex::new((local, Instant::now())),
        }
    }

    pub(super) fn stack(it: Option<Self>, stack: Arc<dyn LimitStore>) -> Arc<dyn LimitStore> {
        match it {
            Some(Self::WrongStore) => Arc::new(Nameless(stack)),
            _ => stack,
        }
    }
}

/// A local store; one that forgets does so when it was not asked for a while.
#[derive(Debug)]
pub(super) struct Forgetful {
    forgets: bool,
    state: std::sync::Mutex<(MemoryStore, Instant)>,
}

const FLAP: Duration = Duration::from_millis(150);

impl Forgetful {
    fn store(&self) -> MemoryStore {
        let mut state = self.state.lock().unwrap();
        if self.forgets && state.1.elapsed() > FLAP {
            state.0 = MemoryStore::new();
        }
        state.1 = Instant::now();
        state.0.clone()
    }
}

#[async_trait]
impl LimitStore for Forgetful {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.state.lock().unwrap().0.is_issuer(issuer)
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        self.store().try_apply_now(group, observed)
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        self.store().apply(group, observed).await
    }

    async fn health(&self) -> Health {
        self.store().health().await
    }
}

#[derive(Debug)]
struct Resends(Arc<dyn LimitStore>);

#[async_trait]
impl LimitStore for Resends {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.0.is_issuer(issuer)
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        self.0.try_apply_now(group, observed)
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let result = self.0.apply(group, observed).await;
        match result {
            Err(error) if error.effect() == Effect::Unknown => self
                .0
                .apply(group, observed)
                .await
                .map_err(|error| error.with_effect(Effect::No)),
            result => result,
        }
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }
}

/// Loses who keeps what is given back.
#[derive(Debug)]
struct Nameless(Arc<dyn LimitStore>);

#[async_trait]
impl LimitStore for Nameless {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn is_issuer(&self, _: Issuer) -> bool {
        true
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let steps = group.steps().iter();
        let steps: Vec<Step<'_>> = steps
            .map(|step| Step::new(step.policy, step.key(), step.action.clone()))
            .collect();
        let nameless = Group::new(&steps, &self.capabilities())?;
        match self.0.try_apply_now(&nameless, observed) {
            Some(answer) => answer,
            None => self.0.apply(&nameless, observed).await,
        }
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }
}
