//! One thing to give back: which, of what, and until when.

use std::time::Duration;

use tokio::time::Instant;

use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, Issuer, OperationId, Receipt, Step};

/// One thing to give back, and where.
#[derive(Clone, Debug)]
pub(in crate::limit::limiter) struct Give {
    pub(in crate::limit::limiter) policy: Policy,
    pub(in crate::limit::limiter) key: Key,
    pub(in crate::limit::limiter) issuer: Option<Issuer>,
    pub(in crate::limit::limiter) what: What,
    /// When it counts no more.
    pub(in crate::limit::limiter) until: Instant,
}

#[derive(Clone, Debug)]
pub(in crate::limit::limiter) enum What {
    Refund(Receipt),
    Settle { id: OperationId, actual: u64 },
    Cancel { id: OperationId, ttl: Duration },
    Release { lease: OperationId, ttl: Duration },
}

impl Give {
    pub(super) fn step(&self) -> Step<'_> {
        let action = match &self.what {
            What::Refund(receipt) => Action::Refund { receipt },
            What::Settle { id, actual } => Action::Settle {
                id,
                actual: *actual,
            },
            What::Cancel { id, ttl } => Action::Cancel { id, ttl: *ttl },
            What::Release { lease, ttl } => Action::Release { lease, ttl: *ttl },
        };
        Step::new(&self.policy, &self.key, action).at(self.issuer)
    }

    /// The same give-back has the same name.
    pub(super) fn name(&self) -> Name {
        let step = self.step();
        let id = step.action.id().map_or(0, OperationId::digest);
        let action = step.action.as_str();
        (step.counter.fingerprint(), action, id, self.issuer)
    }
}

/// The counter, the action, the digest of its id, and where it is to be given back.
pub(super) type Name = (Fingerprint, &'static str, u128, Option<Issuer>);
