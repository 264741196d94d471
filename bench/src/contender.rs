//! Whom callers ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bb8_redis::RedisConnectionManager;
use integration_tests::{GCRA, RedisServer};
use limiter_core::Key;
use limiter_core::limit::{Charge, LimitStore, Limiter, Period, Policy, Quota};
use limiter_memory::MemoryStore;
use limiter_redis::{ClusterStore, RedisConfig, RedisStore};
use redis::Script;
use redis::aio::{ConnectionManager, MultiplexedConnection};
use tower_rate_tier::storage::{Storage, StorageKey};
use tower_rate_tier::{Quota as Tier, RedisStorage};

use crate::ceiling::Ceiling;

/// The default of these crates and of the peer.
pub(crate) const DEADLINE: Duration = Duration::from_millis(100);

pub(crate) const KEYS: usize = 10_000;

/// What the ceiling is called where each check has a deadline.
pub(crate) const TIMED: &str = "ceiling, a deadline for each check";

/// All are clones of one instance.
#[derive(Clone)]
pub(crate) enum Contender {
    Ours(Arc<Ours>),
    Peer(Arc<Peer>),
    Gcra(Arc<Gcra>),
    /// The hot script, as fast as it can be asked.
    Ceiling(Arc<Ceiling>),
    /// The same, where each caller waits no longer than its deadline.
    TimedCeiling(Arc<Ceiling>),
    /// The floor: a round trip and no script, over one connection that all share.
    Ping(MultiplexedConnection),
}

/// These crates: each check charges every limit once.
pub(crate) struct Ours {
    /// Callers take turns at them.
    instances: Vec<Limiter>,
    next: AtomicUsize,
    limits: Vec<Limit>,
}

/// A policy, and its keys.
pub(crate) struct Limit {
    pub(crate) policy: Policy,
    pub(crate) keys: Vec<Key>,
}

pub(crate) struct Peer {
    storage: RedisStorage<ConnectionManager>,
    quota: Tier,
    keys: Vec<String>,
}

/// The smallest script that limits anything.
pub(crate) struct Gcra {
    name: &'static str,
    way: Way,
    script: Script,
    keys: Vec<String>,
}

enum Way {
    /// One connection that all share.
    One(MultiplexedConnection),
    /// With bb8's defaults: ten connections, each of which one caller has at a time.
    Pool(bb8::Pool<RedisConnectionManager>),
}

/// A quota that admits everybody.
pub(crate) fn bucket() -> Quota {
    let quota = Quota::token_bucket(1_000_000_000, 1_000_000, Period::SECOND);
    quota.expect("a quota")
}

/// One that does, too.
pub(crate) fn window() -> Quota {
    Quota::fixed_window(1_000_000_000, Period::HOUR).expect("a quota")
}

pub(crate) fn config(url: &str) -> RedisConfig {
    let config = RedisConfig::new(url).expect("a URL");
    config.with_check_deadline(DEADLINE)
}

impl Limit {
    pub(crate) fn new(name: &str, quota: Quota, keys: usize) -> Self {
        let policy = Policy::new(name, quota).expect("a policy");
        let keys = (0..keys).map(|key| policy.key([key.to_string()])).collect();
        Self { policy, keys }
    }

    fn charge(&self, key: usize) -> Charge<'_> {
        Charge::new(&self.policy, &self.keys[key % self.keys.len()])
    }
}

impl Ours {
    pub(crate) async fn check(&self, key: usize) -> bool {
        let turn = match self.instances.len() {
            1 => 0,
            count => self.next.fetch_add(1, Ordering::Relaxed) % count,
        };
        let limiter = &self.instances[turn];
        match self.limits.as_slice() {
            [limit] => {
                let key = &limit.keys[key % limit.keys.len()];
                let told = limiter.try_check(&limit.policy, key).await;
                told.is_ok_and(|decision| decision.is_allowed())
            }
            limits => {
                let charges: Vec<_> = limits.iter().map(|limit| limit.charge(key)).collect();
                let told = limiter.try_check_all(&charges).await;
                told.is_ok_and(|decision| decision.is_allowed())
            }
        }
    }
}

impl Contender {
    /// One instance, one bucket a key.
    pub(crate) async fn ours(url: &str) -> Self {
        Self::ours_with(&config(url), vec![Limit::new("bench", bucket(), KEYS)]).await
    }

    pub(crate) async fn ours_with(config: &RedisConfig, limits: Vec<Limit>) -> Self {
        Self::fleet(config, 1, limits).await
    }

