//! How many bytes a bucket takes in Redis, beyond its key.

use integration_tests::RedisServer;

use super::runtime;
use crate::Effort;
use crate::contender::{Contender, Limit, bucket, config, server};
use crate::load::each;
use crate::report::Report;

const BUCKETS: usize = 1_000_000;
const FEW: usize = 10_000;
/// Of every so many keys, one is asked.
const SAMPLE: usize = 997;

pub(super) fn memory(effort: Effort, report: &mut Report) {
    // A million takes longer than a quick run may.
    let count = if effort.is_whole() { BUCKETS } else { FEW };
    let server = server();
    let limit = Limit::new("bench", bucket(), count);
    let keys: Vec<String> = limit.keys.iter().map(ToString::to_string).collect();
    let before = used_memory(&server);
    let runtime = runtime();
    let failed = runtime.block_on(async {
        let contender = Contender::ours_with(&config(&server.admin_url()), vec![limit]).await;
        each(&contender, count, 256).await
    });
    assert_eq!(failed, 0, "each key is charged");
    let names: usize = keys.iter().map(String::len).sum();
    let used = used_memory(&server) - before;
    let by_info = (used - names as f64) / count as f64;
    let sample: Vec<f64> = keys
        .iter()
        .step_by(SAMPLE)
        .map(|key| {
            let usage: f64 = server.command(&["MEMORY", "USAGE", key]);
            usage - key.len() as f64
        })
        .collect();
    let by_usage = sample.iter().sum::<f64>() / sample.len() as f64;
    report.ratio("bucket_bytes_usage", "<= 95", vec![by_usage]);
    report.ratio("bucket_bytes_info", "<= 140", vec![by_info]);
    report.table(
        "Bytes a bucket, beyond its key",
        &["Buckets", "MEMORY USAGE", "INFO memory"],
        &[vec![
            count.to_string(),
            format!("{by_usage:.1}"),
            format!("{by_info:.1}"),
        ]],
    );
}

fn used_memory(server: &RedisServer) -> f64 {
    let memory: String = server.command(&["INFO", "memory"]);
    let mut lines = memory.lines();
    let used = lines.find_map(|line| line.strip_prefix("used_memory:"));
    let used = used.and_then(|used| used.trim().parse().ok());
    used.expect("a server that tells its memory")
}
