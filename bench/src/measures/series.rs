//! Against how many keys, limits a check and instances there are.

use super::{COLUMNS, cells, rate, runtime, worst};
use crate::Effort;
use crate::contender::{Contender, KEYS, Limit, bucket, config, server};
use crate::load::{Run, closed};
use crate::report::Report;

const CALLERS: u64 = 256;

/// The limits of a check: its user's, its tenant's, everybody's; and then more of users.
fn layers(count: usize) -> Vec<Limit> {
    let layer = |index| match index {
        0 => Limit::new("user", bucket(), KEYS),
        1 => Limit::new("tenant", bucket(), 100),
        2 => Limit::new("global", bucket(), 1),
        _ => Limit::new(&format!("extra-{index}"), bucket(), KEYS),
    };
    (0..count).map(layer).collect()
}

/// 1 to 8 limits a check.
pub(super) fn limits(effort: Effort, report: &mut Report) {
    const COUNTS: [usize; 5] = [1, 2, 3, 5, 8];
    let runs = runs(effort, COUNTS, async |url, count| {
        Contender::ours_with(&config(url), layers(*count)).await
    });
    let rounds = runs[0].iter().zip(&runs[2]);
    let times = rounds.map(|(one, three)| one.per_second() / three.per_second());
    report.ratio("group3_vs_1", "<= 1.8", times.collect());
    tell(report, "limits a check", &COUNTS, &runs);
}

/// 1 to 1,000,000 keys.
pub(super) fn keys(effort: Effort, report: &mut Report) {
    const COUNTS: [usize; 4] = [1, 100, 10_000, 1_000_000];
    let runs = runs(effort, COUNTS, async |url, count| {
        let limits = vec![Limit::new("bench", bucket(), *count)];
        Contender::ours_with(&config(url), limits).await
    });
    tell(report, "keys", &COUNTS, &runs);
}

/// 1 to 8 instances, between which the callers are shared out.
pub(super) fn instances(effort: Effort, report: &mut Report) {
    const COUNTS: [usize; 4] = [1, 2, 4, 8];
    let runs = runs(effort, COUNTS, async |url, count| {
        let limits = vec![Limit::new("bench", bucket(), KEYS)];
        Contender::fleet(&config(url), *count, limits).await
    });
    tell(report, "instances", &COUNTS, &runs);
}

/// Each count's runs, turn by turn.
fn runs<const CASES: usize>(
    effort: Effort,
    counts: [usize; CASES],
    contender: impl AsyncFn(&str, &usize) -> Contender,
) -> [Vec<Run>; CASES] {
    let server = server();
    let url = server.admin_url();
    let mut runs = [const { Vec::new() }; CASES];
    runtime().block_on(async {
        let mut contenders = vec![];
        for count in &counts {
            contenders.push(contender(&url, count).await);
        }
        for _ in 0..effort.rounds {
            for (runs, contender) in runs.iter_mut().zip(&contenders) {
                runs.push(closed(contender, CALLERS, effort.slice).await);
            }
        }
    });
    runs
}

fn tell(report: &mut Report, what: &str, counts: &[usize], runs: &[Vec<Run>]) {
    let rows: Vec<_> = counts
        .iter()
        .zip(runs)
        .map(|(count, runs)| cells(&count.to_string(), CALLERS.to_string(), runs))
        .collect();
    let mut columns = COLUMNS;
    columns[1] = what;
    let failed: Vec<f64> = runs.iter().map(|runs| worst(runs)).collect();
    report.worst("failed_share", "0", &failed);
    let heading = format!("Checks a second, by {what}");
    report.table(&heading, &columns, &rows);
    let line = counts
        .iter()
        .zip(runs)
        .map(|(count, runs)| (*count as f64, rate(runs)));
    report.chart(
        &heading,
        what,
        vec![("these crates".to_owned(), line.collect())],
    );
}
