//! Shows every group and its result to observers: metrics, audit trails, logs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::error::Error;
use crate::health::Health;
use crate::limit::store::{Capabilities, Group, Issuer, LimitStore, Observed};

/// Sees every group that a store answered. Called on the path of the request: be quick.
pub trait Observer: Send + Sync + fmt::Debug {
    /// Called once a group, after its result is known.
    fn observe(&self, event: &Event<'_>);
}

/// Shared observers are observers.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn observe(&self, event: &Event<'_>) {
        (**self).observe(event);
    }
}

/// A group and what became of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What was asked.
    pub group: &'a Group<'a>,
    /// One observation a step, or the error.
    pub result: Result<&'a [Observed], &'a Error>,
    /// How long the store took.
    pub elapsed: Duration,
}

/// A store that shows its work to [`Observer`]s.
#[derive(Debug)]
pub struct Observe<S> {
    inner: S,
    observers: Vec<Arc<dyn Observer>>,
}

impl<S: LimitStore> Observe<S> {
    /// Shows the work of `inner` to `observers`, in their order.
    pub fn new(inner: S, observers: Vec<Arc<dyn Observer>>) -> Self {
        Self { inner, observers }
    }

    fn show(
        &self,
        group: &Group<'_>,
        result: &Result<(), Error>,
        observed: &[Observed],
        since: Instant,
    ) {
        let event = Event {
            group,
            result: match result {
                Ok(()) => Ok(observed),
                Err(error) => Err(error),
            },
            elapsed: since.elapsed(),
        };
        for observer in &self.observers {
            observer.observe(&event);
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LimitStore> LimitStore for Observe<S> {
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
        let since = Instant::now();
        let result = self.inner.try_apply_now(group, observed)?;
        self.show(group, &result, observed, since);
        Some(result)
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let since = Instant::now();
        let result = self.inner.apply(group, observed).await;
        self.show(group, &result, observed, since);
        result
    }

    fn unheard(&self) -> u64 {
        self.inner.unheard()
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}
