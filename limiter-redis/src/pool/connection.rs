//! One connection: made, its role and rights tried; and whether it may still be used.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bb8_redis::bb8::ManageConnection;
use parking_lot::Mutex;
use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Semaphore, watch};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout};

use crate::cluster::Address;
use crate::connect::{Connected, Connector};
use crate::error::without_arguments;
use crate::pool::probe::Probe;
use crate::pool::role::check_role;

/// How long a failed attempt to connect answers for the next ones, so that a server that comes back
/// is not met by a storm; twice as long each time, up to [`LONG_GAP`].
const CONNECT_GAP: Duration = Duration::from_millis(50);

/// The same at most, and while there are connections that work.
pub(super) const LONG_GAP: Duration = Duration::from_secs(1);

/// How many connections a pool makes at once.
const AT_ONCE: usize = 2;

/// A connection that nobody waits for is made within so long, so that the instances that lost theirs together do not come back
/// together.
const SPREAD: Duration = Duration::from_millis(500);

/// The last failed attempt to connect, and when it was.
pub(crate) type Failure = Option<(Instant, RedisError)>;

/// Where a pool's connections come from, and what is known of all of them.
pub(crate) struct Origin {
    connector: Arc<Connector>,
    host: String,
    /// For a connection to be made and tried.
    limit: Duration,
    probe: Probe,
    /// The generation whose rights were tried, and one.
    probed: AtomicU64,
    failed: watch::Sender<Failure>,
    /// How many attempts to connect have failed in a row.
    failures: AtomicU32,
    /// When the last attempt began.
    tried: Mutex<Option<Instant>>,
    /// The server that a generation's connections are to, if sentinels said so.
    primary: Mutex<Option<(u64, Address)>>,
    /// Counted up when all connections are found to be of no use (a server that became a replica, a network that forgot them);
    /// those of an older generation are not used again.
    generation: AtomicU64,
    /// How many connections of this generation the pool has.
    live: watch::Sender<usize>,
    /// How often there were none before there was one.
    beginnings: AtomicU64,
    /// A connection that was made to see whether one can be had, for the pool's next one.
    spare: Mutex<Option<Connection>>,
    /// Whether the pool ever lost one.
    has_lost: AtomicBool,
    /// How many answers there were.
    answers: AtomicU64,
    /// The shortest round trip, in microseconds.
    round_trip: AtomicU64,
    making: Semaphore,
}

/// Whether a connection has ended: its task, with the runtime perhaps.
pub(crate) struct Life {
    generation: u64,
    has_ended: AtomicBool,
    /// How many replies came on it.
    replies: AtomicU64,
    is_counted: AtomicBool,
    /// The server that it is to, if sentinels said so.
    primary: Option<Address>,
    origin: Arc<Origin>,
}

/// What bb8 keeps; used by clones of its handle, by many at once.
pub(crate) struct Connection {
    pub(crate) io: MultiplexedConnection,
    life: Arc<Life>,
}

/// What the pool makes connections with.
pub(crate) struct Manager(pub(crate) Arc<Origin>);

impl Origin {
    pub(crate) fn new(
        connector: Arc<Connector>,
        host: String,
        limit: Duration,
        probe: Probe,
    ) -> Arc<Self> {
        Arc::new(Self {
            connector,
            host,
            limit,
            probe,
            probed: AtomicU64::new(0),
            failed: watch::Sender::new(None),
            failures: AtomicU32::new(0),
            tried: Mutex::new(None),
            primary: Mutex::new(None),
            generation: AtomicU64::new(0),
            live: watch::Sender::new(0),
            beginnings: AtomicU64::new(0),
            spare: Mutex::new(None),
            has_lost: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            round_trip: AtomicU64::new(u64::MAX),
            making: Semaphore::new(AT_ONCE),
        })
    }

    /// A connection in reserve would keep this alive, and be kept by it.
    pub(crate) fn drop_spare(&self) {
        let spare = self.spare.lock().take();
        drop(spare);
    }

    pub(crate) fn failures(&self) -> watch::Receiver<Failure> {
        self.failed.subscribe()
    }

