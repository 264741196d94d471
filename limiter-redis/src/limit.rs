//! Limits in Redis.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed};
use limiter_core::{Error, ErrorKind, Figure, Health};
use parking_lot::{Mutex, RwLock};
use redis::{RedisError, ServerErrorKind};
use tokio::time::Instant;

use crate::ClusterStore;
use crate::batch::{Batches, Place};
use crate::config::RedisConfig;
use crate::error::server_error;
use crate::guard::{Guard, Span};
use crate::pool::look::words;
use crate::pool::probe::{Probe, ProbeKeys};
use crate::pool::{Keeps, Pool};
use crate::script::call::{Call, floor};
use crate::script::{self, Scripts};
use crate::warm_up::{WARM_UP, warm_up};

/// Counters in one Redis server, shared by every instance that uses it. Clones share the pool.
///
/// A group is a part of one script call, so it is atomic, and its time is Redis's own. What waits while a call is under way goes
/// in the next one; each group has its own answer or error. A group that may have been sent is never sent again.
///
/// If the server turns out to be a node of a Redis Cluster, the store goes on as [`ClusterStore`] does, with one line in the log.
#[derive(Clone, Debug)]
pub struct RedisStore {
    config: Arc<RedisConfig>,
    place: Arc<RwLock<Shared>>,
    /// The cluster that the server may be a node of, until it has told its slots.
    joining: Arc<Mutex<Option<ClusterStore>>>,
    scripts: Arc<Scripts>,
    issuer: Issuer,
    unheard: Arc<AtomicU64>,
}

/// What it is shared through.
#[derive(Clone, Debug)]
enum Shared {
    Server(Batches),
    Cluster(ClusterStore),
}

impl RedisStore {
    /// A store that connects when it is first used; see [`warm_up`](Self::warm_up).
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

    /// For tests: the same, where all groups go to the script that knows all; others are asked side by side with it.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "virtual-clock")]
    pub fn with_virtual_clock_and_one_script(config: &RedisConfig) -> Result<Self, Error> {
        Self::with_scripts(config, Scripts::with_virtual_clock().without_hot())
    }

    fn with_scripts(config: &RedisConfig, scripts: Scripts) -> Result<Self, Error> {
        config.check_single("limits over it are ClusterStore's")?;
        let probe = Probe {
            script: script::probe(),
            keys: ProbeKeys::These(vec![format!("{}ratelimit:%probe", config.prefix)]),
            arguments: Vec::new(),
        };
        let (scripts, unheard) = (Arc::new(scripts), Arc::default());
        let batches = Batches::new(
            Pool::new(config, config.check_deadline, probe, Keeps::Counters)?,
            Guard::new(config),
            Arc::clone(&scripts),
            floor(config.state_ttl),
            config.batches,
            Arc::clone(&unheard),
        );
        Ok(Self {
            config: Arc::new(config.clone()),
            place: Arc::new(RwLock::new(Shared::Server(batches))),
            joining: Arc::default(),
            scripts,
            issuer: config.issuer(),
            unheard,
        })
    }

    /// Makes the pool's connections and loads the scripts, so that the first check is not slower than the others; 2 s at
    /// most. The store works without it.
    ///
    /// Also looks at the server: an error is logged if it evicts keys, which drops counters, and a warning if the deadline
    /// is shorter than three round trips to it.
    ///
    /// # Errors
    /// What keeps Redis from being used; the store goes on trying at every check.
    pub async fn warm_up(&self) -> Result<(), Error> {
        let batches = match self.shared() {
            Shared::Server(batches) => batches,
            Shared::Cluster(cluster) => return cluster.warm_up().await,
        };
        let end = Instant::now() + self.config.warm_up;
        let met = match warm_up(batches.pool(), &self.scripts, self.config.warm_up).await {
            Ok(server) if server.is_node => None,
            Ok(_) => return Ok(()),
            Err(error) if is_of_a_node(&error) => Some(error),
            Err(error) => return Err(error),
        };
        let met = met.unwrap_or_else(|| {
            let message = "Redis is a node of a cluster and does not tell its slots";
            Error::new(ErrorKind::Server, WARM_UP, message)
        });
        self.join_cluster(met, end).await?.warm_up().await
    }

