//! A store behind a breaker.

use async_trait::async_trait;
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::error::Error;
use crate::figures::Figure;
use crate::health::Health;
use crate::limit::store::{Capabilities, Group, Issuer, LimitStore, Observed, Step};

/// A store that is left alone while it fails: calls are then refused at once, as `BreakerOpen` with `Effect::No`. Whether it is
/// there again is asked through its [`health`](LimitStore::health), in the background, and then by one of the calls at a time.
///
/// What a store answers [without I/O](LimitStore::try_apply_now) passes by the breaker. Clones share the breaker.
#[derive(Clone, Debug)]
pub struct Breaking<S> {
    inner: S,
    breaker: Breaker,
}

impl<S: LimitStore + Clone + 'static> Breaking<S> {
    /// `inner` behind `breaker`.
    pub fn new(inner: S, breaker: Breaker) -> Self {
        Self { inner, breaker }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LimitStore + Clone + 'static> LimitStore for Breaking<S> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.inner.is_issuer(issuer)
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        self.inner.try_apply_now(group, observed)
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        group.check_issuer(|issuer| self.inner.is_issuer(issuer))?;
        group.check_deadline()?;
        let inner = || {
            let inner = self.inner.clone();
            async move { inner.health().await.connected }
        };
        let pass = self.breaker.enter_or_knock(Instant::now(), inner).await?;
        let result = self.inner.apply(group, observed).await;
        let told = result.as_ref().map(drop);
        match group.deadline() {
            Some(_) => pass.end_in_haste(Instant::now(), told),
            None => pass.end(Instant::now(), told),
        }
        result
    }

    fn unheard(&self) -> u64 {
        self.inner.unheard()
    }

    fn note(&self, steps: &[Step<'_>], result: Result<&[Observed], &Error>) {
        self.inner.note(steps, result);
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = self.inner.figures();
        figures.push(self.breaker.figure());
        figures
    }

    async fn health(&self) -> Health {
        let mut health = self.inner.health().await;
        health.message.push_str(&self.breaker.status().words());
        health
    }
}
