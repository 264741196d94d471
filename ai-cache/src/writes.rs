//! Tells a slow reader or writer that its key was written meanwhile.
//!
//! A reader that got an old value from the store must not put it into L1 after somebody cleared or
//! replaced it; nor may a computation that began before a clear bring its answer back. So whoever goes
//! to the store takes a [`Ticket`] first, and shows it when it comes back. Versions are kept only for
//! keys that somebody holds a ticket of.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limiter_core::cache::CacheKey;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The writes that were made in this process.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// Counts clears of the whole namespace.
    epoch: AtomicU64,
    watched: Mutex<HashMap<CacheKey, Watched>>,
}

#[derive(Debug)]
struct Watched {
    tickets: usize,
    version: Arc<AsyncMutex<u64>>,
}

/// The right to write a key's entry in L1.
pub(crate) type Exclusive = OwnedMutexGuard<u64>;

/// Proof of when somebody went to the store for a key.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    writes: &'a Writes,
    pub(crate) key: &'a CacheKey,
    pub(crate) epoch: u64,
    version: Arc<AsyncMutex<u64>>,
    seen: u64,
}

impl Writes {
    pub(crate) async fn ticket<'a>(&'a self, key: &'a CacheKey) -> Ticket<'a> {
        let version = {
            let mut watched = self.watched.lock();
            let watched = watched.entry(key.clone()).or_insert_with(|| Watched {
                tickets: 0,
                version: Arc::default(),
            });
            watched.tickets += 1;
            watched.version.clone()
        };
        // The ticket stands before the first await, so that dropping this future gives it back.
        let mut ticket = Ticket {
            writes: self,
            key,
            epoch: self.epoch(),
            version,
            seen: 0,
        };
        ticket.seen = *ticket.version.lock().await;
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

    #[cfg(test)]
    pub(crate) fn watched_keys(&self) -> usize {
        self.watched.lock().len()
    }
}

impl Ticket<'_> {
    /// Keeps writers of the key out while the guard lives; `None` if somebody else has written it
    /// since.
    pub(crate) async fn hold(&self) -> Option<Exclusive> {
        let version = self.version.clone().lock_owned().await;
        let current = *version == self.seen && self.epoch == self.writes.epoch();
        current.then_some(version)
    }

    /// Whether nobody else has written the key since.
    pub(crate) async fn is_current(&self) -> bool {
        self.hold().await.is_some()
    }

    /// Writes: overtakes all other tickets of the key, and keeps everybody out while the guard lives.
    /// Also tells whether nobody else had written it since.
    pub(crate) async fn overtake(&mut self) -> (Exclusive, bool) {
        let mut version = self.version.clone().lock_owned().await;
        let current = *version == self.seen;
        *version += 1;
        if current {
            self.seen = *version;
        }
        (version, current)
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
