//! How a backend is.

use std::time::Duration;

/// How a backend is, for `/health` and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// `memory`, `redis`.
    pub backend: &'static str,
    /// Whether the backend answers. Memory always does.
    pub connected: bool,
    /// How long it took to answer; `None` where nothing is asked or nothing answered.
    pub latency: Option<Duration>,
    /// One line for people; names the host, never a password.
    pub message: String,
    /// What the servers behind it told of themselves last, as far as they were asked: none in memory, one for each master of a
    /// cluster. A cache asks when it begins, limits once a minute besides.
    pub servers: Vec<ServerInfo>,
}

/// What a server tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// As logs name it: host and port, a socket's path, or the name that its sentinels give it.
    pub host: String,
    /// `7.0.15`.
    pub version: Option<String>,
    /// The memory that it uses, in bytes.
    pub memory_used: Option<u64>,
    /// The most that it may use, in bytes; `None` if it has no limit, or does not say so.
    pub memory_limit: Option<u64>,
    /// How it makes room when it is full, as `noeviction`; `None` without a limit.
    pub eviction: Option<String>,
    /// How many keys it has evicted since it started.
    pub evicted: Option<u64>,
    /// How many commands it has run since it started, of whomever.
    pub commands: Option<u64>,
}

impl ServerInfo {
    /// Of a server that has told nothing yet.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            ..Self::default()
        }
    }

    /// How much of its memory is used, in percent, rounded down; `None` without a limit.
    pub fn memory_percent(&self) -> Option<u64> {
        let (used, limit) = (self.memory_used?, self.memory_limit?);
        let percent = u128::from(used) * 100 / u128::from(limit.max(1));
        Some(u64::try_from(percent).unwrap_or(u64::MAX))
    }
}

impl Health {
    /// A health report.
    pub fn new(
        backend: &'static str,
        connected: bool,
        latency: Option<Duration>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            backend,
            connected,
            latency,
            message: message.into(),
            servers: Vec::new(),
        }
    }

    /// The same with what its servers told of themselves.
    #[must_use]
    pub fn with_servers(mut self, servers: impl IntoIterator<Item = ServerInfo>) -> Self {
        self.servers.extend(servers);
        self
    }
}
