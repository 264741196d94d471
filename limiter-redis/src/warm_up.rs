//! What is made and looked at before the first check.

use std::sync::Arc;
use std::time::Duration;

use limiter_core::Error;
use redis::Script;
use tokio::time::Instant;

use crate::error::is_unreadable;
use crate::pool::Pool;
use crate::pool::look::Server;
use crate::pool::request::Request;
use crate::script::Scripts;

pub(crate) const WARM_UP: &str = "limit.warm_up";

/// A deadline shorter than so many round trips is missed by every call that has to wait for another, or for a connection.
const ROUND_TRIPS: u32 = 3;

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
    if let Some(hot) = scripts.hot() {
        load(hot).await?;
    }
    load(scripts.plain()).await?;
    if let Some(giving) = scripts.giving() {
        match load(giving).await {
            Err(error) if is_unreadable(&error) => scripts.refuse_giving(),
            loaded => drop(loaded?),
        }
    }
    Ok(ask(pool).await)
}

/// What the server tells, which is noted; one that does not is not asked again.
pub(crate) async fn ask(pool: &Pool) -> Server {
    let info = Request::Command(redis::cmd("INFO"));
    let told = pool.call(WARM_UP, info).await;
    let server = told.map(|reply| Server::read(&reply)).unwrap_or_default();
    if server != Server::default() {
        pool.note_server(server.clone());
    }
    server
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