    pub(crate) fn live(&self) -> watch::Receiver<usize> {
        self.live.subscribe()
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// Ends a generation. Lost only to a call that has found that out already.
    pub(crate) fn condemn(&self, old: u64) {
        let next = old.wrapping_add(1);
        // Together with the count, which is of one generation.
        let is_ended = self.live.send_if_modified(|live| {
            let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
            let generation = &self.generation;
            let is_ended = generation.compare_exchange(old, next, set, fetch).is_ok();
            if is_ended {
                *live = 0;
            }
            is_ended
        });
        if is_ended {
            self.has_lost.store(true, Ordering::Relaxed);
            tracing::info!(host = %self.host, "the connections to Redis are replaced");
        }
    }

    /// Changes when there are connections again after there were none: perhaps of another server.
    pub(crate) fn beginnings(&self) -> u64 {
        self.beginnings.load(Ordering::Relaxed)
    }

    /// The shortest one that was seen; zero before the first.
    pub(crate) fn round_trip(&self) -> Duration {
        match self.round_trip.load(Ordering::Relaxed) {
            u64::MAX => Duration::ZERO,
            micros => Duration::from_micros(micros),
        }
    }

    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// A connection that works, with its role and rights tried. It is not the pool's. The first of several failures is logged, once there were connections.
    pub(crate) async fn open(self: &Arc<Self>) -> Result<Connection, RedisError> {
        let generation = self.generation();
        let made = timeout(self.limit, self.made(generation)).await;
        let result = made.map_err(late).and_then(|made| made);
        let result = result.map_err(without_arguments);
        match &result {
            Ok(_) => {
                // What failed before says nothing any more.
                self.failures.store(0, Ordering::Relaxed);
                self.failed.send_if_modified(|failure| {
                    *failure = None;
                    false
                });
            }
            Err(error) => {
                let is_first = self.failures.fetch_add(1, Ordering::Relaxed) == 0;
                match self.has_lost.load(Ordering::Relaxed) {
                    // Who begins is told by the error.
                    true if is_first => {
                        tracing::warn!(host = %self.host, %error, "cannot connect to Redis")
                    }
                    _ => {
                        tracing::debug!(host = %self.host, %error, "still cannot connect to Redis")
                    }
                }
                let failure = (Instant::now(), error.clone());
                self.failed.send_replace(Some(failure));
            }
        }
        result
    }

    /// Whether sentinels say where the server is.
    pub(crate) fn is_watched(&self) -> bool {
        self.connector.is_watched()
    }

    /// Asks the sentinels where the server is; if it is elsewhere than this generation's connections are, they are replaced.
    pub(crate) async fn follow(&self) {
        let generation = self.generation();
        if let Some(primary) = self.connector.primary().await {
            self.note_primary(generation, &primary);
        }
    }

    /// All connections of a generation are to one server.
    fn note_primary(&self, generation: u64, primary: &Address) {
        let is_elsewhere = {
            let mut known = self.primary.lock();
            match &*known {
                Some((of, server)) if *of == generation => server != primary,
                _ => {
                    *known = Some((generation, primary.clone()));
                    false
                }
            }
        };
        if is_elsewhere {
            self.condemn(generation);
        }
    }

    /// Whether the last attempt to connect failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// Whether somebody has tried to connect within that time: then nobody else needs to.
    pub(crate) fn has_tried(&self, within: Duration) -> bool {
        let tried = *self.tried.lock();
        tried.is_some_and(|tried| tried.elapsed() < within)
    }

    /// How long the last failure answers for others.
    fn gap(&self) -> Duration {
        if *self.live.borrow() > 0 {
            return LONG_GAP;
        }
        let before = self.failures.load(Ordering::Relaxed).saturating_sub(1);
        let factor = 2_u32.saturating_pow(before.min(31));
        CONNECT_GAP.saturating_mul(factor).min(LONG_GAP)
    }

    /// Tries whether a connection of the next generation can be had.
    pub(crate) async fn try_next(
        self: &Arc<Self>,
        generation: u64,
    ) -> Result<Connection, RedisError> {
        let made = self.made(generation.wrapping_add(1));
        timeout(self.limit, made).await.map_err(late)?
    }

    /// The next generation begins with that connection, if there is no newer one yet.
    pub(crate) fn replace(&self, generation: u64, next: Connection) {
        self.condemn(generation);
        *self.spare.lock() = Some(next);
    }

    async fn made(self: &Arc<Self>, generation: u64) -> Result<Connection, RedisError> {
        *self.tried.lock() = Some(Instant::now());
        let Connected {
            mut io,
            driver,
            primary,
        } = self.connector.connect().await?;
        let life = Arc::new(Life {
            generation,
            has_ended: AtomicBool::new(false),
            replies: AtomicU64::new(0),
            is_counted: AtomicBool::new(false),
            primary,
            origin: self.clone(),
        });
        let ending = Ending(life.clone());
        // Ends with the last clone of the connection.
        tokio::spawn(async move {
            let _ending = ending;
            driver.await;
        });
        let start = Instant::now();
        check_role(&self.connector.greet(&io).await?)?;
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.round_trip.fetch_min(micros, Ordering::Relaxed);
        if self.probed.load(Ordering::Relaxed) != generation + 1 {
            self.probe.run(&mut io, &self.host).await?;
            self.probed.store(generation + 1, Ordering::Relaxed);
        }
        Ok(Connection { io, life })
    }
}

fn late(_: Elapsed) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time").into()
}

