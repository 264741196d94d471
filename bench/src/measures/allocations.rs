//! What a check allocates.

use super::runtime_of_one_thread;
use crate::Effort;
use crate::contender::{Contender, DEADLINE, KEYS, Limit, bucket, config, server};
use crate::report::Report;

/// In a runtime of one thread, where every task's allocations are counted.
pub(super) fn allocations(effort: Effort, report: &mut Report) {
    let mut rows = vec![];
    for (name, wanted, callers) in [
        ("allocations_per_check", "<= 8", 256_usize),
        ("allocations_of_a_check_alone", "printed", 1),
    ] {
        let server = server();
        let runtime = runtime_of_one_thread();
        let config = config(&server.admin_url()).with_check_deadline(DEADLINE * 50);
        let limits = vec![Limit::new("bench", bucket(), KEYS)];
        let contender = runtime.block_on(Contender::ours_with(&config, limits));
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
