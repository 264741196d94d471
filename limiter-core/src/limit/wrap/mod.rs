//! Wrappers: stores around stores, each with one job.
//!
//! [`Stack`] puts them around a backend in the one right order, outermost first:
//! observe, then outage. A wrapper sees every step's policy, so it can treat scopes differently.

mod observe;
mod outage;

use std::sync::Arc;

use crate::limit::store::LimitStore;

pub use observe::{Event, Observe, Observer};
pub use outage::OutageRules;

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
    observers: Vec<Arc<dyn Observer>>,
}

impl Stack {
    /// A stack over a backend.
    pub fn new(store: impl LimitStore + 'static) -> Self {
        Self {
            store: Arc::new(store),
            observers: Vec::new(),
        }
    }

    /// Adds an observer of every group and its result.
    pub fn observe(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// The backend in its wrappers.
    pub fn build(self) -> Arc<dyn LimitStore> {
        let store: Arc<dyn LimitStore> = Arc::new(OutageRules::new(self.store));
        if self.observers.is_empty() {
            return store;
        }
        Arc::new(Observe::new(store, self.observers))
    }
}
