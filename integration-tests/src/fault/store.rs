//! A store around a store that loses requests and replies when a test says so.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed};
use limiter_core::{Effect, Error, ErrorKind, Health, Key};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Fault {
    /// It is done and answered.
    None,
    /// It never arrives.
    Request,
    /// It is done, and the answer never arrives.
    Reply,
}

/// A store that can be away. Like a remote one, it never answers without being awaited. Clones share
/// the fault.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn LimitStore>,
    fault: Arc<AtomicU8>,
    calls: Arc<AtomicUsize>,
    away: Arc<Mutex<Vec<Key>>>,
}

impl Faulty {
    /// Around `inner`, without a fault at first.
    pub fn new(inner: impl LimitStore + 'static) -> Self {
        Self {
            inner: Arc::new(inner),
            fault: Arc::new(AtomicU8::new(Fault::None as u8)),
            calls: Arc::default(),
            away: Arc::default(),
        }
    }

    /// What becomes of calls from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// Whose calls never arrive from now on, and nobody else's.
    pub fn keep_away(&self, keys: Vec<Key>) {
        *self.away.lock().unwrap() = keys;
    }

    fn is_away(&self, group: &Group<'_>) -> bool {
        let away = self.away.lock().unwrap();
        group.steps().iter().any(|step| away.contains(step.key()))
    }

    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl LimitStore for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        self.inner.is_issuer(issuer)
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let fault = self.fault.load(Ordering::SeqCst);
        if fault == Fault::Request as u8 || self.is_away(group) {
            return Err(Error::new(
                ErrorKind::Connection,
                "limit.apply",
                "lost request",
            ));
        }
        let result = self.inner.apply(group, observed).await;
        if fault == Fault::Reply as u8 {
            let lost = Error::new(ErrorKind::Timeout, "limit.apply", "lost reply");
            return Err(lost.with_effect(Effect::Unknown));
        }
        result
    }

    async fn health(&self) -> Health {
        if self.fault.load(Ordering::SeqCst) == Fault::Request as u8 {
            return Health::new("faulty", false, None, "lost request");
        }
        self.inner.health().await
    }
}
