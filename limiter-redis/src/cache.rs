//! A cache in Redis.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use limiter_core::cache::{
    CacheCapabilities, CacheKey, CacheStore, Entry, NewEntry, check_ttl, no_integer, out_of_range,
};
use limiter_core::ranking::{Addition, Ranked, Ranking};
use limiter_core::{Effect, Error, ErrorKind, Figure, Health, Key};
use redis::{FromRedisValue, RedisError, Script, Value};
use tokio::time::Instant;

use crate::config::{RedisConfig, config_error};
use crate::guard::{Guard, Span};
use crate::limit::{is_of_a_node, ping};
use crate::pool::probe::{Probe, ProbeKeys};
use crate::pool::request::Request;
use crate::pool::{Keeps, Pool};
use crate::script;
use crate::warm_up::{ask, warn_if_it_is_far};

/// How many keys one step of a clear removes.
const CLEAR_BATCH: usize = 500;

/// Cached bytes in one Redis server. Has a pool of its own, so that large values do not hold up
/// checks. Clones share it.
///
/// A namespace has an index, the sorted set `<namespace>:%index`, by which it is cleared without a
/// scan. Redis may evict it like any key; values that it named then stay until their time is over.
#[derive(Clone, Debug)]
pub struct RedisCache {
    pool: Pool,
    guard: Guard,
    prefix: Arc<str>,
    set: Arc<Script>,
    increment: Arc<Script>,
    unindex: Arc<Script>,
    rank: Arc<Script>,
    warm_up: Duration,
}

impl RedisCache {
    /// A cache that connects when it is first used; see [`warm_up`](Self::warm_up).
    ///
    /// # Errors
    /// `Config` if the settings cannot be used.
    pub fn new(config: &RedisConfig) -> Result<Self, Error> {
        config.check_single("caches need a single server: set CACHE_REDIS_URL")?;
        let key = format!("{}cache:%probe", config.prefix);
        let probe = Probe {
            script: script::cache_set(),
            keys: ProbeKeys::These(vec![key.clone(), format!("{key}:%index")]),
            arguments: ["probe", "1000", "cache:%probe"]
                .map(str::to_owned)
                .to_vec(),
        };
        Ok(Self {
            pool: Pool::new(config, config.cache_deadline, probe, Keeps::Values)?,
            guard: Guard::new(config),
            prefix: config.prefix.as_str().into(),
            set: Arc::new(script::cache_set()),
            increment: Arc::new(script::cache_increment()),
            unindex: Arc::new(script::cache_unindex()),
            rank: Arc::new(script::cache_rank()),
            warm_up: config.warm_up,
        })
    }

    /// Connects and loads the script that writes, so that the first call is not slower than the
    /// others; 2 s at most. The cache works without it.
    ///
    /// # Errors
    /// What keeps Redis from being used; the cache goes on trying at every call. `Config` for a node of a cluster.
    pub async fn warm_up(&self) -> Result<(), Error> {
        const OPERATION: &str = "cache.warm_up";
        let of_a_node = || {
            let host = self.pool.host();
            config_error(format!(
                "Redis at {host} is a node of a cluster; caches need a single server: set CACHE_REDIS_URL"
            ))
        };
        let end = Instant::now() + self.warm_up;
        match self.pool.fill(OPERATION, end).await {
            Err(error) if is_of_a_node(&error) => return Err(of_a_node()),
            filled => filled?,
        }
        warn_if_it_is_far(&self.pool, "a cache call", "CACHE_REDIS_DEADLINE_MILLIS");
        if ask(&self.pool).await.is_node {
            return Err(of_a_node());
        }
        let left = end.saturating_duration_since(Instant::now());
        let load = Request::Load(self.set.clone());
        self.pool.call_within(left, OPERATION, load).await.map(drop)
    }

