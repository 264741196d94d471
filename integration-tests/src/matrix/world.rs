//! The servers and the network of a cell, and who calls through them.

use std::sync::Arc;
use std::time::Duration;

use limiter_core::OutageLog;
use limiter_core::cache::{CacheStore, Fallback};
use limiter_core::limit::wrap::Stack;
use limiter_core::limit::{LimitStore, Limiter};
use limiter_memory::{MemoryCache, MemoryStore};
use limiter_redis::{ClusterStore, RedisCache, RedisConfig, RedisStore};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::load::{DEADLINE, INSTANCES, KEYS, key};
use super::log::Rule;
use super::sabotage::Sabotage;
use crate::fault::{Proxy, ReplyProxy};
use crate::{RedisCluster, RedisSentinels, RedisServer};

/// What kind of servers a fault needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// One server behind a proxy, with a file that it loads when it starts again.
    Alone,
    /// One server that speaks TLS, behind a proxy.
    Tls,
    /// One server, and somebody who answers in its place.
    Refusing,
    /// A primary behind a proxy, a replica and three sentinels. Callers reach the primary without the proxy.
    Sentinels,
    /// Three masters, each with a replica.
    Cluster,
}

pub(super) struct World {
    place: Place,
    pub(super) servers: Servers,
    pub(super) proxy: Option<Proxy>,
    pub(super) replies: Option<ReplyProxy>,
    limiters: Vec<Limiter>,
    cache: Arc<dyn CacheStore>,
}

pub(super) enum Servers {
    One(Box<RedisServer>),
    Watched(Box<RedisSentinels>),
    Cluster(Box<RedisCluster>),
}

impl World {
    pub(super) async fn start(place: Place, sabotage: Option<Sabotage>) -> Self {
        let (servers, network, config) = servers(place, sabotage).await;
        let config = config.with_check_deadline(DEADLINE);
        let config = match sabotage {
            Some(Sabotage::BreakerNeverOpens) => config.without_breaker(),
            _ => config,
        };
        let mut limiters = Vec::new();
        for _ in 0..INSTANCES {
            let log = OutageLog::new();
            let store: Arc<dyn LimitStore> = match place {
                Place::Cluster => {
                    let store = ClusterStore::new(&config).unwrap();
                    store.warm_up().await.unwrap();
                    Arc::new(store)
                }
                _ => {
                    let store = RedisStore::new(&config).unwrap();
                    store.warm_up().await.unwrap();
                    Arc::new(store)
                }
            };
            let store = Sabotage::store(sabotage, store);
            let local = Sabotage::local(sabotage, MemoryStore::new());
            let stack = Stack::new(store).local(local).log(log).build();
            limiters.push(Limiter::raw(Sabotage::stack(sabotage, stack)));
        }
        let cache: Arc<dyn CacheStore> = match place {
            Place::Cluster => Arc::new(MemoryCache::new()),
            _ => {
                let cache = RedisCache::new(&config).unwrap();
                cache.warm_up().await.unwrap();
                Arc::new(Fallback::new(cache, MemoryCache::new(), OutageLog::new()))
            }
        };
        Self {
            place,
            servers,
            proxy: network.proxy,
            replies: network.replies,
            limiters,
            cache,
        }
    }

    pub(super) fn limiter(&self, instance: usize) -> Limiter {
        self.limiters[instance].clone()
    }

    pub(super) fn cache(&self) -> Arc<dyn CacheStore> {
        self.cache.clone()
    }

    pub(super) fn server(&mut self) -> &mut RedisServer {
        match &mut self.servers {
            Servers::One(server) => server,
            Servers::Watched(watched) => &mut watched.servers[0],
            Servers::Cluster(cluster) => &mut cluster.nodes[0],
        }
    }

