//! Limits in Redis.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed};
use limiter_core::{Error, Health};
use redis::{Script, Value};

use crate::batch::{Batches, Place};
use crate::call::{Call, floor};
use crate::config::RedisConfig;
use crate::connection::{Probe, ProbeKeys};
use crate::pool::Pool;
use crate::reply;
use crate::request::Request;
use crate::script::{self, Scripts, is_unreadable};

/// Counters in one Redis server, shared by every instance that uses it. Clones share the pool.
///
/// A group is a part of one script call, so it is atomic, and its time is Redis's own. What waits while a call is under way goes
/// in the next one; each group has its own answer or error. A group that may have been sent is never sent again.
#[derive(Clone, Debug)]
pub struct RedisStore {
    batches: Batches,
    scripts: Arc<Scripts>,
    issuer: Issuer,
    prefix: Arc<str>,
    warm_up: Duration,
    unheard: Arc<AtomicU64>,
}

impl RedisStore {
    /// A store that connects when it is first used; see [`warm_up`](Self::warm_up). Must be called
    /// in a tokio runtime.
    ///
    /// # Errors
    /// `Config` if the settings cannot be used.
    pub fn new(config: &RedisConfig) -> Result<Self, Error> {
        Self::with_scripts(config, Scripts::new())
    }

    /// For tests: a store whose time is the number of microseconds that the key
    /// `ratelimit:%virtual:now` holds.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "virtual-clock")]
    pub fn with_virtual_clock(config: &RedisConfig) -> Result<Self, Error> {
        Self::with_scripts(config, Scripts::with_virtual_clock())
    }

    fn with_scripts(config: &RedisConfig, scripts: Scripts) -> Result<Self, Error> {
        config.check_single("limits over it are ClusterStore's")?;
        let probe = Probe {
            script: script::probe(),
            keys: ProbeKeys::These(vec![format!("{}ratelimit:%probe", config.prefix)]),
            arguments: Vec::new(),
        };
        let (scripts, unheard) = (Arc::new(scripts), Arc::default());
        Ok(Self {
            batches: Batches::new(
                Pool::new(config, config.check_deadline, probe)?,
                Arc::clone(&scripts),
                floor(config.state_ttl),
                config.batches,
                Arc::clone(&unheard),
            ),
            scripts,
            issuer: config.issuer(),
            prefix: config.prefix.as_str().into(),
            warm_up: config.warm_up,
            unheard,
        })
    }

    /// Makes the pool's connections and loads the scripts, so that the first check is not slower than the others; 2 s at
    /// most. The store works without it.
    ///
    /// Also looks at the eviction policy, within the deadline of a check: an evicting Redis drops
    /// counters.
    ///
    /// # Errors
    /// What keeps Redis from being used; the store goes on trying at every check.
    pub async fn warm_up(&self) -> Result<(), Error> {
        warm_up(self.batches.pool(), &self.scripts, self.warm_up).await
    }

    /// How many charges were made of which nobody was told: the caller had left when the answer came, or its deadline was
    /// over (I-R2). Charges of which no answer came at all are not among them.
    pub fn unheard(&self) -> u64 {
        self.unheard.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl LimitStore for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        issuer == self.issuer
    }

    /// Always needs I/O.
    fn try_apply_now(
        &self,
        _group: &Group<'_>,
        _observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let end = begin(group, self.issuer, self.batches.pool().deadline())?;
        let call = Call::new(group, &self.prefix)?;
        let policy = group.steps()[0].policy.name();
        let told = self
            .batches
            .apply(policy, call, Place::default(), end)
            .await;
        let reply = told.map_err(|undone| undone.error)?;
        reply::read(&reply, group, self.issuer, observed)
    }

    async fn health(&self) -> Health {
        ping(self.batches.pool(), "limits are shared through").await
    }
}

/// When a group's call has to be over; an error if it is not to be begun here, or now.
pub(crate) fn begin(
    group: &Group<'_>,
    issuer: Issuer,
    deadline: Duration,
) -> Result<tokio::time::Instant, Error> {
    group.check_issuer(|asked| asked == issuer)?;
    group.check_deadline()?;
    let end = tokio::time::Instant::now() + deadline;
    Ok(group.deadline().map_or(end, |asked| asked.min(end)))
}

/// Connects and loads the scripts; then looks at the eviction policy.
pub(crate) async fn warm_up(pool: &Pool, scripts: &Scripts, within: Duration) -> Result<(), Error> {
    const WARM_UP: &str = "limit.warm_up";
    let end = tokio::time::Instant::now() + within;
    pool.fill(WARM_UP, end).await?;
    let load = |script: &Arc<Script>| {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        pool.call_within(left, WARM_UP, Request::Load(script.clone()))
    };
    load(scripts.plain()).await?;
    if let Some(giving) = scripts.giving() {
        match load(giving).await {
            Err(error) if is_unreadable(&error) => scripts.refuse_giving(),
            loaded => drop(loaded?),
        }
    }
    warn_if_it_evicts(pool).await;
    Ok(())
}

/// Logs an error if the server evicts keys. A server that does not tell is not asked again.
pub(crate) async fn warn_if_it_evicts(pool: &Pool) {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let memory = pool.call("limit.warm_up", Request::Command(info)).await;
    if let Ok(Some(policy)) = memory.map(|reply| eviction_policy(&reply))
        && policy != "noeviction"
    {
        tracing::error!(
            policy,
            host = pool.host(),
            "this Redis evicts keys when it is full, counters too: set maxmemory-policy noeviction, and give caches a Redis of their own with CACHE_REDIS_URL"
        );
    }
}

/// Whether the server answers, for the limits' pool and the caches'.
pub(crate) async fn ping(pool: &Pool, what: &str) -> Health {
    match pool.ping().await {
        Ok(latency) => {
            let message = format!("{what} Redis at {}", pool.host());
            Health::new("redis", true, Some(latency), message)
        }
        Err(error) => Health::new("redis", false, None, error.message().to_owned()),
    }
}

/// The eviction policy that INFO tells, if memory is limited at all.
fn eviction_policy(info: &Value) -> Option<String> {
    let text = match info {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::VerbatimString { text, .. } => text,
        _ => return None,
    };
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let limited = field("maxmemory").is_some_and(|bytes| bytes.trim() != "0");
    limited
        .then(|| field("maxmemory_policy").map(|policy| policy.trim().to_owned()))
        .flatten()
}
