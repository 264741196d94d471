//! Shows every call and what became of it to observers: metrics, audit trails, logs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::error::{Effect, Error, ErrorKind};
use crate::figures::Figure;
use crate::health::Health;
use crate::limit::store::{Capabilities, Group, Issuer, LimitStore, Observed, OperationId, Step};

/// Sees every call once: those that a store answered, those that failed, those that were answered without it (refused, because
/// they make no group; denied, because their turn did not come), and those that the caller dropped before there was an answer. Called on the path of the request: be quick.
pub trait Observer: Send + Sync + fmt::Debug {
    /// Called once a call, after its result is known.
    fn observe(&self, event: &Event<'_>);
}

/// Shared observers are observers.
impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn observe(&self, event: &Event<'_>) {
        (**self).observe(event);
    }
}

/// A call and what became of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What was asked, all or nothing.
    pub steps: &'a [Step<'a>],
    /// The id under which a repetition is recognised.
    pub operation: Option<&'a OperationId>,
    /// One observation a step, or the error: `Cancelled`, with `Effect::Unknown`, if the caller left.
    pub result: Result<&'a [Observed], &'a Error>,
    /// How long the store took; zero for what no store was asked.
    pub elapsed: Duration,
}

impl<'a> Event<'a> {
    /// An event, for tests of observers.
    pub fn new(
        steps: &'a [Step<'a>],
        operation: Option<&'a OperationId>,
        result: Result<&'a [Observed], &'a Error>,
        elapsed: Duration,
    ) -> Self {
        Self {
            steps,
            operation,
            result,
            elapsed,
        }
    }
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

    fn watch<'a>(&'a self, group: &'a Group<'a>, since: Instant) -> Watch<'a> {
        Watch {
            observers: &self.observers,
            group,
            since,
        }
    }
}

/// A call under way; one that is dropped is shown as abandoned.
struct Watch<'a> {
    observers: &'a [Arc<dyn Observer>],
    group: &'a Group<'a>,
    since: Instant,
}

impl Watch<'_> {
    fn end(self, result: Result<&[Observed], &Error>) {
        self.show(result);
        std::mem::forget(self);
    }

    fn show(&self, result: Result<&[Observed], &Error>) {
        let operation = self.group.operation().map(|(id, _)| id);
        let elapsed = self.since.elapsed();
        let event = Event::new(self.group.steps(), operation, result, elapsed);
        show(self.observers, &event);
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        const WHY: &str = "the caller left before there was an answer";
        let error = Error::new(ErrorKind::Cancelled, "limit.apply", WHY);
        self.show(Err(&error.with_effect(Effect::Unknown)));
    }
}

fn show(observers: &[Arc<dyn Observer>], event: &Event<'_>) {
    for observer in observers {
        observer.observe(event);
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
        self.watch(group, since).end(told(&result, observed));
        Some(result)
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let watch = self.watch(group, Instant::now());
        let result = self.inner.apply(group, observed).await;
        watch.end(told(&result, observed));
        result
    }

    fn unheard(&self) -> u64 {
        self.inner.unheard()
    }

    fn note(&self, steps: &[Step<'_>], result: Result<&[Observed], &Error>) {
        let event = Event::new(steps, None, result, Duration::ZERO);
        show(&self.observers, &event);
        self.inner.note(steps, result);
    }

    fn figures(&self) -> Vec<Figure> {
        self.inner.figures()
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }
}

fn told<'a>(
    result: &'a Result<(), Error>,
    observed: &'a [Observed],
) -> Result<&'a [Observed], &'a Error> {
    result.as_ref().map(|()| observed)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::limit::{Charge, Limiter, Period, Policy, Quota};

    /// A store that never answers.
    #[derive(Debug)]
    struct Silent;

    #[async_trait]
    impl LimitStore for Silent {
        fn capabilities(&self) -> Capabilities {
            Capabilities::ALL
        }

        fn is_issuer(&self, _: Issuer) -> bool {
            false
        }

        fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
            None
        }

        async fn apply(&self, _: &Group<'_>, _: &mut [Observed]) -> Result<(), Error> {
            std::future::pending().await
        }

        async fn health(&self) -> Health {
            Health::new("silent", false, None, "")
        }
    }

    #[derive(Debug, Default)]
    struct Seen(Mutex<Vec<(usize, ErrorKind, Effect)>>);

    impl Observer for Seen {
        fn observe(&self, event: &Event<'_>) {
            let error = event.result.unwrap_err();
            let seen = (event.steps.len(), error.kind(), error.effect());
            self.0.lock().unwrap().push(seen);
        }
    }

    /// C6: what was dropped under way, and what made no group.
    #[tokio::test(start_paused = true)]
    async fn what_was_dropped_or_refused_is_seen_once() {
        let seen = Arc::new(Seen::default());
        let stack = crate::limit::wrap::Stack::new(Silent).observe(seen.clone());
        let limiter = Limiter::raw(stack.build());
        let quota = Quota::fixed_window(1, Period::HOUR).unwrap();
        let [one, other] = ["a", "b"].map(|name| Policy::new(name, quota).unwrap());
        let key = one.key(["x"]);
        let wait = Duration::from_secs(1);
        let dropped = tokio::time::timeout(wait, limiter.try_check(&one, &key)).await;
        assert!(dropped.is_err());
        let charges = [Charge::new(&one, &key), Charge::new(&other, &key)];
        assert!(limiter.try_check_all(&charges).await.is_err());
        // What is never polled asks nothing.
        drop(limiter.try_check(&one, &key));
        let seen = seen.0.lock().unwrap();
        let expected = [
            (1, ErrorKind::Cancelled, Effect::Unknown),
            (2, ErrorKind::InvalidInput, Effect::No),
        ];
        assert_eq!(*seen, expected);
    }
}
