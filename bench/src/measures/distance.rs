//! Away from the server, and beside callers who leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use integration_tests::{Proxy, RedisServer};
use tokio::time::sleep;

use super::{COLUMNS, cells, rate, ratios, runtime, worst};
use crate::Effort;
use crate::contender::{Contender, server};
use crate::load::{Run, closed};
use crate::report::Report;

/// The same at a distance, through a proxy that delays each packet.
pub(super) fn distance(effort: Effort, report: &mut Report) {
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
    report.ratio(
        "throughput_30ms_vs_loopback",
        "printed",
        ratios(of((MANY, FAR)), of((MANY, 0))),
    );
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
    let (near, far) = (rate(of((MANY, 0))), rate(of((MANY, FAR))));
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

/// 300 callers a second who give up, 5 ms away, and one who does not.
pub(super) fn aborts(effort: Effort, report: &mut Report) {
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
