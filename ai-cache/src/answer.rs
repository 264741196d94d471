//! An answer, where it came from, and why there may be none.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use limiter_core::Error;
use limiter_core::clock::Timestamp;

/// An answer of [`get_or_compute`](crate::AiCache::get_or_compute). `Debug` does not show the value.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
    /// When it was computed, by the clock of the process that did.
    pub created: Timestamp,
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("origin", &self.origin)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

impl<T: Clone> Answer<Arc<T>> {
    /// A copy of its own for a caller.
    pub(crate) fn to_owned_value(&self) -> Answer<T> {
        Answer {
            value: T::clone(&self.value),
            origin: self.origin,
            created: self.created,
        }
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// This process.
    L1,
    /// The store.
    L2,
    /// The computation: this caller's, or the one that it waited for.
    Computed,
}

impl Origin {
    /// Whether nothing had to be computed.
    pub fn is_hit(self) -> bool {
        self != Self::Computed
    }

    /// The value of an `X-Cache` header: `hit` or `miss`.
    pub fn x_cache(self) -> &'static str {
        if self.is_hit() { "hit" } else { "miss" }
    }
}

/// Why [`get_or_compute`](crate::AiCache::get_or_compute) has no answer. All callers that waited for
/// one computation get clones of one error. Never an outage of the store, which is a miss.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ComputeError {
    /// The parameters name no answer, so nothing was computed.
    Input(Arc<Error>),
    /// The computation failed; the source says how. Nothing was stored (I-K2).
    Failed(Arc<dyn StdError + Send + Sync>),
    /// The computation panicked, or its runtime shut down. Nothing was stored.
    Aborted,
}

impl ComputeError {
    pub(crate) fn failed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Failed(error.into().into())
    }

    /// The error of the computation, if it failed with an `E`.
    ///
    /// ```
    /// # use ai_cache::ComputeError;
    /// fn status(error: &ComputeError) -> u16 {
    ///     match error.downcast_ref::<std::io::Error>() {
    ///         Some(io) if io.kind() == std::io::ErrorKind::TimedOut => 504,
    ///         _ => 502,
    ///     }
    /// }
    /// # assert_eq!(status(&ComputeError::Aborted), 502);
    /// ```
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => error.downcast_ref(),
            _ => None,
        }
    }
}

impl fmt::Display for ComputeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => error.fmt(f),
            Self::Failed(_) => f.write_str("the computation failed; see the source"),
            Self::Aborted => f.write_str("the computation panicked or its runtime shut down"),
        }
    }
}

impl StdError for ComputeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Input(error) => error.source(),
            Self::Failed(error) => Some(error.as_ref()),
            Self::Aborted => None,
        }
    }
}

impl From<Error> for ComputeError {
    fn from(error: Error) -> Self {
        Self::Input(Arc::new(error))
    }
}
