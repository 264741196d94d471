//! Limits in a Redis Cluster: each group at the master that has its slot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use limiter_core::limit::{
    Capabilities, GIVE_BACKS, GiveBackQueue, Group, Issuer, LimitStore, Observed, Step,
};
use limiter_core::{Error, ErrorKind, Figure, Health};
use tokio::time::Instant;

use super::nodes::Nodes;
use super::redirect::Route;
use super::slot::{slot_of, slot_of_bytes};
use super::{CrossSlot, health, parts};
use crate::batch::Place;
use crate::config::RedisConfig;
use crate::guard::Span;
use crate::limit::begin;
use crate::script::Scripts;
use crate::script::call::{Call, Keys, OPERATION};
use crate::warm_up::{WARM_UP, warm_up};

/// Counters in a Redis Cluster, shared by every instance that uses it. Clones share the connections.
///
/// A group whose keys stand in one slot is a part of one script call, so it is atomic. Keys with one hash tag
/// share a slot: [`KeyBuilder::hash_tag`](limiter_core::KeyBuilder::hash_tag).
///
/// The store follows slots that move (MOVED, ASK), and waits out a slot that is between two nodes
/// (TRYAGAIN) and a node that cannot serve for now (CLUSTERDOWN, LOADING, READONLY), all within the
/// deadline of the call. These are answers of a node that did not run the call; nothing else is sent
/// again. While a slot moves, Redis makes calls with several keys wait until all of them have moved,
/// also for keys that do not exist yet: then only a deadline longer than the move keeps an operation
/// id, a reservation or a group on several keys of that slot from failing, without effect.
///
/// # Groups over several slots
/// By default they are refused as `Unsupported` before anything is sent. With
/// [`CrossSlot::Compensate`]:
///
/// - The group's steps are charged slot by slot, in the order in which the slots first appear in it:
///   put the narrowest limit first, the one that denies most often (user, then tenant, then all).
/// - The first slot that denies ends it: what was charged before is given back, by receipt, so that
///   it is given back once. The slots that were not asked, or were given back, are looked at, so that
///   every violated policy is named. The group is denied.
/// - Until it is given back, a charge of a group that is then denied counts: others may be denied for
///   it. No limit is ever exceeded. The time is that of two calls, or, where a master does not answer, until
///   it does: then the give-back goes on in the background, at most as long as the charge counts.
/// - What can stay charged without an admission, until the end of its window or until it is refilled:
///   in one slot what a call of unknown outcome charged (the group's error says so), or one that was dropped
///   under way; and in every slot what an instance that ended in between had charged.
/// - If a slot that could not be looked at would have denied too, it is not named: its step is reported with
///   [`Source::Outage`](limiter_core::limit::Source::Outage).
/// - Charges and peeks may be mixed. Refunds, settlements, cancellations, releases, renewals and resets go
///   to each slot by themselves; one that fails leaves the others done, and asking again is safe. Reservations,
///   leases and operation ids need one slot.
#[derive(Clone, Debug)]
pub struct ClusterStore {
    nodes: Arc<Nodes>,
    issuer: Issuer,
    /// For what groups over several slots must not keep. Its own store has none, which would hold itself.
    give_backs: Option<GiveBackQueue>,
}

impl ClusterStore {
    /// A store that connects when it is first used; see [`warm_up`](Self::warm_up). A single server's URL will do, if it is
    /// one of the cluster's nodes.
    ///
    /// # Errors
    /// `Config` if the settings cannot be used.
    pub fn new(config: &RedisConfig) -> Result<Self, Error> {
        Self::with_scripts(config, Scripts::new())
    }

    /// For tests: a store whose time is the number of microseconds that a key on each node holds; see
    /// `lua/clock_virtual.lua`.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "virtual-clock")]
    pub fn with_virtual_clock(config: &RedisConfig) -> Result<Self, Error> {
        Self::with_scripts(config, Scripts::with_virtual_clock())
    }

    /// In place of the store of a single server, whose count of unheard charges it goes on with.
    pub(crate) fn beside(config: &RedisConfig, unheard: Arc<AtomicU64>) -> Result<Self, Error> {
        Self::of(Nodes::new(config, Scripts::new(), unheard)?, config)
    }

    fn with_scripts(config: &RedisConfig, scripts: Scripts) -> Result<Self, Error> {
        Self::of(Nodes::new(config, scripts, Arc::default())?, config)
    }

    fn of(nodes: Arc<Nodes>, config: &RedisConfig) -> Result<Self, Error> {
        let store = Self {
            nodes,
            issuer: config.issuer(),
            give_backs: None,
        };
        let give_backs = GiveBackQueue::new(Arc::new(store.clone()), GIVE_BACKS);
        Ok(Self {
            give_backs: Some(give_backs),
            ..store
        })
    }

