//! The cache that a service calls.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use limiter_core::Error;
use limiter_core::cache::{CacheKey, CacheStore};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::answer::{Answer, ComputeError};
use crate::canonical::CanonicalJson;
use crate::config::{CacheConfig, whole_millis};
use crate::key::CacheRequest;
use crate::scope::{Addressed, PerUser, Shared, User, Whole};
use crate::stats::Stats;
use crate::tiers::{Tiers, computed};

/// What can be cached: anything that `serde_json` writes and reads back unchanged.
///
/// A value that does not read back is refused when it is stored. One that reads back as another
/// cannot be noticed: `Some(None)` of a nested `Option` becomes `None`.
pub trait Cacheable: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}
impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Cacheable for T {}

/// The cached answers, of type `T`, of one operation: in this process, and in a store that all
/// instances share.
///
/// `S` is the cache's scope. A [`Shared`] cache is called with parameters; a [`PerUser`] one only
/// through [`user`](AiCache::user), so that nobody is served another's answer (I-K1). Clones share
/// everything; make one cache for an operation and keep it, because single flight and L1 live in it.
///
/// # Contract
/// - **Store away**: a read is a miss, logged as a warning (B6). Writes and clears report it; what is
///   computed or set meanwhile is kept by this process alone, for at most the L1 time to live.
/// - **Parameters** without [canonical JSON](crate::canonical) are `InvalidInput`: they name no key.
/// - **Clear** wins: an answer that was read or whose computation began before a clear in this
///   process does not come back after it. Other processes serve what they hold in L1 for at most
///   the L1 time to live ([`CacheConfig::with_l1_ttl`]).
/// - **Order.** What this process sets, computes and clears under one key reaches the store one after
///   another; all of it waits while everything is cleared.
/// - **Unreadable values** are misses: corrupt ones are removed (I-K5), those of another build stay.
/// - **Logs** name operations and keys, which are digests; never parameters or answers.
pub struct AiCache<T, S = Shared> {
    tiers: Arc<Tiers<T>>,
    scope: S,
}

impl<T: Cacheable, S: Whole> AiCache<T, S> {
    /// A cache over `store`.
    pub fn new(store: Arc<dyn CacheStore>, config: CacheConfig<S>) -> Self {
        Self {
            tiers: Arc::new(Tiers::new(store, config.settings)),
            scope: config.scope,
        }
    }

    /// Removes every answer of the operation, of all users, from the store and from this process.
    /// Returns how many the store had.
    ///
    /// # Errors
    /// What the store reports; some answers may be gone already, and all are from this process.
    pub async fn clear_all(&self) -> Result<u64, Error> {
        self.tiers.remove_all().await
    }
}

impl<T: Cacheable> AiCache<T, PerUser> {
    /// The answers of one user. Cheap; make one for each request.
    ///
    /// An empty id is refused by the methods, as `InvalidInput`: it would be shared by everybody
    /// whose id is missing.
    pub fn user(&self, id: impl AsRef<str>) -> AiCache<T, User> {
        AiCache {
            tiers: self.tiers.clone(),
            scope: User::new(id.as_ref()),
        }
    }
}

impl<T: Cacheable, S: Addressed> AiCache<T, S> {
    /// The answer for these parameters, if there is one. A cached `None` or `null` is an answer.
    ///
    /// # Errors
    /// `InvalidInput` for the parameters; never for the store, whose failure is a miss.
    pub async fn get<P: Serialize + ?Sized>(&self, params: &P) -> Result<Option<T>, Error> {
        let answer = self.tiers.read(&self.key(params)?).await;
        self.tiers
            .counters
            .lookup(answer.as_ref().map(|answer| answer.origin));
        Ok(answer.map(|answer| answer.to_owned_value().value))
    }

