//! Limits in this process.

use std::sync::Arc;

use async_trait::async_trait;
use limiter_core::clock::{Clock, Timestamp};
use limiter_core::limit::algorithm::State;
use limiter_core::limit::{
    Action, Capabilities, Group, Issuer, LimitStore, Observed, OperationId, Place, Source, States,
    Step, apply_group,
};
use limiter_core::{Error, Figure, Fingerprint, Health};

use crate::config::{MemoryConfig, Overflow};
use crate::sync::MutexGuard;
use crate::table::{Shard, Table, shard_of};

#[cfg(all(test, shuttle))]
mod interleavings;

/// A bounded table of counters in this process. Clones share it.
///
/// Answers without I/O and, for a single step under [`Overflow::Refuse`], without an allocation. At
/// capacity it drops entries
/// whose state equals fresh (all of a table of up to 16,384 keys, a part of a larger one, in turn), then follows
/// [`Overflow`]; an entry that still counts is never dropped. A full table is
/// an outage to a policy: one that allows then admits the new key, uncounted and marked as degraded.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    table: Arc<Table>,
    overflow: Overflow,
    clock: Arc<dyn Clock>,
    issuer: Issuer,
    /// Who keeps the counters that new keys share: what was charged there is given back there.
    shared: Issuer,
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
            issuer: Issuer::unique(),
            shared: Issuer::unique(),
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
        let limits = [step.counter.fingerprint()];
        let id = shard_of(limits[0]);
        let mut shards = [(id, self.table.lock(id))];
        // Read under the lock, so that times in one shard do not run backwards.
        let now = self.clock.now();
        let mut room = Room::new(self, &shards);
        let mut view = View::new(self, &mut shards, &limits);
        if creates(step) && !room.for_entry(limits[0], view.shards, now) {
            if !step.policy.is_shadow() {
                room.settle(&shards);
                return Err(self.table.full());
            }
            // A shadow never blocks: without room it is looked at and not counted.
            view.uncounted = 1;
        }
        let result = apply_group(group, &mut view, now, observed);
        room.settle(&shards);
        result
    }

    fn apply_many(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let steps = group.steps();
        let named = |place: Place| Some(Fingerprint::of(&place.name(group)?));
        let mut limits: Vec<Fingerprint> = steps
            .iter()
            .map(|step| match step.issuer {
                Some(issuer) if issuer == self.shared => overflow_fingerprint(step),
                _ => step.counter.fingerprint(),
            })
            .collect();
        let records: Vec<Option<Fingerprint>> = (0..steps.len())
            .map(|index| named(Place::Record(index)))
            .collect();
        let operation = named(Place::Operation);
        // Shared counters live in shards of their own.
        let overflow = steps.iter().filter_map(|step| match self.overflow {
            Overflow::Share => Some(overflow_fingerprint(step)),
            Overflow::Refuse => None,
        });
        let places = limits.iter().copied().chain(overflow);
        let places = places.chain(records.iter().copied().flatten());
        let mut ids: Vec<usize> = places.chain(operation).map(shard_of).collect();
        // In one order, so that no two groups wait for each other.
        ids.sort_unstable();
        ids.dedup();
        let mut shards: Vec<_> = ids
            .into_iter()
            .map(|id| (id, self.table.lock(id)))
            .collect();
        let now = self.clock.now();
        group.check_issuer(|issuer| self.is_issuer(issuer))?;
        let mut room = Room::new(self, &shards);
        let found = self.find_room(
            group,
            &mut shards,
            &mut limits,
            &records,
            operation,
            now,
            &mut room,
        );
        let result = found.and_then(|found| {
            let mut view = View::new(self, &mut shards, &limits);
            view.records = &records;
            view.operation = operation;
            view.shared = found.shared;
            view.uncounted = found.uncounted;
            view.unrecorded = found.unrecorded;
            apply_group(group, &mut view, now, observed)
        });
        room.settle(&shards);
        result
    }

    /// Finds room for what the group may create. A key without room moves to its policy's shared
    /// counter, if the settings say so.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one group under one lock"
    )]
    fn find_room(
        &self,
        group: &Group<'_>,
        shards: &mut [(usize, MutexGuard<'_, Shard>)],
        limits: &mut [Fingerprint],
        records: &[Option<Fingerprint>],
        operation: Option<Fingerprint>,
        now: Timestamp,
        room: &mut Room<'_>,
    ) -> Result<Found, Error> {
        let mut found = Found::default();
        let full = || self.table.full();
        for (index, step) in group.steps().iter().enumerate() {
            let (bit, shadow) = (1_u64 << index, step.policy.is_shadow());
            let record = records[index];
            // Where an earlier request of this id charged is where this one belongs.
            let charged = record.and_then(|record| issuer_of(shards, record));
            if step.issuer == Some(self.shared)
                || step.issuer.is_none() && charged == Some(self.shared)
            {
                found.shared |= bit;
                limits[index] = overflow_fingerprint(step);
            }
            let has_record = match step.action {
                Action::Reserve { .. }
                | Action::Refund { .. }
                | Action::Cancel { .. }
                | Action::Release { .. } => {
                    record.is_none_or(|record| room.for_entry(record, shards, now))
                }
                _ => true,
            };
            if !has_record {
                match step.action {
                    // What gives back needs no memory of it here, where no request is late.
                    Action::Cancel { .. } | Action::Release { .. } => found.unrecorded |= bit,
                    _ if shadow => {
                        found.uncounted |= bit;
                        continue;
                    }
                    _ => return Err(full()),
                }
            }
            if found.shared & bit != 0 {
                continue;
            }
            match self.overflow {
                Overflow::Refuse
                    if !creates(step) || room.for_entry(limits[index], shards, now) => {}
                Overflow::Refuse if shadow => found.uncounted |= bit,
                Overflow::Refuse => return Err(full()),
                // A peek tells what a charge would meet: the shared counter, where that is.
                Overflow::Share if step.issuer.is_some() => {
                    // It stays where it was made.
                    if creates(step) && !room.for_entry(limits[index], shards, now) {
                        if !shadow {
                            return Err(full());
                        }
                        found.uncounted |= bit;
                    }
                }
                Overflow::Share
                    if step.action != Action::Reset
                        && !step.action.follows_up()
                        && !room.for_entry(limits[index], shards, now) =>
                {
                    found.shared |= bit;
                    limits[index] = overflow_fingerprint(step);
                }
                Overflow::Share => {}
            }
        }
        if operation.is_some_and(|operation| !room.for_entry(operation, shards, now)) {
            return Err(full());
        }
        Ok(found)
    }
}

/// Where the steps of a group find room, a bit for each of a group's 64 steps at most.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    /// Counted on the policy's shared counter.
    shared: u64,
    /// Not counted, for want of room.
    uncounted: u64,
    /// Done, but not remembered.
    unrecorded: u64,
}

