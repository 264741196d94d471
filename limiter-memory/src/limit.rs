//! Limits in this process.

use std::sync::Arc;

use async_trait::async_trait;
use limiter_core::clock::Clock;
use limiter_core::limit::algorithm::State;
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, Observed, Source, States, apply_group,
};
use limiter_core::{Error, ErrorKind, Health};
use parking_lot::MutexGuard;

use crate::config::{MemoryConfig, Overflow};
use crate::table::{Fingerprint, Shard, Table};

/// A bounded table of counters in this process. Clones share it.
///
/// Answers without I/O and, for a single step under [`Overflow::Refuse`], without an allocation. At
/// capacity it drops entries
/// whose state equals fresh, then follows [`Overflow`]; an entry that still counts is never dropped.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    table: Arc<Table>,
    overflow: Overflow,
    clock: Arc<dyn Clock>,
}

impl MemoryStore {
    /// A store with the default settings.
    pub fn new() -> Self {
        Self::with_config(&MemoryConfig::default())
    }

    /// A store with other settings.
    pub fn with_config(config: &MemoryConfig) -> Self {
        Self {
            table: Arc::new(Table::new(config.keys)),
            overflow: config.overflow,
            clock: config.clock.clone(),
        }
    }

    /// How many keys are held at present, those included that no longer count and await a sweep.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn apply_in_memory(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        // A shared counter may live in another shard, so that path locks for several.
        match (group.steps(), self.overflow) {
            ([_], Overflow::Refuse) => self.apply_one(group, observed),
            _ => self.apply_many(group, observed),
        }
    }

    fn apply_one(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let fingerprint = self.table.fingerprint(group.steps()[0].key.as_str());
        let mut shards = [(fingerprint.shard(), self.table.lock(fingerprint.shard()))];
        self.apply_locked(group, &mut shards, &mut [fingerprint], observed)
    }

    fn apply_many(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let mut places: Vec<Fingerprint> = group
            .steps()
            .iter()
            .map(|step| self.table.fingerprint(step.key.as_str()))
            .collect();
        // Shared counters live in shards of their own; in one order, so that no two groups wait for
        // each other.
        let overflow = group.steps().iter().filter_map(|step| match self.overflow {
            Overflow::Share => Some(self.table.overflow_fingerprint(step.policy)),
            Overflow::Refuse => None,
        });
        let mut ids: Vec<usize> = places
            .iter()
            .copied()
            .chain(overflow)
            .map(Fingerprint::shard)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let mut shards: Vec<_> = ids
            .into_iter()
            .map(|id| (id, self.table.lock(id)))
            .collect();
        self.apply_locked(group, &mut shards, &mut places, observed)
    }

    /// Finds room for the group's new keys and applies it. `places` are the steps' fingerprints; a
    /// key without room moves to its policy's shared counter, if the settings say so.
    fn apply_locked(
        &self,
        group: &Group<'_>,
        shards: &mut [(usize, MutexGuard<'_, Shard>)],
        places: &mut [Fingerprint],
        observed: &mut [Observed],
    ) -> Result<(), Error> {
        // Read under the lock, so that times in one shard do not run backwards.
        let now = self.clock.now();
        // A bit for each of a group's 64 steps at most.
        let mut uncounted = 0_u64;
        for (index, step) in group.steps().iter().enumerate() {
            let place = places[index];
            // A peek tells what a charge would meet: the shared counter, where that is.
            let charges = matches!(step.action, Action::Charge { cost: 1.. });
            if step.action == Action::Reset || (!charges && self.overflow == Overflow::Refuse) {
                continue;
            }
            let Some((_, shard)) = shards.iter_mut().find(|(id, _)| *id == place.shard()) else {
                continue;
            };
            if shard.get(place).is_some() {
                continue;
            }
            let new = 1 + places[..index]
                .iter()
                .filter(|earlier| {
                    **earlier != place
                        && earlier.shard() == place.shard()
                        && shard.get(**earlier).is_none()
                })
                .count();
            if shard.has_room(new, self.table.shard_keys(), now) {
                continue;
            }
            match self.overflow {
                // A shadow never blocks: without room it is looked at and not counted.
                Overflow::Refuse if step.policy.is_shadow() => uncounted |= 1 << index,
                Overflow::Refuse => return Err(full(self.table.shard_keys())),
                Overflow::Share => {
                    places[index] = self.table.overflow_fingerprint(step.policy);
                }
            }
        }
        let mut view = View {
            shards,
            places,
            uncounted,
        };
        apply_group(group, &mut view, now, observed)?;
        for observed in observed {
            observed.source = Source::Memory;
        }
        Ok(())
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl LimitStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn try_apply_now(
        &self,
        group: &Group<'_>,
        observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        Some(self.apply_in_memory(group, observed))
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        self.apply_in_memory(group, observed)
    }

    async fn health(&self) -> Health {
        Health::new(
            "memory",
            true,
            None,
            "limits are kept in this process; other instances do not see them",
        )
    }
}

/// The states of a group's keys, in locked shards.
struct View<'a, 'b> {
    shards: &'a mut [(usize, MutexGuard<'b, Shard>)],
    places: &'a [Fingerprint],
    /// Steps whose state is not kept.
    uncounted: u64,
}

impl States for View<'_, '_> {
    fn get(&self, index: usize) -> Option<State> {
        let place = self.places[index];
        self.shards
            .iter()
            .find(|(id, _)| *id == place.shard())
            .and_then(|(_, shard)| shard.get(place))
    }

    fn shares(&self, one: usize, other: usize) -> bool {
        self.places[one] == self.places[other]
    }

    fn set(&mut self, index: usize, state: Option<State>) {
        if self.uncounted & (1 << index) != 0 {
            return;
        }
        let place = self.places[index];
        if let Some((_, shard)) = self.shards.iter_mut().find(|(id, _)| *id == place.shard()) {
            shard.set(place, state);
        }
    }
}

fn full(shard_keys: usize) -> Error {
    Error::new(
        ErrorKind::Capacity,
        "limit.apply",
        format!(
            "the table's part for this key is full with {shard_keys} keys that still count; raise MemoryConfig::with_keys, shorten the windows, or choose Overflow::Share"
        ),
    )
}
