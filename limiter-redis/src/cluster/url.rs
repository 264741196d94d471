//! The URL of a cluster: `redis+cluster://[user:password@]host[:port][,host[:port]...][?cross_slot=...]`.

use limiter_core::Error;

use super::CrossSlot;
use crate::config::{check_password, config_error};

/// What such a URL says, taken apart.
pub(crate) struct ClusterUrl {
    /// A single server's URL for each node that it names; the first with the credentials.
    pub(crate) nodes: Vec<String>,
    pub(crate) cross_slot: CrossSlot,
}

impl ClusterUrl {
    /// `None` if it is not the URL of a cluster. `name` says in errors where the URL came from; no error
    /// repeats it.
    pub(crate) fn parse(name: &str, url: &str) -> Result<Option<Self>, Error> {
        let Some((scheme, rest)) = url.split_once("+cluster://") else {
            return Ok(None);
        };
        if !matches!(scheme, "redis" | "rediss") {
            return Err(unusable(name, "its scheme is unknown"));
        }
        check_password(url).map_err(|reason| unusable(name, reason))?;
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, format!("#{fragment}")),
            None => (rest, String::new()),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !matches!(path, "" | "0") {
            return Err(unusable(name, "a cluster has database 0 only"));
        }
        let (user, hosts) = authority
            .rsplit_once('@')
            .map_or(("", authority), |(user, hosts)| (user, hosts));
        let mut nodes = Vec::new();
        for host in hosts.split(',') {
            if host.is_empty() {
                return Err(unusable(name, "a host in it is empty"));
            }
            let user = if user.is_empty() || !nodes.is_empty() {
                String::new()
            } else {
                format!("{user}@")
            };
            nodes.push(format!("{scheme}://{user}{host}{fragment}"));
        }
        let cross_slot = match query {
            "" | "cross_slot=refuse" => CrossSlot::Refuse,
            "cross_slot=compensate" => CrossSlot::Compensate,
            _ => {
                return Err(unusable(
                    name,
                    "after ? it takes cross_slot=refuse or cross_slot=compensate",
                ));
            }
        };
        Ok(Some(Self { nodes, cross_slot }))
    }
}

fn unusable(name: &str, reason: &str) -> Error {
    config_error(format!(
        "{name} is not usable ({reason}); write redis+cluster://[user:password@]host[:port][,host[:port]...], or rediss+cluster:// for TLS"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RedisConfig;

    #[test]
    fn names_several_nodes_and_one_user() {
        let url = "rediss+cluster://app:p%40ss%2Fw@one:7000,two,[::1]:7002/0?cross_slot=compensate";
        let config = RedisConfig::new(url).unwrap();
        assert_eq!(config.host(), "one:7000,two:6379,[::1]:7002");
        assert!(config.is_cluster() && config.uses_tls());
        assert_eq!(config.cross_slot(), CrossSlot::Compensate);
        let redis = config.connection.redis_settings();
        assert_eq!(redis.username(), Some("app"));
        assert_eq!(redis.password(), Some("p@ss/w"));
        assert!(!format!("{config:?}").contains("p@ss"), "{config:?}");

        let plain = RedisConfig::new("redis+cluster://one").unwrap();
        assert_eq!(plain.host(), "one:6379");
        assert_eq!(plain.cross_slot(), CrossSlot::Refuse);
        assert!(!RedisConfig::new("redis://one").unwrap().is_cluster());
    }

    #[test]
    fn refuses_what_it_cannot_use_without_repeating_it() {
        for url in [
            "http+cluster://user:hunter2@one",
            "redis+cluster://user:hunter2@",
            "redis+cluster://user:hunter2@one,,two",
            "redis+cluster://user:hunter2@one:port",
            "redis+cluster://user:hunter2@one,two:port",
            "redis+cluster://user:hunter2@one/1",
            "redis+cluster://user:hunter2@one?cross_slot=hunter2",
            "rediss+cluster://user:hunter2@one,two#insecure",
        ] {
            let error = RedisConfig::new(url).unwrap_err();
            assert_eq!(error.kind(), limiter_core::ErrorKind::Config, "{url}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
            assert!(!error.message().contains("one:port"), "{error}");
        }
    }
}
