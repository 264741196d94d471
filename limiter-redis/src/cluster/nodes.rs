//! The slot map as it is now, and a pool for each node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use hashbrown::HashMap;
use limiter_core::{Effect, Error, ErrorKind, LogLimit};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::map::{Address, SlotMap};
use crate::batch::Batches;
use crate::config::{RedisConfig, config_error};
use crate::error::advise;
use crate::guard::Guard;
use crate::pool::probe::{Probe, ProbeKeys};
use crate::pool::{Keeps, Pool};
use crate::script::call::floor;
use crate::script::{self, Scripts};

/// At most one refresh in this time.
pub(super) const REFRESH_GAP: Duration = Duration::from_millis(100);

/// A map that is used is asked for again after this time: nobody else tells of a new master.
const REFRESH_PERIOD: Duration = Duration::from_secs(60);

/// The nodes of one cluster.
#[derive(Debug)]
pub(super) struct Nodes {
    pub(super) config: RedisConfig,
    pub(super) seeds: Vec<Address>,
    pub(super) view: watch::Sender<View>,
    pub(super) nodes: RwLock<HashMap<Address, Arc<Node>>>,
    pub(super) scripts: Arc<Scripts>,
    /// How many charges nobody was told of.
    pub(super) unheard: Arc<AtomicU64>,
    pub(super) turn: AtomicUsize,
    pub(super) log: LogLimit,
}

/// A node that is used. Not in one cache line with the count of those who use it, which changes with each call.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Node {
    pub(super) address: Address,
    pub(super) batches: Batches,
}

/// What the last refresh came to.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// A refresh is under way or waits for its time. It ends together with its result.
    pub(super) refreshing: bool,
    pub(super) map: Option<Arc<SlotMap>>,
    /// The map's masters, in its order. `None` for one that cannot be used, which whoever asks for it is told why.
    pub(super) masters: Vec<Option<Arc<Node>>>,
    /// When the last refresh ended, and how, if it failed.
    pub(super) at: Option<Instant>,
    pub(super) failure: Option<Failure>,
}

/// Why no node told its slots.
pub(super) type Failure = (ErrorKind, String);

impl View {
    /// Whether the map is to be asked for again.
    fn is_old(&self, now: Instant) -> bool {
        let age = self.at.map(|at| now.saturating_duration_since(at));
        age.is_none_or(|age| age > REFRESH_PERIOD)
    }
}

impl Nodes {
    /// Connects when it is first used.
    pub(super) fn new(
        config: &RedisConfig,
        scripts: Scripts,
        unheard: Arc<AtomicU64>,
    ) -> Result<Arc<Self>, Error> {
        let mut seeds = config.seeds.clone();
        if seeds.is_empty() {
            seeds.extend(config.address());
        }
        if seeds.is_empty() {
            return Err(config_error(
                "a cluster is reached by host and port, not by a socket".to_owned(),
            ));
        }
        if config.connection.redis_settings().db() != 0 {
            return Err(config_error(
                "a cluster has database 0 only: drop it from the Redis URL".to_owned(),
            ));
        }
        Ok(Arc::new(Self {
            config: config.clone(),
            seeds,
            view: watch::Sender::new(View::default()),
            nodes: RwLock::default(),
            scripts: Arc::new(scripts),
            unheard,
            turn: AtomicUsize::new(0),
            log: LogLimit::default(),
        }))
    }

    /// The map; the first time it is waited for.
    pub(super) async fn map(
        self: &Arc<Self>,
        operation: &'static str,
        end: Instant,
    ) -> Result<Arc<SlotMap>, Error> {
        let known = {
            let view = self.view.borrow();
            let is_old = view.is_old(Instant::now());
            view.map.clone().map(|map| (map, is_old))
        };
        if let Some((map, is_old)) = known {
            if is_old {
                self.refresh_soon(None);
            }
            return Ok(map);
        }
        let view = self.refreshed(end).await;
        if let Some(map) = view.as_ref().and_then(|view| view.map.clone()) {
            return Ok(map);
        }
        let (kind, reason) = view.and_then(|view| view.failure).unwrap_or_else(|| {
            let reason = "no node has told its slots in time".to_owned();
            (ErrorKind::Timeout, reason)
        });
        let host = self.config.host();
        Err(Error::new(
            kind,
            operation,
            format!("Redis Cluster at {host}: {reason}"),
        ))
    }