    /// When the server first answers a PING that comes the callers' way.
    pub(super) async fn first_pong(&self) -> Instant {
        let url = match &self.servers {
            Servers::One(server) if self.place == Place::Tls => {
                // Another way, where nothing stops it: only the server itself does.
                while server.try_command::<String>(&["PING"]).is_none() {
                    sleep(Duration::from_millis(10)).await;
                }
                return Instant::now();
            }
            Servers::One(server) => {
                let proxy = self.proxy.as_ref().map(Proxy::port);
                let port = proxy.or(self.replies.as_ref().map(ReplyProxy::port));
                server.url_at(port.expect("a cell with a network"))
            }
            Servers::Watched(watched) => {
                let primary = usize::from(watched.is_primary(1));
                watched.servers[primary].url()
            }
            // A cluster answers as long as a majority does.
            Servers::Cluster(_) => return Instant::now(),
        };
        let ping = move || {
            let client = redis::Client::open(url.as_str()).ok()?;
            let timeout = Duration::from_secs(1);
            let mut connection = client.get_connection_with_timeout(timeout).ok()?;
            redis::cmd("PING").exec(&mut connection).ok()
        };
        loop {
            let ping = ping.clone();
            if tokio::task::spawn_blocking(ping).await.unwrap().is_some() {
                return Instant::now();
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What has been counted of each key of [`Rule::Account`], by whoever keeps it now.
    pub(super) fn counted(&self) -> Vec<u64> {
        let count = |server: &RedisServer, key: &str| -> Option<u64> {
            let mut get = redis::cmd("GET");
            get.arg(key).query(&mut server.admin()).ok().flatten()
        };
        let keys = (0..KEYS).map(|number| key(Rule::Account, number));
        keys.map(|key| match &self.servers {
            Servers::One(server) => count(server, key.as_str()),
            Servers::Watched(watched) => {
                let primary = usize::from(watched.is_primary(1));
                count(&watched.servers[primary], key.as_str())
            }
            Servers::Cluster(cluster) => {
                let running = cluster.nodes.iter().filter(|node| node.is_running());
                running.filter_map(|node| count(node, key.as_str())).max()
            }
        })
        .map(Option::unwrap_or_default)
        .collect()
    }
}

/// What is between the callers and the servers.
#[derive(Default)]
struct Network {
    proxy: Option<Proxy>,
    replies: Option<ReplyProxy>,
}

impl Network {
    fn of(proxy: Proxy) -> Self {
        Self {
            proxy: Some(proxy),
            replies: None,
        }
    }
}

async fn servers(place: Place, sabotage: Option<Sabotage>) -> (Servers, Network, RedisConfig) {
    match place {
        Place::Alone => {
            let server = block_in_place(RedisServer::start_tcp);
            let proxy = Proxy::start(server.port()).await;
            let config = RedisConfig::new(&server.url_at(proxy.port())).unwrap();
            (Servers::One(Box::new(server)), Network::of(proxy), config)
        }
        Place::Tls => {
            let server = block_in_place(RedisServer::start_tls);
            let proxy = Proxy::start(server.port()).await;
            let config = RedisConfig::new(&server.url_at(proxy.port())).unwrap();
            let config = config.with_tls_ca(server.ca_pem()).unwrap();
            (Servers::One(Box::new(server)), Network::of(proxy), config)
        }
        Place::Refusing => {
            let server = block_in_place(RedisServer::start_tcp);
            let replies = ReplyProxy::start(server.port()).await;
            let config = RedisConfig::new(&server.url_at(replies.port())).unwrap();
            let network = Network {
                proxy: None,
                replies: Some(replies),
            };
            (Servers::One(Box::new(server)), network, config)
        }
        Place::Sentinels => {
            let mut proxy = None;
            let runtime = tokio::runtime::Handle::current();
            let watched = block_in_place(|| {
                RedisSentinels::start_behind(|primary| {
                    let started = runtime.block_on(Proxy::start(primary.port()));
                    proxy.insert(started).port()
                })
            });
            let near = watched.servers[0].port();
            let behind = proxy.as_ref().map_or(0, Proxy::port);
            let config = match sabotage {
                Some(Sabotage::DemotedPrimaryKept) => {
                    RedisConfig::new(&watched.servers[0].url()).unwrap()
                }
                _ => watched.config().with_resolver(move |_: &str, port: u16| {
                    (port == behind).then(|| ("127.0.0.1".to_owned(), near))
                }),
            };
            let network = Network {
                proxy,
                replies: None,
            };
            (Servers::Watched(Box::new(watched)), network, config)
        }
        Place::Cluster => {
            let cluster = block_in_place(RedisCluster::start_with_replicas);
            let config = cluster.config();
            (
                Servers::Cluster(Box::new(cluster)),
                Network::default(),
                config,
            )
        }
    }
}