    async fn call(&self, operation: &'static str, request: Request) -> Result<Value, Error> {
        let begun = Instant::now();
        let end = begun + self.pool.deadline();
        let passing = match self.guard.enter(&self.pool, Span { begun, end }) {
            Ok(passing) => passing,
            Err(refused) => {
                self.pool.counts().note_error(&refused);
                tokio::task::yield_now().await;
                return Err(refused);
            }
        };
        let reply = self.pool.call(operation, request).await;
        passing.end(Instant::now(), reply.as_ref().map(drop));
        reply
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// No encoded segment is `%index`, so no value has this name.
    fn index(&self, namespace: &Key) -> String {
        format!("{}{namespace}:%index", self.prefix)
    }

    /// Removes what the index names, counting in `removed`.
    async fn clear_index(&self, index: &str, removed: &mut u64) -> Result<(), Error> {
        const OPERATION: &str = "cache.clear";
        let mut size = redis::cmd("ZCARD");
        size.arg(index);
        let reply = self.call(OPERATION, Request::Command(size)).await?;
        let size: usize = understand(OPERATION, reply)?;
        // What is written meanwhile does not make this longer.
        for _ in 0..size.div_ceil(CLEAR_BATCH) {
            let mut first = redis::cmd("ZRANGE");
            first
                .arg(index)
                .arg(0)
                .arg(CLEAR_BATCH - 1)
                .arg("WITHSCORES");
            let reply = self.call(OPERATION, Request::Command(first)).await?;
            let named: Vec<(String, String)> = understand(OPERATION, reply)?;
            if named.is_empty() {
                break;
            }
            // Values first: if this stops half-way, the index still names what is left.
            let mut unlink = redis::cmd("UNLINK");
            let mut arguments = Vec::with_capacity(2 * named.len());
            for (key, expiry) in &named {
                unlink.arg(self.full(key));
                arguments.extend([key.as_bytes(), expiry.as_bytes()]);
            }
            let unindex = Request::script(&self.unindex, &[index.to_owned()], &arguments);
            let reply = self.call(OPERATION, Request::Command(unlink)).await?;
            *removed += understand::<u64>(OPERATION, reply)?;
            self.call(OPERATION, unindex).await?;
        }
        Ok(())
    }

    /// Runs a script on a value and its index, as both writing scripts take them.
    async fn write(
        &self,
        operation: &'static str,
        script: &Arc<Script>,
        key: &CacheKey,
        argument: &[u8],
        ttl: Duration,
    ) -> Result<Value, Error> {
        let millis = check_ttl(operation, ttl)?.to_string();
        let keys = [self.full(key.as_str()), self.index(key.namespace())];
        let arguments = [argument, millis.as_bytes(), key.as_str().as_bytes()];
        let call = Request::script(script, &keys, &arguments);
        self.call(operation, call).await
    }
}

#[async_trait]
impl CacheStore for RedisCache {
    fn capabilities(&self) -> CacheCapabilities {
        CacheCapabilities::default()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<Entry>, Error> {
        let entries = self.get_many(std::slice::from_ref(key)).await?;
        Ok(entries.into_iter().next().flatten())
    }

    async fn get_many(&self, keys: &[CacheKey]) -> Result<Vec<Option<Entry>>, Error> {
        const OPERATION: &str = "cache.get";
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // In one transaction: the time left must be that of the value that was read.
        let of = |key: &CacheKey| {
            let full = self.full(key.as_str());
            ["GET", "PTTL"].map(|name| redis::cmd(name).arg(&full).take())
        };
        let read = keys.iter().flat_map(of).collect();
        let reply = self.call(OPERATION, Request::Transaction(read)).await?;
        let parts: Vec<(Option<Bytes>, i64)> = understand(OPERATION, reply)?;
        Ok(parts
            .into_iter()
            .map(|(value, ttl)| {
                let ttl = Duration::from_millis(u64::try_from(ttl).unwrap_or(0));
                value.map(|value| Entry::new(value, ttl))
            })
            .collect())
    }

    async fn set(&self, key: &CacheKey, entry: NewEntry<'_>) -> Result<(), Error> {
        if !entry.tags.is_empty() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "cache.set",
                "the Redis cache has no tags",
            ));
        }
        self.write("cache.set", &self.set, key, &entry.value, entry.ttl)
            .await
            .map(drop)
    }

    async fn delete(&self, key: &CacheKey) -> Result<bool, Error> {
        const OPERATION: &str = "cache.delete";
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(self.full(key.as_str()));
        let mut unindex = redis::cmd("ZREM");
        unindex.arg(self.index(key.namespace())).arg(key.as_str());
        let delete = vec![unlink, unindex];
        let reply = self.call(OPERATION, Request::Transaction(delete)).await;
        let (removed, _): (u64, u64) = understand(OPERATION, reply.map_err(half_deleted)?)?;
        Ok(removed > 0)
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Duration) -> Result<i64, Error> {
        const OPERATION: &str = "cache.increment";
        let by = by.to_string();
        let reply = self
            .write(OPERATION, &self.increment, key, by.as_bytes(), ttl)
            .await
            .map_err(increment_error)?;
        understand(OPERATION, reply)
    }

    async fn clear(&self, namespace: &Key) -> Result<u64, Error> {
        let mut removed = 0;
        match self.clear_index(&self.index(namespace), &mut removed).await {
            Err(error) if removed > 0 => Err(error.with_effect(Effect::Yes)),
            result => result.map(|()| removed),
        }
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = self.pool.figures();
        figures.extend(self.guard.figure(&self.pool, "caches"));
        figures
    }

    async fn health(&self) -> Health {
        ping(&self.pool, &self.guard, "cached in").await
    }
}