    /// Who has the slot, if that is known.
    pub(super) fn owner(self: &Arc<Self>, slot: u16, now: Instant) -> Option<Arc<Node>> {
        let (owner, is_old) = {
            let view = self.view.borrow();
            let index = view.map.as_ref()?.owner_index(slot)?;
            (view.masters.get(index)?.clone()?, view.is_old(now))
        };
        if is_old {
            self.refresh_soon(None);
        }
        Some(owner)
    }

    /// The address under which a node is used that a redirect names.
    pub(super) fn known(&self, address: Address) -> Address {
        match &self.view.borrow().map {
            Some(map) => map.known(address),
            None => address,
        }
    }

    /// What can be done about a node that was not reached, if only the cluster names it.
    pub(super) fn advise(&self, error: Error, node: &Address) -> Error {
        let is_away = matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout);
        if !is_away || error.effect() != Effect::No || self.seeds.contains(node) {
            return error;
        }
        advise(
            error,
            "the cluster announces this address: if it is not reached from here, say where with REDIS_ADDRESS_MAP",
        )
    }

    /// Waits for a refresh that ends after now. `None` if there is none in time.
    async fn refreshed(self: &Arc<Self>, end: Instant) -> Option<View> {
        let mut views = self.view.subscribe();
        views.mark_unchanged();
        self.refresh_soon(None);
        match timeout_at(end, views.changed()).await {
            Ok(Ok(())) => Some(views.borrow().clone()),
            _ => None,
        }
    }

    /// The owner of a slot by a map that is newer than now, if one can be had at once: not if the last
    /// refresh was a moment ago, because then everybody would wait for the next.
    pub(super) async fn owner_anew(self: &Arc<Self>, slot: u16, end: Instant) -> Option<Address> {
        let at = self.view.borrow().at;
        if at.is_some_and(|at| at.elapsed() < REFRESH_GAP) {
            self.refresh_soon(None);
            return None;
        }
        let map = self.refreshed(end).await?.map?;
        map.owner(slot).cloned()
    }

    /// A node, with a pool of its own, made if there is none yet.
    pub(super) fn node(self: &Arc<Self>, address: &Address) -> Result<Arc<Node>, Error> {
        if let Some(node) = self.nodes.read().get(address) {
            return Ok(node.clone());
        }
        let mut nodes = self.nodes.write();
        if let Some(node) = nodes.get(address) {
            return Ok(node.clone());
        }
        let config = self.config.at(address);
        let batches = Batches::new(
            Pool::new(
                &config,
                config.check_deadline,
                self.probe(address),
                Keeps::Counters,
            )?,
            Guard::new(&config),
            self.scripts.clone(),
            floor(config.state_ttl),
            config.batches,
            self.unheard.clone(),
        );
        let node = Arc::new(Node {
            address: address.clone(),
            batches,
        });
        nodes.insert(address.clone(), node.clone());
        Ok(node)
    }

    /// Tries the rights on a key in one of the node's own slots. A node keeps the others alive no longer than the store does: the
    /// view has them all.
    fn probe(self: &Arc<Self>, address: &Address) -> Probe {
        let (nodes, address) = (Arc::downgrade(self), address.clone());
        let name = format!("{}ratelimit:%probe", self.config.prefix);
        let key = move || {
            let map = nodes.upgrade()?.view.borrow().map.clone()?;
            map.key_at(&address, &name)
        };
        Probe {
            script: script::probe(),
            keys: ProbeKeys::OfNode(Arc::new(key)),
            arguments: Vec::new(),
        }
    }
}
