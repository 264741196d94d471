//! The direct run beside what its script can do at most.

use std::sync::Arc;
use std::time::Duration;

use integration_tests::{RedisCluster, RedisServer};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::{COLUMNS, cells, ratios, runtime, worst};
use crate::Effort;
use crate::ceiling::Ceiling;
use crate::contender::{Contender, KEYS, Limit, TIMED, bucket, config, connection, server};
use crate::load::{Run, closed};
use crate::report::Report;

const CALLERS: u64 = 256;

pub(super) fn one_server(effort: Effort, report: &mut Report) {
    let server = server();
    let url = server.admin_url();
    let runtime = runtime();
    let ours = runtime.block_on(Contender::ours(&url));
    let size = checks_a_write(&runtime, effort, &ours, &[&server]);
    let ceiling = runtime.block_on(async {
        let connections = vec![connection(&url).await];
        Ceiling::new(connections, keys(), |_| 0, size).await
    });
    let sides = compare(&runtime, effort, &[&server], &ours, ceiling);
    tell(
        report,
        ("direct_vs_ceiling", ">= 0.9"),
        "one server",
        size,
        &sides,
    );
}

/// A cluster of three, whose keys stand in slots of their own.
pub(super) fn cluster(effort: Effort, report: &mut Report) {
    let cluster = RedisCluster::start();
    let url = cluster.url_of("admin", "admin-secret");
    let runtime = runtime();
    let limits = vec![Limit::new("bench", bucket(), KEYS)];
    let ours = runtime.block_on(Contender::cluster(&config(&url), limits));
    let nodes: Vec<&RedisServer> = cluster.nodes.iter().collect();
    let size = checks_a_write(&runtime, effort, &ours, &nodes);
    let ceiling = runtime.block_on(async {
        let mut connections = vec![];
        for node in &nodes {
            connections.push(connection(&node.admin_url()).await);
        }
        Ceiling::new(connections, keys(), |slot| cluster.home(slot), size).await
    });
    let sides = compare(&runtime, effort, &nodes, &ours, ceiling);
    tell(
        report,
        ("cluster_vs_ceiling", ">= 0.9"),
        "a cluster of three masters on this machine",
        size,
        &sides,
    );
    // What the checks are, and nobody else's.
    for node in &nodes {
        node.command::<()>(&["CONFIG", "RESETSTAT"]);
    }
    runtime.block_on(closed(&ours, CALLERS, effort.slice));
    let calls: Vec<f64> = nodes
        .iter()
        .map(|node| node.calls("evalsha") as f64)
        .collect();
    let mean = calls.iter().sum::<f64>() / calls.len() as f64;
    let most = calls.iter().map(|calls| (calls / mean - 1.0).abs());
    report.worst("cluster_unevenness", "<= 0.1", &most.collect::<Vec<_>>());
}

/// The direct run beside its ceiling: the ratio, the rates, and the processors' time.
fn tell(
    report: &mut Report,
    (ratio, wanted): (&'static str, &'static str),
    place: &str,
    size: usize,
    sides: &Sides,
) {
    let Sides {
        ours,
        ceiling,
        timed,
        memory,
    } = sides;
    report.ratio(ratio, wanted, ratios(&ours.runs, &ceiling.runs));
    report.worst("failed_share", "0", &[worst(&ours.runs)]);
    let name = format!("ceiling, {size} a write");
    report.table(
        &format!("Beside the most that the script can do, on {place}"),
        &COLUMNS,
        &[
            cells(&name, CALLERS.to_string(), &ceiling.runs),
            cells(TIMED, CALLERS.to_string(), &timed.runs),
            cells("these crates", CALLERS.to_string(), &ours.runs),
        ],
    );
    account(
        report,
        &format!("The processors' time for a check, on {place}"),
        &[
            ("ceiling", ceiling),
            (TIMED, timed),
            ("these crates", ours),
            ("these crates in memory, no server and no task", memory),
        ],
    );
}

fn keys() -> Vec<limiter_core::Key> {
    Limit::new("bench", bucket(), KEYS).keys
}

