//! Settings of the in-process backend.

use std::sync::Arc;

use limiter_core::clock::{Clock, SystemClock};
use limiter_core::{Error, ErrorKind};

/// Settings of [`MemoryStore`](crate::MemoryStore) and [`MemoryCache`](crate::MemoryCache).
#[derive(Clone, Debug)]
pub struct MemoryConfig {
    pub(crate) keys: usize,
    pub(crate) overflow: Overflow,
    pub(crate) cache_bytes: u64,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What happens to a new key when the table is full of keys that still count. Existing counters
/// never change for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The new key is refused with an error of kind `Capacity`. The default: a flood of keys admits
    /// nothing.
    #[default]
    Refuse,
    /// All new keys of one policy share one counter until there is room.
    Share,
}

/// 1,000,000 keys (about 100 bytes each), [`Overflow::Refuse`], 64 MiB of cached values, wall clock.
impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            keys: 1_000_000,
            overflow: Overflow::default(),
            cache_bytes: 64 << 20,
            clock: Arc::new(SystemClock),
        }
    }
}

impl MemoryConfig {
    /// The most keys that count at the same time. What is remembered of reservations, refunds, released leases and operations
    /// takes the room of a key each.
    ///
    /// # Errors
    /// `InvalidInput` if it is 0.
    pub fn with_keys(self, keys: usize) -> Result<Self, Error> {
        if keys == 0 {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "memory.config",
                "a table for 0 keys can limit nothing; give at least 1",
            ));
        }
        Ok(Self { keys, ..self })
    }

    /// What happens to a new key when the table is full.
    #[must_use]
    pub fn with_overflow(self, overflow: Overflow) -> Self {
        Self { overflow, ..self }
    }

    /// The most bytes of cached values and their keys. 0 caches nothing.
    #[must_use]
    pub fn with_cache_bytes(self, cache_bytes: u64) -> Self {
        Self {
            cache_bytes,
            ..self
        }
    }

    /// Where to read the time.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            ..self
        }
    }
}
