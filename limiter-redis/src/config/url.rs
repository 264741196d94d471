//! What a Redis URL says.

use std::time::Duration;

use limiter_core::Error;
use limiter_core::breaker::BreakerConfig;
use redis::{ConnectionAddr, IntoConnectionInfo};

use super::{RedisConfig, config_error};
use crate::cluster::{ClusterUrl, CrossSlot};
use crate::connect::{Reach, SentinelUrl, Trust, Watched};

impl RedisConfig {
    /// As [`new`](Self::new); `name` says in errors where the URL came from.
    pub(crate) fn named(name: &str, url: &str) -> Result<Self, Error> {
        if let Some(watched) = SentinelUrl::parse(url) {
            return Self::of_sentinels(name, url, watched);
        }
        let Some(cluster) = ClusterUrl::parse(name, url)? else {
            return Self::of_server(name, url);
        };
        let nodes = cluster.nodes.iter().map(|url| Self::of_server(name, url));
        let nodes = nodes.collect::<Result<Vec<Self>, Error>>()?;
        let seeds = nodes.iter().filter_map(Self::address).collect();
        let first = nodes.into_iter().next();
        let first = first.ok_or_else(|| config_error(format!("{name} names no host")))?;
        Ok(Self {
            seeds,
            cross_slot: cluster.cross_slot,
            ..first
        })
    }

    fn of_sentinels(
        name: &str,
        url: &str,
        parsed: Result<SentinelUrl, &'static str>,
    ) -> Result<Self, Error> {
        let unusable = |reason: &str| {
            config_error(format!(
                "{name} is not usable ({reason}); write redis+sentinel://[user:password@]host[:port][,host[:port]...]/NAME[/db], or rediss+sentinel:// for TLS"
            ))
        };
        let parsed = check_password(url).and(parsed).map_err(unusable)?;
        let nodes = parsed.nodes.iter().map(|url| Self::of_server(name, url));
        let nodes = nodes.collect::<Result<Vec<Self>, Error>>()?;
        let sentinels = nodes.iter().filter_map(Self::address).collect();
        let first = nodes.into_iter().next();
        let first = first.ok_or_else(|| unusable("it names no host"))?;
        Ok(Self {
            watched: Some(Watched {
                name: parsed.name,
                sentinels,
                credentials: None,
            }),
            ..first
        })
    }

    fn of_server(name: &str, url: &str) -> Result<Self, Error> {
        let unusable = |reason: &str| {
            config_error(format!(
                "{name} is not usable ({reason}); write redis://[user:password@]host[:port][/db], rediss:// for TLS, or redis+unix:///path"
            ))
        };
        check_parts(url).map_err(unusable)?;
        let connection = url.into_connection_info().map_err(|error| {
            // The library's message names the part at fault, never its value; behind the dash stands
            // its own kind of error.
            let error = error.to_string();
            unusable(error.split(" - ").next().unwrap_or_default())
        })?;
        if let ConnectionAddr::TcpTls { insecure: true, .. } = connection.addr() {
            return Err(config_error(format!(
                "{name} ends in #insecure, which would accept any certificate; remove it, and trust a private CA with REDIS_TLS_CA_FILE"
            )));
        }
        Ok(Self {
            connection,
            seeds: Vec::new(),
            cross_slot: CrossSlot::default(),
            watched: None,
            trust: Trust::default(),
            reach: Reach::default(),
            prefix: String::new(),
            pool_size: 4,
            batches: 64,
            check_deadline: Duration::from_millis(100),
            cache_deadline: Duration::from_millis(500),
            connect_timeout: Duration::from_secs(2),
            warm_up: Duration::from_secs(2),
            slow: Duration::from_millis(100),
            state_ttl: Duration::from_secs(1_800),
            breaker: Some(BreakerConfig::default()),
            issuer: None,
        })
    }
}

/// What the library would pass over without a word.
fn check_parts(url: &str) -> Result<(), &'static str> {
    check_password(url)?;
    let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
    if !matches!(fragment, "" | "insecure") {
        return Err("after # it takes nothing");
    }
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let is_unix = url.starts_with("redis+unix:") || url.starts_with("unix:");
    let is_known = |name: &str| match name {
        "protocol" => true,
        "db" | "user" | "pass" => is_unix,
        _ => false,
    };
    let mut parts = url::form_urlencoded::parse(query.as_bytes());
    match parts.find(|(name, _)| !is_known(name)) {
        Some((name, _)) if name == "db" => Err("the database stands in the path, as /3"),
        Some(_) => Err("after ? it takes protocol=resp3 and nothing else"),
        None => Ok(()),
    }
}

/// That the user and the password end where they seem to.
pub(crate) fn check_password(url: &str) -> Result<(), &'static str> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let behind_host = rest.find(['/', '?', '#']).map_or("", |end| &rest[end..]);
    if behind_host.contains('@') && !url.contains("unix:") {
        return Err(
            "its password has a raw /, ? or #: percent-encode them as %2F, %3F and %23, and % as %25",
        );
    }
    Ok(())
}