    pub(super) fn give_backs(&self) -> GiveBackQueue {
        match &self.give_backs {
            Some(queue) => queue.clone(),
            // Only a give-back comes here, which takes nothing that would have to be given back.
            None => GiveBackQueue::new(Arc::new(self.clone()), GIVE_BACKS),
        }
    }

    /// Asks for the slots, connects to each master and loads the scripts, so that the first check is not
    /// slower than the others; 2 s at most. The store works without it.
    ///
    /// Also looks at each master's eviction policy: an evicting Redis drops counters.
    ///
    /// # Errors
    /// What keeps a master from being used; the store goes on trying at every check.
    pub async fn warm_up(&self) -> Result<(), Error> {
        let config = &self.nodes.config;
        let end = Instant::now() + config.warm_up;
        let map = self.nodes.map(WARM_UP, end).await?;
        let masters = map.masters().iter().map(async |master| {
            let node = self.nodes.node(master)?;
            let left = end.saturating_duration_since(Instant::now());
            let server = warm_up(node.batches.pool(), &self.nodes.scripts, left).await;
            server.map(drop)
        });
        join_all(masters).await.into_iter().collect()
    }

    /// The slot of a step's counter, behind the prefix.
    pub(super) fn slot(&self, step: &Step<'_>) -> u16 {
        slot_of(&format!("{}{}", self.nodes.config.prefix, step.counter))
    }

    /// Whether a node tells the slots, until `end`.
    pub(crate) async fn has_slots(&self, end: Instant) -> bool {
        self.nodes.map(OPERATION, end).await.is_ok()
    }

    /// Applies a group that may be begun here.
    pub(crate) async fn apply_within(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
        span: Span,
    ) -> Result<(), Error> {
        let nodes = &self.nodes;
        let call = self.call(group)?;
        let Some(slot) = one_slot(call.keys()) else {
            return match nodes.config.cross_slot {
                CrossSlot::Compensate => {
                    Box::pin(parts::apply(self, group, observed, span.end)).await
                }
                CrossSlot::Refuse => Err(Error::new(
                    ErrorKind::Unsupported,
                    OPERATION,
                    "the group's keys stand in several slots of the cluster; give the keys one hash tag, or set CrossSlot::Compensate",
                )),
            };
        };
        self.apply_in(slot, call, group, observed, span).await
    }

    /// A group as a call.
    pub(super) fn call(&self, group: &Group<'_>) -> Result<Call, Error> {
        Call::new(group, &self.nodes.config.prefix)
    }

    /// One call: the group's keys stand in `slot`.
    pub(super) fn apply_in(
        &self,
        slot: u16,
        call: Call,
        group: &Group<'_>,
        observed: &mut [Observed],
        span: Span,
    ) -> impl Future<Output = Result<(), Error>> {
        let nodes = &self.nodes;
        async move {
            let policy = group.steps()[0].policy.name();
            let is_late = span.begun >= span.end;
            let reply = match nodes.owner(slot, span.begun).filter(|_| !is_late) {
                Some(owner) => match owner
                    .batches
                    .apply(policy, call, Place::of(slot), span)
                    .await
                {
                    Ok(reply) => reply,
                    // Rare: no reason to make every check's future larger.
                    Err(undone) => {
                        let route = Route::new(nodes, slot, span);
                        Box::pin(route.go_on(policy, &owner, undone)).await?
                    }
                },
                None => Box::pin(Route::new(nodes, slot, span).follow(policy, call)).await?,
            };
            reply.read(group, self.issuer, observed)
        }
    }

    fn deadline(&self) -> Duration {
        self.nodes.config.check_deadline
    }
}

#[async_trait]
impl LimitStore for ClusterStore {
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
        let span = begin(group, self.issuer, self.deadline())?;
        self.apply_within(group, observed, span).await
    }

    /// As of [`RedisStore`](crate::RedisStore), over all nodes.
    fn unheard(&self) -> u64 {
        self.nodes.unheard.load(Ordering::Relaxed)
    }

    fn figures(&self) -> Vec<Figure> {
        let nodes = self.nodes.nodes.read();
        nodes
            .values()
            .flat_map(|node| node.batches.figures())
            .collect()
    }

    async fn health(&self) -> Health {
        health::of(&self.nodes, Instant::now() + self.deadline()).await
    }
}

/// The slot of all keys; `None` if they have several.
fn one_slot(mut keys: Keys<'_>) -> Option<u16> {
    let first = slot_of_bytes(keys.next()?);
    keys.all(|key| slot_of_bytes(key) == first).then_some(first)
}
