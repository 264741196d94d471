//! What can be done to a limit: the whole, closed set.

use std::time::Duration;

use super::id::{OperationId, Receipt};

/// The longest life of a reservation or a lease without a renewal: seven days.
pub const MAX_HOLD: Duration = Duration::from_secs(7 * 86_400);

/// One action on the limit of one key.
///
/// Every store takes charges, peeks and resets; the others are declared in its [`Capabilities`](super::Capabilities), and
/// asking a store for what it lacks is refused as `Unsupported` before anything is done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// Takes `cost` if that much is free. A cost of 0 is a peek.
    Charge {
        /// How much, in the quota's unit (requests, tokens, cents).
        cost: u64,
    },
    /// Says whether `cost` would be admitted and what is used; changes nothing. In a group, one that
    /// would not be admitted keeps the others from being charged.
    Peek {
        /// How much would be asked for; 0 only looks and is always admitted.
        cost: u64,
    },
    /// Forgets everything that was charged.
    Reset,
    /// Gives one charge back, as far as it still counts. Applies once.
    Refund {
        /// What the charge returned.
        receipt: &'a Receipt,
    },
    /// Charges an estimate that is settled or cancelled later. Asked again under the same id, it is
    /// admitted and charges nothing more; `Conflict` once it was cancelled.
    Reserve {
        /// Names the reservation.
        id: &'a OperationId,
        /// How much to hold, at least 1.
        estimate: u64,
        /// How long the reservation can still be settled: 1 ms to [`MAX_HOLD`].
        ttl: Duration,
    },
    /// Replaces a reservation's estimate by what was used in the end. Applies once. More than the
    /// estimate may leave debt; it never fails for that.
    Settle {
        /// The reservation.
        id: &'a OperationId,
        /// What was used.
        actual: u64,
    },
    /// Gives a reservation's estimate back. Applies once.
    Cancel {
        /// The reservation.
        id: &'a OperationId,
    },
    /// Takes `cost` until it is released or the lease runs out. Asked again while the lease is held, it
    /// renews it.
    Acquire {
        /// Names the lease.
        lease: &'a OperationId,
        /// How much is held, at least 1.
        cost: u64,
        /// How long it is held without a renewal: 1 ms to [`MAX_HOLD`].
        ttl: Duration,
    },
    /// Holds a lease for another `ttl` from now; a renewal that comes late never shortens it. `Expired`
    /// if it is gone.
    Renew {
        /// The lease.
        lease: &'a OperationId,
        /// How long it is held from now: 1 ms to [`MAX_HOLD`].
        ttl: Duration,
    },
    /// Ends a lease; one that is gone has ended already.
    Release {
        /// The lease.
        lease: &'a OperationId,
    },
}

impl Action<'_> {
    /// What the action asks for: the cost or estimate, 0 for the others.
    pub fn cost(&self) -> u64 {
        match self {
            Self::Charge { cost } | Self::Peek { cost } | Self::Acquire { cost, .. } => *cost,
            Self::Reserve { estimate, .. } => *estimate,
            _ => 0,
        }
    }

    /// The id of the reservation, the refund or the lease.
    pub fn id(&self) -> Option<&OperationId> {
        match self {
            Self::Refund { receipt } => Some(receipt.id()),
            Self::Reserve { id, .. } | Self::Settle { id, .. } | Self::Cancel { id } => Some(id),
            Self::Acquire { lease, .. } | Self::Renew { lease, .. } | Self::Release { lease } => {
                Some(lease)
            }
            Self::Charge { .. } | Self::Peek { .. } | Self::Reset => None,
        }
    }

    /// Whether the action takes something and can be denied: a charge of at least 1, a reservation, a
    /// lease.
    pub fn takes(&self) -> bool {
        matches!(
            self,
            Self::Charge { cost: 1.. } | Self::Reserve { .. } | Self::Acquire { .. }
        )
    }

    /// A stable lower-case name for logs and messages.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Charge { .. } => "charge",
            Self::Peek { .. } => "peek",
            Self::Reset => "reset",
            Self::Refund { .. } => "refund",
            Self::Reserve { .. } => "reserve",
            Self::Settle { .. } => "settle",
            Self::Cancel { .. } => "cancel",
            Self::Acquire { .. } => "acquire",
            Self::Renew { .. } => "renew",
            Self::Release { .. } => "release",
        }
    }
}
