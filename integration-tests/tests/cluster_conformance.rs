//! The suite of limiter-core over a cluster, twice: with every key in one slot, and with keys wherever they
//! fall, where groups are charged slot by slot.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use integration_tests::RedisCluster;
use limiter_core::clock::{Clock, ManualClock, Timestamp};
use limiter_core::conformance::{LimitHarness, limits};
use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed, Step};
use limiter_core::{Error, Health, Key};
use limiter_redis::{ClusterStore, CrossSlot};

/// Two instances over one cluster, and the clock of both.
struct Harness<S> {
    instances: [S; 2],
    turn: std::sync::atomic::AtomicUsize,
    clock: ManualClock,
    cluster: RedisCluster,
}

impl<S> Harness<S> {
    fn new(cross_slot: CrossSlot, wrap: fn(ClusterStore) -> S) -> Self {
        let cluster = RedisCluster::start();
        let clock = ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456));
        cluster.set_virtual_now(clock.now().as_micros());
        let config = cluster.virtual_config().with_cross_slot(cross_slot);
        let instance = || wrap(ClusterStore::with_virtual_clock(&config).unwrap());
        Self {
            instances: [instance(), instance()],
            turn: std::sync::atomic::AtomicUsize::new(0),
            clock,
            cluster,
        }
    }
}

#[async_trait]
impl<S: LimitStore + Clone + 'static> LimitHarness for Harness<S> {
    fn store(&self) -> Arc<dyn LimitStore> {
        let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(self.instances[turn % self.instances.len()].clone())
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.cluster.set_virtual_now(self.clock.now().as_micros());
    }
}

/// Puts every key into one slot, as a tenant's tag does.
#[derive(Clone, Debug)]
struct OneSlot(ClusterStore);

#[async_trait]
impl LimitStore for OneSlot {
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.0.is_issuer(issuer)
    }

    fn try_apply_now(
        &self,
        _group: &Group<'_>,
        _observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let keys: Vec<Key> = group
            .steps()
            .iter()
            .map(|step| {
                let key = Key::builder().segment("ratelimit").hash_tag("one");
                key.segment(step.key().as_str()).build()
            })
            .collect();
        let steps = group.steps().iter().zip(&keys);
        let steps: Vec<Step<'_>> = steps
            .map(|(step, key)| Step::new(step.policy, key, step.action.clone()).at(step.issuer))
            .collect();
        let capabilities = self.capabilities();
        let mut tagged = Group::new(&steps, &capabilities)?;
        if let Some((operation, ttl)) = group.operation() {
            tagged = tagged.with_operation(operation, ttl, &capabilities)?;
        }
        if let Some(deadline) = group.deadline() {
            tagged = tagged.with_deadline(deadline);
        }
        self.0.apply(&tagged, observed).await
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }
}

/// Declares what groups over several slots can do.
#[derive(Clone, Debug)]
struct SeveralSlots(ClusterStore);

#[async_trait]
impl LimitStore for SeveralSlots {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.refunds = true;
        capabilities
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.0.is_issuer(issuer)
    }

    fn try_apply_now(
        &self,
        _group: &Group<'_>,
        _observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        self.0.apply(group, observed).await
    }

    async fn health(&self) -> Health {
        self.0.health().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_conforms_in_one_slot() {
    limits(&Harness::new(CrossSlot::Refuse, OneSlot)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_conforms_over_several_slots() {
    limits(&Harness::new(CrossSlot::Compensate, SeveralSlots)).await;
}
