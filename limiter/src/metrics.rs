//! Every decision as metrics, through the `metrics` facade crate (C5).
//!
//! | Metric | Kind | Labels |
//! |---|---|---|
//! | `limiter_checks_total` | counter | `policy`, `scope`, `outcome`, `source` |
//! | `limiter_errors_total` | counter | `policy`, `scope`, `kind` |
//! | `limiter_used_ratio` | histogram, 0 to 1 | `policy`, `scope` |
//! | `limiter_check_seconds` | histogram | none |
//!
//! `outcome` is `allowed`, `denied`, `never`, `shadow_denied` or `shadow_never`. A step of a denied
//! group that was no obstacle itself counts as `not_charged`. Peeks and resets are not counted.

use limiter_core::limit::wrap::{Event, Observer};
use limiter_core::limit::{Action, Observed, Step, Verdict};

/// Counts every group that a store answered. Stateless: the recorder is the application's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics;

impl Metrics {
    /// Describes the metrics to the application's recorder and returns the observer.
    pub fn new() -> Self {
        ::metrics::describe_counter!(
            "limiter_checks_total",
            "Charges asked for, by their outcome"
        );
        ::metrics::describe_counter!("limiter_errors_total", "Checks that no store answered");
        ::metrics::describe_histogram!(
            "limiter_used_ratio",
            "Share of the limit that is used, after the check"
        );
        ::metrics::describe_histogram!(
            "limiter_check_seconds",
            ::metrics::Unit::Seconds,
            "How long the store took"
        );
        Self
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        let charges = || {
            let steps = event.group.steps().iter().enumerate();
            steps.filter(|(_, step)| matches!(step.action, Action::Charge { cost: 1.. }))
        };
        if charges().next().is_none() {
            return;
        }
        ::metrics::histogram!("limiter_check_seconds").record(event.elapsed.as_secs_f64());
        let observed = match event.result {
            Ok(observed) => observed,
            Err(error) => {
                for (_, step) in charges() {
                    let (policy, scope) = labels(step);
                    let kind = error.kind().as_str();
                    ::metrics::counter!("limiter_errors_total", "policy" => policy, "scope" => scope, "kind" => kind)
                        .increment(1);
                }
                return;
            }
        };
        let admitted = event
            .group
            .steps()
            .iter()
            .zip(observed)
            .all(|(step, observed)| step.policy.is_shadow() || observed.verdict == Verdict::Admit);
        for (index, step) in charges() {
            let Some(observed) = observed.get(index) else {
                continue;
            };
            let (policy, scope) = labels(step);
            ::metrics::counter!(
                "limiter_checks_total",
                "policy" => policy.clone(),
                "scope" => scope.clone(),
                "outcome" => outcome(step, observed, admitted),
                "source" => observed.source.as_str(),
            )
            .increment(1);
            ::metrics::histogram!("limiter_used_ratio", "policy" => policy, "scope" => scope)
                .record(used_ratio(step, observed));
        }
    }
}

fn labels(step: &Step<'_>) -> (String, String) {
    (
        step.policy.name().to_owned(),
        step.policy.scope().to_owned(),
    )
}

fn outcome(step: &Step<'_>, observed: &Observed, admitted: bool) -> &'static str {
    match (step.policy.is_shadow(), observed.verdict) {
        (_, Verdict::Admit) if admitted => "allowed",
        (_, Verdict::Admit) => "not_charged",
        (false, Verdict::Deny { .. }) => "denied",
        (false, Verdict::Never) => "never",
        (true, Verdict::Deny { .. }) => "shadow_denied",
        (true, Verdict::Never) => "shadow_never",
    }
}

/// Both are below 2^53, so the doubles are exact.
fn used_ratio(step: &Step<'_>, observed: &Observed) -> f64 {
    let capacity = step.policy.quota().capacity();
    observed.used.min(capacity) as f64 / capacity as f64
}
