//! A cache in this process, on moka.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use limiter_core::cache::{
    CacheCapabilities, CacheKey, CacheStore, Entry, NewEntry, check_ttl, no_integer, out_of_range,
};
use limiter_core::clock::{Clock, Timestamp};
use limiter_core::{Error, ErrorKind, Health, Key};
use moka::Expiry;
use moka::future::Cache;
use moka::ops::compute::{CompResult, Op};

use crate::config::MemoryConfig;

/// Cached bytes in this process, bounded by size: moka evicts what is used least. Clones share it. `Debug` shows no value.
#[derive(Clone)]
pub struct MemoryCache {
    cache: Cache<CacheKey, Stored>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Stored {
    value: Bytes,
    /// When the value is gone, by the store's clock; moka's own expiry only frees the memory.
    expires: Timestamp,
    ttl: Duration,
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache")
            .field("entries", &self.cache.entry_count())
            .finish_non_exhaustive()
    }
}

impl MemoryCache {
    /// A cache with the default settings.
    pub fn new() -> Self {
        Self::with_config(&MemoryConfig::default())
    }

    /// A cache with other settings.
    pub fn with_config(config: &MemoryConfig) -> Self {
        let cache = Cache::builder()
            .max_capacity(config.cache_bytes)
            .weigher(|key: &CacheKey, stored: &Stored| {
                u32::try_from(key.as_str().len() + stored.value.len()).unwrap_or(u32::MAX)
            })
            .expire_after(PerEntry)
            .build();
        Self {
            cache,
            clock: config.clock.clone(),
        }
    }

    fn live(&self, stored: &Stored) -> Option<Duration> {
        let left = stored.expires.saturating_since(self.clock.now());
        (!left.is_zero()).then_some(left)
    }

    fn stored(&self, value: Bytes, millis: u64) -> Stored {
        let ttl = Duration::from_millis(millis);
        Stored {
            value,
            expires: self.clock.now().saturating_add(ttl),
            ttl,
        }
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new()
    }
}

/// Frees each value's memory after its own time.
struct PerEntry;

impl Expiry<CacheKey, Stored> for PerEntry {
    fn expire_after_create(&self, _: &CacheKey, stored: &Stored, _: Instant) -> Option<Duration> {
        Some(stored.ttl)
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        stored: &Stored,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(stored.ttl)
    }
}

#[async_trait]
impl CacheStore for MemoryCache {
    fn capabilities(&self) -> CacheCapabilities {
        CacheCapabilities::default()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Entry>, Error> {
        let Some(stored) = self.cache.get(key).await else {
            return Ok(None);
        };
        Ok(self
            .live(&stored)
            .map(|left| Entry::new(stored.value, left)))
    }

    async fn get_many(&self, keys: &[CacheKey]) -> Result<Vec<Option<Entry>>, Error> {
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            entries.push(self.get(key).await?);
        }
        Ok(entries)
    }

    async fn set(&self, key: &CacheKey, entry: NewEntry<'_>) -> Result<(), Error> {
        let millis = check_ttl("cache.set", entry.ttl)?;
        if !entry.tags.is_empty() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "cache.set",
                "the memory cache has no tags",
            ));
        }
        self.cache
            .insert(key.clone(), self.stored(entry.value, millis))
            .await;
        Ok(())
    }

    async fn delete(&self, key: &CacheKey) -> Result<bool, Error> {
        let removed = self.cache.remove(key).await;
        Ok(removed.is_some_and(|stored| self.live(&stored).is_some()))
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Duration) -> Result<i64, Error> {
        let millis = check_ttl("cache.increment", ttl)?;
        let result = self
            .cache
            .entry_by_ref(key)
            .and_try_compute_with(|entry| async {
                let existing = entry
                    .map(moka::Entry::into_value)
                    .and_then(|stored| self.live(&stored).map(|left| (stored, left)));
                let (current, expires) = match &existing {
                    Some((stored, left)) => (parse(&stored.value)?, Some((stored, *left))),
                    None => (0, None),
                };
                let sum = current.checked_add(by).ok_or_else(out_of_range)?;
                let value = Bytes::from(sum.to_string());
                Ok::<_, Error>(Op::Put(match expires {
                    Some((stored, left)) => Stored {
                        value,
                        expires: stored.expires,
                        ttl: left,
                    },
                    None => self.stored(value, millis),
                }))
            })
            .await?;
        match result {
            CompResult::Inserted(entry) | CompResult::ReplacedWith(entry) => {
                parse(&entry.into_value().value)
            }
            _ => Err(Error::new(
                ErrorKind::Protocol,
                "cache.increment",
                "the cache did not store the sum",
            )),
        }
    }

    async fn clear(&self, namespace: &Key) -> Result<u64, Error> {
        let keys: Vec<_> = self
            .cache
            .iter()
            .filter(|(key, _)| key.namespace() == namespace)
            .map(|(key, _)| key)
            .collect();
        let mut removed = 0;
        for key in keys {
            removed += u64::from(self.delete(&key).await?);
        }
        Ok(removed)
    }

    async fn health(&self) -> Health {
        Health::new(
            "memory",
            true,
            None,
            "cached in this process; other instances do not see it",
        )
    }
}

fn parse(value: &[u8]) -> Result<i64, Error> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(no_integer)
}