    /// Whether the server has turned out to be a node of a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.shared(), Shared::Cluster(_))
    }

    fn shared(&self) -> Shared {
        self.place.read().clone()
    }

    /// Goes on with the cluster that the server is a node of, if it tells its slots; what was met is the error if it does not.
    async fn join_cluster(&self, met: Error, end: Instant) -> Result<ClusterStore, Error> {
        if let Shared::Cluster(cluster) = self.shared() {
            return Ok(cluster);
        }
        // The same one for all, and the next time too: what it finds out late is not lost.
        let cluster = {
            let mut joining = self.joining.lock();
            match &*joining {
                Some(cluster) => cluster.clone(),
                None => {
                    let cluster = ClusterStore::beside(&self.config, self.unheard.clone())?;
                    joining.insert(cluster).clone()
                }
            }
        };
        if !cluster.has_slots(end).await {
            return Err(met);
        }
        let mut place = self.place.write();
        if let Shared::Cluster(cluster) = &*place {
            return Ok(cluster.clone());
        }
        tracing::info!(host = %self.config.host(), "Redis is a node of a cluster: its masters are used, as with redis+cluster://");
        *place = Shared::Cluster(cluster.clone());
        *self.joining.lock() = None;
        Ok(cluster)
    }
}

/// Whether only a node of a cluster answers so, and has done nothing.
pub(crate) fn is_of_a_node(error: &Error) -> bool {
    use ServerErrorKind::{Ask, CrossSlot, Moved};
    let source = error.source().and_then(|source| source.downcast_ref());
    let kind = source.and_then(|error: &RedisError| server_error(error));
    matches!(kind, Some(Ask | CrossSlot | Moved))
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
        let batches = match self.shared() {
            Shared::Server(batches) => batches,
            Shared::Cluster(cluster) => return cluster.apply(group, observed).await,
        };
        let span = begin(group, self.issuer, batches.pool().deadline())?;
        let call = Call::new(group, &self.config.prefix)?;
        let policy = group.steps()[0].policy.name();
        match batches.apply(policy, call, Place::default(), span).await {
            Ok(reply) => reply.read(group, self.issuer, observed),
            Err(undone) if is_of_a_node(&undone.error) => {
                // Once in a store's life: no reason to make every check's future larger.
                let joined = Box::pin(self.join_cluster(undone.error, span.end)).await;
                let span = Span::until(span.end);
                Box::pin(joined?.apply_within(group, observed, span)).await
            }
            Err(undone) => Err(undone.error),
        }
    }

    /// How many charges were made of which nobody was told: the caller had left when the answer came, or its deadline was
    /// over (I-R2). Charges of which no answer came at all are not among them.
    fn unheard(&self) -> u64 {
        self.unheard.load(Ordering::Relaxed)
    }

    fn figures(&self) -> Vec<Figure> {
        match self.shared() {
            Shared::Server(batches) => batches.figures(),
            Shared::Cluster(cluster) => cluster.figures(),
        }
    }

    async fn health(&self) -> Health {
        match self.shared() {
            Shared::Server(batches) => {
                let what = "limits are shared through";
                ping(batches.pool(), batches.guard(), what).await
            }
            Shared::Cluster(cluster) => cluster.health().await,
        }
    }
}

/// When a group's call begins, and has to be over; an error if it is not to be begun here, or now.
pub(crate) fn begin(group: &Group<'_>, issuer: Issuer, deadline: Duration) -> Result<Span, Error> {
    group.check_issuer(|asked| asked == issuer)?;
    group.check_deadline()?;
    let begun = Instant::now();
    let end = begun + deadline;
    let end = group.deadline().map_or(end, |asked| asked.min(end));
    Ok(Span { begun, end })
}

/// Whether the server answers, for the limits' pool and the caches'.
pub(crate) async fn ping(pool: &Pool, guard: &Guard, what: &str) -> Health {
    let answer = pool.ping().await;
    let breaker = guard.words();
    let server = pool.server();
    let health = match answer {
        Ok(latency) => {
            let told = server.as_ref().map(words).unwrap_or_default();
            let message = format!("{what} Redis at {}{told}{breaker}", pool.host());
            Health::new("redis", true, Some(latency), message)
        }
        Err(error) => {
            let message = format!("{}{breaker}", error.message());
            Health::new("redis", false, None, message)
        }
    };
    health.with_servers(server)
}
