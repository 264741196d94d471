//! What is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use integration_tests::{Proxy, RedisServer};
use limiter_redis::RedisConfig;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use crate::Effort;
use crate::contender::{Contender, DEADLINE, server};
use crate::load::{Run, closed, open};
use crate::report::{Report, median};

type Measure = fn(Effort, &mut Report);

/// By name, for `--only`.
pub(crate) const ALL: [(&str, Measure); 6] = [
    ("callers", callers),
    ("distance", distance),
    ("half_load", half_load),
    ("aborts", aborts),
    ("allocations", allocations),
    ("profile", profile),
];

const CALLERS: [u64; 5] = [1, 16, 64, 256, 1_024];

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

async fn contenders(url: &str) -> [Contender; 3] {
    [
        Contender::ping(url).await,
        Contender::peer(url).await,
        Contender::ours(url).await,
    ]
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

/// Callers in a loop, on loopback.
fn callers(effort: Effort, report: &mut Report) {
    let server = server();
    let runtime = runtime();
    let (mut rows, mut failed, mut ratios, mut fairness) = (vec![], vec![], vec![], vec![]);
    runtime.block_on(async {
        let contenders = contenders(&server.admin_url()).await;
        for callers in CALLERS {
            let mut runs: [Vec<Run>; 3] = [vec![], vec![], vec![]];
            for _ in 0..effort.rounds {
                for (runs, contender) in runs.iter_mut().zip(&contenders) {
                    runs.push(closed(contender, callers, effort.slice).await);
                }
            }
            for (runs, contender) in runs.iter().zip(&contenders) {
                rows.push(cells(contender.name(), callers.to_string(), runs));
            }
            let [_, peer, ours] = &runs;
            failed.push(worst(ours));
            if callers == 256 {
                let rounds = ours.iter().zip(peer);
                ratios = rounds
                    .map(|(ours, peer)| ours.per_second() / peer.per_second())
                    .collect();
                fairness = ours
                    .iter()
                    .map(|run| run.least as f64 / run.most as f64)
                    .collect();
            }
        }
    });
    report.ratio(
        "direct_vs_tower_rate_tier",
        "the script is the next limit",
        ratios,
    );
    report.ratio("fairness", ">= 0.8", fairness);
    report.worst("failed_share", "0", &failed);
    report.table("Callers in a loop, on loopback", &COLUMNS, &rows);
}

/// The largest share that failed.
fn worst(runs: &[Run]) -> f64 {
    runs.iter().map(Run::failed_share).fold(0.0, f64::max)
}

/// The same at a distance, through a proxy that delays each packet.
fn distance(effort: Effort, report: &mut Report) {
    const MANY: u64 = 1_024;
    const FAR: u64 = 30;
    const LOADS: [(u64, u64); 6] = [
        (256, 0),
        (256, 1),
        (256, 10),
        (256, FAR),
        (MANY, 0),
        (MANY, FAR),
    ];
    let server = server();
    let mut runs: [Vec<Run>; LOADS.len()] = std::array::from_fn(|_| vec![]);
    runtime().block_on(async {
        let mut distant = vec![];
        for (_, millis) in LOADS {
            let (proxy, url) = proxied(&server).await;
            proxy.delay(Duration::from_millis(millis) / 2);
            distant.push((Contender::ours(&url).await, proxy));
        }
        for _ in 0..effort.rounds {
            for ((runs, (contender, _)), (callers, _)) in runs.iter_mut().zip(&distant).zip(LOADS) {
                runs.push(closed(contender, callers, effort.slice).await);
            }
        }
    });
    let of = |load| {
        LOADS
            .iter()
            .position(|known| *known == load)
            .map_or(&[][..], |at| &runs[at])
    };
    let rounds = of((MANY, FAR)).iter().zip(of((MANY, 0)));
    let rounds = rounds
        .map(|(far, near)| far.per_second() / near.per_second())
        .collect();
    report.ratio("throughput_30ms_vs_loopback", "printed", rounds);
    let with_256 = LOADS
        .iter()
        .zip(&runs)
        .filter(|((callers, _), _)| *callers == 256);
    let failed: Vec<f64> = with_256.map(|(_, runs)| worst(runs)).collect();
    report.worst("failed_share", "0", &failed);
    let rows: Vec<_> = LOADS
        .iter()
        .zip(&runs)
        .map(|((callers, millis), runs)| cells(&format!("{millis} ms"), callers.to_string(), runs))
        .collect();
    let mut columns = COLUMNS;
    columns[1] = "Round trip";
    report.table("Callers in a loop, at a distance", &columns, &rows);
    // Who has one call under way has one answer a round trip at most.
    let most = MANY as f64 / (FAR as f64 / 1_000.0);
    let rate = |load| median(&of(load).iter().map(Run::per_second).collect::<Vec<_>>()).0;
    let (near, far) = (rate((MANY, 0)), rate((MANY, FAR)));
    report.table(
        "What a distance leaves",
        &[
            "Callers",
            "Round trip ms",
            "Most there can be /s",
            "Reached /s",
            "Share of it",
            "Without the distance /s",
        ],
        &[vec![
            MANY.to_string(),
            FAR.to_string(),
            format!("{most:.0}"),
            format!("{far:.0}"),
            format!("{:.2}", far / most),
            format!("{near:.0}"),
        ]],
    );
}

async fn proxied(server: &RedisServer) -> (Proxy, String) {
    let proxy = Proxy::start(server.port()).await;
    let url = format!("redis://admin:admin-secret@127.0.0.1:{}", proxy.port());
    (proxy, url)
}

/// Calls at half of the rate that callers in a loop reach, and PINGs at the same rate.
fn half_load(effort: Effort, report: &mut Report) {
    let server = server();
    let (mut ratios, mut failed, mut rows) = (vec![], vec![], vec![]);
    runtime().block_on(async {
        let [ping, _, ours] = contenders(&server.admin_url()).await;
        let rate = closed(&ours, 256, effort.slice).await.per_second() / 2.0;
        let (mut pings, mut checks) = (vec![], vec![]);
        for _ in 0..effort.rounds {
            pings.push(open(&ping, rate, effort.slice).await);
            checks.push(open(&ours, rate, effort.slice).await);
        }
        let rounds = checks.iter().zip(&pings);
        ratios = rounds
            .map(|(ours, ping)| ours.quantile(0.99) / ping.quantile(0.99))
            .collect();
        failed.push(worst(&checks));
        rows.push(cells("PING", format!("{rate:.0} a second"), &pings));
        rows.push(cells(
            "these crates",
            format!("{rate:.0} a second"),
            &checks,
        ));
    });
    report.ratio("p99_at_half_load", "<= 10", ratios);
    report.worst("failed_share", "0", &failed);
    report.table("At half of the rate that is possible", &COLUMNS, &rows);
}

/// 300 callers a second who give up, 5 ms away, and one who does not.
fn aborts(effort: Effort, report: &mut Report) {
    let server = server();
    let (mut per_abort, mut ratios) = (vec![], vec![]);
    runtime().block_on(async {
        let (proxy, url) = proxied(&server).await;
        proxy.delay(Duration::from_micros(2_500));
        let contender = Contender::ours(&url).await;
        for _ in 0..effort.rounds {
            let alone = closed(&contender, 1, effort.slice).await;
            let before = proxy.connected();
            let aborted = Arc::new(AtomicU64::new(0));
            let aborting = tokio::spawn({
                let (contender, aborted) = (contender.clone(), aborted.clone());
                async move {
                    for turn in 0_u32.. {
                        sleep(Duration::from_micros(3_333)).await;
                        let contender = contender.clone();
                        // From before it is sent to just before its answer.
                        let patience = Duration::from_micros(u64::from(turn * 37 % 5_000));
                        let aborted = aborted.clone();
                        tokio::spawn(async move {
                            let key = usize::try_from(turn).unwrap_or(0);
                            let asked = tokio::time::timeout(patience, contender.ask(key));
                            aborted.fetch_add(u64::from(asked.await.is_err()), Ordering::Relaxed);
                        });
                    }
                }
            });
            let beside = closed(&contender, 1, effort.slice).await;
            aborting.abort();
            let aborted = aborted.load(Ordering::Relaxed).max(1);
            per_abort.push((proxy.connected() - before) as f64 / aborted as f64);
            ratios.push(beside.quantile(0.5) / alone.quantile(0.5));
        }
    });
    report.ratio("connections_per_abort", "0", per_abort);
    report.ratio("p50_beside_aborts", "<= 1.2", ratios);
}

/// In a runtime of one thread, where every task's allocations are counted.
fn allocations(effort: Effort, report: &mut Report) {
    let mut rows = vec![];
    for (name, wanted, callers) in [
        ("allocations_per_check", "<= 8", 256_usize),
        ("allocations_of_a_check_alone", "printed", 1),
    ] {
        let server = server();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let config = RedisConfig::new(&server.admin_url()).expect("a URL");
        let config = config.with_check_deadline(DEADLINE * 50);
        let contender = runtime.block_on(Contender::ours_with(&config));
        let rounds = effort.rounds * 10;
        let ask = |rounds: usize, contender: Option<&Contender>| {
            runtime.block_on(async {
                for round in 0..rounds {
                    let asked = (0..callers).map(|caller| async move {
                        match contender {
                            Some(contender) => contender.ask(round * callers + caller).await,
                            None => {
                                tokio::task::yield_now().await;
                                true
                            }
                        }
                    });
                    let told = futures_util::future::join_all(asked).await;
                    assert!(told.iter().all(|told| *told), "everybody is answered");
                }
            });
        };
        ask(10, Some(&contender));
        // What the callers need for themselves, who wait for nothing.
        let callers_own = allocation_counter::measure(|| ask(rounds, None));
        let counted = allocation_counter::measure(|| ask(rounds, Some(&contender)));
        let checks = (rounds * callers) as f64;
        let each = (counted.count_total - callers_own.count_total) as f64 / checks;
        let bytes = (counted.bytes_total - callers_own.bytes_total) as f64 / checks;
        report.ratio(name, wanted, vec![each]);
        rows.push(vec![
            callers.to_string(),
            format!("{each:.1}"),
            format!("{bytes:.0}"),
        ]);
    }
    report.table(
        "Allocations",
        &["In flight", "Allocations a check", "Bytes a check"],
        &rows,
    );
}

/// Where the time goes: the server's own for a check, beside that of all that a second has.
fn profile(effort: Effort, report: &mut Report) {
    let server = server();
    let mut rows = vec![];
    runtime().block_on(async {
        let [_, peer, ours] = contenders(&server.admin_url()).await;
        for contender in [&peer, &ours] {
            for callers in [1, 256] {
                server.command::<()>(&["CONFIG", "RESETSTAT"]);
                let start = Instant::now();
                let run = closed(contender, callers, effort.slice).await;
                let elapsed = start.elapsed();
                let (calls, micros) = evalsha(&server);
                let each = micros / run.answers.max(1) as f64;
                let share = micros / elapsed.as_secs_f64() / 10_000.0;
                rows.push(vec![
                    callers.to_string(),
                    contender.name().to_owned(),
                    format!("{:.1}", run.answers as f64 / calls.max(1.0)),
                    format!("{each:.2}"),
                    format!(
                        "{:.2}",
                        1e6 * elapsed.as_secs_f64() / run.answers.max(1) as f64
                    ),
                    format!("{share:.0} %"),
                ]);
            }
        }
    });
    report.table(
        "Where the time goes",
        &[
            "In flight",
            "Who",
            "Checks a call",
            "Server us a check (script)",
            "All us a check",
            "Script's share of the time",
        ],
        &rows,
    );
}

/// How often scripts were called, and how long they took (us).
fn evalsha(server: &RedisServer) -> (f64, f64) {
    let stats: String = server.command(&["INFO", "commandstats"]);
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:"));
    let field = |name: &str| -> f64 {
        let fields = line.unwrap_or_default().split(',');
        let value = fields.filter_map(|field| field.strip_prefix(name)).next();
        value.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    };
    (field("calls="), field("usec="))
}
