//! A span for each call, through `tracing`: for OpenTelemetry and whatever else collects spans.

use std::time::Duration;

use async_trait::async_trait;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::error::Error;
use crate::figures::Figure;
use crate::health::Health;
use crate::limit::store::{Capabilities, Group, Issuer, LimitStore, Observed, Step, Verdict};

/// A store whose calls are spans of the name `limiter.call`, at the level `INFO`, of the target `limiter`.
///
/// No convention names their attributes; these are a proposal of our own. None of them names a key or a user.
///
/// | Attribute | Meaning |
/// |---|---|
/// | `limiter.policies` | the policies that were asked, in their order: `user,tenant` |
/// | `limiter.action` | `charge`, `reserve`, `acquire` and so on; that of the first step |
/// | `limiter.cost` | what was asked of the first policy |
/// | `limiter.outcome` | `allowed`, `denied`, `never`, `unseen`; `error` without an answer |
/// | `limiter.policy` | the enforced policy that stands in the way most, or is used most |
/// | `limiter.remaining` | what is left of it |
/// | `limiter.retry_after_ms` | for a denial, how long to wait |
/// | `limiter.source` | who decided: `store`, `memory`, `outage` and so on |
/// | `limiter.degraded` | whether a rule for outages decided |
/// | `error.type` | without an answer, the kind of the error |
#[derive(Debug)]
pub struct Traced<S>(S);

impl<S: LimitStore> Traced<S> {
    /// Spans for the calls of `inner`.
    pub fn new(inner: S) -> Self {
        Self(inner)
    }
}

fn span(group: &Group<'_>) -> Span {
    let span = tracing::info_span!(
        target: "limiter",
        "limiter.call",
        limiter.policies = Empty,
        limiter.action = Empty,
        limiter.cost = Empty,
        limiter.outcome = Empty,
        limiter.policy = Empty,
        limiter.remaining = Empty,
        limiter.retry_after_ms = Empty,
        limiter.source = Empty,
        limiter.degraded = Empty,
        error.type = Empty,
    );
    if !span.is_disabled() {
        let steps = group.steps();
        let policies: Vec<_> = steps.iter().map(|step| step.policy.name()).collect();
        span.record("limiter.policies", policies.join(","));
        span.record("limiter.action", steps[0].action.as_str());
        span.record("limiter.cost", steps[0].action.cost());
    }
    span
}

fn end(span: &Span, group: &Group<'_>, result: &Result<(), Error>, observed: &[Observed]) {
    if span.is_disabled() {
        return;
    }
    if let Err(error) = result {
        span.record("limiter.outcome", "error");
        span.record("error.type", error.kind().as_str());
        return;
    }
    span.record("limiter.degraded", observed.iter().any(|it| it.degraded));
    let parts = group.steps().iter().zip(observed);
    let enforced = parts.filter(|(step, _)| !step.policy.is_shadow());
    let Some((step, worst)) = enforced.max_by_key(|(step, seen)| weight(step, seen)) else {
        span.record("limiter.outcome", "allowed");
        return;
    };
    let outcome = match worst.verdict {
        Verdict::Admit => "allowed",
        Verdict::Unseen => "unseen",
        Verdict::Deny { retry_after } => {
            let millis = u64::try_from(retry_after.as_micros().div_ceil(1_000));
            span.record("limiter.retry_after_ms", millis.unwrap_or(u64::MAX));
            "denied"
        }
        Verdict::Never => "never",
    };
    span.record("limiter.outcome", outcome);
    span.record("limiter.policy", step.policy.name());
    span.record("limiter.source", worst.source.as_str());
    if worst.seen {
        let limit = worst.share.of(step.policy.quota().capacity());
        span.record("limiter.remaining", limit.saturating_sub(worst.used));
    }
}

/// How much a step stands in the way; of those that do not, the fuller one.
fn weight(step: &Step<'_>, seen: &Observed) -> (u8, Duration, u128) {
    match seen.verdict {
        Verdict::Admit => {
            let limit = seen.share.of(step.policy.quota().capacity()).max(1);
            (
                0,
                Duration::ZERO,
                (u128::from(seen.used) << 64) / u128::from(limit),
            )
        }
        Verdict::Unseen => (1, Duration::ZERO, 0),
        Verdict::Deny { retry_after } => (2, retry_after, 0),
        Verdict::Never => (3, Duration::ZERO, 0),
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: LimitStore> LimitStore for Traced<S> {
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
        let result = self.0.try_apply_now(group, observed)?;
        // What takes no time is a span all the same: it says what was decided.
        let span = span(group);
        end(&span, group, &result, observed);
        Some(result)
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let span = span(group);
        let result = self.0.apply(group, observed).instrument(span.clone()).await;
        end(&span, group, &result, observed);
        result
    }

    fn unheard(&self) -> u64 {
        self.0.unheard()
    }

    fn note(&self, steps: &[Step<'_>], result: Result<&[Observed], &Error>) {
        self.0.note(steps, result);
    }

    fn figures(&self) -> Vec<Figure> {
        self.0.figures()
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }
}
