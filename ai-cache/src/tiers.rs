//! L1, the store and the computation, in this order: what all scopes of a cache share.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::clock::{Clock, SystemClock};
use limiter_core::{Error, Key};
use tokio::time::Instant;

use crate::answer::{Answer, ComputeError, Source};
use crate::cache::Cacheable;
use crate::config::Settings;
use crate::envelope::{self, Unreadable};
use crate::flight::Flights;
use crate::key::namespace;
use crate::l1::{L1, l1_ttl};
use crate::stats::Counters;
use crate::writes::Ticket;

type Outcome<T> = Result<Answer<Arc<T>>, ComputeError>;

pub(crate) struct Tiers<T> {
    pub(crate) settings: Settings,
    pub(crate) namespace: Key,
    store: Arc<dyn CacheStore>,
    pub(crate) l1: L1<T>,
    flights: Arc<Flights<Outcome<T>>>,
    pub(crate) counters: Counters,
}

impl<T: Cacheable> Tiers<T> {
    pub(crate) fn new(store: Arc<dyn CacheStore>, settings: Settings) -> Self {
        Self {
            namespace: namespace(&settings.operation),
            l1: L1::new(settings.l1_capacity),
            flights: Flights::new(),
            counters: Counters::default(),
            settings,
            store,
        }
    }

    /// The answer in either tier. An outage of the store is a miss (B6).
    pub(crate) async fn read(&self, key: &CacheKey) -> Option<Answer<Arc<T>>> {
        if let Some(answer) = self.l1.get(key).await {
            return Some(answer);
        }
        self.read_store(&self.l1.ticket(key).await).await
    }

    async fn read_store(&self, ticket: &Ticket<'_>) -> Option<Answer<Arc<T>>> {
        let sent = Instant::now();
        let entry = match self.counted(self.store.get(ticket.key).await) {
            Ok(entry) => entry?,
            Err(error) => {
                self.warn("the cache store cannot be read; this is a miss", &error);
                return None;
            }
        };
        match envelope::decode(ticket.key, &entry.value) {
            Ok((value, created)) => {
                let answer = Answer {
                    value: Arc::new(value),
                    source: Source::L2,
                    created,
                };
                let ttl = l1_ttl(entry.ttl, sent.elapsed(), self.settings.l1_cap());
                self.l1.fill(ticket, &answer, ttl).await;
                Some(answer)
            }
            Err(why) => {
                self.reject(ticket.key, why).await;
                None
            }
        }
    }

    /// Counts and logs a stored value that gives no answer, and removes it if nobody else can read
    /// it either. A good value that was written since may go with it, which costs a miss.
    async fn reject(&self, key: &CacheKey, why: Unreadable) {
        self.counters.unreadable.add();
        let operation = &*self.settings.operation;
        match why {
            Unreadable::Corrupt => {
                tracing::warn!(operation, %key, "a cached value is corrupt; removing it");
                self.delete(key).await;
            }
            Unreadable::Version(version) => {
                tracing::debug!(operation, version, "a cached value has a newer format");
            }
            Unreadable::Shape => {
                tracing::debug!(operation, "a cached value has the shape of another build");
            }
        }
    }

    /// Stores an answer in both tiers. If the store fails, this process alone keeps it.
    ///
    /// # Errors
    /// What the store reports; `InvalidInput` if the answer has no stored form, and then neither
    /// tier has it.
    pub(crate) async fn write(
        &self,
        ticket: &mut Ticket<'_>,
        answer: &Answer<Arc<T>>,
        ttl: Duration,
    ) -> Result<(), Error> {
        let stored = envelope::encode(ticket.key, answer.created, &*answer.value)?;
        // First, so that nobody is served the old value if this future is dropped half-way.
        self.l1.remove(ticket).await;
        let sent = Instant::now();
        let result = self.store.set(ticket.key, NewEntry::new(stored, ttl)).await;
        let cap = match result {
            Ok(()) => self.settings.l1_cap(),
            // The store has nothing that could be read again.
            Err(_) => self.settings.ttl,
        };
        let l1_ttl = l1_ttl(ttl, sent.elapsed(), cap);
        self.l1.replace(ticket, answer, l1_ttl).await;
        self.counted(result)
    }

