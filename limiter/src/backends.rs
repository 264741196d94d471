//! From a URL or the environment to a limiter and a cache store.

use std::sync::Arc;

use limiter_core::cache::CacheStore;
#[cfg(all(feature = "memory", feature = "redis"))]
use limiter_core::cache::Fallback;
#[cfg(feature = "redis")]
use limiter_core::limit::LimitStore;
use limiter_core::limit::Limiter;
use limiter_core::limit::wrap::{Observer, Stack, Switch};
use limiter_core::ranking::Ranking;
use limiter_core::{Error, ErrorKind, OutageLog};

/// A limiter and a cache store, over one backend. Clones share both.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backends {
    /// Asks for decisions.
    pub limiter: Limiter,
    /// Keeps bytes; what `ai_cache` is built on.
    pub cache: Arc<dyn CacheStore>,
    /// What was answered without Redis, by limits and caches together.
    pub outages: OutageLog,
    /// Bounded lists of who counts most; what [`Offenders`](crate::Offenders) are kept in. Where the caches are.
    pub ranking: Arc<dyn Ranking>,
}

/// Connects as the environment says; see [`Builder::from_env`].
///
/// # Errors
/// As [`Builder::from_env`].
pub async fn from_env() -> Result<Backends, Error> {
    Builder::new().from_env().await
}

/// Connects to a URL; see [`Builder::connect`].
///
/// # Errors
/// As [`Builder::connect`].
pub async fn connect(url: &str) -> Result<Backends, Error> {
    Builder::new().connect(url).await
}

/// Chooses a backend and puts the wrappers around it.
#[derive(Debug, Default)]
#[must_use = "call `from_env` or `connect`"]
pub struct Builder {
    observers: Vec<Arc<dyn Observer>>,
    switch: Option<Switch>,
    is_traced: bool,
    #[cfg(feature = "memory")]
    memory: limiter_memory::MemoryConfig,
}

impl Builder {
    /// No observers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows every group and its result to an observer: an audit trail, metrics.
    pub fn observe(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Makes each call a span, through `tracing`: see [`Traced`](limiter_core::limit::wrap::Traced) for its attributes.
    pub fn trace(self) -> Self {
        Self {
            is_traced: true,
            ..self
        }
    }

    /// Counts limits where a switch says, to be thrown while the service runs (C6): in Redis, in this process, or nowhere.
    pub fn switch(self, switch: Switch) -> Self {
        Self {
            switch: Some(switch),
            ..self
        }
    }

    /// How large the tables of this process are: the limits' without a Redis, and those of outages and of the switch. The clock is
    /// theirs, too.
    #[cfg(feature = "memory")]
    pub fn memory_config(self, memory: limiter_memory::MemoryConfig) -> Self {
        Self { memory, ..self }
    }

    /// Redis if the environment names one (feature `redis`), else memory (feature `memory`). Which
    /// variables count is in docs/redis-setup.md.
    ///
    /// A Redis that is named but away is no error: it is logged, every policy's outage rule
    /// answers, and the first check that gets through finds the counts of the other instances.
    ///
    /// # Errors
    /// `Config` if a variable cannot be used, or if the backend that the environment asks for was
    /// not built in. No message holds a password.
    pub async fn from_env(self) -> Result<Backends, Error> {
        #[cfg(feature = "redis")]
        if let Some(env) = limiter_redis::RedisEnv::read()? {
            return self.redis(&env.limits, &env.cache).await;
        }
        #[cfg(not(feature = "redis"))]
        for name in REDIS_VARIABLES {
            if std::env::var(name).is_ok_and(|url| !url.trim().is_empty()) {
                return Err(not_built_in(&format!("{name} names a Redis"), "redis"));
            }
        }
        self.in_memory("the environment names no Redis")
    }

    /// `memory:`, or a Redis URL: `redis://`, `rediss://`, `redis+unix://`; `redis+cluster://` or `rediss+cluster://` for a cluster;
    /// `redis+sentinel://` or `rediss+sentinel://` for a primary under sentinels.
    ///
    /// # Errors
    /// `Config` if the URL cannot be used or its backend was not built in.
    pub async fn connect(self, url: &str) -> Result<Backends, Error> {
        if url == "memory:" {
            return self.in_memory("the URL is memory:");
        }
        #[cfg(feature = "redis")]
        {
            let config = limiter_redis::RedisConfig::new(url)?;
            self.redis(&config, &config).await
        }
        #[cfg(not(feature = "redis"))]
        Err(not_built_in("the URL is not memory:", "redis"))
    }

    /// One Redis for limits and one, often the same, for caches. Connects to both, for at most 2 s, so
    /// that the first calls are as fast as the others.
    ///
    /// A single server's URL will do for a cluster if it is one of its nodes. A cluster takes limits only; caches that would be in it are kept in this process (feature
    /// `memory`), with a warning.
    ///
    /// # Errors
    /// `Config` if the settings cannot be used.
    #[cfg(feature = "redis")]
    pub async fn redis(
        self,
        limits: &limiter_redis::RedisConfig,
        cache: &limiter_redis::RedisConfig,
    ) -> Result<Backends, Error> {
        let limits = async {
            let (store, warm): (Arc<dyn LimitStore>, _) = if limits.is_cluster() {
                let store = limiter_redis::ClusterStore::new(limits)?;
                let warm = store.warm_up().await;
                (Arc::new(store), warm)
            } else {
                let store = limiter_redis::RedisStore::new(limits)?;
                let warm = store.warm_up().await;
                (Arc::new(store), warm)
            };
            if let Err(error) = warm {
                tracing::warn!(%error, "Redis cannot be used; the policies' outage rules answer until it can");
            }
            Ok(store)
        };
        let cache = async {
            if cache.is_cluster() {
                return cache_beside_a_cluster();
            }
            let store = limiter_redis::RedisCache::new(cache)?;
            match store.warm_up().await {
                Err(error) if error.kind() == ErrorKind::Config => return cache_beside_a_cluster(),
                Err(error) => {
                    tracing::warn!(%error, "the caches' Redis cannot be used; caches miss until it can");
                }
                Ok(()) => {}
            }
            let store = Arc::new(store);
            Ok((
                store.clone() as Arc<dyn CacheStore>,
                store as Arc<dyn Ranking>,
            ))
        };
        let (limits, (cache, ranking)) = tokio::try_join!(limits, cache)?;
        let log = OutageLog::new();
        #[cfg(feature = "memory")]
        let memory = self.memory.clone();
        let stack = self.observed(Stack::new(limits)).log(log.clone());
        #[cfg(feature = "memory")]
        let (stack, cache) = with_local(stack, cache, &log, &memory);
        Ok(Backends {
            limiter: Limiter::raw(stack.build()),
            cache,
            outages: log,
            ranking,
        })
    }

    /// This process's memory.
    #[cfg(feature = "memory")]
    pub fn memory(mut self, config: &limiter_memory::MemoryConfig) -> Backends {
        self.memory = config.clone();
        let log = OutageLog::new();
        let store = limiter_memory::MemoryStore::with_config(config);
        let stack = self.observed(Stack::new(store)).log(log.clone());
        Backends {
            limiter: Limiter::raw(stack.build()),
            cache: Arc::new(limiter_memory::MemoryCache::with_config(config)),
            outages: log,
            ranking: Arc::new(limiter_memory::MemoryRanking::new()),
        }
    }

    fn in_memory(self, why: &'static str) -> Result<Backends, Error> {
        #[cfg(feature = "memory")]
        {
            tracing::info!(why, "limits and caches are kept in this process");
            let memory = self.memory.clone();
            Ok(self.memory(&memory))
        }
        #[cfg(not(feature = "memory"))]
        Err(not_built_in(why, "memory"))
    }

    #[cfg_attr(
        not(any(feature = "memory", feature = "redis")),
        expect(dead_code, reason = "without a backend there is nothing to stack")
    )]
    fn observed(self, stack: Stack) -> Stack {
        let stack = match self.is_traced {
            true => stack.trace(),
            false => stack,
        };
        let stack = match self.switch {
            #[cfg(feature = "memory")]
            Some(switch) => {
                // Not the table of an outage's rule.
                let beside = limiter_memory::MemoryStore::with_config(&self.memory);
                stack.switch(switch, Some(Arc::new(beside)))
            }
            #[cfg(not(feature = "memory"))]
            Some(switch) => stack.switch(switch, None),
            None => stack,
        };
        self.observers.into_iter().fold(stack, Stack::observe)
    }
}

