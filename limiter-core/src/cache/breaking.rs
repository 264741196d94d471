//! A cache behind a breaker.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::store::{CacheCapabilities, CacheKey, CacheStore, Entry, NewEntry};
use crate::breaker::Breaker;
use crate::error::Error;
use crate::figures::Figure;
use crate::health::Health;
use crate::key::Key;

/// A cache store that is left alone while it fails: calls are then refused at once, as `BreakerOpen` with `Effect::No`. Whether it
/// is there again is asked through its [`health`](CacheStore::health), in the background, and then by one of the calls at a time.
/// Clones share the breaker. (The cache of `limiter-redis` has one already.)
#[derive(Clone, Debug)]
pub struct Breaking<S> {
    inner: S,
    breaker: Breaker,
}

impl<S: CacheStore + Clone + 'static> Breaking<S> {
    /// `inner` behind `breaker`.
    pub fn new(inner: S, breaker: Breaker) -> Self {
        Self { inner, breaker }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let is_there = || {
            let inner = self.inner.clone();
            async move { inner.health().await.connected }
        };
        let pass = self
            .breaker
            .enter_or_knock(Instant::now(), is_there)
            .await?;
        let result = call.await;
        pass.end(Instant::now(), result.as_ref().map(drop));
        result
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: CacheStore + Clone + 'static> CacheStore for Breaking<S> {
    fn capabilities(&self) -> CacheCapabilities {
        self.inner.capabilities()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Entry>, Error> {
        self.call(self.inner.get(key)).await
    }

    async fn get_many(&self, keys: &[CacheKey]) -> Result<Vec<Option<Entry>>, Error> {
        self.call(self.inner.get_many(keys)).await
    }

    async fn set(&self, key: &CacheKey, entry: NewEntry<'_>) -> Result<(), Error> {
        self.call(self.inner.set(key, entry)).await
    }

    async fn delete(&self, key: &CacheKey) -> Result<bool, Error> {
        self.call(self.inner.delete(key)).await
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Duration) -> Result<i64, Error> {
        self.call(self.inner.increment(key, by, ttl)).await
    }

    async fn clear(&self, namespace: &Key) -> Result<u64, Error> {
        self.call(self.inner.clear(namespace)).await
    }

    async fn health(&self) -> Health {
        let mut health = self.inner.health().await;
        health.message.push_str(&self.breaker.status().words());
        health
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = self.inner.figures();
        figures.push(self.breaker.figure());
        figures
    }
}
