//! The tier in this process, in front of the store.

use std::sync::Arc;
use std::time::Duration;

use limiter_core::cache::CacheKey;
use limiter_core::clock::Timestamp;
use moka::Expiry;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use tokio::sync::RwLockWriteGuard;
use tokio::time::Instant;

use crate::answer::{Answer, Origin};
use crate::writes::{Ticket, Writes};

/// Answers in this process. Bounded by their number; the least recently used one makes room, because
/// a policy that may decline a new entry would have the answer paid for again.
pub(crate) struct L1<T> {
    held: Cache<CacheKey, Held<T>>,
    writes: Writes,
}

/// What L1 holds under a key.
struct Held<T> {
    value: Arc<T>,
    created: Timestamp,
    /// Decides; moka's own expiry only frees the memory.
    expires: Instant,
    epoch: u64,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Self {
            value: self.value.clone(),
            ..*self
        }
    }
}

/// Until when L1 keeps a value that the store keeps for `left`: never longer than the store does
/// (I-K3), and at most for `cap`. Counted from before the store was `asked`.
pub(crate) fn l1_expiry(asked: Instant, left: Duration, cap: Duration) -> Instant {
    asked + left.min(cap)
}

impl<T: Send + Sync + 'static> L1<T> {
    pub(crate) fn new(capacity: u64) -> Self {
        let held = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(PerEntry)
            .build();
        Self {
            held,
            writes: Writes::default(),
        }
    }

    pub(crate) async fn get(&self, key: &CacheKey) -> Option<Answer<Arc<T>>> {
        let held = self.held.get(key).await?;
        let live = held.epoch == self.writes.epoch() && Instant::now() < held.expires;
        live.then_some(Answer {
            value: held.value,
            origin: Origin::L1,
            created: held.created,
        })
    }

    /// A ticket for a way to the store and back.
    pub(crate) async fn ticket<'a>(&'a self, key: &'a CacheKey) -> Ticket<'a> {
        self.writes.ticket(key).await
    }

    /// Keeps what a reader found, unless the key was written while it read.
    pub(crate) async fn fill(&self, ticket: &Ticket<'_>, found: &Answer<Arc<T>>, until: Instant) {
        if let Some(_exclusive) = ticket.hold().await {
            self.put(ticket, found, until).await;
        }
    }

    /// Keeps what a writer wrote; nothing if two writers met, because the store may have taken them
    /// in the other order. Whether they did not meet.
    pub(crate) async fn replace(
        &self,
        ticket: &mut Ticket<'_>,
        written: &Answer<Arc<T>>,
        until: Instant,
    ) -> bool {
        let (_exclusive, current) = ticket.overtake().await;
        self.held.invalidate(ticket.key).await;
        if current {
            self.put(ticket, written, until).await;
        }
        current
    }

    /// Drops a value, and overtakes those who are on their way with one.
    pub(crate) async fn remove(&self, ticket: &mut Ticket<'_>) {
        let _exclusive = ticket.overtake().await;
        self.held.invalidate(ticket.key).await;
    }

    /// Drops all values, and overtakes all who are on their way with one.
    pub(crate) fn clear(&self) {
        self.writes.next_epoch();
        // Only frees the memory.
        self.held.invalidate_all();
    }

    /// Keeps changes of the store away from a clear of all.
    pub(crate) async fn turn_of_all(&self) -> RwLockWriteGuard<'_, ()> {
        self.writes.turn_of_all().await
    }

    pub(crate) fn entries(&self) -> u64 {
        self.held.entry_count()
    }

    async fn put(&self, ticket: &Ticket<'_>, answer: &Answer<Arc<T>>, expires: Instant) {
        if expires <= Instant::now() {
            return;
        }
        let held = Held {
            value: answer.value.clone(),
            created: answer.created,
            expires,
            epoch: ticket.epoch,
        };
        self.held.insert(ticket.key.clone(), held).await;
    }
}

/// Frees each value's memory after its own time.
struct PerEntry;

impl<T> Expiry<CacheKey, Held<T>> for PerEntry {
    fn expire_after_create(
        &self,
        _: &CacheKey,
        held: &Held<T>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(held.expires.saturating_duration_since(Instant::now()))
    }

    fn expire_after_update(
        &self,
        key: &CacheKey,
        held: &Held<T>,
        at: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, held, at)
    }
}

#[cfg(test)]
mod tests;
