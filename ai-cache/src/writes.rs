//! Tells a slow reader or writer that its key was written meanwhile.
//!
//! A reader that got an old value from the store must not put it into L1 after somebody cleared or
//! replaced it; nor may a computation that began before a clear bring its answer back. So whoever goes
//! to the store takes a [`Ticket`] first, and shows it when it comes back. Whoever changes the store
//! waits for its [`Turn`], so that of two changes the store takes the later one last. Both are kept
//! only for keys that somebody holds a ticket of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limiter_core::cache::CacheKey;
use parking_lot::Mutex;
use tokio::sync::{
    Mutex as AsyncMutex, OwnedMutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

/// The writes that were made in this process.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// Counts clears of the whole namespace.
    epoch: AtomicU64,
    /// Held for reading by changes of one key in the store, for writing by clears of all.
    namespace: RwLock<()>,
    watched: Mutex<HashMap<CacheKey, Watched>>,
}

#[derive(Debug)]
struct Watched {
    tickets: usize,
    slot: Slot,
}

/// What the tickets of one key share.
#[derive(Clone, Debug, Default)]
struct Slot {
    version: Arc<AsyncMutex<u64>>,
    turn: Arc<AsyncMutex<()>>,
}

/// The right to write a key's entry in L1.
pub(crate) type Exclusive = OwnedMutexGuard<u64>;

/// The right to change a key in the store, while nobody else of this process does.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _namespace: RwLockReadGuard<'a, ()>,
    _key: OwnedMutexGuard<()>,
}

/// Proof of when somebody went to the store for a key.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    writes: &'a Writes,
    pub(crate) key: &'a CacheKey,
    pub(crate) epoch: u64,
    slot: Slot,
    seen: u64,
}

impl Writes {
    pub(crate) async fn ticket<'a>(&'a self, key: &'a CacheKey) -> Ticket<'a> {
        let slot = {
            let mut watched = self.watched.lock();
            let watched = watched.entry(key.clone()).or_insert_with(|| Watched {
                tickets: 0,
                slot: Slot::default(),
            });
            watched.tickets += 1;
            watched.slot.clone()
        };
        // The ticket stands before the first await, so that dropping this future gives it back.
        let mut ticket = Ticket {
            writes: self,
            key,
            epoch: self.epoch(),
            slot,
            seen: 0,
        };
        ticket.seen = *ticket.slot.version.lock().await;
        ticket
    }

    /// What entries of L1 must carry to be valid.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Overtakes all tickets, and makes all entries of L1 invalid.
    pub(crate) fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// The right to clear the store's namespace, while nobody of this process changes a key in it.
    pub(crate) async fn turn_of_all(&self) -> RwLockWriteGuard<'_, ()> {
        self.namespace.write().await
    }

    #[cfg(test)]
    pub(crate) fn watched_keys(&self) -> usize {
        self.watched.lock().len()
    }
}

impl<'a> Ticket<'a> {
    /// Waits until the changes of the key, and the clears of all, that came first are made.
    pub(crate) async fn turn(&self) -> Turn<'a> {
        let namespace = self.writes.namespace.read().await;
        Turn {
            _namespace: namespace,
            _key: self.slot.turn.clone().lock_owned().await,
        }
    }

    /// Keeps writers of the key out while the guard lives; `None` if somebody else has written it
    /// since.
    pub(crate) async fn hold(&self) -> Option<Exclusive> {
        let version = self.slot.version.clone().lock_owned().await;
        self.sees(&version).then_some(version)
    }

    /// Whether nobody else has written the key since.
    pub(crate) async fn is_current(&self) -> bool {
        self.hold().await.is_some()
    }

    /// Writes: overtakes all other tickets of the key, and keeps everybody out while the guard lives.
    /// Also tells whether nobody else had written it since.
    pub(crate) async fn overtake(&mut self) -> (Exclusive, bool) {
        let mut version = self.slot.version.clone().lock_owned().await;
        let current = self.sees(&version);
        *version += 1;
        if current {
            self.seen = *version;
        }
        (version, current)
    }

    fn sees(&self, version: &u64) -> bool {
        *version == self.seen && self.epoch == self.writes.epoch()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut watched = self.writes.watched.lock();
        if let Some(entry) = watched.get_mut(self.key) {
            entry.tickets -= 1;
            if entry.tickets == 0 {
                watched.remove(self.key);
            }
        }
    }
}
