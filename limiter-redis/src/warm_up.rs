//! What is made and looked at before the first check.

use std::sync::Arc;
use std::time::Duration;

use limiter_core::Error;
use redis::{Script, Value};
use tokio::time::Instant;

use crate::error::is_unreadable;
use crate::pool::Pool;
use crate::pool::request::Request;
use crate::script::Scripts;

pub(crate) const WARM_UP: &str = "limit.warm_up";

/// A deadline shorter than so many round trips is missed by every call that has to wait for another, or for a connection.
const ROUND_TRIPS: u32 = 3;

/// What a server tells of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// Whether it is a node of a cluster.
    pub(crate) is_node: bool,
    /// How it makes room when it is full, if it can be full.
    eviction: Option<String>,
}

/// Makes the connections and loads the scripts; then looks at the server.
pub(crate) async fn warm_up(
    pool: &Pool,
    scripts: &Scripts,
    within: Duration,
) -> Result<Server, Error> {
    let end = Instant::now() + within;
    pool.fill(WARM_UP, end).await?;
    warn_if_it_is_far(pool, "a check", "REDIS_DEADLINE_MILLIS");
    let load = |script: &Arc<Script>| {
        let left = end.saturating_duration_since(Instant::now());
        pool.call_within(left, WARM_UP, Request::Load(script.clone()))
    };
    load(scripts.plain()).await?;
    if let Some(giving) = scripts.giving() {
        match load(giving).await {
            Err(error) if is_unreadable(&error) => scripts.refuse_giving(),
            loaded => drop(loaded?),
        }
    }
    let server = ask(pool).await;
    if let Some(policy) = &server.eviction
        && policy != "noeviction"
    {
        tracing::error!(
            policy,
            host = pool.host(),
            "this Redis evicts keys when it is full, counters too: set maxmemory-policy noeviction, and give caches a Redis of their own with CACHE_REDIS_URL"
        );
    }
    Ok(server)
}

/// What the server tells; one that does not is not asked again.
pub(crate) async fn ask(pool: &Pool) -> Server {
    let info = Request::Command(redis::cmd("INFO"));
    let told = pool.call(WARM_UP, info).await;
    told.map(|reply| read(&reply)).unwrap_or_default()
}

/// Says so if what `what` may take is short for the way.
pub(crate) fn warn_if_it_is_far(pool: &Pool, what: &str, variable: &str) {
    let round_trip = pool.round_trip();
    if pool.deadline() < round_trip * ROUND_TRIPS {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(
            host = pool.host(),
            round_trip_millis = millis(round_trip),
            deadline_millis = millis(pool.deadline()),
            "the deadline of {what} is shorter than {ROUND_TRIPS} round trips to Redis: raise {variable}"
        );
    }
}

fn read(info: &Value) -> Server {
    let text = match info {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        Value::VerbatimString { text, .. } => text,
        _ => "",
    };
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let is_limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
    let eviction = field("maxmemory_policy").filter(|_| is_limited);
    Server {
        is_node: field("cluster_enabled") == Some("1"),
        eviction: eviction.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_tells() {
        let told = |text: &str| read(&Value::BulkString(text.into()));
        let full = "# Memory\r\nmaxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n# Cluster\r\ncluster_enabled:1\r\n";
        let server = told(full);
        assert_eq!(server.eviction.as_deref(), Some("allkeys-lru"));
        assert!(server.is_node);
        let endless = full.replace("maxmemory:100", "maxmemory:0");
        assert_eq!(told(&endless).eviction, None);
        assert_eq!(told("cluster_enabled:0"), Server::default());
        assert_eq!(read(&Value::Nil), Server::default());
    }
}