    /// Removes an answer from both tiers, and the answers of computations that have begun.
    pub(crate) async fn remove(&self, key: &CacheKey) -> Result<(), Error> {
        let mut ticket = self.l1.ticket(key).await;
        // Before the store, to overtake a computation that is about to write; and after it, to
        // overtake a reader that got the old value in between.
        self.l1.remove(&mut ticket).await;
        let result = self.store.delete(key).await;
        self.l1.remove(&mut ticket).await;
        self.flights.forget(key);
        self.counted(result).map(|_existed| ())
    }

    /// [`remove`](Self::remove) for every key of the namespace.
    pub(crate) async fn remove_all(&self) -> Result<u64, Error> {
        self.l1.clear();
        let result = self.store.clear(&self.namespace).await;
        self.l1.clear();
        self.flights.forget_all();
        self.counted(result)
    }

    /// The answer in either tier, or that of the key's one computation.
    pub(crate) async fn read_or_compute<F, Fut, E>(
        self: &Arc<Self>,
        key: CacheKey,
        compute: F,
    ) -> Outcome<T>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        if let Some(answer) = self.l1.get(&key).await {
            return Ok(answer);
        }
        let flight = {
            let (tiers, key) = (self.clone(), key.clone());
            async move { tiers.fly(&key, compute).await }
        };
        self.flights
            .join(&key, flight)
            .await
            .unwrap_or(Err(ComputeError::Aborted))
    }

    /// What one flight does.
    async fn fly<F, Fut, E>(&self, key: &CacheKey, compute: F) -> Outcome<T>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut ticket = self.l1.ticket(key).await;
        // Again, because the flight before this one may have landed since the caller looked.
        if let Some(answer) = self.l1.get(key).await {
            return Ok(answer);
        }
        if let Some(answer) = self.read_store(&ticket).await {
            return Ok(answer);
        }
        self.counters.computations.add();
        let answer = computed(compute().await.map_err(ComputeError::failed)?);
        self.keep(&mut ticket, &answer).await;
        Ok(answer)
    }

    /// Stores the answer of a flight, unless the key was cleared or set since the flight began.
    async fn keep(&self, ticket: &mut Ticket<'_>, answer: &Answer<Arc<T>>) {
        if !ticket.is_current().await {
            return;
        }
        if let Err(error) = self.write(ticket, answer, self.settings.ttl).await {
            self.warn("an answer is not in the cache store", &error);
        }
        if !ticket.is_current().await {
            // A clear met the write on its way, and the store may have taken the write last.
            self.delete(ticket.key).await;
        }
    }

    /// Removes what must not stay in the store, as well as it can be done.
    async fn delete(&self, key: &CacheKey) {
        if let Err(error) = self.counted(self.store.delete(key).await) {
            self.warn("a cached value could not be removed", &error);
        }
    }

    fn counted<R>(&self, result: Result<R, Error>) -> Result<R, Error> {
        result.inspect_err(|_| self.counters.store_errors.add())
    }

    fn warn(&self, message: &'static str, error: &Error) {
        let (operation, kind) = (&*self.settings.operation, error.kind().as_str());
        tracing::warn!(operation, kind, %error, "{message}");
    }
}

/// An answer that was made just now.
pub(crate) fn computed<T>(value: T) -> Answer<Arc<T>> {
    Answer {
        value: Arc::new(value),
        source: Source::Computed,
        created: SystemClock.now(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CacheConfig;
    use crate::tests::TestStore;

    /// I-K4: a caller may find L1 empty and board a flight only after the one before it has landed.
    #[tokio::test]
    async fn a_flight_looks_at_l1_first() {
        let store = TestStore::new();
        let config = CacheConfig::company_research();
        let tiers: Tiers<u8> = Tiers::new(store.clone(), config.settings);
        let key = CacheKey::new(&tiers.namespace, "a");
        store.set_down(true);
        for value in [1, 2] {
            let flight = tiers.fly(&key, || async { Ok::<_, &str>(value) });
            assert_eq!(*flight.await.unwrap().value, 1);
        }
    }
}