impl Life {
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn replies(&self) -> u64 {
        self.replies.load(Ordering::Relaxed)
    }

    pub(crate) fn note_reply(&self) {
        self.replies.fetch_add(1, Ordering::Relaxed);
        self.origin.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts it among the pool's, until it ends.
    fn count(&self) {
        let origin = &self.origin;
        if let Some(primary) = &self.primary
            && self.generation == origin.generation()
        {
            origin.note_primary(self.generation, primary);
        }
        origin.live.send_if_modified(|live| {
            if self.generation != origin.generation() {
                return false;
            }
            if *live == 0 {
                origin.beginnings.fetch_add(1, Ordering::Relaxed);
            }
            *live += 1;
            self.is_counted.store(true, Ordering::SeqCst);
            true
        });
        if self.has_ended.load(Ordering::SeqCst) {
            self.count_out();
        }
    }

    fn count_out(&self) {
        let origin = &self.origin;
        origin.live.send_if_modified(|live| {
            if !self.is_counted.swap(false, Ordering::SeqCst) {
                return false;
            }
            origin.has_lost.store(true, Ordering::Relaxed);
            let is_one = self.generation == origin.generation() && *live > 0;
            *live -= usize::from(is_one);
            is_one
        });
    }
}

/// Tells that a connection has ended, however it did.
struct Ending(Arc<Life>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::SeqCst);
        self.0.count_out();
    }
}

impl Connection {
    pub(crate) fn life(&self) -> &Arc<Life> {
        &self.life
    }

    pub(crate) fn is_usable(&self) -> bool {
        let life = &self.life;
        !life.has_ended.load(Ordering::SeqCst) && life.generation == life.origin.generation()
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = RedisError;

    async fn connect(&self) -> Result<Connection, RedisError> {
        let origin = &self.0;
        let mut has_waited = !origin.has_lost.load(Ordering::Relaxed);
        let _making = loop {
            // Somebody waits for the first one. The others have time, until that is lost too.
            if !has_waited && *origin.live.borrow() > 0 {
                let mut live = origin.live();
                let _ = timeout(jitter(SPREAD), live.wait_for(|live| *live == 0)).await;
                has_waited = true;
            }
            let making = origin.making.acquire().await;
            if has_waited || *origin.live.borrow() == 0 {
                break making;
            }
        };
        let spare = origin.spare.lock().take();
        if let Some(spare) = spare.filter(Connection::is_usable) {
            spare.life.count();
            return Ok(spare);
        }
        let last = origin.failed.borrow().clone();
        if let Some((at, error)) = last.filter(|(at, _)| at.elapsed() < origin.gap()) {
            origin.failed.send_replace(Some((at, error.clone())));
            return Err(error);
        }
        let result = origin.open().await;
        if let Ok(connection) = &result {
            match *origin.live.borrow() {
                0 => tracing::info!(host = %origin.host, "connected to Redis"),
                _ => tracing::debug!(host = %origin.host, "one more connection to Redis"),
            }
            connection.life.count();
        }
        result
    }

    /// Asks the server nothing: an idle connection that has ended is known to have, and what else a PING would find, the call
    /// itself finds.
    async fn is_valid(&self, connection: &mut Connection) -> Result<(), RedisError> {
        if connection.is_usable() {
            return Ok(());
        }
        let error = (redis::ErrorKind::Io, "the connection has ended");
        Err(error.into())
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        !connection.is_usable()
    }
}

/// A time up to `most`, another one each time.
pub(crate) fn jitter(most: Duration) -> Duration {
    let random = RandomState::new().hash_one(most);
    let share = u32::try_from(random % 1_024).unwrap_or(0);
    most * share / 1_024
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
