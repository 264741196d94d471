//! Settings of the Redis backend.

mod url;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use limiter_core::breaker::BreakerConfig;
use limiter_core::limit::Issuer;
use limiter_core::{Error, ErrorKind};
use redis::{ConnectionAddr, ConnectionInfo};

pub(crate) use self::url::check_password;

use crate::cluster::{Address, CrossSlot};
use crate::connect::{Credentials, CredentialsProvider, Reach, Resolver, Trust, Watched, tls_name};

const SHORTEST_DEADLINE: Duration = Duration::from_millis(1);
const LONGEST_DEADLINE: Duration = Duration::from_secs(3_600);

/// Where Redis is and how it is used. `Debug` shows the host and never a password.
///
/// ```
/// use limiter_redis::RedisConfig;
///
/// let config = RedisConfig::new("rediss://user:secret@redis.example.com:6380/2")?;
/// assert_eq!(config.host(), "redis.example.com:6380");
/// assert!(!format!("{config:?}").contains("secret"));
/// assert!(RedisConfig::new("http://example.com").is_err());
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisConfig {
    /// How to connect: to the server, or to the first node that a cluster's URL names.
    pub(crate) connection: ConnectionInfo,
    /// The nodes that a cluster's URL names; none for a single server.
    pub(crate) seeds: Vec<Address>,
    pub(crate) cross_slot: CrossSlot,
    /// The sentinels that say where the server is.
    pub(crate) watched: Option<Watched>,
    pub(crate) trust: Trust,
    pub(crate) reach: Reach,
    pub(crate) prefix: String,
    pub(crate) pool_size: u32,
    pub(crate) batches: u32,
    pub(crate) check_deadline: Duration,
    pub(crate) cache_deadline: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) slow: Duration,
    pub(crate) state_ttl: Duration,
    pub(crate) breaker: Option<BreakerConfig>,
    issuer: Option<String>,
}

