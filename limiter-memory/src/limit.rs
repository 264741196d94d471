//! Limits in this process.

use std::sync::Arc;

use async_trait::async_trait;
use limiter_core::clock::{Clock, Timestamp};
use limiter_core::limit::algorithm::State;
use limiter_core::limit::{
    Action, Capabilities, Group, LimitStore, Observed, Place, Source, States, Step, apply_group,
};
use limiter_core::{Error, ErrorKind, Health};

use crate::config::{MemoryConfig, Overflow};
use crate::sync::MutexGuard;
use crate::table::{Fingerprint, Shard, Table};

#[cfg(all(test, shuttle))]
mod interleavings;

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
        let alone = match (group.steps(), group.operation(), self.overflow) {
            // A shared counter may live in another shard, and so may a record.
            ([step], None, Overflow::Refuse) if step.record().is_none() => {
                self.apply_one(group, step, observed)
            }
            _ => self.apply_many(group, observed),
        };
        for observed in observed {
            observed.source = Source::Memory;
        }
        alone
    }

    fn apply_one(
        &self,
        group: &Group<'_>,
        step: &Step<'_>,
        observed: &mut [Observed],
    ) -> Result<(), Error> {
        let limits = [self.table.fingerprint(step.key.as_str())];
        let shard = limits[0].shard();
        let mut shards = [(shard, self.table.lock(shard))];
        // Read under the lock, so that times in one shard do not run backwards.
        let now = self.clock.now();
        let mut uncounted = 0;
        let (_, shard) = &mut shards[0];
        if creates(step)
            && shard.get(limits[0]).is_none()
            && !shard.has_room(1, self.table.shard_keys(), now)
        {
            if !step.policy.is_shadow() {
                return Err(full(self.table.shard_keys()));
            }
            // A shadow never blocks: without room it is looked at and not counted.
            uncounted = 1;
        }
        let mut view = View {
            shards: &mut shards,
            limits: &limits,
            records: &[],
            operation: None,
            uncounted,
        };
        apply_group(group, &mut view, now, observed)
    }

    fn apply_many(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let steps = group.steps();
        let named = |place: Place| {
            let name = place.name(group)?;
            Some(self.table.fingerprint(&name))
        };
        let fingerprint = |step: &Step<'_>| self.table.fingerprint(step.key.as_str());
        let mut limits: Vec<Fingerprint> = steps.iter().map(fingerprint).collect();
        let records: Vec<Option<Fingerprint>> = (0..steps.len())
            .map(|index| named(Place::Record(index)))
            .collect();
        let operation = named(Place::Operation);
        // Shared counters live in shards of their own.
        let overflow = steps.iter().filter_map(|step| match self.overflow {
            Overflow::Share => Some(self.table.overflow_fingerprint(step.policy)),
            Overflow::Refuse => None,
        });
        let places = limits.iter().copied().chain(overflow);
        let places = places.chain(records.iter().copied().flatten());
        let mut ids: Vec<usize> = places.chain(operation).map(Fingerprint::shard).collect();
        // In one order, so that no two groups wait for each other.
        ids.sort_unstable();
        ids.dedup();
        let mut shards: Vec<_> = ids
            .into_iter()
            .map(|id| (id, self.table.lock(id)))
            .collect();
        let now = self.clock.now();
        let uncounted =
            self.find_room(group, &mut shards, &mut limits, &records, operation, now)?;
        let mut view = View {
            shards: &mut shards,
            limits: &limits,
            records: &records,
            operation,
            uncounted,
        };
        apply_group(group, &mut view, now, observed)
    }

    /// Finds room for what the group may create. A key without room moves to its policy's shared
    /// counter, if the settings say so. The steps (a bit each) that are not counted for want of room.
    fn find_room(
        &self,
        group: &Group<'_>,
        shards: &mut [(usize, MutexGuard<'_, Shard>)],
        limits: &mut [Fingerprint],
        records: &[Option<Fingerprint>],
        operation: Option<Fingerprint>,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let mut wanted: Vec<Fingerprint> = Vec::new();
        let mut has_room = |place: Fingerprint| {
            let Some((_, shard)) = shards.iter_mut().find(|(id, _)| *id == place.shard()) else {
                return true;
            };
            if wanted.contains(&place) || shard.get(place).is_some() {
                return true;
            }
            let same_shard = |other: &&Fingerprint| other.shard() == place.shard();
            let new = 1 + wanted.iter().filter(same_shard).count();
            let room = shard.has_room(new, self.table.shard_keys(), now);
            if room {
                wanted.push(place);
            }
            room
        };
        let mut uncounted = 0;
        for (index, step) in group.steps().iter().enumerate() {
            let shadow = step.policy.is_shadow();
            let records_it = matches!(step.action, Action::Reserve { .. } | Action::Refund { .. });
            let record = records[index].filter(|_| records_it);
            if record.is_some_and(|record| !has_room(record)) {
                if !shadow {
                    return Err(full(self.table.shard_keys()));
                }
                uncounted |= 1 << index;
                continue;
            }
            match self.overflow {
                Overflow::Refuse if !creates(step) || has_room(limits[index]) => {}
                Overflow::Refuse if shadow => uncounted |= 1 << index,
                Overflow::Refuse => return Err(full(self.table.shard_keys())),
                // A peek tells what a charge would meet: the shared counter, where that is.
                Overflow::Share if step.action != Action::Reset && !has_room(limits[index]) => {
                    limits[index] = self.table.overflow_fingerprint(step.policy);
                }
                Overflow::Share => {}
            }
        }
        if operation.is_some_and(|operation| !has_room(operation)) {
            return Err(full(self.table.shard_keys()));
        }
        Ok(uncounted)
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
        Capabilities::ALL
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
        let (held, room) = (self.len(), self.table.capacity());
        let full = if held * 10 >= room * 9 {
            "; the table is nearly full, and new keys may be refused"
        } else {
            ""
        };
        Health::new(
            "memory",
            true,
            None,
            format!(
                "limits are kept in this process, {held} of {room} keys; other instances do not see them{full}"
            ),
        )
    }
}

/// The states of a group, in locked shards.
struct View<'a, 'b> {
    shards: &'a mut [(usize, MutexGuard<'b, Shard>)],
    limits: &'a [Fingerprint],
    records: &'a [Option<Fingerprint>],
    operation: Option<Fingerprint>,
    /// Steps that are not counted, a bit for each of a group's 64 steps at most.
    uncounted: u64,
}

