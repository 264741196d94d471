//! A bb8 pool whose connections are shared: whoever sends something takes a connection, sends on its handle and gives it back at
//! once. The reply is awaited by a task of its own, so that a caller that leaves costs nobody anything. See `connection.rs` for
//! how connections are made.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bb8_redis::bb8;
use limiter_core::{Effect, Error, ErrorKind};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::RedisConfig;
use crate::connect::Connector;
use crate::connection::{Manager, Origin, Probe};
use crate::error::{breaks, from_redis};
use crate::keeper;
use crate::pulse::Pulse;
use crate::request::Request;

/// How many calls beside the batches may wait for their replies at once.
const CALLS: usize = 4_096;

/// A pool of connections to one server. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origin: Arc<Origin>,
    home: Mutex<Option<Home>>,
    /// Held by whoever tries whether a new connection has an answer where old ones have none.
    replacing: tokio::sync::Mutex<()>,
    calls: Arc<Semaphore>,
    pulse: Pulse,
    host: String,
    size: u32,
    deadline: Duration,
    slow: Duration,
    longest_wait: Duration,
}

/// The pool in the runtime that it lives in. It ends with that; another one is made then.
#[derive(Debug)]
struct Home {
    inner: bb8::Pool<Manager>,
    is_alive: Arc<AtomicBool>,
    keeper: AbortHandle,
}

/// A connection that may be sent on, as others may at the same time.
pub(crate) struct Lent {
    pub(crate) io: MultiplexedConnection,
    pub(crate) generation: u64,
}

impl Pool {
    /// A pool that connects when it is first used, in a tokio runtime.
    ///
    /// # Errors
    /// `Config` if the settings cannot be used.
    pub(crate) fn new(
        config: &RedisConfig,
        deadline: Duration,
        probe: Probe,
    ) -> Result<Self, Error> {
        // The library's own limit, a second to connect, is not a slow network's.
        let limit = deadline.max(config.connect_timeout);
        let connector = Connector::new(config)?;
        Ok(Self {
            shared: Arc::new(Shared {
                origin: Origin::new(connector, config.host(), limit, probe),
                home: Mutex::new(None),
                replacing: tokio::sync::Mutex::new(()),
                calls: Arc::new(Semaphore::new(CALLS)),
                pulse: Pulse::default(),
                host: config.host(),
                size: config.pool_size,
                deadline,
                slow: config.slow,
                longest_wait: limit + Duration::from_secs(1),
            }),
        })
    }

    pub(crate) fn host(&self) -> &str {
        &self.shared.host
    }

    /// How long a call may take, connecting included.
    pub(crate) fn deadline(&self) -> Duration {
        self.shared.deadline
    }

    /// The shortest round trip of those that connections began with; zero before the first.
    pub(crate) fn round_trip(&self) -> Duration {
        self.shared.origin.round_trip()
    }

    /// How many answers there were so far: while there are none, the server is at fault and not this process.
    pub(crate) fn answers(&self) -> u64 {
        self.shared.origin.answers()
    }

    /// Makes all connections, until `end`. The first error, if none can be made.
    pub(crate) async fn fill(&self, operation: &'static str, end: Instant) -> Result<(), Error> {
        let within = end.saturating_duration_since(Instant::now());
        match timeout_at(end, self.lend(operation)).await {
            Ok(lent) => drop(lent?),
            Err(_) => return Err(self.late(operation, Effect::No, "no connection", within)),
        }
        let size = usize::try_from(self.shared.size).unwrap_or(usize::MAX);
        let mut live = self.shared.origin.live();
        // The others are made in the background; that one is late is no reason to fail.
        let _ = timeout_at(end, live.wait_for(|live| *live >= size)).await;
        Ok(())
    }

    /// Sends one request and returns its reply, within the pool's deadline.
    pub(crate) async fn call(
        &self,
        operation: &'static str,
        request: Request,
    ) -> Result<Value, Error> {
        self.call_within(self.shared.deadline, operation, request)
            .await
    }