impl RedisConfig {
    /// Settings for a URL: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, or
    /// `redis+unix:///path`; for a cluster `redis+cluster://[user:password@]host[:port][,host[:port]...]`
    /// or `rediss+cluster://`, with some of its nodes and, if wanted, `?cross_slot=compensate`; for a primary under sentinels
    /// `redis+sentinel://[user:password@]host[:port][,host[:port]...]/NAME[/db]` or `rediss+sentinel://`, with the sentinels'
    /// hosts (port 26379 by default), the user of the primary, and the primary's name.
    ///
    /// Defaults: no key prefix, 4 connections a pool, at most 64 batches under way, a deadline of 100 ms for a check and 500 ms for
    /// a cache call, 2 s to connect and to warm up, calls above 100 ms logged as slow, limit states kept at least
    /// 1,800 s, a [breaker](BreakerConfig) in front of each server.
    ///
    /// # Errors
    /// `Config` if the URL cannot be used; the message never repeats it. `#insecure` is refused.
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::named("the Redis URL", url)
    }

    /// As whom the sentinels are asked where the primary is; as nobody by default. The URL's user is the primary's.
    ///
    /// # Errors
    /// `Config` if the URL names no sentinels.
    pub fn with_sentinel_credentials(self, credentials: Credentials) -> Result<Self, Error> {
        let Some(watched) = self.watched.clone() else {
            return Err(config_error(
                "credentials for sentinels are set but the Redis URL is not redis+sentinel://; drop them"
                    .to_owned(),
            ));
        };
        let watched = Watched {
            credentials: Some(credentials),
            ..watched
        };
        Ok(Self {
            watched: Some(watched),
            ..self
        })
    }

    /// Puts `prefix` in front of every key, so that services can share a Redis: `myapp:`.
    ///
    /// # Errors
    /// `Config` if it holds braces (they would move keys between cluster slots), white space or
    /// control characters, or is longer than 64 bytes.
    pub fn with_key_prefix(self, prefix: &str) -> Result<Self, Error> {
        let bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '{' | '}');
        if prefix.len() > 64 || prefix.contains(bad) {
            return Err(config_error(format!(
                "the key prefix {prefix:?} must be at most 64 bytes without braces, white space or control characters"
            )));
        }
        Ok(Self {
            prefix: prefix.to_owned(),
            ..self
        })
    }

    /// How many connections each pool has: at least 1. All who call share them; more than one keeps a packet that is held up
    /// from holding up everybody. In a cluster each master has a pool.
    #[must_use]
    pub fn with_pool_size(self, connections: u32) -> Self {
        Self {
            pool_size: connections.max(1),
            ..self
        }
    }

    /// How many batches of checks may be under way to one server at most: at least 1. As many are used as a round trip has
    /// milliseconds, and two; so a distance costs time and not throughput.
    #[must_use]
    pub fn with_batches(self, batches: u32) -> Self {
        Self {
            batches: batches.max(1),
            ..self
        }
    }

    /// How long a check may take, connecting included: 1 ms to an hour.
    #[must_use]
    pub fn with_check_deadline(self, deadline: Duration) -> Self {
        Self {
            check_deadline: deadline.clamp(SHORTEST_DEADLINE, LONGEST_DEADLINE),
            ..self
        }
    }

    /// How long a cache call may take, connecting included: 1 ms to an hour.
    #[must_use]
    pub fn with_cache_deadline(self, deadline: Duration) -> Self {
        Self {
            cache_deadline: deadline.clamp(SHORTEST_DEADLINE, LONGEST_DEADLINE),
            ..self
        }
    }

    /// How long a connection may take to be made, in the background too: 1 ms to an hour, and never less than a call may.
    #[must_use]
    pub fn with_connect_timeout(self, timeout: Duration) -> Self {
        Self {
            connect_timeout: timeout.clamp(SHORTEST_DEADLINE, LONGEST_DEADLINE),
            ..self
        }
    }

    /// Asked for user and password whenever a connection is made, in place of the URL's: so they can change without a restart.
    #[must_use]
    pub fn with_credentials(self, credentials: impl CredentialsProvider + 'static) -> Self {
        let reach = Reach {
            credentials: Some(Arc::new(credentials)),
            ..self.reach
        };
        Self { reach, ..self }
    }

    /// Asked whenever a connection is made where a host and port are reached, if not there: behind a NAT, or from outside of a
    /// network of containers, whose nodes announce addresses of their own. Certificates are checked for the name that was
    /// asked about.
    #[must_use]
    pub fn with_resolver(self, resolver: impl Resolver + 'static) -> Self {
        let reach = Reach {
            resolver: Some(Arc::new(resolver)),
            ..self.reach
        };
        Self { reach, ..self }
    }

    /// The name that certificates are checked for, in place of the host's: for a cluster that announces addresses while its
    /// certificates hold a name.
    ///
    /// # Errors
    /// `Config` if the URL is not `rediss://`, or it is no name that a certificate can have.
    pub fn with_tls_server_name(self, name: &str) -> Result<Self, Error> {
        if !self.uses_tls() {
            return Err(config_error(
                "a TLS server name is set but the Redis URL is not rediss://; use rediss:// or drop the name"
                    .to_owned(),
            ));
        }
        let reach = Reach {
            tls_name: Some(tls_name(name)?),
            ..self.reach
        };
        Ok(Self { reach, ..self })
    }

    /// When a server that fails is left alone, and for how long. Each server has a breaker of its own, one for limits and one for
    /// caches: while it is open, calls are refused at once as [`BreakerOpen`](limiter_core::ErrorKind::BreakerOpen), and
    /// nothing is sent but a handshake or a PING now and then.
    #[must_use]
    pub fn with_breaker(self, breaker: BreakerConfig) -> Self {
        Self {
            breaker: Some(breaker),
            ..self
        }
    }

    /// Every call tries the server, and waits out its deadline if there is no answer.
    #[must_use]
    pub fn without_breaker(self) -> Self {
        Self {
            breaker: None,
            ..self
        }
    }

    /// Calls that take longer are logged with their operation (B7).
    #[must_use]
    pub fn with_slow_threshold(self, slow: Duration) -> Self {
        Self { slow, ..self }
    }

    /// How long limit states are kept at least, beyond fixed windows, which end with their window.
    /// 1 s at least. (`RATE_LIMIT_TTL_SECONDS`, C1.)
    #[must_use]
    pub fn with_state_ttl(self, ttl: Duration) -> Self {
        Self {
            state_ttl: ttl.clamp(Duration::from_secs(1), limiter_core::cache::MAX_TTL),
            ..self
        }
    }

    /// Who keeps the counters, for reservations and receipts that travel between processes: the host, the database and the
    /// key prefix, unless `name` says otherwise. Give two processes that know one Redis by two addresses the same name.
    #[must_use]
    pub fn with_issuer(self, name: &str) -> Self {
        Self {
            issuer: Some(name.to_owned()),
            ..self
        }
    }

    /// See [`with_issuer`](Self::with_issuer).
    pub(crate) fn issuer(&self) -> Issuer {
        match &self.issuer {
            Some(name) => Issuer::named(name),
            None => {
                let db = self.connection.redis_settings().db();
                // A cluster is the same in whatever order its nodes are named, and a host in capitals or not.
                let host = self.host();
                let host = match self.connection.addr() {
                    ConnectionAddr::Unix(_) => host,
                    _ => host.to_ascii_lowercase(),
                };
                // Its name is what stays of a primary under sentinels.
                let host = match &self.watched {
                    Some(watched) => format!("sentinel {}", watched.name),
                    None => host,
                };
                let mut nodes: Vec<&str> = host.split(',').collect();
                nodes.sort_unstable();
                let server = nodes.join(",");
                Issuer::named(&format!("redis {server} {db} {}", self.prefix))
            }
        }
    }

    /// What becomes of a group whose keys stand in several slots of a cluster. By default it is refused.
    #[must_use]
    pub fn with_cross_slot(self, cross_slot: CrossSlot) -> Self {
        Self { cross_slot, ..self }
    }

    /// Trusts the certificates in `pem` instead of the system's: for a private CA.
    ///
    /// # Errors
    /// `Config` if the URL is not `rediss://` or the certificates cannot be read.
    pub fn with_tls_ca(self, pem: Vec<u8>) -> Result<Self, Error> {
        if !self.uses_tls() {
            return Err(config_error(
                "a CA certificate is set but the Redis URL is not rediss://; use rediss:// or drop the certificate"
                    .to_owned(),
            ));
        }
        let trust = self.trust.with_authorities(&pem).ok_or_else(|| {
            config_error(
                "the CA certificate cannot be used (there is none in it); give it as PEM"
                    .to_owned(),
            )
        })?;
        Ok(Self { trust, ..self })
    }

    /// Shows a certificate of our own to servers that ask for one (mTLS), with its private key, both as PEM.
    ///
    /// # Errors
    /// `Config` if the URL is not `rediss://`, or they cannot be read or do not belong together; the message holds neither.
    pub fn with_tls_identity(self, certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        if !self.uses_tls() {
            return Err(config_error(
                "a client certificate is set but the Redis URL is not rediss://; use rediss:// or drop the certificate"
                    .to_owned(),
            ));
        }
        let trust = self.trust.with_identity(certificate, key);
        let trust = trust.ok_or_else(|| {
            config_error(
                "the client certificate and its key cannot be used together; give the certificate (with those of its issuers) and its unencrypted private key, both as PEM"
                    .to_owned(),
            )
        })?;
        Ok(Self { trust, ..self })
    }

    /// The host and port, or the socket's path, or the hosts that a cluster's URL names: what logs name
    /// (D2).
    pub fn host(&self) -> String {
        if let Some(watched) = &self.watched {
            let sentinels: Vec<String> =
                watched.sentinels.iter().map(ToString::to_string).collect();
            return format!("{} (sentinels: {})", watched.name, sentinels.join(","));
        }
        if self.seeds.is_empty() {
            return self.connection.addr().to_string();
        }
        let seeds: Vec<String> = self.seeds.iter().map(ToString::to_string).collect();
        seeds.join(",")
    }

    /// Whether the URL names a cluster: [`ClusterStore`](crate::ClusterStore) is then the store.
    pub fn is_cluster(&self) -> bool {
        !self.seeds.is_empty()
    }

    /// Whether the URL names sentinels.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.is_some()
    }

    /// See [`with_cross_slot`](Self::with_cross_slot).
    pub fn cross_slot(&self) -> CrossSlot {
        self.cross_slot
    }

    /// The node's host and port; `None` for a socket.
    pub(crate) fn address(&self) -> Option<Address> {
        let (host, port) = match self.connection.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                (host.clone(), *port)
            }
            _ => return None,
        };
        Some(Address { host, port })
    }

    /// The settings for one node of the cluster: the same user, rights and deadlines at its address.
    pub(crate) fn at(&self, node: &Address) -> Self {
        let (host, port) = (node.host.clone(), node.port);
        let address = match self.connection.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        };
        Self {
            connection: self.connection.clone().set_addr(address),
            seeds: Vec::new(),
            ..self.clone()
        }
    }

    /// Refuses a cluster for what works with one server only.
    pub(crate) fn check_single(&self, advice: &str) -> Result<(), Error> {
        if self.is_cluster() {
            return Err(config_error(format!("the URL names a cluster; {advice}")));
        }
        Ok(())
    }

    /// Whether a cluster's nodes are used under the names that they tell: those that certificates have.
    pub(crate) fn prefers_names(&self) -> bool {
        self.uses_tls() && self.reach.tls_name.is_none()
    }

    /// Whether the connection is encrypted.
    pub fn uses_tls(&self) -> bool {
        matches!(self.connection.addr(), ConnectionAddr::TcpTls { .. })
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("host", &self.host())
            .field("tls", &self.uses_tls())
            .field("db", &self.connection.redis_settings().db())
            .field("cluster", &self.is_cluster())
            .field("cross_slot", &self.cross_slot)
            .field("prefix", &self.prefix)
            .field("pool_size", &self.pool_size)
            .field("batches", &self.batches)
            .field("check_deadline", &self.check_deadline)
            .field("cache_deadline", &self.cache_deadline)
            .field("state_ttl", &self.state_ttl)
            .finish_non_exhaustive()
    }
}

pub(crate) fn config_error(message: String) -> Error {
    Error::new(ErrorKind::Config, "redis.config", message)
}
