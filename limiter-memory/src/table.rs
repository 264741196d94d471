//! The table of limit states: shards of a mutex and a hash table, bounded and self-sweeping.
//!
//! Not a cache: an entry that still counts is never evicted, because that would reset a limit. Keys
//! are stored as the 128-bit fingerprints that they carry, so that an entry
//! is small and nobody can aim for collisions. docs/design.md says why.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use hashbrown::HashTable;
use limiter_core::clock::Timestamp;
use limiter_core::limit::algorithm::State;
use limiter_core::{Error, ErrorKind, Figure, Fingerprint};

use crate::sync::{Mutex, MutexGuard};

/// Many small shards: a shard that grows stalls its callers, the less the smaller it is.
const SHARDS: usize = 256;

/// A full table of at most so many keys is swept whole to make room; of a larger one so many shards, in turn.
const SWEPT_WHOLE: usize = 1 << 14;
const SWEPT_AT_ONCE: usize = 4;

/// A shard whose sweep freed nothing is not swept again for this long (microseconds), or for one microsecond a key of the
/// table, whichever is longer: a flood of new keys spends about 1 % of a core on sweeping.
const SWEEP_PAUSE: u64 = 10_000;

pub(crate) struct Table {
    shards: Box<[Mutex<Shard>]>,
    capacity: usize,
    /// Entries of all shards, and what is promised to callers who may add some. Written only where entries come or go.
    held: AtomicUsize,
    /// Where the next sweep for room begins.
    next: AtomicUsize,
    /// How often there was no room.
    refused: AtomicU64,
}

#[derive(Default)]
pub(crate) struct Shard {
    entries: HashTable<Entry>,
    /// The length at which the shard is swept next; doubles with what a sweep leaves, so that
    /// sweeping costs a constant per insertion.
    sweep_at: usize,
    /// When the shard was last swept for room.
    swept: Timestamp,
}

struct Entry {
    fingerprint: Fingerprint,
    /// Empty only while it is changed.
    state: Option<State>,
}

const FIRST_SWEEP: usize = 64;

/// The shard of a fingerprint: from the high half, which the shard's table does not use.
pub(crate) fn shard_of(fingerprint: Fingerprint) -> usize {
    (fingerprint.as_u128() >> 120) as usize % SHARDS
}

/// The hash in the shard's table: the low half.
fn hash_of(fingerprint: Fingerprint) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    let low = fingerprint.as_u128() as u64;
    low
}

impl Table {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            capacity,
            held: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub(crate) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock()
    }

    /// The error of a key for which there is no room.
    pub(crate) fn full(&self) -> Error {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Error::new(
            ErrorKind::Capacity,
            "limit.apply",
            format!(
                "the table is full with {} keys that still count; raise MemoryConfig::with_keys, shorten the windows, or choose Overflow::Share",
                self.capacity()
            ),
        )
    }

    pub(crate) fn figures(&self) -> Vec<Figure> {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        vec![
            Figure::new("limiter_memory_keys", count(self.len())),
            Figure::new("limiter_memory_keys_limit", count(self.capacity())),
            Figure::new(
                "limiter_memory_refused_total",
                self.refused.load(Ordering::Relaxed),
            ),
        ]
    }

    /// How many entries there may be.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Entries at present, those included that no longer count and were not yet swept.
    pub(crate) fn len(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Promises room for one more entry, if there is any.
    pub(crate) fn promise(&self) -> bool {
        let add = |held| (held < self.capacity).then_some(held + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.held.fetch_update(set, fetch, add).is_ok()
    }

    /// Counts what came and went, against what was promised.
    pub(crate) fn settle(&self, before: usize, after: usize, promised: usize) {
        let (more, less) = (after, before + promised);
        if more > less {
            self.held.fetch_add(more - less, Ordering::Relaxed);
        } else if less > more {
            self.held.fetch_sub(less - more, Ordering::Relaxed);
        }
    }

    /// Drops what no longer counts from shards that nobody has locked, to make room; `true` if anything went.
    pub(crate) fn sweep(&self, now: Timestamp) -> bool {
        let shards = if self.capacity <= SWEPT_WHOLE {
            SHARDS
        } else {
            SWEPT_AT_ONCE
        };
        let from = self.next.fetch_add(shards, Ordering::Relaxed);
        let mut freed = false;
        for index in from..from + shards {
            if let Some(mut shard) = self.shards[index % SHARDS].try_lock() {
                let gone = shard.sweep_for_room(self.capacity, now);
                self.settle(gone, 0, 0);
                freed |= gone > 0;
            }
        }
        freed
    }
}

/// Without the entries.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("held", &self.len())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl Shard {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, fingerprint: Fingerprint) -> Option<&State> {
        self.entries
            .find(hash_of(fingerprint), |entry| {
                entry.fingerprint == fingerprint
            })
            .and_then(|entry| entry.state.as_ref())
    }

    /// Replaces what is kept under the fingerprint by what `change` makes of it; `None` removes it.
    pub(crate) fn update(
        &mut self,
        fingerprint: Fingerprint,
        change: &mut dyn FnMut(Option<State>) -> Option<State>,
    ) {
        let entry = self.entries.entry(
            hash_of(fingerprint),
            |entry| entry.fingerprint == fingerprint,
            |entry| hash_of(entry.fingerprint),
        );
        use hashbrown::hash_table::Entry as Place;
        match entry {
            Place::Occupied(mut place) => {
                let state = place.get_mut().state.take();
                place.get_mut().state = change(state);
                if place.get().state.is_none() {
                    place.remove();
                }
            }
            Place::Vacant(place) => {
                if let Some(state) = change(None) {
                    let state = Some(state);
                    place.insert(Entry { fingerprint, state });
                }
            }
        }
    }

    /// Sweeps if it is time to, because the shard has grown.
    pub(crate) fn tidy(&mut self, now: Timestamp) {
        if self.entries.len() >= self.sweep_at.max(FIRST_SWEEP) {
            self.drop_fresh(now);
        }
    }

    /// Sweeps a shard of a full table, unless that was done a moment ago; how many entries went.
    pub(crate) fn sweep_for_room(&mut self, capacity: usize, now: Timestamp) -> usize {
        let pause = SWEEP_PAUSE.max(capacity as u64);
        // Both ways: a clock that stepped back must not stop the sweeps until it is there again.
        if now.as_micros().abs_diff(self.swept.as_micros()) < pause {
            return 0;
        }
        self.swept = now;
        let before = self.entries.len();
        self.drop_fresh(now);
        before - self.entries.len()
    }

    fn drop_fresh(&mut self, now: Timestamp) {
        self.entries.retain(|entry| {
            entry
                .state
                .as_ref()
                .is_some_and(|state| !state.is_fresh(now))
        });
        self.sweep_at = 2 * self.entries.len();
    }
}
