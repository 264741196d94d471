//! From what a history says to an action that a group takes.

use std::time::Duration;

use limiter_core::limit::{Action, OperationId, Policy, Receipt};

use crate::history::Do;

/// The action that is meant, on a quota of that kind.
pub(crate) fn translate<'a>(
    action: Do,
    policy: &Policy,
    ids: &'a [OperationId],
    receipt: &'a Receipt,
) -> Action<'a> {
    let quota = policy.quota();
    let leases = quota.is_concurrency();
    match action {
        Do::Take { cost } if leases => {
            let cost = cost.of(quota);
            // So that some come back to the lease that they have.
            let lease = &ids[usize::from(cost > 2)];
            let ttl = Duration::from_secs(1);
            let cost = cost.max(1);
            Action::Acquire { lease, cost, ttl }
        }
        Do::Take { cost } => Action::Charge {
            cost: cost.of(quota),
        },
        Do::Peek { cost } => Action::Peek {
            cost: cost.of(quota),
        },
        Do::Reset => Action::Reset,
        Do::Refund { back } if leases => Action::Release {
            lease: &ids[back],
            ttl: Duration::from_secs(2),
        },
        Do::Debit { cost, .. } if leases => Action::Peek {
            cost: cost.of(quota),
        },
        Do::Debit { cost, life } => Action::Debit {
            at_most: cost.of(quota),
            life,
        },
        Do::Forged { .. } if leases => Action::Reset,
        Do::Refund { .. } | Do::Forged { .. } => Action::Refund { receipt },
        Do::Hold { id, cost, ttl } if leases => Action::Acquire {
            lease: &ids[id],
            cost: cost.of(quota),
            ttl,
        },
        Do::Hold { id, cost, ttl } => Action::Reserve {
            id: &ids[id],
            estimate: cost.of(quota),
            ttl,
        },
        Do::Settle { id, ttl, .. } if leases => Action::Renew {
            lease: &ids[id],
            ttl,
        },
        Do::Settle { id, actual, .. } => Action::Settle {
            id: &ids[id],
            actual: actual.of(quota),
        },
        Do::Cancel { id, ttl } if leases => Action::Release {
            lease: &ids[id],
            ttl,
        },
        Do::Cancel { id, ttl } => Action::Cancel { id: &ids[id], ttl },
    }
}
