//! The one error type of the workspace.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// Why an operation failed, and whether it took effect.
///
/// Callers branch on [`kind`](Error::kind) and [`effect`](Error::effect); the message is one line
/// for people and says what to do. No message and no `Debug` output holds a password or a token.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    effect: Effect,
    operation: &'static str,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What went wrong. See [`ErrorKind::is_outage`] for the line between a fault of the caller and a
/// fault of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of its range. The message says which and what is allowed.
    InvalidInput,
    /// The configuration cannot be used: a malformed URL, a missing token, an unreadable file.
    Config,
    /// The store declares that it lacks what was asked for.
    Unsupported,
    /// The key holds a value of another type. It is never overwritten.
    Foreign,
    /// An id was used before for something else, or what is there is not this policy's: a live state of another
    /// algorithm, or one that a newer version wrote.
    Conflict,
    /// The reservation or lease named by its id is gone.
    Expired,
    /// The reservation, lease or receipt was issued by another store: only that one can settle it or give it
    /// back.
    Misdirected,
    /// The store's bounded table is full and its policy refuses new keys.
    Capacity,
    /// This process is saturated: it asks for more than is answered in time, or a queue of its own is full. Says nothing of
    /// the server.
    Saturated,
    /// The breaker in front of the store is open: the store was not asked.
    BreakerOpen,
    /// No answer within the deadline.
    Timeout,
    /// The store cannot be reached, or the connection broke.
    Connection,
    /// The store rejects our credentials or our rights.
    Unauthorized,
    /// The store answered that it cannot serve now (read-only, loading, out of memory).
    Server,
    /// The store's answer is not what the protocol says.
    Protocol,
    /// The caller left before there was an answer. Only observers are told of it.
    Cancelled,
}

impl ErrorKind {
    /// All of them, in their order.
    pub const ALL: [Self; 16] = [
        Self::InvalidInput,
        Self::Config,
        Self::Unsupported,
        Self::Foreign,
        Self::Conflict,
        Self::Expired,
        Self::Misdirected,
        Self::Capacity,
        Self::Saturated,
        Self::BreakerOpen,
        Self::Timeout,
        Self::Connection,
        Self::Unauthorized,
        Self::Server,
        Self::Protocol,
        Self::Cancelled,
    ];

    /// Whether no answer could be had, so that a policy's [`Outage`](crate::limit::Outage) rule
    /// applies. Misuse and misconfiguration never trigger it.
    pub fn is_outage(self) -> bool {
        self.blames_the_server()
            || matches!(self, Self::Capacity | Self::Saturated | Self::BreakerOpen)
    }

    /// Whether the error speaks against the server, and not against this process or its caller: what a breaker
    /// counts.
    pub fn blames_the_server(self) -> bool {
        matches!(
            self,
            Self::Timeout | Self::Connection | Self::Unauthorized | Self::Server | Self::Protocol
        )
    }

    /// A stable lower-case name for logs, metrics and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::Config => "config",
            Self::Unsupported => "unsupported",
            Self::Foreign => "foreign",
            Self::Conflict => "conflict",
            Self::Expired => "expired",
            Self::Misdirected => "misdirected",
            Self::Capacity => "capacity",
            Self::Saturated => "saturated",
            Self::BreakerOpen => "breaker_open",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Unauthorized => "unauthorized",
            Self::Server => "server",
            Self::Protocol => "protocol",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a failed operation changed the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "yes, no and unknown are all there is"
)]
pub enum Effect {
    /// Nothing was changed; asking again is safe.
    No,
    /// The change was made.
    Yes,
    /// The request may have run: asking again may count twice.
    Unknown,
}

impl Effect {
    /// `no`, `yes` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Unknown => "unknown",
        }
    }
}

impl Error {
    /// An error without effect. `operation` is what was tried ("limit.apply"), `message` one line
    /// that says what is wrong and what to do.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            effect: Effect::No,
            operation,
            message: message.into(),
            retry_after: None,
            source: None,
        }))
    }

    /// The same error, with another answer to "did it take effect?".
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// The same error, with the time after which asking again makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// The same error, with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the operation took effect.
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// What was tried, such as `limit.apply` or `cache.get`.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// After which time asking again makes sense, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The line for people, without the operation.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.operation, self.0.message)?;
        if self.0.effect == Effect::Unknown {
            f.write_str(" (whether it took effect is unknown)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("effect", &self.0.effect)
            .field("operation", &self.0.operation)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well_and_keeps_its_cause() {
        let error = Error::new(
            ErrorKind::Timeout,
            "limit.apply",
            "no answer within 100 ms; is Redis overloaded?",
        )
        .with_effect(Effect::Unknown)
        .with_source(std::io::Error::other("late"));
        assert_eq!(
            error.to_string(),
            "limit.apply: no answer within 100 ms; is Redis overloaded? (whether it took effect is unknown)"
        );
        assert_eq!(error.source().unwrap().to_string(), "late");
        assert!(error.kind().is_outage());
        assert!(!ErrorKind::Unsupported.is_outage());
        for ours in [
            ErrorKind::Capacity,
            ErrorKind::Saturated,
            ErrorKind::BreakerOpen,
        ] {
            assert!(ours.is_outage() && !ours.blames_the_server(), "{ours}");
        }
    }
}
