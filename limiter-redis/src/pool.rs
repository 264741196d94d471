//! Connections: a bb8 pool whose manager checks a connection's role and rights when it is made, and
//! whose calls have one deadline, connecting included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bb8::ManageConnection;
use bb8_redis::RedisConnectionManager;
use limiter_core::{Effect, Error, ErrorKind};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisError, Script, ScriptInvocation, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config::RedisConfig;
use crate::error::{breaks, from_redis, server_error};

/// How often a connection in use is asked for its role again.
const ROLE_PERIOD: Duration = Duration::from_secs(30);

/// A connection that was idle for longer is asked first: the server or the network between may have
/// ended it, and a charge should not be what finds out.
const IDLE: Duration = Duration::from_secs(1);

/// How long a failed attempt to connect answers for the next ones, so that a server that comes back
/// is not met by a storm.
const CONNECT_GAP: Duration = Duration::from_millis(50);

/// The last failed attempt to connect, and when it was.
type Failure = Option<(Instant, RedisError)>;

/// A pool of connections to one server.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    inner: bb8::Pool<Manager>,
    failures: watch::Receiver<Failure>,
    generation: Arc<AtomicU64>,
    host: String,
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

/// A script to run, and keys to run it on, when a connection is made.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) script: Script,
    pub(crate) keys: ProbeKeys,
    pub(crate) arguments: Vec<String>,
}

#[derive(Clone)]
pub(crate) enum ProbeKeys {
    These(Vec<String>),
    /// One that stands on this node of a cluster now, if there is one.
    OfNode(Arc<dyn Fn() -> Option<String> + Send + Sync>),
}

