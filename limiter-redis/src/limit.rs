//! Limits in Redis: one script call a group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, Observed, Quota, Source, Verdict,
};
use limiter_core::{Effect, Error, ErrorKind, Health};
use redis::{Script, Value};

use crate::config::RedisConfig;
use crate::pool::{Pool, Probe, Request};
use crate::script;

/// Counters in one Redis server, shared by every instance that uses it. Clones share the pool.
///
/// A group is one script call, so it is atomic, and its time is Redis's own. A call that may have
/// been sent is never sent again.
#[derive(Clone, Debug)]
pub struct RedisStore {
    pool: Pool,
    apply: Arc<Script>,
    prefix: Arc<str>,
    state_ttl_millis: u64,
    warm_up: Duration,
}

impl RedisStore {
    /// A store that connects when it is first used; see [`warm_up`](Self::warm_up). Must be called
    /// in a tokio runtime.
    ///
    /// # Errors
    /// `Config` if the settings cannot be used.
    pub fn new(config: &RedisConfig) -> Result<Self, Error> {
        Self::with_script(config, script::apply())
    }

    /// For tests: a store whose time is the number of microseconds that the key
    /// `ratelimit:%virtual:now` holds.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "virtual-clock")]
    pub fn with_virtual_clock(config: &RedisConfig) -> Result<Self, Error> {
        Self::with_script(config, script::apply_with_virtual_clock())
    }

    fn with_script(config: &RedisConfig, apply: Script) -> Result<Self, Error> {
        let probe = Probe {
            script: script::probe(),
            keys: vec![format!("{}ratelimit:%probe", config.prefix)],
            arguments: Vec::new(),
        };
        Ok(Self {
            pool: Pool::new(config, config.check_deadline, probe)?,
            apply: Arc::new(apply),
            prefix: config.prefix.as_str().into(),
            state_ttl_millis: u64::try_from(config.state_ttl.as_millis()).unwrap_or(u64::MAX),
            warm_up: config.warm_up,
        })
    }

    /// Connects and loads the script, so that the first check is not slower than the others; 2 s at
    /// most. The store works without it.
    ///
    /// Also looks at the eviction policy, within the deadline of a check: an evicting Redis drops
    /// counters.
    ///
    /// # Errors
    /// What keeps Redis from being used; the store goes on trying at every check.
    pub async fn warm_up(&self) -> Result<(), Error> {
        self.pool
            .call_within(self.warm_up, "limit.warm_up", Request::Load(&self.apply))
            .await?;
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let memory = self
            .pool
            .call("limit.warm_up", Request::Command(&info))
            .await;
        if let Ok(Some(policy)) = memory.map(|reply| eviction_policy(&reply))
            && policy != "noeviction"
        {
            tracing::error!(
                policy,
                host = self.pool.host(),
                "this Redis evicts keys when it is full, counters too: set maxmemory-policy noeviction, and give caches a Redis of their own with CACHE_REDIS_URL"
            );
        }
        Ok(())
    }
}

#[async_trait]
impl LimitStore for RedisStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
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
        let mut call = self.apply.prepare_invoke();
        let mut keys: Vec<&str> = Vec::with_capacity(group.steps().len());
        call.arg(self.state_ttl_millis)
            .arg(1)
            .arg(group.steps().len());
        for step in group.steps() {
            let key = step.key.as_str();
            let index = match keys.iter().position(|known| *known == key) {
                Some(index) => index,
                None => {
                    call.key(format!("{}{key}", self.prefix));
                    keys.push(key);
                    keys.len() - 1
                }
            };
            let (action, cost) = match step.action {
                Action::Charge { cost } => (0, cost),
                Action::Peek { cost } => (1, cost),
                Action::Reset => (2, 0),
                _ => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        OPERATION,
                        format!("Redis limits do not support {}", step.action.as_str()),
                    ));
                }
            };
            let (algorithm, numbers) = numbers(step.policy.quota())?;
            call.arg(index + 1)
                .arg(u8::from(step.policy.is_shadow()))
                .arg(action)
                .arg(algorithm)
                .arg(&numbers[..])
                .arg(cost.min(limiter_core::clock::MAX_INTEGER));
        }
        let reply = self.pool.call(OPERATION, Request::Script(&call)).await?;
        read(&reply, group, observed)
    }

    async fn health(&self) -> Health {
        ping(&self.pool, "limits are shared through").await
    }
}

const OPERATION: &str = "limit.apply";

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

/// An algorithm's number and four numbers, as `lua/main.lua` takes them.
fn numbers(quota: &Quota) -> Result<(u8, [u64; 4]), Error> {
    Ok(match quota {
        Quota::FixedWindow(quota) => (1, [quota.limit(), quota.window_millis(), 0, 0]),
        Quota::SlidingWindow(quota) => (
            2,
            [
                quota.limit(),
                quota.window().as_micros(),
                quota.unit_micros(),
                0,
            ],
        ),
        Quota::TokenBucket(quota) => {
            let (gain, token) = quota.fractions();
            (3, [quota.capacity(), gain, token, quota.unit_micros()])
        }
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                OPERATION,
                format!("Redis limits do not support {}", other.algorithm()),
            ));
        }
    })
}

/// Reads the reply of `lua/main.lua` to one group.
fn read(reply: &Value, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
    let Value::Array(parts) = reply else {
        return Err(not_understood());
    };
    let [Value::Int(unreadable), Value::Array(answer)] = parts.as_slice() else {
        return Err(not_understood());
    };
    if *unreadable > 0 {
        tracing::warn!(
            unreadable,
            policy = group.steps()[0].policy.name(),
            "values that are no state of this policy's algorithm were taken for fresh ones"
        );
    }
    let numbers: Vec<u64> = answer
        .iter()
        .map(|part| match part {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(not_understood)?;
    match numbers.as_slice() {
        [1, index] => Err(foreign(group, *index)),
        [0, steps @ ..] if steps.len() == 4 * observed.len() => {
            for (observed, step) in observed.iter_mut().zip(steps.chunks_exact(4)) {
                let verdict = match step[0] {
                    0 => Verdict::Admit,
                    1 => Verdict::Deny {
                        retry_after: Duration::from_micros(step[2]),
                    },
                    2 => Verdict::Never,
                    _ => return Err(not_understood()),
                };
                let reset_after = Duration::from_micros(step[3]);
                *observed = Observed::new(verdict, step[1], reset_after, Source::Store);
            }
            Ok(())
        }
        _ => Err(not_understood()),
    }
}

fn foreign(group: &Group<'_>, index: u64) -> Error {
    let key = usize::try_from(index)
        .ok()
        .and_then(|index| group.steps().get(index))
        .map_or("a key", |step| step.key.as_str());
    Error::new(
        ErrorKind::Foreign,
        OPERATION,
        format!("{key} holds a value of another type and was left alone; rename or delete it"),
    )
}

fn not_understood() -> Error {
    Error::new(
        ErrorKind::Protocol,
        OPERATION,
        "the script's reply was not understood",
    )
    .with_effect(Effect::Unknown)
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
