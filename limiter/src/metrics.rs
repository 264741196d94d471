//! Every decision as metrics, through the `metrics` facade crate (C5).
//!
//! | Metric | Kind | Labels |
//! |---|---|---|
//! | `limiter_checks_total` | counter | `policy`, `scope`, `outcome`, `source` |
//! | `limiter_errors_total` | counter | `policy`, `scope`, `kind` |
//! | `limiter_degraded_total` | counter | `policy`, `scope`, `rule`: `denied`, `allowed` or `local` |
//! | `limiter_used_ratio` | histogram, 0 to 1 | `policy`, `scope` |
//! | `limiter_check_seconds` | histogram | none |
//! | `limiter_records_total` | counter | `kind`: `reservation`, `refund`, `lease`, `operation` |
//! | `limiter_give_backs_waiting` | gauge | none |
//! | `limiter_give_backs_delivered`, `_expired`, `_refused`, `_dropped` | counter | none |
//! | `limiter_charges_unheard` | counter | none |
//!
//! The last three are reported by [`report`]. `outcome` is that of [`Attempt`](crate::outcome::Attempt). What looks, resets or gives back is not counted.
//! A record is what a store remembers so that a retry is harmless: a small key, for some days at most. A release that is repeated
//! writes its record again, and counts again.

use limiter_core::Substitute;
use limiter_core::limit::wrap::{Event, Observer};
use limiter_core::limit::{Action, Limiter, Mark, Observed, RecordKind, Step, Verdict};

use crate::outcome;
use crate::thresholds::Crossing;

/// Upper bounds of buckets that suit the histograms, by the metric's name, for the application's
/// recorder: with buckets, unlike with quantiles, the histograms of several instances add up.
pub const BUCKETS: [(&str, &[f64]); 2] = [
    (
        "limiter_check_seconds",
        &[
            1e-6, 1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
            1.0,
        ],
    ),
    (
        "limiter_used_ratio",
        &[0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 1.0],
    ),
];

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
        ::metrics::describe_counter!(
            "limiter_degraded_total",
            "Charges decided without the store, by the policy's rule for outages"
        );
        ::metrics::describe_counter!(
            "limiter_records_total",
            "Keys made so that a retry of a reservation, refund, release or operation is harmless"
        );
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
        for kind in records(event) {
            ::metrics::counter!("limiter_records_total", "kind" => kind.as_str()).increment(1);
        }
        let mut charges = outcome::attempts(event).peekable();
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

/// Reports what the limiter itself counts: call it when the recorder is asked, or every few seconds.
///
/// - What became of give-backs that were not delivered at once. `limiter_give_backs_dropped` above zero means that charges were
///   not given back: alert on it.
/// - `limiter_charges_unheard`: charges that were made and that nobody was told of; see [`Limiter::unheard`].
pub fn report(limiter: &Limiter) {
    ::metrics::counter!("limiter_charges_unheard").absolute(limiter.unheard());
    let stats = limiter.give_back_stats();
    ::metrics::gauge!("limiter_give_backs_waiting").set(stats.waiting as f64);
    for (name, count) in [
        ("limiter_give_backs_delivered", stats.delivered),
        ("limiter_give_backs_expired", stats.expired),
        ("limiter_give_backs_refused", stats.refused),
        ("limiter_give_backs_dropped", stats.dropped),
    ] {
        ::metrics::counter!(name).absolute(count);
    }
}

/// Both are below 2^53, so the doubles are exact.
fn used_ratio(step: &Step<'_>, observed: &Observed) -> f64 {
    let capacity = step.policy.quota().capacity();
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