/// A cache's store, and where lists of who counts most are kept beside it.
#[cfg(feature = "redis")]
type Caching = (Arc<dyn CacheStore>, Arc<dyn Ranking>);

/// What goes on in this process while Redis is away: the shares of policies that count locally, and the caches' counters.
#[cfg(all(feature = "memory", feature = "redis"))]
fn with_local(
    stack: Stack,
    cache: Arc<dyn CacheStore>,
    log: &OutageLog,
    memory: &limiter_memory::MemoryConfig,
) -> (Stack, Arc<dyn CacheStore>) {
    let counters = limiter_memory::MemoryCache::new();
    let cache = Fallback::new(cache, counters, log.clone());
    let stack = stack.local(limiter_memory::MemoryStore::with_config(memory));
    (stack, Arc::new(cache))
}

#[cfg(feature = "redis")]
fn cache_beside_a_cluster() -> Result<Caching, Error> {
    #[cfg(feature = "memory")]
    {
        tracing::warn!(
            "a Redis Cluster takes limits only: caches are kept in this process; set CACHE_REDIS_URL to share them"
        );
        let config = limiter_memory::MemoryConfig::default();
        let cache = limiter_memory::MemoryCache::with_config(&config);
        let ranking = limiter_memory::MemoryRanking::new();
        Ok((Arc::new(cache), Arc::new(ranking)))
    }
    #[cfg(not(feature = "memory"))]
    Err(Error::new(
        ErrorKind::Config,
        "limiter.connect",
        "a Redis Cluster takes limits only; name a single Redis for caches with CACHE_REDIS_URL",
    ))
}

/// What names a Redis. `limiter_redis` decides; this is only for a build without it, and a test holds
/// the two equal.
#[cfg(any(test, not(feature = "redis")))]
const REDIS_VARIABLES: [&str; 9] = [
    "REDIS_URL",
    "KV_URL",
    "UPSTASH_REDIS_URL",
    "UPSTASH_REDIS_REST_URL",
    "KV_REST_API_URL",
    "UPSTASH_REDIS_TOKEN",
    "UPSTASH_REDIS_REST_TOKEN",
    "KV_REST_API_TOKEN",
    "CACHE_REDIS_URL",
];

#[cfg_attr(
    all(feature = "memory", feature = "redis"),
    expect(dead_code, reason = "every backend is built in")
)]
fn not_built_in(why: &str, feature: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        "limiter.connect",
        format!("{why}, but limiter was built without its `{feature}` feature; enable it"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "redis")]
    #[test]
    fn a_build_without_redis_knows_what_names_one() {
        let asked = std::cell::RefCell::new(Vec::new());
        let none = limiter_redis::RedisEnv::from_lookup(|name| {
            asked.borrow_mut().push(name.to_owned());
            None
        });
        assert!(none.unwrap().is_none());
        assert_eq!(asked.into_inner(), REDIS_VARIABLES);
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_used_is_a_config_error_without_the_password() {
        let error = connect("http://user:hunter2@host").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}
