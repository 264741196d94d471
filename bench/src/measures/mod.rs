//! What is measured.
//!
//! - `callers`: rates and latencies beside others. `distance`: the same away from the server, and callers who leave.
//! - `server_time`: what a check costs the server. `ceiling`: what its script can do at most. `series`: against keys, limits and
//!   instances. `memory`: bytes a bucket. `allocations`: of a check.

mod allocations;
mod callers;
mod ceiling;
mod distance;
mod memory;
mod series;
mod server_time;

use tokio::runtime::Runtime;

use crate::Effort;
use crate::load::Run;
use crate::report::{Report, median};

type Measure = fn(Effort, &mut Report);

/// By name, for `--only`.
pub(crate) const ALL: [(&str, Measure); 13] = [
    ("callers", callers::callers),
    ("half_load", callers::half_load),
    ("server_time", server_time::server_time),
    ("profile", server_time::profile),
    ("ceiling", ceiling::one_server),
    ("cluster", ceiling::cluster),
    ("limits", series::limits),
    ("keys", series::keys),
    ("instances", series::instances),
    ("memory", memory::memory),
    ("distance", distance::distance),
    ("aborts", distance::aborts),
    ("allocations", allocations::allocations),
];

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

/// Where the callers of a batch are all asked before any of it is sent.
fn runtime_of_one_thread() -> Runtime {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime")
}

fn cells(name: &str, first: String, runs: &[Run]) -> Vec<String> {
    let of = |value: fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>()).0;
    vec![
        first,
        name.to_owned(),
        format!("{:.0}", of(Run::per_second)),
        format!("{:.2}", of(|run| run.quantile(0.5))),
        format!("{:.2}", of(|run| run.quantile(0.99))),
        format!("{:.2}", of(|run| run.quantile(0.999))),
        format!("{:.4}", of(Run::failed_share)),
    ]
}

const COLUMNS: [&str; 7] = [
    "In flight",
    "Who",
    "Calls/s",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "Failed",
];

/// The largest share that failed.
fn worst(runs: &[Run]) -> f64 {
    runs.iter().map(Run::failed_share).fold(0.0, f64::max)
}

/// The median rate.
fn rate(runs: &[Run]) -> f64 {
    median(&runs.iter().map(Run::per_second).collect::<Vec<_>>()).0
}

/// Round by round, one rate over another.
fn ratios(ours: &[Run], theirs: &[Run]) -> Vec<f64> {
    let rounds = ours.iter().zip(theirs);
    rounds
        .map(|(ours, theirs)| ours.per_second() / theirs.per_second())
        .collect()
}