impl Pool {
    /// A pool that connects when it is first used. Must be called in a tokio runtime.
    pub(crate) fn new(
        config: &RedisConfig,
        deadline: Duration,
        probe: Probe,
    ) -> Result<Self, Error> {
        if config.uses_tls() && rustls::crypto::CryptoProvider::get_default().is_none() {
            // Lost only to another thread that has just installed one.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let (failed, failures) = watch::channel(None);
        let generation = Arc::new(AtomicU64::new(0));
        let manager = Manager {
            inner: RedisConnectionManager::new(config.connection.clone())
                .map_err(|error| from_redis("redis.connect", &config.host(), error))?,
            host: config.host(),
            probe,
            response_timeout: deadline.max(config.warm_up),
            failed,
            generation: generation.clone(),
        };
        let inner = bb8::Pool::builder()
            .max_size(config.pool_size)
            // Ours is the deadline; this one only bounds a wait that nobody is left to see.
            .connection_timeout(deadline.max(config.warm_up))
            .retry_connection(false)
            .test_on_check_out(true)
            .build_unchecked(manager);
        Ok(Self {
            inner,
            failures,
            generation,
            host: config.host(),
            deadline,
            slow: config.slow,
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
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
        let start = Instant::now();
        let end = start + deadline;
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
            let millis = deadline.as_millis();
            Error::new(
                ErrorKind::Timeout,
                operation,
                format!("Redis at {}: {what} within {millis} ms", self.host),
            )
            .with_effect(effect)
        };
        let mut connection = match timeout_at(end, self.connection(operation)).await {
            Ok(connection) => connection?,
            Err(_) => return Err(late(Effect::No, "no connection")),
        };
        // Until a reply is here the connection is not to be used again: it may be stalled, and this
        // future may be dropped at any point.
        connection.broken = true;
        let reply = timeout_at(end, request.send(&mut connection.io))
            .await
            .map_err(|_| late(Effect::Unknown, "no answer"))?;
        connection.broken = false;
        connection.used = Instant::now();
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
                    format!("Redis at {}: every connection is busy", self.host),
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

pub(crate) struct Manager {
    inner: RedisConnectionManager,
    host: String,
    probe: Probe,
    response_timeout: Duration,
    failed: watch::Sender<Failure>,
    /// Counted up by the I/O itself when it finds a connection broken (an error, a server that became
    /// a replica); connections of an older generation are not used again.
    generation: Arc<AtomicU64>,
}

pub(crate) struct Connection {
    io: MultiplexedConnection,
    generation: u64,
    /// A call on it was given up before there was an answer.
    broken: bool,
    used: Instant,
    role_checked: Instant,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = RedisError;

    async fn connect(&self) -> Result<Connection, RedisError> {
        let last = self.failed.borrow().clone();
        if let Some((at, error)) = last.filter(|(at, _)| at.elapsed() < CONNECT_GAP) {
            self.failed.send_replace(Some((at, error.clone())));
            return Err(error);
        }
        let result = self.open().await;
        match &result {
            Ok(_) => tracing::info!(host = %self.host, "connected to Redis"),
            Err(error) => {
                tracing::warn!(host = %self.host, %error, "cannot connect to Redis");
                let failure = (Instant::now(), error.clone());
                self.failed.send_replace(Some(failure));
            }
        }
        result
    }

    /// No PING per checkout: on a connection in use, what a PING finds, the call itself finds.
    async fn is_valid(&self, connection: &mut Connection) -> Result<(), RedisError> {
        if self.is_stale(connection) {
            return Err((
                redis::ErrorKind::Io,
                "the connection is of an older generation",
            )
                .into());
        }
        let idle = connection.used.elapsed() > IDLE;
        if !idle && connection.role_checked.elapsed() < ROLE_PERIOD {
            return Ok(());
        }
        // The pool takes the connection back if this future is dropped before there is an answer.
        connection.broken = true;
        check_role(&mut connection.io).await?;
        connection.broken = false;
        connection.role_checked = Instant::now();
        Ok(())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.broken || self.is_stale(connection)
    }
}

impl Manager {
    fn is_stale(&self, connection: &Connection) -> bool {
        connection.generation != self.generation.load(Ordering::Relaxed)
    }

    async fn open(&self) -> Result<Connection, RedisError> {
        let generation = self.generation.load(Ordering::Relaxed);
        let mut io = self.inner.connect().await?;
        io.set_response_timeout(self.response_timeout);
        check_role(&mut io).await?;
        self.try_rights(&mut io).await?;
        Ok(Connection {
            io,
            generation,
            broken: false,
            used: Instant::now(),
            role_checked: Instant::now(),
        })
    }

    /// Runs the probe. A key that has just moved to another node of a cluster tells nothing, and the
    /// connection is as good as the last one.
    async fn try_rights(&self, io: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut probe = self.probe.script.prepare_invoke();
        match &self.probe.keys {
            ProbeKeys::These(keys) => {
                for key in keys {
                    probe.key(key);
                }
            }
            ProbeKeys::OfNode(key) => {
                // Needed while a slot moves, which is late to find out.
                redis::cmd("ASKING").exec_async(io).await?;
                match key() {
                    Some(key) => probe.key(key),
                    None => return Ok(()),
                };
            }
        }
        for argument in &self.probe.arguments {
            probe.arg(argument);
        }
        let Err(error) = probe.invoke_async::<()>(io).await else {
            return Ok(());
        };
        use ServerErrorKind::{Ask, ClusterDown, Moved, TryAgain};
        match (&self.probe.keys, server_error(&error)) {
            (ProbeKeys::OfNode(_), Some((Ask | ClusterDown | Moved | TryAgain, _))) => Ok(()),
            _ => Err(error),
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    matches!(server_error(error), Some((ServerErrorKind::NoScript, _)))
}

/// Refuses a replica: it answers reads and fails every charge.
async fn check_role(io: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let reply: Value = match redis::cmd("ROLE").query_async(io).await {
        Ok(reply) => reply,
        // A hosted Redis may not offer ROLE. Then the first write tells.
        Err(error) if !breaks(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let role = match &reply {
        Value::Array(parts) => parts.first().cloned(),
        _ => None,
    };
    match role {
        Some(Value::BulkString(role)) if role == b"slave" => {
            let kind = redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly);
            Err((kind, "the server is a replica").into())
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
