//! A bb8 pool whose calls have one deadline, connecting included. See `connection.rs` for how its
//! connections are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bb8_redis::bb8;
use limiter_core::{Effect, Error, ErrorKind};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Script, ScriptInvocation, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::RedisConfig;
use crate::connect::Connector;
use crate::connection::{Failure, Manager, Probe};
use crate::error::{breaks, from_redis, server_error};

/// A pool of connections to one server.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    inner: bb8::Pool<Manager>,
    failures: watch::Receiver<Failure>,
    generation: Arc<AtomicU64>,
    /// How many answers there were: while there are none, the server is at fault and not this process.
    answers: Arc<AtomicU64>,
    host: String,
    size: u32,
    deadline: Duration,
    slow: Duration,
}

/// What is sent in one call.
pub(crate) enum Request<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline),
    /// By its hash; loaded and sent again if the server does not know it, which is safe because it
    /// did not run.
    Script(&'a ScriptInvocation<'a>),
    /// The same, to a node that is getting the keys' slot.
    Asking(&'a ScriptInvocation<'a>),
    /// Only loads it.
    Load(&'a Script),
}

impl Pool {
    /// A pool that connects when it is first used. Must be called in a tokio runtime.
    pub(crate) fn new(
        config: &RedisConfig,
        deadline: Duration,
        probe: Probe,
    ) -> Result<Self, Error> {
        let (failed, failures) = watch::channel(None);
        let generation = Arc::new(AtomicU64::new(0));
        let manager = Manager {
            // The library's own limits, a second to connect and half of one for a reply, are not a slow network's.
            connector: Connector::new(config, deadline.max(config.warm_up))?,
            host: config.host(),
            probe,
            failed,
            generation: generation.clone(),
        };
        let inner = bb8::Pool::builder()
            .max_size(config.pool_size)
            // Ours is the deadline; this one, later, only bounds a wait that nobody is left to see.
            .connection_timeout(deadline.max(config.warm_up) + Duration::from_secs(1))
            .retry_connection(false)
            .test_on_check_out(true)
            .build_unchecked(manager);
        Ok(Self {
            inner,
            failures,
            generation,
            answers: Arc::default(),
            host: config.host(),
            size: config.pool_size,
            deadline,
            slow: config.slow,
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// How long a call may take, connecting included.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Sends one request and returns its reply, within the pool's deadline.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        request: Request<'_>,
    ) -> Result<Value, Error> {
        self.call_within(self.deadline, operation, request).await
    }

    pub(crate) async fn call_within(
        &self,
        deadline: Duration,
        operation: &'static str,
        request: Request<'_>,
    ) -> Result<Value, Error> {
        self.call_until(Instant::now() + deadline, operation, request)
            .await
    }

    /// The same, until `end`.
    pub(crate) async fn call_until(
        &self,
        end: Instant,
        operation: &'static str,
        request: Request<'_>,
    ) -> Result<Value, Error> {
        let start = Instant::now();
        let deadline = end.saturating_duration_since(start);
        let result = self.run(end, deadline, operation, request).await;
        let elapsed = start.elapsed();
        if elapsed > self.slow {
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(operation, millis, host = %self.host, "slow Redis call");
        }
        result
    }

    async fn run(
        &self,
        end: Instant,
        deadline: Duration,
        operation: &'static str,
        request: Request<'_>,
    ) -> Result<Value, Error> {
        let late = |effect, what| {
            let millis = deadline.as_micros().div_ceil(1_000);
            Error::new(
                ErrorKind::Timeout,
                operation,
                format!("Redis at {}: {what} within {millis} ms", self.host),
            )
            .with_effect(effect)
        };
        let answers = self.answers.load(Ordering::Relaxed);
        let mut connection = match timeout_at(end, self.connection(operation)).await {
            Ok(connection) => connection?,
            // A server that answered nobody meanwhile is frozen: that is no lack of connections.
            Err(_) if self.is_saturated() && self.answers.load(Ordering::Relaxed) != answers => {
                return Err(self.saturated(operation));
            }
            Err(_) => return Err(late(Effect::No, "no connection")),
        };
        if Instant::now() >= end {
            return Err(late(Effect::No, "no connection"));
        }
        // Until a reply is here the connection is not to be used again: it may be stalled, and this
        // future may be dropped at any point.
        connection.broken = true;
        let reply = timeout_at(end, request.send(&mut connection.io))
            .await
            .map_err(|_| late(Effect::Unknown, "no answer"))?;
        connection.broken = false;
        connection.used = Instant::now();
        self.answers.fetch_add(1, Ordering::Relaxed);
        reply.map_err(|error| {
            if breaks(&error) {
                // What ended this connection ended its generation: a restart, a failover. Lost only to
                // a call that has found that out already.
                let old = connection.generation;
                let next = old.wrapping_add(1);
                let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
                let _ = self.generation.compare_exchange(old, next, set, fetch);
            }
            from_redis(operation, &self.host, error)
        })
    }

    /// Whether calls of this process have every connection that it may open.
    fn is_saturated(&self) -> bool {
        let state = self.inner.state();
        state.connections >= self.size && state.idle_connections == 0
    }

    fn saturated(&self, operation: &'static str) -> Error {
        Error::new(
            ErrorKind::Saturated,
            operation,
            format!(
                "Redis at {}: this process has all of its {} connections in use; raise the pool size, or ask less at once",
                self.host, self.size
            ),
        )
    }

    /// A connection from the pool. While there is none at all, a failed attempt to make one is
    /// everybody's answer: nobody waits out the deadline for a server that refuses.
    async fn connection(
        &self,
        operation: &'static str,
    ) -> Result<bb8::PooledConnection<'_, Manager>, Error> {
        let mut failures = self.failures.clone();
        failures.mark_unchanged();
        let failed = async {
            loop {
                if failures.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let failure = failures.borrow_and_update().clone();
                if let Some((_, error)) = failure.filter(|_| self.inner.state().connections == 0) {
                    return error;
                }
            }
        };
        tokio::select! {
            biased;
            connection = self.inner.get() => connection.map_err(|error| match error {
                bb8::RunError::User(error) => not_sent(operation, &self.host, error),
                bb8::RunError::TimedOut => Error::new(
                    ErrorKind::Timeout,
                    operation,
                    format!("Redis at {}: no connection in time", self.host),
                ),
            }),
            error = failed => Err(not_sent(operation, &self.host, error)),
        }
    }
}

/// The error of a connection attempt: nothing was sent, whatever went wrong.
fn not_sent(operation: &'static str, host: &str, error: RedisError) -> Error {
    from_redis(operation, host, error).with_effect(Effect::No)
}

impl Request<'_> {
    async fn send(&self, io: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::Command(command) => command.query_async(io).await,
            Self::Pipeline(pipeline) => pipeline.query_async(io).await,
            Self::Script(script) => script.invoke_async(io).await,
            Self::Asking(script) => {
                // In one write on one connection: the server forgets the first at the next command.
                let mut pipeline = redis::pipe();
                pipeline.cmd("ASKING").ignore().invoke_script(script);
                let sent: Result<(Value,), RedisError> = pipeline.query_async(io).await;
                let sent = match sent {
                    Err(error) if is_unknown_script(&error) => {
                        script.load_async(io).await?;
                        pipeline.query_async(io).await
                    }
                    sent => sent,
                };
                sent.map(|(reply,)| reply)
            }
            Self::Load(script) => script.load_async(io).await.map(|_| Value::Okay),
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    matches!(server_error(error), Some((ServerErrorKind::NoScript, _)))
}
