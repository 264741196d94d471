//! What a pool counts for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use limiter_core::{Effect, Error, ErrorKind, Figure, ServerInfo};

use super::{Keeps, Pool};

/// Counts of all runtimes.
#[derive(Default)]
pub(crate) struct Counts {
    commands: AtomicU64,
    /// In the order of [`ErrorKind::ALL`].
    errors: [AtomicU64; ErrorKind::ALL.len()],
    unknown: AtomicU64,
}

impl Counts {
    /// So many commands are sent.
    pub(crate) fn note_sent(&self, commands: usize) {
        let commands = u64::try_from(commands).unwrap_or(u64::MAX);
        self.commands.fetch_add(commands, Ordering::Relaxed);
    }

    /// A call has failed.
    pub(crate) fn note_error(&self, error: &Error) {
        let kind = error.kind();
        let place = ErrorKind::ALL.iter().position(|it| *it == kind);
        if let Some(count) = place.and_then(|place| self.errors.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if error.effect() == Effect::Unknown {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted; of errors, the kinds that there were, and those of outages: an alert on a growing count sees the first
    /// one, too.
    fn figures(&self) -> impl Iterator<Item = Figure> {
        let commands = self.commands.load(Ordering::Relaxed);
        let errors = ErrorKind::ALL.iter().zip(&self.errors);
        let errors = errors.filter_map(|(kind, count)| {
            let count = count.load(Ordering::Relaxed);
            let figure = Figure::new("limiter_redis_errors_total", count);
            (count > 0 || kind.is_outage()).then(|| figure.with("kind", kind.as_str()))
        });
        let unknown = self.unknown.load(Ordering::Relaxed);
        [
            Figure::new("limiter_redis_commands_total", commands),
            Figure::new("limiter_redis_unknown_total", unknown),
        ]
        .into_iter()
        .chain(errors)
    }
}

impl Pool {
    /// Counts a call that is over, and logs one that took long or that its deadline cut; one line a second for each operation,
    /// which says how many `more` there were (B7).
    pub(crate) fn note_end(
        &self,
        operation: &'static str,
        elapsed: Duration,
        error: Option<&Error>,
    ) {
        note_time(operation, elapsed);
        if let Some(error) = error {
            self.shared.counts.note_error(error);
        }
        let is_cut = error.is_some_and(|error| error.kind() == ErrorKind::Timeout);
        if elapsed > self.shared.slow || is_cut {
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            if let Some(more) = self.shared.slow_log.pass(operation) {
                tracing::warn!(operation, millis, more, cut_by_its_deadline = is_cut, host = %self.shared.host, "slow Redis call");
            }
        }
    }

    /// What the pool tells of itself for metrics, without I/O.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let shared = &self.shared;
        let mut connections = 0;
        shared
            .homes
            .each(|home| connections += *home.origin.live().borrow());
        let connections = u64::try_from(connections).unwrap_or(u64::MAX);
        let of_pool = shared.counts.figures();
        let of_pool = of_pool.chain([Figure::new("limiter_redis_connections", connections)]);
        let pool = match shared.keeps {
            Keeps::Counters => "limits",
            Keeps::Values => "caches",
        };
        let of_pool = of_pool.map(|figure| figure.with("server", self.host()).with("pool", pool));
        let server = self.server();
        let of_server = server.iter().flat_map(of_server);
        // One server may have two pools.
        let of_server =
            of_server.map(|figure| figure.with("server", self.host()).with("pool", pool));
        of_pool.chain(of_server).collect()
    }
}

/// What a server told of itself.
fn of_server(info: &ServerInfo) -> impl Iterator<Item = Figure> {
    let evicts = info
        .eviction
        .as_ref()
        .map(|policy| u64::from(policy != "noeviction"));
    [
        ("limiter_redis_memory_used_bytes", info.memory_used),
        ("limiter_redis_memory_limit_bytes", info.memory_limit),
        ("limiter_redis_evicts", evicts),
        ("limiter_redis_evicted_keys", info.evicted),
        ("limiter_redis_server_commands", info.commands),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(Figure::new(name, value?)))
}

/// How long a call took.
#[cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "without the feature nobody asks")
)]
fn note_time(operation: &'static str, elapsed: Duration) {
    #[cfg(feature = "metrics")]
    metrics::histogram!("limiter_redis_call_seconds", "operation" => operation)
        .record(elapsed.as_secs_f64());
}

/// How many groups share a batch.
#[cfg_attr(
    not(feature = "metrics"),
    expect(unused_variables, reason = "without the feature nobody asks")
)]
pub(crate) fn note_batch(groups: usize) {
    #[cfg(feature = "metrics")]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a batch has a few hundred groups at most"
    )]
    metrics::histogram!("limiter_redis_batch_groups").record(groups as f64);
}
