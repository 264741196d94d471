//! What can be done to a limit: the whole, closed set.

use std::time::Duration;

use super::id::{OperationId, Receipt};

/// The longest life of a reservation or a lease without a renewal: seven days.
pub const MAX_HOLD: Duration = Duration::from_secs(7 * 86_400);

/// The longest life of a debit: one day. A longer one is refused.
pub const MAX_LIFE: Duration = Duration::from_secs(86_400);

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
    /// Takes as much as is free, at least 1 and at most so much, to be spent by whoever asked without asking again: the
    /// tokens of a local lease. Charged as of the end of its life, so that what is spent until then and what the store
    /// admits by itself never exceed the limit together: a token bucket is charged on top of what it regains in that
    /// life, a log's entry is dated at its end. What ends sooner (a window) ends the life:
    /// [`Observed::life`](super::Observed::life) says what was granted. Spend it within that life, counted from before
    /// it was asked for; give the rest back by a receipt. Stands alone on its key, and under no operation id.
    Debit {
        /// The most to take, at least 1.
        at_most: u64,
        /// How long it is to be spent: 1 ms to [`MAX_LIFE`].
        life: Duration,
    },
    /// Forgets everything that was charged, whatever algorithm charged it.
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
    /// Gives a reservation's estimate back. Applies once. An id that is unknown is remembered as cancelled for `ttl`: a
    /// reservation that arrives after its own cancellation is then a `Conflict` and charges nothing.
    Cancel {
        /// The reservation.
        id: &'a OperationId,
        /// The reservation's time to live: 1 ms to [`MAX_HOLD`].
        ttl: Duration,
    },
    /// Takes `cost` until it is released or the lease runs out. Asked again while the lease is held, it
    /// renews it; `Conflict` once it was released.
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
    /// Ends a lease; one that is gone has ended already. Its id cannot be acquired again for `ttl`: an acquisition that
    /// arrives after its own release is then a `Conflict` and takes nothing.
    Release {
        /// The lease.
        lease: &'a OperationId,
        /// The lease's time to live: 1 ms to [`MAX_HOLD`].
        ttl: Duration,
    },
}

impl Action<'_> {
    /// What the action asks for: the cost or estimate, 1 for a debit, which takes that at least, 0 for the others.
    pub fn cost(&self) -> u64 {
        match self {
            Self::Charge { cost } | Self::Peek { cost } | Self::Acquire { cost, .. } => *cost,
            Self::Reserve { estimate, .. } => *estimate,
            Self::Debit { .. } => 1,
            _ => 0,
        }
    }

    /// The id of the reservation, the refund or the lease.
    pub fn id(&self) -> Option<&OperationId> {
        match self {
            Self::Refund { receipt } => Some(receipt.id()),
            Self::Reserve { id, .. } | Self::Settle { id, .. } | Self::Cancel { id, .. } => {
                Some(id)
            }
            Self::Acquire { lease, .. }
            | Self::Renew { lease, .. }
            | Self::Release { lease, .. } => Some(lease),
            Self::Charge { .. } | Self::Peek { .. } | Self::Debit { .. } | Self::Reset => None,
        }
    }

    /// Whether the action takes something and can be denied: a charge of at least 1, a debit, a reservation, a
    /// lease.
    pub fn takes(&self) -> bool {
        matches!(
            self,
            Self::Charge { cost: 1.. }
                | Self::Debit { .. }
                | Self::Reserve { .. }
                | Self::Acquire { .. }
        )
    }

    /// Whether the action takes or looks: what is not done if there is not enough. All others are.
    pub fn can_be_denied(&self) -> bool {
        self.takes() || matches!(self, Self::Charge { .. } | Self::Peek { .. })
    }

    /// Whether the action changes what was taken before, and cannot be denied: a refund, a settlement, a cancellation,
    /// a renewal, a release.
    pub fn follows_up(&self) -> bool {
        matches!(
            self,
            Self::Refund { .. }
                | Self::Settle { .. }
                | Self::Cancel { .. }
                | Self::Renew { .. }
                | Self::Release { .. }
        )
    }

    /// A stable lower-case name for logs and messages.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Charge { .. } => "charge",
            Self::Peek { .. } => "peek",
            Self::Debit { .. } => "debit",
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