/// How many checks the direct run sends in one write: by how many writes the servers had read from its connections.
fn checks_a_write(
    runtime: &Runtime,
    effort: Effort,
    ours: &Contender,
    servers: &[&RedisServer],
) -> usize {
    let reads = || -> f64 {
        let reads = servers.iter().map(|server| {
            let stats: String = server.command(&["INFO", "stats"]);
            let mut lines = stats.lines();
            let reads = lines.find_map(|line| line.strip_prefix("total_reads_processed:"));
            reads.and_then(|reads| reads.trim().parse::<f64>().ok())
        });
        reads.map(Option::unwrap_or_default).sum()
    };
    let before = reads();
    let run = runtime.block_on(closed(ours, CALLERS, effort.slice));
    let size = run.answers as f64 / (reads() - before).max(1.0);
    (size.round() as usize).clamp(1, 128)
}

/// Rounds, and what they took of the processors: in this process and in the servers (s).
#[derive(Default)]
struct Side {
    runs: Vec<Run>,
    answers: u64,
    callers: f64,
    servers: f64,
}

/// Who is compared.
#[derive(Default)]
struct Sides {
    ours: Side,
    ceiling: Side,
    timed: Side,
    /// One check after the other, in memory.
    memory: Side,
}

/// Turn by turn.
fn compare(
    runtime: &Runtime,
    effort: Effort,
    servers: &[&RedisServer],
    ours: &Contender,
    ceiling: Ceiling,
) -> Sides {
    let ceiling = Arc::new(ceiling);
    let timed = Contender::TimedCeiling(ceiling.clone());
    let ceiling = Contender::Ceiling(ceiling);
    let memory = Contender::memory();
    let mut sides = Sides::default();
    for _ in 0..effort.rounds {
        for (side, contender) in [
            (&mut sides.ours, ours),
            (&mut sides.ceiling, &ceiling),
            (&mut sides.timed, &timed),
        ] {
            let before = (own_time(), time_of(servers));
            let run = runtime.block_on(closed(contender, CALLERS, effort.slice));
            side.answers += run.answers;
            side.runs.push(run);
            side.callers += own_time() - before.0;
            side.servers += time_of(servers) - before.1;
        }
        let before = own_time();
        sides.memory.answers += runtime.block_on(in_a_row(&memory, effort.slice / 4));
        sides.memory.callers += own_time() - before;
    }
    sides
}

/// One check after the other; how many there were.
async fn in_a_row(contender: &Contender, slice: Duration) -> u64 {
    let start = Instant::now();
    let mut answers = 0;
    while start.elapsed() < slice {
        for key in 0..KEYS {
            // Far from the last one.
            answers += u64::from(contender.ask(key * 7_919).await);
        }
    }
    answers
}

/// What this process has taken of the processors (s).
fn own_time() -> f64 {
    // The fields behind the name, which may have spaces: user and system time are the 12th and the 13th, in hundredths.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// What the servers have, by their own count.
fn time_of(servers: &[&RedisServer]) -> f64 {
    let times = servers.iter().map(|server| {
        let info: String = server.command(&["INFO", "cpu"]);
        let lines = info.lines().filter_map(|line| {
            let (name, seconds) = line.split_once(':')?;
            let is_own = matches!(name, "used_cpu_sys" | "used_cpu_user");
            is_own.then(|| seconds.trim().parse::<f64>().ok()).flatten()
        });
        lines.sum::<f64>()
    });
    times.sum()
}

/// What a check takes of the processors beside the ceiling's.
fn account(report: &mut Report, heading: &str, sides: &[(&str, &Side)]) {
    let rows: Vec<_> = sides
        .iter()
        .map(|(name, side)| {
            let answers = side.answers.max(1) as f64;
            let micros = |seconds: f64| format!("{:.2}", 1e6 * seconds / answers);
            vec![
                (*name).to_owned(),
                micros(side.callers),
                micros(side.servers),
                micros(side.callers + side.servers),
            ]
        })
        .collect();
    report.table(
        heading,
        &["Who", "Callers' process us", "Servers us", "All us"],
        &rows,
    );
}
