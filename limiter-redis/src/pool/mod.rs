//! A bb8 pool whose connections are shared: whoever sends something takes a connection, sends on its handle and gives it back at
//! once. The reply is awaited by a task of its own, so that a caller that leaves costs nobody anything.
//!
//! - `connection`: how connections are made; `role` and `probe`: how they are tried. `keeper`: keeps them while nobody uses them. `pulse`: the ping of health. `look`: what a
//!   server tells of itself.
//! - `request`: what is sent in a call of its own, beside the batches.

mod keeper;
mod pulse;

pub(crate) mod connection;
pub(crate) mod counts;
pub(crate) mod look;
pub(crate) mod probe;
pub(crate) mod request;
mod role;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::bb8;
use limiter_core::{Effect, Error, ErrorKind, LogLimit, ServerInfo};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::connection::{Life, Manager, Origin};
use self::counts::Counts;
use self::look::{Seen, Server, look};
use self::probe::Probe;
use self::pulse::{AGE, Pulse};
use self::request::Request;
use crate::config::RedisConfig;
use crate::connect::Connector;
use crate::error::{breaks, from_redis};
use crate::runtime::PerRuntime;

/// How many calls beside the batches may wait for their replies at once.
const CALLS: usize = 4_096;

/// So many bytes of a call count as one more.
const UNIT: usize = 64 * 1_024;

/// A pool of connections to one server. Clones share it.
#[derive(Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Arc<Connector>,
    probe: Probe,
    homes: PerRuntime<Arc<Home>>,
    host: String,
    size: u32,
    deadline: Duration,
    slow: Duration,
    slow_log: LogLimit,
    /// For a connection to be made.
    limit: Duration,
    seen: Seen,
    keeps: Keeps,
    counts: Counts,
}

/// What a server is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Counters, which must not be evicted.
    Counters,
    /// Cached values.
    Values,
}

/// What a runtime has.
struct Home {
    origin: Arc<Origin>,
    inner: bb8::Pool<Manager>,
    keeper: AbortHandle,
    looker: AbortHandle,
    /// Held by whoever tries whether a new connection has an answer where old ones have none.
    replacing: tokio::sync::Mutex<()>,
    calls: Arc<Semaphore>,
    pulse: Pulse,
}