    /// So many instances, each with connections of its own.
    pub(crate) async fn fleet(config: &RedisConfig, count: usize, limits: Vec<Limit>) -> Self {
        let mut instances = vec![];
        for _ in 0..count {
            let store = RedisStore::new(config).expect("a store");
            store.warm_up().await.expect("a server that answers");
            instances.push(store);
        }
        Self::of(instances, limits)
    }

    pub(crate) async fn cluster(config: &RedisConfig, limits: Vec<Limit>) -> Self {
        let store = ClusterStore::new(config).expect("a store");
        store.warm_up().await.expect("a cluster that answers");
        Self::of(vec![store], limits)
    }

    /// No server at all.
    pub(crate) fn memory() -> Self {
        let limits = vec![Limit::new("bench", bucket(), KEYS)];
        Self::of(vec![MemoryStore::new()], limits)
    }

    fn of(stores: Vec<impl LimitStore + 'static>, limits: Vec<Limit>) -> Self {
        Self::Ours(Arc::new(Ours {
            instances: stores.into_iter().map(Limiter::new).collect(),
            next: AtomicUsize::new(0),
            limits,
        }))
    }

    pub(crate) async fn peer(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let connection = ConnectionManager::new(client)
            .await
            .expect("a server that answers");
        Self::Peer(Arc::new(Peer {
            storage: RedisStorage::new(connection),
            quota: Tier::per_second(1_000_000),
            keys: (0..KEYS).map(|key| key.to_string()).collect(),
        }))
    }

    pub(crate) async fn gcra(url: &str) -> Self {
        let way = Way::One(connection(url).await);
        Self::Gcra(Arc::new(Gcra::new("GCRA, one connection", way)))
    }

    pub(crate) async fn pooled_gcra(url: &str) -> Self {
        let manager = RedisConnectionManager::new(url).expect("a URL");
        let pool = bb8::Pool::builder().build(manager).await;
        let way = Way::Pool(pool.expect("a server that answers"));
        Self::Gcra(Arc::new(Gcra::new("GCRA, bb8", way)))
    }

    pub(crate) async fn ping(url: &str) -> Self {
        Self::Ping(connection(url).await)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "these crates",
            Self::Peer(_) => "tower-rate-tier",
            Self::Gcra(gcra) => gcra.name,
            Self::Ceiling(_) => "ceiling",
            Self::TimedCeiling(_) => TIMED,
            Self::Ping(_) => "PING",
        }
    }

    /// Asks once; whether there was an answer, which is never a denial.
    pub(crate) async fn ask(&self, key: usize) -> bool {
        match self {
            Self::Ours(ours) => ours.check(key).await,
            Self::Peer(peer) => {
                let key = StorageKey::new(&peer.keys[key % KEYS], "bench");
                let told = peer.storage.check_and_update(key, &peer.quota, 1, 0).await;
                told.is_ok_and(|told| told.is_ok())
            }
            Self::Gcra(gcra) => {
                let told = tokio::time::timeout(DEADLINE, gcra.ask(key));
                told.await.is_ok_and(|told| told)
            }
            Self::Ceiling(ceiling) => ceiling.ask(key).await,
            Self::TimedCeiling(ceiling) => {
                let told = tokio::time::timeout(DEADLINE, ceiling.ask(key));
                told.await.is_ok_and(|told| told)
            }
            Self::Ping(connection) => {
                let mut connection = connection.clone();
                let ping = redis::cmd("PING");
                let told = tokio::time::timeout(DEADLINE, ping.exec_async(&mut connection));
                told.await.is_ok_and(|told| told.is_ok())
            }
        }
    }
}

impl Gcra {
    fn new(name: &'static str, way: Way) -> Self {
        Self {
            name,
            way,
            script: Script::new(GCRA),
            keys: (0..KEYS).map(|key| format!("gcra:{key}")).collect(),
        }
    }

    async fn ask(&self, key: usize) -> bool {
        let mut call = self.script.prepare_invoke();
        call.key(&self.keys[key % KEYS]);
        let told: redis::RedisResult<u8> = match &self.way {
            Way::One(connection) => call.invoke_async(&mut connection.clone()).await,
            Way::Pool(pool) => {
                let Ok(mut connection) = pool.get().await else {
                    return false;
                };
                call.invoke_async(&mut *connection).await
            }
        };
        told.is_ok_and(|told| told == 1)
    }
}

pub(crate) async fn connection(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a URL");
    let connection = client.get_multiplexed_async_connection().await;
    connection.expect("a server that answers")
}

/// A server on loopback, whose user may do everything: the contenders have needs of their own.
pub(crate) fn server() -> RedisServer {
    RedisServer::start_tcp()
}
