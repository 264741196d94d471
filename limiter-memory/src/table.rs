//! The table of limit states: shards of a mutex and a hash table, bounded and self-sweeping.
//!
//! Not a cache: an entry that still counts is never evicted, because that would reset a limit. Keys
//! are stored as keyed 128-bit fingerprints (SipHash-1-3-128 under a random key), so that an entry
//! is small and nobody can aim for collisions. docs/design.md says why.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use limiter_core::clock::Timestamp;
use limiter_core::limit::Policy;
use limiter_core::limit::algorithm::State;
use siphasher::sip128::SipHasher13;

use crate::sync::{Mutex, MutexGuard};

/// Many small shards: a shard that grows stalls its callers, the less the smaller it is.
const SHARDS: usize = 256;

/// A full shard whose sweep freed nothing is not swept again for this long (microseconds), so that
/// a flood of new keys does not sweep at every request.
const SWEEP_PAUSE: u64 = 10_000;

pub(crate) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: SipHasher13,
    shard_keys: usize,
}

pub(crate) struct Shard {
    entries: HashTable<Entry>,
    /// The length at which the shard is swept next; doubles with what a sweep leaves, so that
    /// sweeping costs a constant per insertion.
    sweep_at: usize,
    /// When a full shard may be swept again.
    sweep_after: Timestamp,
}

struct Entry {
    fingerprint: Fingerprint,
    /// Empty only while it is changed.
    state: Option<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u128);

impl Fingerprint {
    /// The table's hash: the low half.
    fn hash(self) -> u64 {
        #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
        let low = self.0 as u64;
        low
    }

    /// The shard: from the high half, which the table's hash does not use.
    pub(crate) fn shard(self) -> usize {
        (self.0 >> 120) as usize % SHARDS
    }
}

impl Table {
    pub(crate) fn new(keys: usize) -> Self {
        let random = RandomState::new();
        Self::with_hash_keys(keys, random.hash_one(0), random.hash_one(1))
    }

    /// A table whose keys always fall into the same shards.
    pub(crate) fn with_hash_keys(keys: usize, first: u64, second: u64) -> Self {
        let shard = || {
            Mutex::new(Shard {
                entries: HashTable::new(),
                sweep_at: 64,
                sweep_after: Timestamp::default(),
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: SipHasher13::new_with_keys(first, second),
            shard_keys: keys.div_ceil(SHARDS),
        }
    }

    pub(crate) fn fingerprint(&self, key: &str) -> Fingerprint {
        Fingerprint(self.hasher.hash(key.as_bytes()).as_u128())
    }

    /// The counter that new keys of a policy share. No key has it: encoded keys hold no control bytes.
    pub(crate) fn overflow_fingerprint(&self, policy: &Policy) -> Fingerprint {
        let (name, algorithm) = (policy.name(), policy.quota().algorithm());
        self.fingerprint(&format!("\0overflow:{name}:{algorithm}"))
    }

    pub(crate) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock()
    }

    /// How many entries a shard may hold.
    pub(crate) fn shard_keys(&self) -> usize {
        self.shard_keys
    }

    /// How many entries all shards may hold.
    pub(crate) fn capacity(&self) -> usize {
        self.shard_keys * SHARDS
    }

    /// Entries at present, fresh ones that were not yet swept included.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().entries.len())
            .sum()
    }
}

/// Neither the entries nor the key of their fingerprints.
impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("shard_keys", &self.shard_keys)
            .finish_non_exhaustive()
    }
}

impl Shard {
    pub(crate) fn get(&self, fingerprint: Fingerprint) -> Option<&State> {
        self.entries
            .find(fingerprint.hash(), |entry| entry.fingerprint == fingerprint)
            .and_then(|entry| entry.state.as_ref())
    }

    /// Replaces what is kept under the fingerprint by what `change` makes of it; `None` removes it.
    pub(crate) fn update(
        &mut self,
        fingerprint: Fingerprint,
        change: &mut dyn FnMut(Option<State>) -> Option<State>,
    ) {
        let entry = self.entries.entry(
            fingerprint.hash(),
            |entry| entry.fingerprint == fingerprint,
            |entry| entry.fingerprint.hash(),
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

    /// Makes room for `new` more entries, sweeping fresh ones if it is time to; whether there is.
    pub(crate) fn has_room(&mut self, new: usize, capacity: usize, now: Timestamp) -> bool {
        let full = self.entries.len() + new > capacity;
        if self.entries.len() >= self.sweep_at || (full && now >= self.sweep_after) {
            self.entries.retain(|entry| {
                entry
                    .state
                    .as_ref()
                    .is_some_and(|state| !state.is_fresh(now))
            });
            self.sweep_at = (2 * self.entries.len()).max(64);
            self.sweep_after = Timestamp::from_micros(now.as_micros() + SWEEP_PAUSE);
        }
        self.entries.len() + new <= capacity
    }
}
