//! What limits and caches do, through the `metrics` facade crate (C5).
//!
//! - [`Metrics`]: an observer that counts every decision.
//! - [`report`], [`report_cache`], [`report_outages`], [`report_audit`], [`report_switch`], [`report_plan`]: what is told when the
//!   recorder is asked.
//! - [`ALL`]: every metric, with its kind, its labels and its meaning; docs/operations.md has the same table. [`BUCKETS`]: bounds for
//!   the histograms.
//!
//! The recorder is the application's.

mod names;
mod reports;

use limiter_core::Substitute;
use limiter_core::limit::wrap::{Event, Observer};
use limiter_core::limit::{Action, Mark, Observed, Policy, RecordKind, Step, Verdict};

use crate::events;
use crate::thresholds::Crossing;

pub use self::names::{ALL, BUCKETS, Kind, Metric};
#[cfg(feature = "audit")]
pub use self::reports::report_audit;
#[cfg(feature = "ai-cache")]
pub use self::reports::report_cache;
pub use self::reports::{
    HostedPlan, report, report_cache_store, report_outages, report_plan, report_switch,
};

/// Counts every call that a store answered, and those that got no answer. Stateless: the recorder is the application's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metrics;

impl Metrics {
    /// Describes the metrics to the application's recorder and returns the observer.
    pub fn new() -> Self {
        for metric in ALL {
            metric.describe();
        }
        Self
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        for kind in records(event) {
            ::metrics::counter!("limiter_records_total", "kind" => kind.as_str()).increment(1);
        }
        let mut charges = events::attempts(event).peekable();
        if charges.peek().is_none() {
            return;
        }
        ::metrics::histogram!("limiter_check_seconds").record(event.elapsed.as_secs_f64());
        for charged in charges {
            let (policy, scope) = labels(charged.step);
            if let Some(rule) = rule(event, charged.observed) {
                ::metrics::counter!(
                    "limiter_degraded_total",
                    "policy" => policy.clone(),
                    "scope" => scope.clone(),
                    "rule" => rule.as_str(),
                )
                .increment(1);
            }
            let Some(observed) = charged.observed else {
                let kind = charged.outcome;
                ::metrics::counter!("limiter_errors_total", "policy" => policy, "scope" => scope, "kind" => kind)
                    .increment(1);
                continue;
            };
            ::metrics::counter!(
                "limiter_checks_total",
                "policy" => policy.clone(),
                "scope" => scope.clone(),
                "outcome" => charged.outcome,
                "source" => observed.source.as_str(),
            )
            .increment(1);
            if observed.seen {
                ::metrics::histogram!("limiter_used_ratio", "policy" => policy, "scope" => scope)
                    .record(used_ratio(charged.step, observed));
            }
        }
    }
}

/// What the store remembers from now on, beside what it did before.
fn records(event: &Event<'_>) -> impl Iterator<Item = RecordKind> {
    let steps = event.steps.iter();
    let observed = event.result.unwrap_or_default();
    let admitted = steps
        .clone()
        .zip(observed)
        .all(|(step, seen)| step.policy.is_shadow() || seen.verdict == Verdict::Admit);
    let is_new = |seen: &Observed| seen.verdict == Verdict::Admit && seen.replayed.is_none();
    let operation = event.operation.is_some() && observed.iter().any(is_new);
    let kinds = steps.zip(observed).filter_map(move |(step, seen)| {
        let makes = match step.action {
            Action::Reserve { .. } | Action::Refund { .. } | Action::Release { .. } => true,
            // Of an unknown id.
            Action::Cancel { .. } => seen.mark == Mark::default(),
            _ => false,
        };
        let (kind, _) = step.record().filter(|_| makes && is_new(seen))?;
        Some(kind)
    });
    let kinds = kinds.chain(operation.then_some(RecordKind::Operation));
    kinds.filter(move |_| admitted)
}

/// Which rule decided in the store's place, if one did.
fn rule(event: &Event<'_>, observed: Option<&Observed>) -> Option<Substitute> {
    match observed {
        None => {
            let error = event.result.err()?;
            error.kind().is_outage().then_some(Substitute::Denied)
        }
        Some(observed) => observed.substitute(),
    }
}

