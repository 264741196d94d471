//! What a cache is for, and how long and how much it keeps.

use std::time::Duration;

use limiter_core::cache::check_ttl;
use limiter_core::{Error, ErrorKind, Key};

use crate::scope::{PerUser, Shared};

const OPERATION: &str = "ai_cache.config";
const DEFAULT_L1_CAPACITY: u64 = 100;
const DEFAULT_L1_TTL: Duration = Duration::from_secs(300);

/// The settings of one cache. `S` says who shares an answer: [`Shared`] or [`PerUser`].
///
/// ```
/// use std::time::Duration;
/// use ai_cache::CacheConfig;
///
/// let config = CacheConfig::per_user("coverLetter", Duration::from_secs(3600))?
///     .with_l1_capacity(200)
///     .with_model("some-model-2026-01")
///     .with_prompt_version("7");
/// assert_eq!(config.operation(), "coverLetter");
/// assert!(CacheConfig::shared("a:b", Duration::from_secs(60)).is_err());
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CacheConfig<S> {
    pub(crate) settings: Settings,
    pub(crate) scope: S,
}

/// The settings that do not depend on the scope.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) operation: Box<str>,
    pub(crate) ttl: Duration,
    pub(crate) l1_capacity: u64,
    pub(crate) l1_ttl: Duration,
    pub(crate) model: Option<Box<str>>,
    pub(crate) prompt_version: Option<Box<str>>,
    pub(crate) schema_version: Option<Box<str>>,
}

impl CacheConfig<Shared> {
    /// A cache whose answers depend on the parameters alone.
    ///
    /// # Errors
    /// `InvalidInput` unless the operation is 1 to 200 bytes that stand in a key as they are
    /// (without `:`, `{`, `}`, `%` and control characters), and the time to live 1 ms to 366 days.
    pub fn shared(operation: &str, ttl: Duration) -> Result<Self, Error> {
        Self::checked(operation, ttl, Shared)
    }
}

impl CacheConfig<PerUser> {
    /// A cache that keeps each user's answers apart.
    ///
    /// # Errors
    /// As [`CacheConfig::shared`].
    pub fn per_user(operation: &str, ttl: Duration) -> Result<Self, Error> {
        Self::checked(operation, ttl, PerUser)
    }
}

impl<S> CacheConfig<S> {
    fn checked(operation: &str, ttl: Duration, scope: S) -> Result<Self, Error> {
        if Key::new([operation]).as_str() != operation {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                OPERATION,
                "the operation stands in every key as it is: give 1 to 200 bytes without `:`, `{`, `}`, `%` and control characters",
            ));
        }
        Ok(Self::preset(
            operation,
            whole_millis(OPERATION, ttl)?,
            scope,
        ))
    }

    /// The defaults around an operation and a time to live that need no check.
    pub(crate) fn preset(operation: &str, ttl: Duration, scope: S) -> Self {
        Self {
            settings: Settings {
                operation: operation.into(),
                ttl,
                l1_capacity: DEFAULT_L1_CAPACITY,
                l1_ttl: DEFAULT_L1_TTL,
                model: None,
                prompt_version: None,
                schema_version: None,
            },
            scope,
        }
    }

    /// The same cache, keeping answers for `ttl`, in whole milliseconds (rounded down).
    ///
    /// # Errors
    /// `InvalidInput` unless it is 1 ms to 366 days.
    pub fn with_ttl(mut self, ttl: Duration) -> Result<Self, Error> {
        self.settings.ttl = whole_millis(OPERATION, ttl)?;
        Ok(self)
    }

    /// How many answers this process keeps in front of the store; the least recently used one makes
    /// room. 100 by default; 0 keeps none. The store has no such bound.
    #[must_use]
    pub fn with_l1_capacity(mut self, answers: u64) -> Self {
        self.settings.l1_capacity = answers;
        self
    }

    /// How long this process serves an answer before it reads the store again: at most this, the
    /// cache's time to live, and what was left in the store. 5 minutes by default. It bounds how long
    /// this process keeps an answer that another one cleared.
    #[must_use]
    pub fn with_l1_ttl(mut self, ttl: Duration) -> Self {
        self.settings.l1_ttl = ttl;
        self
    }

    /// The model that answers. Another model is another key.
    #[must_use]
    pub fn with_model(mut self, model: &str) -> Self {
        self.settings.model = Some(model.into());
        self
    }

    /// The version of the prompt. Another version is another key.
    #[must_use]
    pub fn with_prompt_version(mut self, version: &str) -> Self {
        self.settings.prompt_version = Some(version.into());
        self
    }

    /// The version of the answer's type. Another version is another key, so that old and new
    /// instances do not overwrite each other's answers during a deploy.
    #[must_use]
    pub fn with_schema_version(mut self, version: &str) -> Self {
        self.settings.schema_version = Some(version.into());
        self
    }

    /// The operation: the middle of `cache:<op>:<hash>`.
    pub fn operation(&self) -> &str {
        &self.settings.operation
    }

    /// How long an answer is kept, unless `set_with_ttl` says otherwise.
    pub fn ttl(&self) -> Duration {
        self.settings.ttl
    }
}

impl Settings {
    /// The longest that L1 keeps what the store has too.
    pub(crate) fn l1_cap(&self) -> Duration {
        self.l1_ttl.min(self.ttl)
    }
}

/// A time to live as the store counts it, so that no tier keeps a value for longer than another.
pub(crate) fn whole_millis(operation: &'static str, ttl: Duration) -> Result<Duration, Error> {
    check_ttl(operation, ttl).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use limiter_core::cache::MAX_TTL;

    #[test]
    fn what_cannot_work_is_refused() {
        let minute = Duration::from_secs(60);
        for operation in ["", "a:b", "{a}", "a%", "a\n", &"x".repeat(201)] {
            let error = CacheConfig::shared(operation, minute).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{operation}");
            assert!(CacheConfig::per_user(operation, minute).is_err());
        }
        for ttl in [Duration::ZERO, Duration::from_micros(999), MAX_TTL + minute] {
            let error = CacheConfig::shared("a", ttl).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{ttl:?}");
        }
    }

    /// I-K3: a store that counts milliseconds must not drop a value before L1 does.
    #[test]
    fn times_are_whole_milliseconds() {
        let config = CacheConfig::shared("a", Duration::from_micros(1_999)).unwrap();
        assert_eq!(config.ttl(), Duration::from_millis(1));
    }
}