    pub(crate) async fn call_within(
        &self,
        deadline: Duration,
        operation: &'static str,
        request: Request,
    ) -> Result<Value, Error> {
        let start = Instant::now();
        let result = self
            .run(start + deadline, deadline, operation, request)
            .await;
        self.note_time(operation, start);
        result
    }

    /// Logs a call that took long.
    pub(crate) fn note_time(&self, operation: &'static str, start: Instant) {
        let elapsed = start.elapsed();
        if elapsed > self.shared.slow {
            let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(operation, millis, host = %self.shared.host, "slow Redis call");
        }
    }

    async fn run(
        &self,
        end: Instant,
        deadline: Duration,
        operation: &'static str,
        request: Request,
    ) -> Result<Value, Error> {
        let answers = self.answers();
        let permit = self.permit(end, deadline, operation, answers).await?;
        let lent = match timeout_at(end, self.lend(operation)).await {
            Ok(lent) => lent?,
            Err(_) => return Err(self.late(operation, Effect::No, "no connection", deadline)),
        };
        if Instant::now() >= end {
            return Err(self.late(operation, Effect::No, "no connection", deadline));
        }
        let pool = self.clone();
        let (generation, mut io) = (lent.generation, lent.io);
        let exchange = tokio::spawn(async move {
            let _permit = permit;
            let reply = request.send(&mut io);
            pool.exchange(generation, reply, || {}).await
        });
        match timeout_at(end, exchange).await {
            Err(_) => Err(self.late(operation, Effect::Unknown, "no answer", deadline)),
            Ok(Ok(reply)) => reply.map_err(|error| self.failed(operation, generation, error)),
            Ok(Err(_)) => Err(Error::new(
                ErrorKind::Connection,
                operation,
                format!(
                    "Redis at {}: the runtime has ended the call",
                    self.shared.host
                ),
            )
            .with_effect(Effect::Unknown)),
        }
    }

    async fn permit(
        &self,
        end: Instant,
        deadline: Duration,
        operation: &'static str,
        answers: u64,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let calls = &self.shared.calls;
        if let Ok(permit) = calls.clone().try_acquire_owned() {
            return Ok(permit);
        }
        // A server that answered nobody meanwhile is frozen: that is no overload.
        match timeout_at(end, calls.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ if self.answers() != answers => Err(self.saturated(operation)),
            _ => Err(self.late(
                operation,
                Effect::No,
                "no answer to earlier calls",
                deadline,
            )),
        }
    }

    /// A connection. While there is none at all, a failed attempt to make one is everybody's answer: nobody waits out the
    /// deadline for a server that refuses.
    pub(crate) async fn lend(&self, operation: &'static str) -> Result<Lent, Error> {
        let mut failures = self.shared.origin.failures();
        failures.mark_unchanged();
        let inner = self.inner();
        let failed = async {
            loop {
                if failures.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                let failure = failures.borrow_and_update().clone();
                if let Some((_, error)) = failure.filter(|_| inner.state().connections == 0) {
                    return error;
                }
            }
        };
        tokio::select! {
            biased;
            connection = inner.get() => match connection {
                Ok(connection) => Ok(Lent {
                    io: connection.io.clone(),
                    generation: connection.generation(),
                }),
                Err(bb8::RunError::User(error)) => Err(self.not_sent(operation, error)),
                Err(bb8::RunError::TimedOut) => Err(Error::new(
                    ErrorKind::Timeout,
                    operation,
                    format!("Redis at {}: no connection in time", self.shared.host),
                )),
            },
            error = failed => Err(self.not_sent(operation, error)),
        }
    }