fn labels(step: &Step<'_>) -> (String, String) {
    (
        step.policy.name().to_owned(),
        step.policy.scope().to_owned(),
    )
}

/// Begins the counts of what should not happen to these policies at 0: an alert on a growing count sees the first one, too.
pub fn announce(policies: &[Policy]) {
    for policy in policies {
        let labels = || {
            let of = |label, value: &str| ::metrics::Label::new(label, value.to_owned());
            vec![of("policy", policy.name()), of("scope", policy.scope())]
        };
        for rule in [Substitute::Denied, Substitute::Allowed, Substitute::Local] {
            let mut labels = labels();
            labels.push(::metrics::Label::new("rule", rule.as_str()));
            ::metrics::counter!("limiter_degraded_total", labels).absolute(0);
        }
    }
}

/// Counts a threshold that was crossed: for the sink of [`Thresholds`](crate::Thresholds).
pub fn count_crossing(crossing: &Crossing<'_>) {
    ::metrics::counter!(
        "limiter_thresholds_crossed_total",
        "policy" => crossing.policy.name().to_owned(),
        "scope" => crossing.policy.scope().to_owned(),
        "percent" => crossing.percent.to_string(),
    )
    .increment(1);
}

/// Both are below 2^53, so the doubles are exact.
fn used_ratio(step: &Step<'_>, observed: &Observed) -> f64 {
    let capacity = observed.share.of(step.policy.quota().capacity()).max(1);
    observed.used.min(capacity) as f64 / capacity as f64
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use limiter_core::limit::{Charge, Group, OperationId, Policy, Quota};

    use super::*;

    #[derive(Debug, Default)]
    struct Made(Mutex<Vec<&'static str>>);

    impl Observer for Made {
        fn observe(&self, event: &Event<'_>) {
            let kinds = records(event).map(RecordKind::as_str);
            self.0.lock().unwrap().extend(kinds);
        }
    }

    /// Each once, however often it is asked for; and none of what is denied.
    #[tokio::test]
    async fn records_are_counted_when_they_are_made() {
        let made = Arc::new(Made::default());
        let builder = crate::Builder::new().observe(made.clone());
        let limiter = builder.connect("memory:").await.unwrap().limiter;
        let hourly = Quota::fixed_window(10, limiter_core::limit::Period::HOUR);
        let hourly = Policy::new("hourly", hourly.unwrap()).unwrap();
        let streams = Policy::new("streams", Quota::concurrency(1).unwrap()).unwrap();
        let ttl = Duration::from_secs(60);
        let of = |name: &str| OperationId::new(name);
        let (key, stream) = (hourly.key(["a"]), streams.key(["a"]));
        let charge = [Charge::new(&hourly, &key).with_cost(4)];
        for _ in 0..2 {
            limiter.reserve_as(of("r"), &charge, ttl).await.unwrap();
        }
        limiter.charge_once(&of("o"), &charge).await.unwrap();
        let (_, charged) = limiter.charge_once(&of("o"), &charge).await.unwrap();
        let charged = charged.unwrap();
        for _ in 0..2 {
            charged.refund().await.unwrap();
        }
        // 4 are left.
        let more = [Charge::new(&hourly, &key).with_cost(7)];
        limiter.reserve(&more, ttl).await.unwrap();
        limiter.charge_once(&of("p"), &more).await.unwrap();
        let lease = [Charge::new(&streams, &stream)];
        let lease = limiter.acquire(&lease, ttl).await.unwrap().held();
        lease.unwrap().release().await.unwrap();
        let store = limiter.store();
        for id in ["unknown", "r"].map(of) {
            let steps = [Step::new(&hourly, &key, Action::Cancel { id: &id, ttl })];
            let group = Group::new(&steps, &store.capabilities()).unwrap();
            let mut observed = [Observed::default()];
            store.apply(&group, &mut observed).await.unwrap();
        }
        let made = made.0.lock().unwrap();
        assert_eq!(
            *made,
            ["reservation", "operation", "refund", "lease", "reservation"]
        );
    }
}
