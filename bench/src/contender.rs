//! Whom callers ask.

use std::sync::Arc;
use std::time::Duration;

use integration_tests::RedisServer;
use limiter_core::Key;
use limiter_core::limit::{Limiter, Period, Policy, Quota};
use limiter_redis::{RedisConfig, RedisStore};
use redis::aio::{ConnectionManager, MultiplexedConnection};
use tower_rate_tier::storage::{Storage, StorageKey};
use tower_rate_tier::{Quota as Tier, RedisStorage};

/// The default of these crates and of the peer.
pub(crate) const DEADLINE: Duration = Duration::from_millis(100);

pub(crate) const KEYS: usize = 10_000;

/// All are clones of one instance.
#[derive(Clone)]
pub(crate) enum Contender {
    Ours(Arc<Ours>),
    Peer(Arc<Peer>),
    /// The floor: a round trip and no script, over one connection that all share.
    Ping(MultiplexedConnection),
}

pub(crate) struct Ours {
    pub(crate) limiter: Limiter,
    pub(crate) policy: Policy,
    keys: Vec<Key>,
}

pub(crate) struct Peer {
    storage: RedisStorage<ConnectionManager>,
    quota: Tier,
    keys: Vec<String>,
}

impl Contender {
    pub(crate) async fn ours(url: &str) -> Self {
        let config = RedisConfig::new(url).expect("a URL");
        Self::ours_with(&config.with_check_deadline(DEADLINE)).await
    }

    pub(crate) async fn ours_with(config: &RedisConfig) -> Self {
        let store = RedisStore::new(config).expect("a store");
        store.warm_up().await.expect("a server that answers");
        let quota = Quota::token_bucket(1_000_000_000, 1_000_000, Period::SECOND);
        let policy = Policy::new("bench", quota.expect("a quota")).expect("a policy");
        let keys = (0..KEYS).map(|key| policy.key([key.to_string()])).collect();
        Self::Ours(Arc::new(Ours {
            limiter: Limiter::new(store),
            policy,
            keys,
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

    pub(crate) async fn ping(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        Self::Ping(connection.expect("a server that answers"))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "these crates",
            Self::Peer(_) => "tower-rate-tier",
            Self::Ping(_) => "PING",
        }
    }

    /// Asks once; whether there was an answer, which is never a denial.
    pub(crate) async fn ask(&self, key: usize) -> bool {
        match self {
            Self::Ours(ours) => {
                let key = &ours.keys[key % KEYS];
                let told = ours.limiter.try_check(&ours.policy, key).await;
                told.is_ok_and(|decision| decision.is_allowed())
            }
            Self::Peer(peer) => {
                let key = StorageKey::new(&peer.keys[key % KEYS], "bench");
                let told = peer.storage.check_and_update(key, &peer.quota, 1, 0).await;
                told.is_ok_and(|told| told.is_ok())
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

/// A server on loopback, whose user may do everything: the contenders have needs of their own.
pub(crate) fn server() -> RedisServer {
    RedisServer::start_tcp()
}
