//! Callers on loopback, beside others.

use super::{COLUMNS, cells, ratios, runtime, worst};
use crate::Effort;
use crate::contender::{Contender, server};
use crate::load::{Run, closed, open};
use crate::report::Report;

const CALLERS: [u64; 5] = [1, 16, 64, 256, 1_024];

/// Callers in a loop.
pub(super) fn callers(effort: Effort, report: &mut Report) {
    let server = server();
    let url = server.admin_url();
    let (mut rows, mut failed, mut lines) = (vec![], vec![], vec![]);
    runtime().block_on(async {
        let contenders = [
            Contender::ping(&url).await,
            Contender::gcra(&url).await,
            Contender::pooled_gcra(&url).await,
            Contender::peer(&url).await,
            Contender::ours(&url).await,
        ];
        lines = contenders
            .iter()
            .map(|contender| (contender.name().to_owned(), vec![]))
            .collect();
        for callers in CALLERS {
            let mut runs: [Vec<Run>; 5] = Default::default();
            for _ in 0..effort.rounds {
                for (runs, contender) in runs.iter_mut().zip(&contenders) {
                    runs.push(closed(contender, callers, effort.slice).await);
                }
            }
            for ((runs, contender), (_, line)) in runs.iter().zip(&contenders).zip(&mut lines) {
                rows.push(cells(contender.name(), callers.to_string(), runs));
                line.push((callers as f64, super::rate(runs)));
            }
            let [ping, gcra, _, peer, ours] = &runs;
            failed.push(worst(ours));
            if callers == 1 {
                let rounds = ours.iter().zip(ping);
                let medians = rounds.map(|(ours, ping)| ours.quantile(0.5) / ping.quantile(0.5));
                report.ratio("p50_vs_ping", "<= 1.35", medians.collect());
            }
            if callers == 256 {
                let wanted = ">= 2.3";
                report.ratio("direct_vs_tower_rate_tier", wanted, ratios(ours, peer));
                report.ratio("direct_vs_gcra", "printed", ratios(ours, gcra));
                let shares = ours.iter().map(|run| run.least as f64 / run.most as f64);
                report.ratio("fairness", ">= 0.8", shares.collect());
            }
        }
    });
    report.worst("failed_share", "0", &failed);
    report.table("Callers in a loop, on loopback", &COLUMNS, &rows);
    // Without the floor, which would leave no room for the rest.
    lines.remove(0);
    report.chart("Checks a second, by callers", "callers", lines);
}

/// Calls at half of the rate that callers in a loop reach, and PINGs at the same rate.
pub(super) fn half_load(effort: Effort, report: &mut Report) {
    let server = server();
    let url = server.admin_url();
    let (mut ratios, mut failed, mut rows) = (vec![], vec![], vec![]);
    runtime().block_on(async {
        let (ping, ours) = (Contender::ping(&url).await, Contender::ours(&url).await);
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