/// What a caller was promised of the table's room, and what its shards held before.
struct Room<'a> {
    table: &'a Table,
    before: usize,
    /// For which entries: the first one, for which nothing is allocated, and the others.
    first: Option<Fingerprint>,
    others: Vec<Fingerprint>,
}

impl<'a> Room<'a> {
    fn new(store: &'a MemoryStore, shards: &[(usize, MutexGuard<'_, Shard>)]) -> Self {
        Self {
            table: &store.table,
            before: held(shards),
            first: None,
            others: Vec::new(),
        }
    }

    /// Whether the entry is there, or there is room for it.
    fn for_entry(
        &mut self,
        entry: Fingerprint,
        shards: &mut [(usize, MutexGuard<'_, Shard>)],
        now: Timestamp,
    ) -> bool {
        let id = shard_of(entry);
        let Some((_, shard)) = shards.iter_mut().find(|(shard, _)| *shard == id) else {
            return true;
        };
        if self.first == Some(entry) || self.others.contains(&entry) {
            return true;
        }
        // One that has ended may be taken by a sweep for a later step: it is promised like a new one. What goes is counted
        // at once, so that it can be promised.
        let before = shard.len();
        match shard.get(entry) {
            Some(state) if !state.is_fresh(now) => return true,
            Some(_) => {}
            None => shard.tidy(now),
        }
        let promised = self.table.promise();
        if !promised {
            shard.update(entry, &mut |_| None);
        }
        let gone = before - shard.len();
        self.table.settle(gone, 0, 0);
        self.before -= gone;
        if !(promised || self.table.promise()) {
            let own = |(_, shard): &mut (usize, MutexGuard<'_, Shard>)| {
                shard.sweep_for_room(self.table.capacity(), now)
            };
            let gone: usize = shards.iter_mut().map(own).sum();
            self.table.settle(gone, 0, 0);
            self.before -= gone;
            if gone == 0 && !self.table.sweep(now) || !self.table.promise() {
                return false;
            }
        }
        if self.first.is_none() {
            self.first = Some(entry);
        } else {
            self.others.push(entry);
        }
        true
    }

    /// Counts what became of the promises.
    fn settle(self, shards: &[(usize, MutexGuard<'_, Shard>)]) {
        let promised = usize::from(self.first.is_some()) + self.others.len();
        self.table.settle(self.before, held(shards), promised);
    }
}

fn held(shards: &[(usize, MutexGuard<'_, Shard>)]) -> usize {
    shards.iter().map(|(_, shard)| shard.len()).sum()
}

/// Who keeps what a record tells of.
fn issuer_of(shards: &[(usize, MutexGuard<'_, Shard>)], record: Fingerprint) -> Option<Issuer> {
    let id = shard_of(record);
    let (_, shard) = shards.iter().find(|(shard, _)| *shard == id)?;
    match shard.get(record)? {
        State::Record(record) => record.issuer(),
        _ => None,
    }
}

/// The counter that new keys of a policy share. No key has it: encoded keys hold no control bytes.
fn overflow_fingerprint(step: &Step<'_>) -> Fingerprint {
    let (name, version) = (step.policy.name(), step.policy.version());
    let algorithm = step.policy.quota().algorithm();
    Fingerprint::of(&format!("\0overflow:{name}:{algorithm}:{version}"))
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

    fn is_issuer(&self, issuer: Issuer) -> bool {
        issuer == self.issuer || self.overflow == Overflow::Share && issuer == self.shared
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

    fn figures(&self) -> Vec<Figure> {
        self.table.figures()
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
    store: &'a MemoryStore,
    shards: &'a mut [(usize, MutexGuard<'b, Shard>)],
    limits: &'a [Fingerprint],
    records: &'a [Option<Fingerprint>],
    operation: Option<Fingerprint>,
    /// See [`Found`].
    shared: u64,
    uncounted: u64,
    unrecorded: u64,
}

impl<'a, 'b> View<'a, 'b> {
    fn new(
        store: &'a MemoryStore,
        shards: &'a mut [(usize, MutexGuard<'b, Shard>)],
        limits: &'a [Fingerprint],
    ) -> Self {
        Self {
            store,
            shards,
            limits,
            records: &[],
            operation: None,
            shared: 0,
            uncounted: 0,
            unrecorded: 0,
        }
    }

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
        let (_, shard) = shards.find(|(id, _)| *id == shard_of(fingerprint))?;
        shard.get(fingerprint)
    }

    fn update(&mut self, place: Place, change: &mut dyn FnMut(Option<State>) -> Option<State>) {
        let Some(fingerprint) = self.find(place) else {
            return;
        };
        let mut shards = self.shards.iter_mut();
        let Some((_, shard)) = shards.find(|(id, _)| *id == shard_of(fingerprint)) else {
            return;
        };
        let without_trace = match place {
            Place::Limit(index) => self.uncounted & (1 << index) != 0,
            Place::Record(index) => (self.uncounted | self.unrecorded) & (1 << index) != 0,
            _ => false,
        };
        if without_trace {
            // What is reported is what would be; what is kept is nothing.
            let _ = change(shard.get(fingerprint).cloned());
            return;
        }
        shard.update(fingerprint, change);
    }

    fn issuer(&self, step: usize) -> Issuer {
        if self.shared & (1 << step) == 0 {
            self.store.issuer
        } else {
            self.store.shared
        }
    }

    fn shares(&self, one: usize, other: usize) -> bool {
        self.limits[one] == self.limits[other]
    }

    fn lease(&self, step: &Step<'_>, index: usize, id: &OperationId) -> u128 {
        if self.shared & (1 << index) == 0 {
            id.digest()
        } else {
            id.digest() ^ step.counter.fingerprint().as_u128()
        }
    }
}

/// Whether the step may create its key's state.
fn creates(step: &Step<'_>) -> bool {
    step.action.takes() && step.action.cost() <= step.policy.quota().capacity()
}