/// A connection that may be sent on, as others may at the same time.
pub(crate) struct Lent {
    pub(crate) io: MultiplexedConnection,
    pub(crate) life: Arc<Life>,
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
        keeps: Keeps,
    ) -> Result<Self, Error> {
        // The library's own limit, a second to connect, is not a slow network's.
        let limit = deadline.max(config.connect_timeout);
        Ok(Self {
            shared: Arc::new(Shared {
                connector: Arc::new(Connector::new(config)?),
                probe,
                homes: PerRuntime::new(),
                host: config.host(),
                size: config.pool_size,
                deadline,
                slow: config.slow,
                slow_log: LogLimit::default(),
                limit,
                seen: Seen::default(),
                keeps,
                counts: Counts::default(),
            }),
        })
    }

    /// Notes what the server tells of itself.
    pub(crate) fn note_server(&self, server: Server) {
        let shared = &self.shared;
        shared.seen.note(&shared.host, server, shared.keeps);
    }

    /// What the server told of itself last.
    pub(crate) fn server(&self) -> Option<ServerInfo> {
        self.shared.seen.info()
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
        self.home().origin.round_trip()
    }

    /// What is counted of the calls.
    pub(crate) fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    /// What is known of the connections of this runtime.
    pub(crate) fn origin(&self) -> Arc<Origin> {
        self.home().origin.clone()
    }

    /// How many answers there were so far: while there are none, the server is at fault and not this process.
    pub(crate) fn answers(&self) -> u64 {
        self.home().origin.answers()
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        *self.home().origin.live().borrow() > 0
    }

    /// Makes all connections, until `end`. The first error, if none can be made.
    pub(crate) async fn fill(&self, operation: &'static str, end: Instant) -> Result<(), Error> {
        let within = end.saturating_duration_since(Instant::now());
        match timeout_at(end, self.lend(operation)).await {
            Ok(lent) => drop(lent?),
            Err(_) => return Err(self.late(operation, Effect::No, "no connection", within)),
        }
        let size = usize::try_from(self.shared.size).unwrap_or(usize::MAX);
        let mut live = self.home().origin.live();
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
        self.note_end(operation, start.elapsed(), result.as_ref().err());
        result
    }

    async fn run(
        &self,
        end: Instant,
        deadline: Duration,
        operation: &'static str,
        request: Request,
    ) -> Result<Value, Error> {
        let permit = self.permit(end, deadline, operation, &request).await?;
        let lent = match timeout_at(end, self.lend(operation)).await {
            Ok(lent) => lent?,
            Err(_) => return Err(self.late(operation, Effect::No, "no connection", deadline)),
        };
        if Instant::now() >= end {
            return Err(self.late(operation, Effect::No, "no connection", deadline));
        }
        self.shared.counts.note_sent(request.commands());
        let pool = self.clone();
        let Lent { mut io, life } = lent;
        let generation = life.generation();
        let exchange = tokio::spawn(async move {
            let _permit = permit;
            let reply = request.send(&mut io);
            pool.exchange(&life, reply, || {}).await
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
        request: &Request,
    ) -> Result<OwnedSemaphorePermit, Error> {
        let calls = self.home().calls.clone();
        let answers = self.answers();
        // What is sent stays in memory until there is a reply.
        let size = request.size() / UNIT + 1;
        let size = u32::try_from(size.min(CALLS)).unwrap_or(u32::MAX);
        if let Ok(permit) = calls.clone().try_acquire_many_owned(size) {
            return Ok(permit);
        }
        // A server that answered nobody meanwhile is frozen: that is no overload.
        match timeout_at(end, calls.acquire_many_owned(size)).await {
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
        let home = self.home();
        let mut failures = home.origin.failures();
        failures.mark_unchanged();
        let inner = &home.inner;
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
                    life: connection.life().clone(),
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

    /// Waits for a reply for as long as it can come. After the deadline `stalled` is called. When nothing at all came on the
    /// connection for another one, it is tried whether a new connection has an answer: then this one has been forgotten on the
    /// way, with all others of its generation.
    pub(crate) async fn exchange<T>(
        &self,
        life: &Life,
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
                    () = self.replaced(life) => {
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
            life.note_reply();
        }
        first
    }

    /// Ends when a new connection has an answer and this one has none, or when others have found that out.
    async fn replaced(&self, life: &Life) {
        let home = self.home();
        let (origin, generation) = (&home.origin, life.generation());
        let mut pause = self.shared.deadline;
        loop {
            let replies = life.replies();
            sleep(pause).await;
            if life.replies() != replies {
                // Slow, and not forgotten.
                continue;
            }
            let _alone = home.replacing.lock().await;
            if life.replies() != replies {
                continue;
            }
            if origin.generation() != generation {
                return;
            }
            if origin.has_tried(pause) {
                continue;
            }
            let next = origin.try_next(generation).await;
            if life.replies() != replies {
                continue;
            }
            if let Ok(next) = next {
                origin.replace(generation, next);
                return;
            }
            pause = (pause * 2).min(Duration::from_secs(1).max(self.shared.deadline));
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
            self.home().origin.condemn(generation);
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
        let home = self.home();
        let ask = home.pulse.ask(&home.origin, self.shared.deadline, AGE);
        ask.await
            .map_err(|error| self.not_sent("redis.ping", error))
    }

    /// Whether the server answers, now: on a connection that there is, or else on a new one.
    pub(crate) async fn knock(&self) -> bool {
        const OPERATION: &str = "redis.ping";
        let within = self.shared.deadline;
        if self.is_connected() {
            let ping = Request::Command(redis::cmd("PING"));
            let answer = self.run(Instant::now() + within, within, OPERATION, ping);
            return answer.await.is_ok();
        }
        let home = self.home();
        let ask = home.pulse.ask(&home.origin, within, Duration::ZERO);
        ask.await.is_ok()
    }

    /// What this runtime has.
    fn home(&self) -> Arc<Home> {
        self.shared.homes.here(|| {
            let shared = &self.shared;
            let (connector, host) = (shared.connector.clone(), shared.host.clone());
            let origin = Origin::new(connector, host, shared.limit, shared.probe.clone());
            let inner = bb8::Pool::builder()
                .max_size(shared.size)
                .min_idle(shared.size)
                .idle_timeout(None)
                .max_lifetime(None)
                // Ours are the deadlines; this one, later, only bounds a wait that nobody is left to see.
                .connection_timeout(shared.limit + Duration::from_secs(1))
                .retry_connection(false)
                .test_on_check_out(true)
                .build_unchecked(Manager(origin.clone()));
            Arc::new(Home {
                keeper: keeper::start(inner.clone(), origin.clone(), shared.size),
                looker: {
                    let (host, seen) = (shared.host.clone(), shared.seen.clone());
                    let look = look(inner.clone(), origin.clone(), host, seen, shared.keeps);
                    tokio::spawn(look).abort_handle()
                },
                origin,
                inner,
                replacing: tokio::sync::Mutex::new(()),
                calls: Arc::new(Semaphore::new(CALLS)),
                pulse: Pulse::default(),
            })
        })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.keeper.abort();
        self.looker.abort();
        self.origin.drop_spare();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("host", &self.shared.host)
            .finish_non_exhaustive()
    }
}
