//! A store in a map, on tokio's clock, with switches.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use limiter_core::cache::{CacheCapabilities, CacheKey, CacheStore, Entry, NewEntry};
use limiter_core::{Error, ErrorKind, Health, Key};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// A point at which the store can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stop {
    /// A read has the value and has not answered yet.
    AfterGet,
    /// A write has not been made yet.
    BeforeSet,
    /// A delete or clear has not been made yet.
    BeforeRemoval,
    /// A delete or clear was made and has not answered yet.
    AfterRemoval,
}

#[derive(Debug, Default)]
pub(crate) struct TestStore {
    values: Mutex<HashMap<String, (Bytes, Instant)>>,
    down: AtomicBool,
    reads: AtomicUsize,
    stops: Mutex<HashMap<Stop, Arc<Gate>>>,
    /// The state of a xorshift generator; 0 is none.
    jitter: AtomicU64,
}

/// Where a call waits, and how a test lets it go on.
#[derive(Debug)]
pub(super) struct Gate {
    reached: Semaphore,
    open: Semaphore,
}

impl Gate {
    /// Waits until a call stands at the gate.
    pub(super) async fn reached(&self) {
        self.reached.acquire().await.unwrap().forget();
    }

    /// Lets one call pass.
    pub(super) fn open(&self) {
        self.open.add_permits(1);
    }
}

impl TestStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes every call fail, or no longer.
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Stops the next call that comes to `stop`.
    pub(super) fn stop(&self, stop: Stop) -> Arc<Gate> {
        let gate = Arc::new(Gate {
            reached: Semaphore::new(0),
            open: Semaphore::new(0),
        });
        self.stops.lock().insert(stop, gate.clone());
        gate
    }

    /// Makes every call take its time, by chance.
    pub(super) fn set_jitter(&self, seed: u64) {
        self.jitter.store(seed, Ordering::SeqCst);
    }

    /// How often the store was read.
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// The bytes under a key.
    pub(super) fn raw(&self, key: &CacheKey) -> Option<Bytes> {
        self.live(key.as_str()).map(|(value, _)| value)
    }

    /// Puts bytes under a key, behind the cache's back.
    pub(super) fn put_raw(&self, key: &CacheKey, value: impl Into<Bytes>) {
        let expires = Instant::now() + Duration::from_secs(3_600);
        self.values
            .lock()
            .insert(key.to_string(), (value.into(), expires));
    }

    /// Removes a key behind the cache's back.
    pub(super) fn remove_raw(&self, key: &CacheKey) {
        self.values.lock().remove(key.as_str());
    }

    pub(super) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.values.lock().keys().cloned().collect();
        keys.sort();
        keys
    }

    fn live(&self, key: &str) -> Option<(Bytes, Duration)> {
        let values = self.values.lock();
        let (value, expires) = values.get(key)?;
        let left = expires.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| (value.clone(), left))
    }

    fn remove_prefix(&self, prefix: &str) -> u64 {
        let mut values = self.values.lock();
        let before = values.len();
        values.retain(|key, _| !key.starts_with(prefix));
        (before - values.len()) as u64
    }

    fn up(&self, operation: &'static str) -> Result<(), Error> {
        if self.down.load(Ordering::SeqCst) {
            let message = "the test store is down";
            return Err(Error::new(ErrorKind::Connection, operation, message));
        }
        Ok(())
    }

    async fn pass(&self, stop: Stop) {
        let state = self.jitter.load(Ordering::SeqCst);
        self.jitter.store(next(state), Ordering::SeqCst);
        for _ in 0..state % 5 {
            tokio::task::yield_now().await;
        }
        let gate = self.stops.lock().remove(&stop);
        if let Some(gate) = gate {
            gate.reached.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
        }
    }
}

/// Xorshift: 0 stays 0.
pub(super) fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ (state << 17)
}

#[async_trait]
impl CacheStore for TestStore {
    fn capabilities(&self) -> CacheCapabilities {
        CacheCapabilities::default()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Entry>, Error> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.up("cache.get")?;
        let found = self.live(key.as_str());
        self.pass(Stop::AfterGet).await;
        Ok(found.map(|(value, left)| Entry::new(value, left)))
    }

    async fn get_many(&self, _: &[CacheKey]) -> Result<Vec<Option<Entry>>, Error> {
        unreachable!("the cache reads one key at a time")
    }

    async fn set(&self, key: &CacheKey, entry: NewEntry<'_>) -> Result<(), Error> {
        self.up("cache.set")?;
        self.pass(Stop::BeforeSet).await;
        let expires = Instant::now() + entry.ttl;
        self.values
            .lock()
            .insert(key.to_string(), (entry.value, expires));
        Ok(())
    }

    async fn delete(&self, key: &CacheKey) -> Result<bool, Error> {
        self.up("cache.delete")?;
        self.pass(Stop::BeforeRemoval).await;
        let existed = self.values.lock().remove(key.as_str()).is_some();
        self.pass(Stop::AfterRemoval).await;
        Ok(existed)
    }

    async fn increment(&self, _: &CacheKey, _: i64, _: Duration) -> Result<i64, Error> {
        unreachable!("the cache counts nothing in the store")
    }

    async fn clear(&self, namespace: &Key) -> Result<u64, Error> {
        self.up("cache.clear")?;
        self.pass(Stop::BeforeRemoval).await;
        let removed = self.remove_prefix(&format!("{namespace}:"));
        self.pass(Stop::AfterRemoval).await;
        Ok(removed)
    }

    async fn health(&self) -> Health {
        Health::new("test", true, None, "a map")
    }
}
