//! The slot map as it is now, and a pool for each node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use limiter_core::{Error, ErrorKind};
use parking_lot::RwLock;
use redis::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::map::{Address, SlotMap};
use crate::config::{RedisConfig, config_error};
use crate::connection::{Probe, ProbeKeys};
use crate::pool::{Pool, Request};
use crate::script;

/// At most one refresh in this time.
const REFRESH_GAP: Duration = Duration::from_millis(100);

/// A map that is used is asked for again after this time: nobody else tells of a new master.
const REFRESH_PERIOD: Duration = Duration::from_secs(60);

/// How many nodes are asked for the map at once; the first answer counts.
const ASKED_AT_ONCE: usize = 3;

const SLOTS_OPERATION: &str = "cluster.slots";

/// The nodes of one cluster.
#[derive(Debug)]
pub(super) struct Nodes {
    config: RedisConfig,
    seeds: Vec<Address>,
    view: watch::Sender<View>,
    pools: RwLock<HashMap<Address, Pool>>,
    turn: AtomicUsize,
}

/// What the last refresh came to.
#[derive(Clone, Debug, Default)]
struct View {
    /// A refresh is under way or waits for its time. It ends together with its result.
    refreshing: bool,
    map: Option<Arc<SlotMap>>,
    /// When the last refresh ended, and how, if it failed.
    at: Option<Instant>,
    failure: Option<Failure>,
}

/// Why no node told its slots.
type Failure = (ErrorKind, String);

impl Nodes {
    /// Connects when it is first used.
    pub(super) fn new(config: &RedisConfig) -> Result<Arc<Self>, Error> {
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
            pools: RwLock::default(),
            turn: AtomicUsize::new(0),
        }))
    }

    pub(super) fn config(&self) -> &RedisConfig {
        &self.config
    }

    /// The map; the first time it is waited for.
    pub(super) async fn map(
        self: &Arc<Self>,
        operation: &'static str,
        end: Instant,
    ) -> Result<Arc<SlotMap>, Error> {
        let known = {
            let view = self.view.borrow();
            let age = view.at.map(|at| at.elapsed());
            view.map.clone().map(|map| (map, age))
        };
        if let Some((map, age)) = known {
            if age.is_none_or(|age| age > REFRESH_PERIOD) {
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

    /// The pool of a node, made if there is none yet.
    pub(super) fn pool(self: &Arc<Self>, address: &Address) -> Result<Pool, Error> {
        if let Some(pool) = self.pools.read().get(address) {
            return Ok(pool.clone());
        }
        let mut pools = self.pools.write();
        if let Some(pool) = pools.get(address) {
            return Ok(pool.clone());
        }
        let config = self.config.at(address);
        let pool = Pool::new(&config, config.check_deadline, self.probe(address))?;
        pools.insert(address.clone(), pool.clone());
        Ok(pool)
    }

    /// Tries the rights on a key in one of the node's own slots.
    fn probe(&self, address: &Address) -> Probe {
        let (views, address) = (self.view.subscribe(), address.clone());
        let name = format!("{}ratelimit:%probe", self.config.prefix);
        let key = move || {
            let map = views.borrow().map.clone()?;
            map.key_at(&address, &name)
        };
        Probe {
            script: script::probe(),
            keys: ProbeKeys::OfNode(Arc::new(key)),
            arguments: Vec::new(),
        }
    }

    /// Refreshes the map in the background: one refresh at a time, one every 100 ms at most. `hint` is
    /// asked first.
    pub(super) fn refresh_soon(self: &Arc<Self>, hint: Option<Address>) {
        let mut begun = false;
        self.view.send_if_modified(|view| {
            begun = !std::mem::replace(&mut view.refreshing, true);
            false
        });
        if !begun {
            return;
        }
        let refresh = Refreshing {
            nodes: self.clone(),
            told: false,
        };
        tokio::spawn(async move {
            let nodes = refresh.nodes.clone();
            let last = nodes.view.borrow().at;
            if let Some(last) = last {
                sleep_until(last + REFRESH_GAP).await;
            }
            refresh.end(nodes.refresh(hint).await);
        });
    }

    async fn refresh(self: &Arc<Self>, hint: Option<Address>) -> Result<SlotMap, Failure> {
        let mut failure = (ErrorKind::Connection, "no node could be asked".to_owned());
        for nodes in self.candidates(hint).chunks(ASKED_AT_ONCE) {
            let mut asked = JoinSet::new();
            for node in nodes {
                let (this, node) = (self.clone(), node.clone());
                asked.spawn(async move { this.ask(&node).await });
            }
            while let Some(answer) = asked.join_next().await {
                match answer {
                    Ok(Ok(map)) => {
                        // A question that is cut off costs the connection that it was sent on.
                        asked.detach_all();
                        return Ok(map);
                    }
                    Ok(Err(error)) => failure = (error.kind(), error.message().to_owned()),
                    Err(_) => {}
                }
            }
        }
        Err(failure)
    }

    /// Whom to ask, best first: who just named itself or was named, the masters in turn, what the URL names.
    fn candidates(&self, hint: Option<Address>) -> Vec<Address> {
        let mut candidates: Vec<Address> = hint.into_iter().collect();
        let map = self.view.borrow().map.clone();
        let masters = map.as_ref().map_or(&[][..], |map| map.masters());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % masters.len().max(1);
        let in_turn = masters.iter().cycle().skip(turn).take(masters.len());
        for address in in_turn.chain(&self.seeds) {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    async fn ask(self: &Arc<Self>, node: &Address) -> Result<SlotMap, Error> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let pool = self.pool(node)?;
        let reply: Value = pool
            .call_within(
                self.config.warm_up,
                SLOTS_OPERATION,
                Request::Command(&command),
            )
            .await?;
        SlotMap::parse(&reply, node).ok_or_else(|| {
            let message =
                format!("Redis at {node} tells no slots: is it a cluster that was set up?");
            Error::new(ErrorKind::Server, SLOTS_OPERATION, message)
        })
    }

    fn install(&self, map: SlotMap) {
        let map = Arc::new(map);
        let before = self.view.borrow().map.clone();
        match &before {
            // Nodes that left, and names of the URL that the cluster itself does not use.
            Some(_) => self
                .pools
                .write()
                .retain(|address, _| map.masters().contains(address)),
            // Connections that were made without a map have not tried their rights.
            None => self.pools.write().clear(),
        }
        if before.is_none_or(|before| before.masters() != map.masters()) {
            let masters: Vec<String> = map.masters().iter().map(ToString::to_string).collect();
            let unowned = map.unowned();
            tracing::info!(?masters, unowned, "the masters of the Redis Cluster");
        }
        self.view.send_replace(View {
            refreshing: false,
            map: Some(map),
            at: Some(Instant::now()),
            failure: None,
        });
    }

    fn report(&self, failure: Failure) {
        let (host, reason) = (self.config.host(), &failure.1);
        tracing::warn!(host, reason, "no node of the Redis Cluster tells its slots");
        self.view.send_modify(|view| {
            view.refreshing = false;
            view.at = Some(Instant::now());
            view.failure = Some(failure);
        });
    }
}

/// A refresh under way. One that its runtime has ended is over too.
struct Refreshing {
    nodes: Arc<Nodes>,
    told: bool,
}

impl Refreshing {
    fn end(mut self, result: Result<SlotMap, Failure>) {
        match result {
            Ok(map) => self.nodes.install(map),
            Err(failure) => self.nodes.report(failure),
        }
        self.told = true;
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        if !self.told {
            self.nodes.view.send_modify(|view| view.refreshing = false);
        }
    }
}