    /// Whether there is an answer for these parameters that can be read. Not counted as a lookup.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn has<P: Serialize + ?Sized>(&self, params: &P) -> Result<bool, Error> {
        Ok(self.tiers.read(&self.key(params)?).await.is_some())
    }

    /// Stores an answer for as long as the cache keeps answers.
    ///
    /// # Errors
    /// `InvalidInput` for the parameters, or for a value that JSON cannot hold; else what the store
    /// reports, and then this process alone keeps the answer.
    pub async fn set<P: Serialize + ?Sized>(&self, params: &P, value: T) -> Result<(), Error> {
        let ttl = self.tiers.settings.ttl;
        self.set_with_ttl(params, value, ttl).await
    }

    /// Stores an answer for `ttl`, in whole milliseconds (rounded down).
    ///
    /// # Errors
    /// As [`set`](Self::set); `InvalidInput` also unless `ttl` is 1 ms to 366 days.
    pub async fn set_with_ttl<P: Serialize + ?Sized>(
        &self,
        params: &P,
        value: T,
        ttl: Duration,
    ) -> Result<(), Error> {
        let ttl = whole_millis("ai_cache.set", ttl)?;
        let key = self.key(params)?;
        let mut ticket = self.tiers.l1.ticket(&key).await;
        self.tiers.write(&mut ticket, &computed(value), ttl).await
    }

    /// Removes the answer for these parameters from the store and from this process.
    ///
    /// # Errors
    /// `InvalidInput` for the parameters; else what the store reports, and then the answer is gone
    /// from this process alone.
    pub async fn clear<P: Serialize + ?Sized>(&self, params: &P) -> Result<(), Error> {
        self.tiers.remove(&self.key(params)?).await
    }

    /// The answer for these parameters: the cached one, or else that of `compute`, which is stored.
    ///
    /// `compute` gets the parameters as the [canonical JSON](CanonicalJson) that the key is made of. Send the
    /// model that text, and nothing else of the parameters: then two requests that share an answer have asked the
    /// same question.
    ///
    /// In one process a key is computed once at a time, by a task of its own: callers that come
    /// meanwhile wait for it and get the same answer or error, and a caller that goes away cancels
    /// nothing (I-K4). Errors are never stored (I-K2); for an answer that is empty or was cut
    /// short, return an error. Nobody waits for the store to take the answer: that goes on behind
    /// the callers, in order with what this process sets and clears, and a failure is a warning in the
    /// log. A process that ends at once may end before the store has the answer.
    ///
    /// The task has no time limit: give `compute` one, because others wait for it. It must not ask
    /// this cache for the same parameters, which would wait for itself.
    ///
    /// # Errors
    /// [`ComputeError::Input`] for the parameters, [`Failed`](ComputeError::Failed) with the error
    /// of `compute`, [`Aborted`](ComputeError::Aborted) if it panicked.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn get_or_compute<P, F, Fut, E>(
        &self,
        params: &P,
        compute: F,
    ) -> Result<Answer<T>, ComputeError>
    where
        P: Serialize + ?Sized,
        F: FnOnce(CanonicalJson) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let (key, text) = self.key_and_text(params)?;
        let outcome = self.tiers.read_or_compute(key, move || compute(text)).await;
        self.tiers
            .counters
            .lookup(outcome.as_ref().ok().map(|answer| answer.origin));
        outcome.map(|answer| answer.to_owned_value())
    }

    /// As [`get_or_compute`](Self::get_or_compute), and where there is no answer `admit` says first whether this caller may
    /// compute one: it gives the computation, or the reason why not. For a limit that only a computation is charged to.
    ///
    /// `admit` runs in the caller, so it may borrow, and each caller that finds no answer runs its own: nobody is refused for
    /// another's limit. Of several computations that were admitted at once one runs, and the others are dropped: what they hold
    /// (a reservation) is given back by its own destructor.
    ///
    /// # Errors
    /// Outside: what `admit` says. Inside: as [`get_or_compute`](Self::get_or_compute).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn get_or_admit<P, A, F, Fut, E, R>(
        &self,
        params: &P,
        admit: A,
    ) -> Result<Result<Answer<T>, ComputeError>, R>
    where
        P: Serialize + ?Sized,
        A: AsyncFnOnce() -> Result<F, R>,
        F: FnOnce(CanonicalJson) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let (key, text) = match self.key_and_text(params) {
            Ok(found) => found,
            Err(error) => return Ok(Err(error.into())),
        };
        let outcome = match self.tiers.read(&key).await {
            Some(answer) => Ok(answer),
            None => {
                let compute = admit().await?;
                self.tiers.read_or_compute(key, move || compute(text)).await
            }
        };
        self.tiers
            .counters
            .lookup(outcome.as_ref().ok().map(|answer| answer.origin));
        Ok(outcome.map(|answer| answer.to_owned_value()))
    }

    fn key<P: Serialize + ?Sized>(&self, params: &P) -> Result<CacheKey, Error> {
        self.key_and_text(params).map(|(key, _)| key)
    }

    fn key_and_text<P: Serialize + ?Sized>(
        &self,
        params: &P,
    ) -> Result<(CacheKey, CanonicalJson), Error> {
        let settings = &self.tiers.settings;
        CacheRequest::new(&settings.operation, params)
            .scope(self.scope.id())
            .model(settings.model.as_deref())
            .prompt_version(settings.prompt_version.as_deref())
            .schema_version(settings.schema_version.as_deref())
            .key_in(&self.tiers.namespace)
    }
}

impl<T: Cacheable, S> AiCache<T, S> {
    /// The operation: the middle of `cache:<op>:<hash>`.
    pub fn operation(&self) -> &str {
        &self.tiers.settings.operation
    }

    /// What the cache, with all of its clones and users, did in this process.
    pub fn stats(&self) -> Stats {
        self.tiers.counters.snapshot(self.tiers.l1.entries())
    }
}

impl<T, S: Clone> Clone for AiCache<T, S> {
    fn clone(&self) -> Self {
        Self {
            tiers: self.tiers.clone(),
            scope: self.scope.clone(),
        }
    }
}

impl<T, S: fmt::Debug> fmt::Debug for AiCache<T, S> {
    /// Without the answers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AiCache")
            .field("operation", &self.tiers.settings.operation)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