/// Each list is a sorted set under its key.
#[async_trait]
impl Ranking for RedisCache {
    async fn add(&self, lists: &[Addition], most: usize, ttl: Duration) -> Result<(), Error> {
        const OPERATION: &str = "ranking.add";
        if lists.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = lists.iter().map(|it| self.full(it.list.as_str())).collect();
        let mut arguments = vec![
            most.max(1).to_string(),
            check_ttl(OPERATION, ttl)?.to_string(),
        ];
        for Addition { counts, .. } in lists {
            arguments.push(counts.len().to_string());
            for (name, count) in counts {
                arguments.extend([name.clone(), count.to_string()]);
            }
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_bytes).collect();
        let add = Request::script(&self.rank, &keys, &arguments);
        self.call(OPERATION, add).await.map(drop)
    }

    async fn top(&self, list: &Key, count: usize) -> Result<Vec<Ranked>, Error> {
        const OPERATION: &str = "ranking.top";
        let Some(last) = count.checked_sub(1) else {
            return Ok(Vec::new());
        };
        let mut range = redis::cmd("ZRANGE");
        range.arg(self.full(list.as_str())).arg(0).arg(last);
        range.arg("REV").arg("WITHSCORES");
        let reply = self.call(OPERATION, Request::Command(range)).await?;
        let top: Vec<(String, f64)> = understand(OPERATION, reply)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a sum of counts"
        )]
        let ranked = top
            .into_iter()
            .map(|(name, count)| Ranked::new(name, count as u64));
        Ok(ranked.collect())
    }
}

fn understand<T: FromRedisValue>(operation: &'static str, reply: Value) -> Result<T, Error> {
    // The library's error shows what was not understood: perhaps a value.
    redis::from_redis_value(reply).map_err(|_| {
        Error::new(
            ErrorKind::Protocol,
            operation,
            "Redis's reply was not understood",
        )
        .with_effect(Effect::Unknown)
    })
}

/// Redis does not roll back: where the index is no index, its value is deleted all the same, and so it is where MULTI alone is
/// not known.
fn half_deleted(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Foreign => {
            const WHY: &str = "deleted, but the namespace's index is no index: delete the key that ends in :%index";
            let effect = Error::new(ErrorKind::Foreign, error.operation(), WHY);
            effect.with_effect(Effect::Yes).with_source(error)
        }
        ErrorKind::Unsupported => error.with_effect(Effect::Unknown),
        _ => error,
    }
}

/// INCRBY refuses before it changes anything; Redis has no codes for its reasons, only texts.
fn increment_error(error: Error) -> Error {
    let refusal = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<RedisError>())
        .and_then(RedisError::detail)
        .unwrap_or_default();
    let known = if refusal.contains("would overflow") {
        out_of_range()
    } else if error.kind() == ErrorKind::Foreign || refusal.contains("not an integer") {
        no_integer()
    } else {
        return error;
    };
    known.with_source(error)
}
