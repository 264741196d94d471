//! What is told when the recorder is asked: call these before it renders, or every few seconds.

#[cfg(feature = "ai-cache")]
use ai_cache::Stats;
use limiter_core::cache::CacheStore;
use limiter_core::limit::Limiter;
use limiter_core::limit::wrap::{Route, Switch};
use limiter_core::{Figure, OutageLog};

#[cfg(feature = "audit")]
use crate::audit::Audit;

/// What the limiter and its stores count.
///
/// A server that is used no more leaves its last numbers behind: have the recorder drop gauges that nobody sets for some minutes
/// (`idle_timeout` of metrics-exporter-prometheus).
///
/// `limiter_give_backs_dropped_total` above zero means that charges were not given back: alert on it.
pub fn report(limiter: &Limiter) {
    ::metrics::counter!("limiter_charges_unheard_total").absolute(limiter.unheard());
    let stats = limiter.give_back_stats();
    ::metrics::gauge!("limiter_give_backs_waiting").set(stats.waiting as f64);
    for (name, count) in [
        ("limiter_give_backs_delivered_total", stats.delivered),
        ("limiter_give_backs_expired_total", stats.expired),
        ("limiter_give_backs_refused_total", stats.refused),
        ("limiter_give_backs_dropped_total", stats.dropped),
    ] {
        ::metrics::counter!(name).absolute(count);
    }
    tell(limiter.figures());
}

/// What a cache's store tells of itself.
pub fn report_cache_store(store: &dyn CacheStore) {
    tell(store.figures());
}

fn tell(figures: Vec<Figure>) {
    for figure in figures {
        let mut labels: Vec<_> = figure
            .labels
            .iter()
            .map(|(name, value)| ::metrics::Label::new(*name, value.clone()))
            .collect();
        let is_of_memory = figure.name.starts_with("limiter_memory_");
        if is_of_memory && labels.is_empty() {
            labels.push(::metrics::Label::new("store", "main"));
        }
        if figure.is_counter() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "made of a count"
            )]
            let count = figure.value as u64;
            ::metrics::counter!(figure.name, labels).absolute(count);
        } else {
            ::metrics::gauge!(figure.name, labels).set(figure.value);
        }
    }
}

/// What a cache did: its [`operation`](ai_cache::AiCache::operation) and its [`stats`](ai_cache::AiCache::stats).
#[cfg(feature = "ai-cache")]
pub fn report_cache(operation: &str, stats: &Stats) {
    let of = |label: &'static str, value: &'static str| {
        vec![
            ::metrics::Label::new("operation", operation.to_owned()),
            ::metrics::Label::new(label, value),
        ]
    };
    for (result, count) in [
        ("l1_hit", stats.l1_hits),
        ("l2_hit", stats.l2_hits),
        ("miss", stats.misses),
    ] {
        ::metrics::counter!("limiter_cache_lookups_total", of("result", result)).absolute(count);
    }
    for (direction, bytes) in [("read", stats.bytes_read), ("written", stats.bytes_written)] {
        ::metrics::counter!("limiter_cache_bytes_total", of("direction", direction))
            .absolute(bytes);
    }
    for (name, count) in [
        ("limiter_cache_computations_total", stats.computations),
        ("limiter_cache_store_errors_total", stats.store_errors),
        ("limiter_cache_unreadable_total", stats.unreadable),
    ] {
        ::metrics::counter!(name, "operation" => operation.to_owned()).absolute(count);
    }
    ::metrics::gauge!("limiter_cache_l1_entries", "operation" => operation.to_owned())
        .set(stats.l1_entries as f64);
}

/// What was answered without the store, by limits and caches together.
pub fn report_outages(log: &OutageLog) {
    for (rule, count) in log.totals() {
        ::metrics::counter!("limiter_outage_answers_total", "rule" => rule.as_str())
            .absolute(count);
    }
    let seconds = log
        .degraded_since()
        .map_or(0.0, |since| since.as_secs_f64());
    ::metrics::gauge!("limiter_outage_seconds").set(seconds);
}

/// How complete the audit trail is.
#[cfg(feature = "audit")]
pub fn report_audit(audit: &Audit) {
    let stats = audit.stats();
    ::metrics::counter!("limiter_audit_written_total").absolute(stats.written);
    ::metrics::counter!("limiter_audit_lost_total").absolute(stats.lost);
    ::metrics::gauge!("limiter_audit_waiting").set(stats.waiting as f64);
}

/// Where limits are counted on this instance.
pub fn report_switch(switch: &Switch) {
    let routes = switch.routes();
    for route in [Route::Store, Route::Local, Route::Off] {
        let is_used = f64::from(u8::from(routes.contains(&route)));
        ::metrics::gauge!("limiter_switch", "limits" => route.as_str()).set(is_used);
    }
}

/// What the plan of a hosted Redis has (B9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "two settings of the application")]
pub struct HostedPlan {
    /// Commands a day.
    pub commands_per_day: Option<u64>,
    /// Bytes of storage.
    pub bytes: Option<u64>,
}

/// What the plan of the hosted Redis has, for alerts at 80 % of it.
pub fn report_plan(plan: HostedPlan) {
    for (name, most) in [
        ("limiter_quota_commands_per_day", plan.commands_per_day),
        ("limiter_quota_bytes", plan.bytes),
    ] {
        if let Some(most) = most {
            ::metrics::gauge!(name).set(most as f64);
        }
    }
}
