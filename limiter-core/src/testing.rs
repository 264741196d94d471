//! The simplest store, for this crate's own tests.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;

use crate::clock::{Clock, ManualClock, Timestamp};
use crate::error::Error;
use crate::health::Health;
use crate::limit::algorithm::State;
use crate::limit::{Capabilities, Group, Issuer, LimitStore, MapStates, Observed, apply_group};
use crate::sync::Mutex;

/// States in a map. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct MapStore {
    pub(crate) clock: ManualClock,
    capabilities: Capabilities,
    states: Arc<Mutex<HashMap<String, State>>>,
    issuer: Issuer,
}

impl MapStore {
    pub(crate) fn new(capabilities: Capabilities) -> Self {
        Self {
            // 2026-11-21 00:00:00.123456 UTC.
            clock: ManualClock::at(Timestamp::from_micros(1_795_219_200_123_456)),
            capabilities,
            states: Arc::default(),
            issuer: Issuer::unique(),
        }
    }
}

#[async_trait]
impl LimitStore for MapStore {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        issuer == self.issuer
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut states = MapStates::new(group, &mut states, self.issuer);
        Some(apply_group(group, &mut states, self.clock.now(), observed))
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        self.try_apply_now(group, observed).unwrap()
    }

    async fn health(&self) -> Health {
        Health::new("map", true, None, "")
    }
}
