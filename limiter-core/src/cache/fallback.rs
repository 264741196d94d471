//! Counters of a cache that go on in this process while the store is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::store::{CacheCapabilities, CacheKey, CacheStore, Entry, NewEntry};
use crate::error::Error;
use crate::figures::Figure;
use crate::health::Health;
use crate::key::Key;
use crate::outage_log::{OutageLog, Substitute};

/// A cache store whose [increments](CacheStore::increment) are counted in this process while the store gives no answer (E2), from 0
/// and with their own time to live; they stay here when the store is back, and the next outage goes on with them. Values are not
/// kept here: an error of a read stays one, which a cache takes for a miss.
///
/// Only outages count ([`ErrorKind::is_outage`](crate::ErrorKind::is_outage)). Each is counted in the [`OutageLog`].
#[derive(Clone, Debug)]
pub struct Fallback<S> {
    inner: S,
    local: Arc<dyn CacheStore>,
    log: OutageLog,
    /// Whether anything was ever counted here.
    has_counted: Arc<AtomicBool>,
}

impl<S: CacheStore> Fallback<S> {
    /// `inner`, and `local` for its counters: `limiter_memory::MemoryCache`, with nothing else in it.
    pub fn new(inner: S, local: impl CacheStore + 'static, log: OutageLog) -> Self {
        Self {
            inner,
            local: Arc::new(local),
            log,
            has_counted: Arc::default(),
        }
    }

    /// Notes how a call went; whether this process has to answer in the store's place.
    fn is_away<T>(&self, result: &Result<T, Error>) -> bool {
        match result {
            Err(error) => error.kind().is_outage(),
            Ok(_) => {
                self.log.note_answer();
                false
            }
        }
    }

    /// Notes a miss, or a write that is lost.
    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if self.is_away(&result)
            && let Err(error) = &result
        {
            self.log.note(Substitute::Missed, error);
        }
        result
    }

    /// What stands in this process under the keys, if the store is away and one of them is a counter here.
    async fn counters<T>(
        &self,
        result: &Result<T, Error>,
        keys: &[CacheKey],
    ) -> Option<Vec<Option<Entry>>> {
        if !self.has_counted() || !self.is_away(result) {
            return None;
        }
        let counters = self.local.get_many(keys).await.ok()?;
        if !counters.iter().any(Option::is_some) {
            return None;
        }
        if let Err(error) = result {
            self.log.note(Substitute::Counted, error);
        }
        Some(counters)
    }

    fn has_counted(&self) -> bool {
        self.has_counted.load(Ordering::Relaxed)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CacheStore> CacheStore for Fallback<S> {
    fn capabilities(&self) -> CacheCapabilities {
        self.inner.capabilities()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Entry>, Error> {
        let result = self.inner.get(key).await;
        match self.counters(&result, std::slice::from_ref(key)).await {
            Some(counters) => Ok(counters.into_iter().next().flatten()),
            None => self.noted(result),
        }
    }

    async fn get_many(&self, keys: &[CacheKey]) -> Result<Vec<Option<Entry>>, Error> {
        let result = self.inner.get_many(keys).await;
        match self.counters(&result, keys).await {
            Some(counters) => Ok(counters),
            None => self.noted(result),
        }
    }

    async fn set(&self, key: &CacheKey, entry: NewEntry<'_>) -> Result<(), Error> {
        self.noted(self.inner.set(key, entry).await)
    }

    async fn delete(&self, key: &CacheKey) -> Result<bool, Error> {
        if self.has_counted() {
            self.local.delete(key).await?;
        }
        self.noted(self.inner.delete(key).await)
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Duration) -> Result<i64, Error> {
        match self.inner.increment(key, by, ttl).await {
            Err(error) if error.kind().is_outage() => {
                self.has_counted.store(true, Ordering::Relaxed);
                self.log.note(Substitute::Counted, &error);
                self.local.increment(key, by, ttl).await
            }
            answer => {
                self.is_away(&answer);
                answer
            }
        }
    }

    async fn clear(&self, namespace: &Key) -> Result<u64, Error> {
        if self.has_counted() {
            self.local.clear(namespace).await?;
        }
        self.noted(self.inner.clear(namespace).await)
    }

    async fn health(&self) -> Health {
        self.inner.health().await
    }

    fn figures(&self) -> Vec<Figure> {
        self.inner.figures()
    }
}
