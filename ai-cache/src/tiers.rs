//! L1, the store and the computation, in this order: what all scopes of a cache share.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::clock::{Clock, SystemClock};
use limiter_core::{Error, ErrorKind, Key, LogLimit};
use tokio::time::Instant;

use crate::answer::{Answer, ComputeError, Origin};
use crate::cache::Cacheable;
use crate::config::Settings;
use crate::envelope::{self, Unreadable};
use crate::flight::{Flights, Landing};
use crate::key::namespace;
use crate::l1::{L1, l1_expiry};
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
    log: LogLimit,
}

impl<T: Cacheable> Tiers<T> {
    pub(crate) fn new(store: Arc<dyn CacheStore>, settings: Settings) -> Self {
        Self {
            namespace: namespace(&settings.operation),
            l1: L1::new(settings.l1_capacity),
            flights: Flights::new(),
            counters: Counters::default(),
            log: LogLimit::default(),
            settings,
            store,
        }
    }

    /// The answer in either tier. An outage of the store is a miss (B6).
    pub(crate) async fn read(&self, key: &CacheKey) -> Option<Answer<Arc<T>>> {
        if let Some(answer) = self.held(key).await {
            return Some(answer);
        }
        self.read_store(&self.l1.ticket(key).await).await
    }

    /// The answer that this process has: in L1, or on its way to the store.
    async fn held(&self, key: &CacheKey) -> Option<Answer<Arc<T>>> {
        if let Some(answer) = self.l1.get(key).await {
            return Some(answer);
        }
        let announced = self.flights.announced(key)?.ok()?;
        Some(Answer {
            origin: Origin::L1,
            ..announced
        })
    }

    async fn read_store(&self, ticket: &Ticket<'_>) -> Option<Answer<Arc<T>>> {
        let asked = Instant::now();
        let entry = match self.counted(self.store.get(ticket.key).await) {
            Ok(entry) => entry?,
            Err(error) => {
                self.warn("the cache store cannot be read; this is a miss", &error);
                return None;
            }
        };
        self.counters.bytes_read.add_bytes(entry.value.len());
        match envelope::decode(ticket.key, &entry.value) {
            Ok((value, created)) => {
                let answer = Answer {
                    value: Arc::new(value),
                    origin: Origin::L2,
                    created,
                };
                let until = l1_expiry(asked, entry.ttl, self.settings.l1_cap());
                self.l1.fill(ticket, &answer, until).await;
                Some(answer)
            }
            Err(why) => {
                self.reject(ticket, why).await;
                None
            }
        }
    }

    /// Counts and logs a stored value that gives no answer, and removes it if nobody else can read
    /// it either. A good value that another process has written since may go with it, which costs a
    /// miss.
    async fn reject(&self, ticket: &Ticket<'_>, why: Unreadable) {
        let key = ticket.key;
        self.counters.unreadable.add();
        let operation = &*self.settings.operation;
        match why {
            Unreadable::Corrupt => {
                tracing::warn!(operation, "a cached value is corrupt; removing it");
                let _turn = ticket.turn().await;
                if ticket.is_current().await {
                    self.delete(key).await;
                }
            }
            Unreadable::Version(version) => {
                tracing::debug!(operation, version, "a cached value has a newer format");
            }
            Unreadable::Shape => {
                tracing::debug!(operation, "a cached value has the shape of another build");
            }
        }
    }