    /// Waits for a reply for as long as it can come. After the deadline `stalled` is called; after another one it is tried
    /// whether a new connection has an answer: then this one has been forgotten on the way, with all others of its generation.
    pub(crate) async fn exchange<T>(
        &self,
        generation: u64,
        reply: impl Future<Output = Result<T, RedisError>>,
        stalled: impl FnOnce(),
    ) -> Result<T, RedisError> {
        let mut reply = pin!(reply);
        let first = match timeout(self.shared.deadline, &mut reply).await {
            Ok(reply) => reply,
            Err(_) => {
                stalled();
                tokio::select! {
                    biased;
                    reply = &mut reply => reply,
                    () = self.replaced(generation) => {
                        let what = "no answer, and a new connection has one: the network has forgotten this one";
                        return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, what).into());
                    }
                }
            }
        };
        if first
            .as_ref()
            .err()
            .is_none_or(|error| !error.is_io_error())
        {
            self.shared.origin.note_answer();
        }
        first
    }

    /// Ends when a new connection has an answer, or when others have found that out.
    async fn replaced(&self, generation: u64) {
        let mut pause = self.shared.deadline;
        loop {
            sleep(pause).await;
            let _alone = self.shared.replacing.lock().await;
            let origin = &self.shared.origin;
            if origin.generation() != generation {
                return;
            }
            if let Ok(connection) = origin.open_next(generation).await {
                // Without room for it there are others.
                let _ = self.inner().add(connection);
                return;
            }
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// What a call's error means. One that ends the use of its connection ends the generation: a failover.
    pub(crate) fn failed(
        &self,
        operation: &'static str,
        generation: u64,
        error: RedisError,
    ) -> Error {
        if breaks(&error) && !error.is_io_error() {
            self.shared.origin.condemn(generation);
        }
        from_redis(operation, &self.shared.host, error)
    }

    /// The error of a connection attempt: nothing was sent, whatever went wrong.
    pub(crate) fn not_sent(&self, operation: &'static str, error: RedisError) -> Error {
        from_redis(operation, &self.shared.host, error).with_effect(Effect::No)
    }

    pub(crate) fn late(
        &self,
        operation: &'static str,
        effect: Effect,
        what: &str,
        within: Duration,
    ) -> Error {
        let millis = within.as_micros().div_ceil(1_000);
        let message = format!("Redis at {}: {what} within {millis} ms", self.shared.host);
        Error::new(ErrorKind::Timeout, operation, message).with_effect(effect)
    }

    pub(crate) fn saturated(&self, operation: &'static str) -> Error {
        Error::new(
            ErrorKind::Saturated,
            operation,
            format!(
                "Redis at {}: this process asks for more than is answered within the deadline; ask less at once, or raise the deadline",
                self.shared.host
            ),
        )
    }

    /// How long the server takes to answer, as of a second ago at most; see `pulse.rs`.
    pub(crate) async fn ping(&self) -> Result<Duration, Error> {
        let shared = &self.shared;
        let answer = shared.pulse.ask(&shared.origin, shared.deadline).await;
        answer.map_err(|error| self.not_sent("redis.ping", error))
    }

    /// The pool in a runtime that is alive.
    fn inner(&self) -> bb8::Pool<Manager> {
        let mut home = self.shared.home.lock();
        let alive = home
            .as_ref()
            .filter(|home| home.is_alive.load(Ordering::Relaxed));
        if let Some(home) = alive {
            return home.inner.clone();
        }
        let inner = bb8::Pool::builder()
            .max_size(self.shared.size)
            .min_idle(self.shared.size)
            .idle_timeout(None)
            .max_lifetime(None)
            // Ours are the deadlines; this one, later, only bounds a wait that nobody is left to see.
            .connection_timeout(self.shared.longest_wait)
            .retry_connection(false)
            .test_on_check_out(true)
            .build_unchecked(Manager(self.shared.origin.clone()));
        let (is_alive, keeper) =
            keeper::start(inner.clone(), self.shared.origin.clone(), self.shared.size);
        *home = Some(Home {
            inner: inner.clone(),
            is_alive,
            keeper,
        });
        inner
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}
