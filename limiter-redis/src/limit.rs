//! Limits in Redis: one script call a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed};
use limiter_core::{Error, Health};
use redis::{Script, Value};

use crate::call::{Call, OPERATION};
use crate::config::RedisConfig;
use crate::connection::{Probe, ProbeKeys};
use crate::pool::{Pool, Request};
use crate::reply;
use crate::script::{self, Scripts};

/// Counters in one Redis server, shared by every instance that uses it. Clones share the pool.
///
/// A group is one script call, so it is atomic, and its time is Redis's own. A call that may have
/// been sent is never sent again.
#[derive(Clone, Debug)]
pub struct RedisStore {
    pool: Pool,
    scripts: Arc<Scripts>,
    issuer: Issuer,
    prefix: Arc<str>,
    state_ttl: Duration,
    warm_up: Duration,
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
        Ok(Self {
            pool: Pool::new(config, config.check_deadline, probe)?,
            scripts: Arc::new(scripts),
            issuer: config.issuer(),
            prefix: config.prefix.as_str().into(),
            state_ttl: config.state_ttl,
            warm_up: config.warm_up,
        })
    }

    /// Connects and loads the scripts, so that the first check is not slower than the others; 2 s at
    /// most. The store works without it.
    ///
    /// Also looks at the eviction policy, within the deadline of a check: an evicting Redis drops
    /// counters.
    ///
    /// # Errors
    /// What keeps Redis from being used; the store goes on trying at every check.
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.pool
            .call_within(
                self.warm_up,
                "limit.warm_up",
                Request::Load(self.scripts.plain()),
            )
            .await?;
        if let Some(giving) = self.scripts.giving() {
            let load = Request::Load(giving);
            let loaded = self.pool.call_within(self.warm_up, "limit.warm_up", load);
            let loaded = loaded.await;
            if !self.scripts.is_refused(giving, &loaded) {
                loaded?;
            }
        }
        warn_if_it_evicts(&self.pool).await;
        Ok(())
    }
}

impl RedisStore {
    async fn send(
        &self,
        call: &Call,
        script: &Script,
        end: tokio::time::Instant,
    ) -> Result<Value, Error> {
        let invocation = call.invoke(script);
        let request = Request::Script(&invocation);
        self.pool.call_until(end, OPERATION, request).await
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
        let end = begin(group, self.issuer, self.pool.deadline())?;
        let call = Call::new(group, &self.prefix, self.state_ttl)?;
        let script = self.scripts.of(group);
        let mut reply = self.send(&call, script, end).await;
        if self.scripts.is_refused(script, &reply) {
            reply = self.send(&call, self.scripts.plain(), end).await;
        }
        reply::read(&reply?, group, self.issuer, observed)
    }

    async fn health(&self) -> Health {
        ping(&self.pool, "limits are shared through").await
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

/// Logs an error if the server evicts keys. A server that does not tell is not asked again.
pub(crate) async fn warn_if_it_evicts(pool: &Pool) {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let memory = pool.call("limit.warm_up", Request::Command(&info)).await;
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

/// PING, for the limits' pool and the caches'.
pub(crate) async fn ping(pool: &Pool, what: &str) -> Health {
    let start = Instant::now();
    let answer = pool
        .call("redis.ping", Request::Command(&redis::cmd("PING")))
        .await;
    match answer {
        Ok(_) => Health::new(
            "redis",
            true,
            Some(start.elapsed()),
            format!("{what} Redis at {}", pool.host()),
        ),
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