    /// Stores an answer in both tiers. If the store fails, this process alone keeps it, for no longer
    /// than L1 keeps anything.
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
        let _turn = ticket.turn().await;
        let asked = Instant::now();
        let result = self.store_bytes(ticket.key, stored, ttl).await;
        let until = l1_expiry(asked, ttl, self.settings.l1_cap());
        self.l1.replace(ticket, answer, until).await;
        // Who asks from now on must not get the answer of a computation that began before.
        self.flights.forget(ticket.key);
        self.counted(result)
    }

    /// Removes an answer from both tiers, and the answers of computations that have begun.
    pub(crate) async fn remove(&self, key: &CacheKey) -> Result<(), Error> {
        let mut ticket = self.l1.ticket(key).await;
        // Before the store, to overtake a computation that is about to write; and after it, to
        // overtake a reader that got the old value in between.
        self.l1.remove(&mut ticket).await;
        let _turn = ticket.turn().await;
        let result = self.store.delete(key).await;
        self.l1.remove(&mut ticket).await;
        self.flights.forget(key);
        self.counted(result).map(|_existed| ())
    }

    /// [`remove`](Self::remove) for every key of the namespace.
    pub(crate) async fn remove_all(&self) -> Result<u64, Error> {
        self.l1.clear();
        let _turn = self.l1.turn_of_all().await;
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
        if let Some(answer) = self.held(&key).await {
            return Ok(answer);
        }
        let flight = {
            let (tiers, key) = (self.clone(), key.clone());
            |landing| async move { tiers.fly(&key, compute, landing).await }
        };
        self.flights
            .join(&key, flight)
            .await
            .unwrap_or(Err(ComputeError::Aborted))
    }

    /// What one flight does.
    async fn fly<F, Fut, E>(&self, key: &CacheKey, compute: F, landing: Landing<Outcome<T>>)
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let mut ticket = self.l1.ticket(key).await;
        // L1 again, because the flight before this one may have landed since the caller looked.
        let mut found = self.l1.get(key).await;
        if found.is_none() {
            found = self.read_store(&ticket).await;
        }
        if let Some(answer) = found {
            return landing.land(Ok(answer));
        }
        self.counters.computations.add();
        let outcome = compute().await.map_err(ComputeError::failed);
        match outcome {
            Ok(value) => self.keep(&mut ticket, computed(value), landing).await,
            Err(error) => landing.land(Err(error)),
        }
    }

    /// Gives the answer of a flight to those who wait, and stores it, unless the key was cleared or
    /// set since the flight began.
    async fn keep(
        &self,
        ticket: &mut Ticket<'_>,
        answer: Answer<Arc<T>>,
        landing: Landing<Outcome<T>>,
    ) {
        if !ticket.is_current().await {
            return landing.land(Ok(answer));
        }
        let stored = match envelope::encode(ticket.key, answer.created, &*answer.value) {
            Ok(stored) => stored,
            Err(error) => {
                self.warn("an answer has no stored form", &error);
                return landing.land(Ok(answer));
            }
        };
        let ttl = self.settings.ttl;
        let until = l1_expiry(Instant::now(), ttl, self.settings.l1_cap());
        let current = self.l1.replace(ticket, &answer, until).await;
        // Nobody waits for the store. The flight goes on until it has the answer, so that there is
        // no moment at which nobody has it (I-K4).
        landing.announce(Ok(answer));
        let _turn = ticket.turn().await;
        if !current || !ticket.is_current().await {
            return;
        }
        let written = self.store_bytes(ticket.key, stored, ttl).await;
        if let Err(error) = self.counted(written) {
            self.warn("an answer is not in the cache store", &error);
        }
    }

    /// Stores an answer, and counts its bytes.
    async fn store_bytes(&self, key: &CacheKey, stored: Bytes, ttl: Duration) -> Result<(), Error> {
        let length = stored.len();
        let written = self.store.set(key, NewEntry::new(stored, ttl)).await;
        if written.is_ok() {
            self.counters.bytes_written.add_bytes(length);
        }
        written
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

    /// One line a second for each message. While the store is left alone, its breaker has said so.
    fn warn(&self, message: &'static str, error: &Error) {
        let (operation, kind) = (&*self.settings.operation, error.kind().as_str());
        if error.kind() == ErrorKind::BreakerOpen {
            tracing::debug!(operation, kind, %error, "{message}");
        } else if let Some(more) = self.log.pass(message) {
            tracing::warn!(operation, kind, more, %error, "{message}");
        }
    }
}

/// An answer that was made just now.
pub(crate) fn computed<T>(value: T) -> Answer<Arc<T>> {
    Answer {
        value: Arc::new(value),
        origin: Origin::Computed,
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
        let config = CacheConfig::company_research("1");
        let tiers: Arc<Tiers<u8>> = Arc::new(Tiers::new(store.clone(), config.settings));
        let key = CacheKey::new(&tiers.namespace, "a");
        store.set_down(true);
        for value in [1, 2] {
            let fly = |landing| {
                let (tiers, key) = (tiers.clone(), key.clone());
                let compute = move || async move { Ok::<_, &str>(value) };
                async move { tiers.fly(&key, compute, landing).await }
            };
            let outcome = tiers.flights.join(&key, fly).await.unwrap();
            assert_eq!(*outcome.unwrap().value, 1);
        }
    }
}
