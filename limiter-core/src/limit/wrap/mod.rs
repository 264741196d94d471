//! Wrappers: stores around stores, each with one job.
//!
//! [`Stack`] puts them around a backend in the one right order, outermost first:
//! trace, observe, switch, outage, breaker. A wrapper sees every step's policy, so it can treat scopes differently.

mod breaking;
mod local;
mod observe;
mod outage;
mod routing;
mod switch;
mod traced;

use std::sync::Arc;

use crate::breaker::Breaker;
use crate::limit::store::LimitStore;
use crate::outage_log::OutageLog;

pub use breaking::Breaking;
pub use observe::{Event, Observe, Observer};
pub use outage::OutageRules;
pub use routing::{Portion, Route, Routing};
pub use switch::{Switch, Switched};
pub use traced::Traced;

/// Stacks wrappers around a store. [`Limiter::new`](crate::limit::Limiter::new) does so without observers; with some, build
/// the stack and give it to [`Limiter::raw`](crate::limit::Limiter::raw).
///
/// ```
/// # use limiter_core::limit::{LimitStore, Limiter, wrap::Stack};
/// # fn example(backend: impl LimitStore + 'static) {
/// let limiter = Limiter::raw(Stack::new(backend).build());
/// # }
/// ```
#[derive(Debug)]
#[must_use = "call `build`"]
pub struct Stack {
    store: Arc<dyn LimitStore>,
    local: Option<Arc<dyn LimitStore>>,
    log: OutageLog,
    switch: Option<(Switch, Option<Arc<dyn LimitStore>>)>,
    observers: Vec<Arc<dyn Observer>>,
    is_traced: bool,
}

impl Stack {
    /// A stack over a backend.
    pub fn new(store: impl LimitStore + 'static) -> Self {
        Self {
            store: Arc::new(store),
            local: None,
            log: OutageLog::new(),
            switch: None,
            observers: Vec::new(),
            is_traced: false,
        }
    }

    /// Puts a breaker around the store, which refuses calls at once while it fails. The stores of `limiter-redis` have their
    /// own, one for each server.
    pub fn breaker(self, breaker: Breaker) -> Self {
        Self {
            store: Arc::new(Breaking::new(self.store, breaker)),
            ..self
        }
    }

    /// Counts in `store` what policies with [`Outage::Local`](crate::limit::Outage::Local) limit while the other is away. It has
    /// to answer without I/O: `limiter_memory::MemoryStore`.
    pub fn local(self, store: impl LimitStore + 'static) -> Self {
        Self {
            local: Some(Arc::new(store)),
            ..self
        }
    }

    /// Counts in `log` what was answered without the store.
    pub fn log(self, log: OutageLog) -> Self {
        Self { log, ..self }
    }

    /// Sends each call where `switch` says; what it sends to this process is counted in `local`, apart from what an outage's rule
    /// counts there.
    pub fn switch(self, switch: Switch, local: Option<Arc<dyn LimitStore>>) -> Self {
        Self {
            switch: Some((switch, local)),
            ..self
        }
    }

    /// Adds an observer of every call and its result.
    pub fn observe(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Makes each call a span: see [`Traced`].
    pub fn trace(self) -> Self {
        Self {
            is_traced: true,
            ..self
        }
    }

    /// The backend in its wrappers.
    pub fn build(self) -> Arc<dyn LimitStore> {
        let rules = OutageRules::new(self.store).with_log(self.log);
        let rules = match self.local {
            Some(local) => rules.with_local(local),
            None => rules,
        };
        let store: Arc<dyn LimitStore> = match self.switch {
            Some((switch, local)) => Arc::new(Switched::new(rules, local, switch)),
            None => Arc::new(rules),
        };
        let store = match self.observers.is_empty() {
            true => store,
            false => Arc::new(Observe::new(store, self.observers)),
        };
        match self.is_traced {
            true => Arc::new(Traced::new(store)),
            false => store,
        }
    }
}
