//! What a check costs the server, by its own count of the time in scripts.

use tokio::time::Instant;

use super::{runtime, runtime_of_one_thread};
use crate::Effort;
use crate::contender::{Contender, KEYS, Limit, bucket, config, server, window};
use crate::load::{closed, together};
use crate::report::{Report, median};

/// Checks beside the plain GCRA script: one a call, and 32 a call.
pub(super) fn server_time(effort: Effort, report: &mut Report) {
    const BATCH: usize = 32;
    let server = server();
    let url = server.admin_url();
    let runtime = runtime_of_one_thread();
    let limit = |name, quota| vec![Limit::new(name, quota, KEYS)];
    let (gcra, bucket, window) = runtime.block_on(async {
        (
            Contender::gcra(&url).await,
            Contender::ours_with(&config(&url), limit("bucket", bucket())).await,
            Contender::ours_with(&config(&url), limit("window", window())).await,
        )
    });
    let cases = [
        ("GCRA", 1, &gcra, None),
        (
            "bucket",
            1,
            &bucket,
            Some(("server_us_single_vs_gcra_bucket", "<= 1.3")),
        ),
        (
            "window",
            1,
            &window,
            Some(("server_us_single_vs_gcra_window", "<= 1.0")),
        ),
        (
            "bucket",
            BATCH,
            &bucket,
            Some(("server_us_batched_vs_gcra_bucket", "<= 0.8")),
        ),
        (
            "window",
            BATCH,
            &window,
            Some(("server_us_batched_vs_gcra_window", "<= 0.5")),
        ),
    ];
    let mut micros = vec![vec![]; cases.len()];
    let mut sizes = vec![vec![]; cases.len()];
    // Once before, so that each key is there and each connection made.
    for round in 0..=effort.rounds {
        for (case, (_, callers, contender, _)) in cases.iter().enumerate() {
            server.command::<()>(&["CONFIG", "RESETSTAT"]);
            let answers = runtime.block_on(together(contender, *callers, effort.slice));
            let (calls, taken) = (server.calls("evalsha"), server.micros("evalsha"));
            if round > 0 {
                micros[case].push(taken as f64 / answers as f64);
                sizes[case].push(answers as f64 / calls as f64);
            }
        }
    }
    let mut rows = vec![];
    for (case, (name, _, _, ratio)) in cases.iter().enumerate() {
        if let Some((ratio, wanted)) = ratio {
            let rounds = micros[case].iter().zip(&micros[0]);
            report.ratio(
                ratio,
                wanted,
                rounds.map(|(ours, gcra)| ours / gcra).collect(),
            );
        }
        rows.push(vec![
            (*name).to_owned(),
            format!("{:.1}", median(&sizes[case]).0),
            format!("{:.2}", median(&micros[case]).0),
        ]);
    }
    report.table(
        "The server's time for a check",
        &["Script", "Checks a call", "Server us a check"],
        &rows,
    );
}

/// Where the time goes: the server's own for a check, beside that of all that a second has.
pub(super) fn profile(effort: Effort, report: &mut Report) {
    let server = server();
    let url = server.admin_url();
    let mut rows = vec![];
    runtime().block_on(async {
        let contenders = [
            Contender::gcra(&url).await,
            Contender::peer(&url).await,
            Contender::ours(&url).await,
        ];
        for contender in &contenders {
            for callers in [1, 256] {
                server.command::<()>(&["CONFIG", "RESETSTAT"]);
                let start = Instant::now();
                let run = closed(contender, callers, effort.slice).await;
                let elapsed = start.elapsed().as_secs_f64();
                let calls = server.calls("evalsha").max(1) as f64;
                let micros = server.micros("evalsha") as f64;
                let answers = run.answers.max(1) as f64;
                rows.push(vec![
                    callers.to_string(),
                    contender.name().to_owned(),
                    format!("{:.1}", answers / calls),
                    format!("{:.2}", micros / answers),
                    format!("{:.2}", 1e6 * elapsed / answers),
                    format!("{:.0} %", micros / elapsed / 10_000.0),
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
