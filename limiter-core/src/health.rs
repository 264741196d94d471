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
        }
    }
}
