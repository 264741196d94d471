//! How the masters are, in words.

use std::sync::Arc;

use futures_util::future::join_all;
use limiter_core::{Error, Health};
use tokio::time::Instant;

use super::map::SlotMap;
use super::nodes::Nodes;
use super::slot::SLOTS;
use crate::pool::look;

const OPERATION: &str = "redis.ping";

/// Asks every master, until `end`. Connected means that all of them answer and every slot has one.
pub(super) async fn of(nodes: &Arc<Nodes>, end: Instant) -> Health {
    let start = Instant::now();
    let map = match nodes.map(OPERATION, end).await {
        Ok(map) => map,
        Err(error) => return Health::new("redis", false, None, error.message().to_owned()),
    };
    let pings = map.masters().iter().map(async |master| {
        nodes.node(master)?.batches.pool().ping().await?;
        Ok(())
    });
    let answers: Vec<Result<(), Error>> = join_all(pings).await;
    if answers.iter().any(Result::is_err) {
        nodes.refresh_soon(None);
    }
    let (connected, mut message) = words(&map, &answers);
    let mut servers = Vec::new();
    for master in map.masters() {
        if let Ok(node) = nodes.node(master) {
            let node = &node.batches;
            let server = node.pool().server();
            let told = server.as_ref().map(look::words).unwrap_or_default();
            let words = told + &node.guard().words();
            if !words.is_empty() {
                message.push_str(&format!("; {}{words}", node.pool().host()));
            }
            servers.extend(server);
        }
    }
    let answered = answers.iter().any(Result::is_ok);
    Health::new(
        "redis",
        connected,
        answered.then(|| start.elapsed()),
        message,
    )
    .with_servers(servers)
}

fn words(map: &SlotMap, answers: &[Result<(), Error>]) -> (bool, String) {
    let all = answers.len();
    let failed: Vec<&Error> = answers
        .iter()
        .filter_map(|answer| answer.as_ref().err())
        .collect();
    let mut message = format!(
        "limits are shared through a Redis Cluster, of which {} of {all} masters answer",
        all - failed.len()
    );
    for error in &failed {
        message.push_str("; ");
        message.push_str(error.message());
    }
    if map.unowned() > 0 {
        message.push_str(&format!(
            "; {} of {SLOTS} slots have no master",
            map.unowned()
        ));
    }
    (failed.is_empty() && map.unowned() == 0, message)
}
