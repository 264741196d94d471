//! Every metric: its name, kind, labels and meaning, once.

/// One metric.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Metric {
    /// As in the exposition.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is of.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the facade has these three")]
pub enum Kind {
    /// Only grows, from the start of the process on.
    Counter,
    /// What is, now.
    Gauge,
    /// How often values were how large.
    Histogram,
}

impl Kind {
    /// `counter`, `gauge` or `histogram`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Metric {
    /// Tells the recorder.
    pub(super) fn describe(&self) {
        match self.kind {
            Kind::Counter => ::metrics::describe_counter!(self.name, self.help),
            Kind::Gauge => ::metrics::describe_gauge!(self.name, self.help),
            Kind::Histogram => ::metrics::describe_histogram!(self.name, self.help),
        }
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        labels,
        help,
    }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram,
        labels,
        help,
    }
}

const POLICY: &[&str] = &["policy", "scope"];
const POOL: &[&str] = &["server", "pool"];
const SERVER: &[&str] = &["server"];
const OPERATION: &[&str] = &["operation"];

/// Every metric of these crates.
pub const ALL: &[Metric] = &[
    counter(
        "limiter_checks_total",
        &["policy", "scope", "outcome", "source"],
        "Charges, reservations and leases that were asked for, by what became of them and who decided",
    ),
    counter(
        "limiter_errors_total",
        &["policy", "scope", "kind"],
        "Charges, reservations and leases that nobody decided, by the kind of the error; cancelled ones were left by their callers",
    ),
    counter(
        "limiter_degraded_total",
        &["policy", "scope", "rule"],
        "Charges, reservations and leases that were decided without the store, by the rule of the policy: denied, allowed or local",
    ),
    counter(
        "limiter_thresholds_crossed_total",
        &["policy", "scope", "percent"],
        "Limits whose use has crossed a threshold",
    ),
    histogram(
        "limiter_used_ratio",
        POLICY,
        "Share of the limit that is used, after the check",
    ),
    histogram(
        "limiter_check_seconds",
        &[],
        "How long the store took, with its rules for outages",
    ),
    counter(
        "limiter_records_total",
        &["kind"],
        "Keys made so that a retry of a reservation, refund, release or operation is harmless",
    ),
    counter(
        "limiter_charges_unheard_total",
        &[],
        "Charges that were made and that nobody was told of",
    ),
    gauge(
        "limiter_give_backs_waiting",
        &[],
        "Refunds, settlements, cancellations and releases that wait for the store",
    ),
    counter(
        "limiter_give_backs_delivered_total",
        &[],
        "Of those that waited, how many were delivered",
    ),
    counter(
        "limiter_give_backs_expired_total",
        &[],
        "Of those that waited, how many counted no more before the store was back",
    ),
    counter(
        "limiter_give_backs_refused_total",
        &[],
        "Of those that waited, how many the store refused in the end",
    ),
    counter(
        "limiter_give_backs_dropped_total",
        &[],
        "Give-backs that were given up at once, because too many waited",
    ),
    counter(
        "limiter_outage_answers_total",
        &["rule"],
        "Calls of limits and caches that were answered without the store: denied, allowed, local, missed, counted",
    ),
    gauge(
        "limiter_outage_seconds",
        &[],
        "For how long calls have been answered without the store; 0 while it answers",
    ),
    gauge(
        "limiter_switch",
        &["limits"],
        "1 for each place where the switch has limits counted on this instance: store, local or off",
    ),
    counter(
        "limiter_audit_written_total",
        &[],
        "Decisions that are in the audit trail",
    ),
    counter(
        "limiter_audit_lost_total",
        &[],
        "Decisions that are not in the audit trail, and should be",
    ),
    gauge(
        "limiter_audit_waiting",
        &[],
        "Decisions that wait to be written to the audit trail",
    ),
    gauge(
        "limiter_breaker_state",
        POOL,
        "How the breaker of a server stands: 0 closed, 1 half open, 2 open",
    ),
    gauge(
        "limiter_memory_keys",
        &["store"],
        "Keys in the table of this process, by what it is for: main, outage or switch",
    ),
    gauge(
        "limiter_memory_keys_limit",
        &["store"],
        "The most keys that the table of this process has room for",
    ),
    counter(
        "limiter_memory_refused_total",
        &["store"],
        "Charges of new keys for which the table of this process had no room",
    ),
    histogram(
        "limiter_redis_call_seconds",
        OPERATION,
        "How long a call of Redis took, with the wait for a connection and a batch",
    ),
    histogram(
        "limiter_redis_batch_groups",
        &[],
        "How many checks shared a script call",
    ),
    counter(
        "limiter_redis_commands_total",
        POOL,
        "Commands sent, but for those that connections begin with and that look whether a server is well",
    ),
    counter(
        "limiter_redis_errors_total",
        &["server", "pool", "kind"],
        "Calls of Redis that failed, by the kind of the error",
    ),
    counter(
        "limiter_redis_unknown_total",
        POOL,
        "Calls of Redis of which it is not known whether they took effect",
    ),
    gauge(
        "limiter_redis_connections",
        POOL,
        "Connections that there are",
    ),
    gauge(
        "limiter_redis_waiting",
        SERVER,
        "Checks that wait for the next batch",
    ),
    gauge(
        "limiter_redis_batches_under_way",
        SERVER,
        "Batches that wait for their reply",
    ),
    gauge(
        "limiter_redis_memory_used_bytes",
        POOL,
        "Memory that a Redis used when it was asked last",
    ),
    gauge(
        "limiter_redis_memory_limit_bytes",
        POOL,
        "Its maxmemory; absent without one",
    ),
    gauge(
        "limiter_redis_evicts",
        POOL,
        "Whether it evicts keys when it is full; absent without a maxmemory",
    ),
    gauge(
        "limiter_redis_evicted_keys",
        POOL,
        "Keys that it has evicted since it started",
    ),
    gauge(
        "limiter_redis_server_commands",
        POOL,
        "Commands that it has run since it started, of whomever",
    ),
    gauge(
        "limiter_quota_commands_per_day",
        &[],
        "Commands a day that the plan of the hosted Redis has; absent without one",
    ),
    gauge(
        "limiter_quota_bytes",
        &[],
        "Bytes that the plan of the hosted Redis has; absent without one",
    ),
    counter(
        "limiter_cache_lookups_total",
        &["operation", "result"],
        "Lookups of a cache: l1_hit, l2_hit or miss",
    ),
    counter(
        "limiter_cache_computations_total",
        OPERATION,
        "Answers that were computed",
    ),
    counter(
        "limiter_cache_store_errors_total",
        OPERATION,
        "Failed calls of the cache's store",
    ),
    counter(
        "limiter_cache_unreadable_total",
        OPERATION,
        "Stored values that gave no answer",
    ),
    counter(
        "limiter_cache_bytes_total",
        &["operation", "direction"],
        "Bytes of answers that were read from the store and written to it",
    ),
    gauge(
        "limiter_cache_l1_entries",
        OPERATION,
        "Answers that this process holds",
    ),
];

/// Upper bounds of buckets that suit the histograms, by the metric's name, for the application's
/// recorder: with buckets, unlike with quantiles, the histograms of several instances add up.
pub const BUCKETS: [(&str, &[f64]); 4] = [
    ("limiter_check_seconds", SECONDS),
    ("limiter_redis_call_seconds", SECONDS),
    (
        "limiter_redis_batch_groups",
        &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0],
    ),
    (
        "limiter_used_ratio",
        &[0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 1.0],
    ),
];

const SECONDS: &[f64] = &[
    1e-6, 1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];