impl View<'_, '_> {
    fn find(&self, place: Place) -> Option<Fingerprint> {
        match place {
            Place::Limit(index) => self.limits.get(index).copied(),
            Place::Record(index) => self.records.get(index).copied().flatten(),
            Place::Operation => self.operation,
            _ => None,
        }
    }
}

impl States for View<'_, '_> {
    fn get(&self, place: Place) -> Option<&State> {
        let fingerprint = self.find(place)?;
        let mut shards = self.shards.iter();
        let (_, shard) = shards.find(|(id, _)| *id == fingerprint.shard())?;
        shard.get(fingerprint)
    }

    fn update(&mut self, place: Place, change: &mut dyn FnMut(Option<State>) -> Option<State>) {
        let Some(fingerprint) = self.find(place) else {
            return;
        };
        let mut shards = self.shards.iter_mut();
        let Some((_, shard)) = shards.find(|(id, _)| *id == fingerprint.shard()) else {
            return;
        };
        if let Place::Limit(index) | Place::Record(index) = place
            && self.uncounted & (1 << index) != 0
        {
            // What is reported is what would be; what is kept is nothing.
            let _ = change(shard.get(fingerprint).cloned());
            return;
        }
        shard.update(fingerprint, change);
    }

    fn shares(&self, one: usize, other: usize) -> bool {
        self.limits[one] == self.limits[other]
    }
}

/// Whether the step may create its key's state.
fn creates(step: &Step<'_>) -> bool {
    step.action.takes() && step.action.cost() <= step.policy.quota().capacity()
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
