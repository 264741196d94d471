//! A store around a store that loses requests and replies when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use async_trait::async_trait;
use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed};
use limiter_core::{Effect, Error, ErrorKind, Health};

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
}

impl Faulty {
    /// Around `inner`, without a fault at first.
    pub fn new(inner: impl LimitStore + 'static) -> Self {
        Self {
            inner: Arc::new(inner),
            fault: Arc::new(AtomicU8::new(Fault::None as u8)),
            calls: Arc::default(),
        }
    }

    /// What becomes of calls from now on.
    pub fn set(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
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
        if fault == Fault::Request as u8 {
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
        self.inner.health().await
    }
}
