//! One computation a key in this process, detached from those who wait for it (I-K4).

use std::collections::HashMap;
use std::sync::Arc;

use limiter_core::cache::CacheKey;
use tokio::sync::watch;
use tracing::Instrument;

use crate::sync::{Mutex, spawn};

#[cfg(all(test, shuttle))]
mod interleavings;

/// The computations in flight, by key. `V` is what all who wait get a clone of.
pub(crate) struct Flights<V>(Mutex<HashMap<CacheKey, watch::Receiver<Option<V>>>>);

impl<V: Clone + Send + Sync + 'static> Flights<V> {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(HashMap::new())))
    }

    /// The outcome of the key's flight, which is the running one or else a task that does `work`.
    /// `None` if that task panicked or its runtime shut down before there was an outcome.
    ///
    /// A caller that is dropped leaves the task running, for the others and for the cache.
    pub(crate) async fn join<W, Fut>(self: &Arc<Self>, key: &CacheKey, work: W) -> Option<V>
    where
        W: FnOnce(Landing<V>) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (mut outcome, landing) = self.board(key);
        match landing {
            // Outside the lock: a runtime that is shutting down drops the task, and so the landing,
            // right here.
            Some(landing) => drop(spawn(work(landing).in_current_span())),
            // Before the wait: what the work holds is not needed by who only waits.
            None => drop(work),
        }
        let landed = outcome.wait_for(Option::is_some).await.ok()?;
        landed.clone()
    }

    /// The outcome of a flight that has one and still has work to do.
    pub(crate) fn announced(&self, key: &CacheKey) -> Option<V> {
        let flights = self.0.lock();
        flights.get(key)?.borrow().clone()
    }

    /// The key's flight, with the duty to land it if it is a new one.
    fn board(self: &Arc<Self>, key: &CacheKey) -> (watch::Receiver<Option<V>>, Option<Landing<V>>) {
        let mut flights = self.0.lock();
        if let Some(running) = flights.get(key) {
            return (running.clone(), None);
        }
        let (sender, receiver) = watch::channel(None);
        flights.insert(key.clone(), receiver.clone());
        let landing = Landing {
            flights: self.clone(),
            key: key.clone(),
            sender,
            outcome: None,
        };
        (receiver, Some(landing))
    }

    /// Lets later callers start anew. Those who wait already still get the outcome.
    pub(crate) fn forget(&self, key: &CacheKey) {
        self.0.lock().remove(key);
    }

    /// [`forget`](Self::forget) for every key.
    pub(crate) fn forget_all(&self) {
        self.0.lock().clear();
    }
}

/// Ends a flight on every path, also when its task panics or is dropped.
pub(crate) struct Landing<V: Clone + Send + Sync + 'static> {
    flights: Arc<Flights<V>>,
    key: CacheKey,
    sender: watch::Sender<Option<V>>,
    outcome: Option<V>,
}

impl<V: Clone + Send + Sync + 'static> Landing<V> {
    /// Frees the key, and then gives those who wait the outcome.
    pub(crate) fn land(mut self, outcome: V) {
        self.outcome = Some(outcome);
    }

    /// Gives those who wait the outcome at once, and those who come before the flight ends.
    pub(crate) fn announce(&self, outcome: V) {
        self.sender.send_replace(Some(outcome));
    }
}

impl<V: Clone + Send + Sync + 'static> Drop for Landing<V> {
    fn drop(&mut self) {
        {
            let mut flights = self.flights.0.lock();
            // A forgotten flight must not remove its successor.
            let ours = |flight: &watch::Receiver<_>| flight.same_channel(&self.sender.subscribe());
            if flights.get(&self.key).is_some_and(ours) {
                flights.remove(&self.key);
            }
        }
        // After the key is free: one who retries at once must not board a flight that has landed.
        // Without an outcome the channel closes, which those who wait see.
        if let Some(outcome) = self.outcome.take() {
            self.sender.send_replace(Some(outcome));
        }
    }
}
