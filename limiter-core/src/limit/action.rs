//! What can be done to a limit: the whole, closed set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::store::Capabilities;
use crate::clock::Timestamp;

/// One action on the limit of one key.
///
/// Every store takes charges, peeks and resets; the others are declared in its [`Capabilities`], and
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
    /// Gives one charge back. Applies once.
    Refund {
        /// What the charge returned.
        receipt: &'a Receipt,
    },
    /// Charges an estimate that is settled or cancelled later.
    Reserve {
        /// Names the reservation.
        id: &'a OperationId,
        /// How much to hold.
        estimate: u64,
        /// How long the reservation can still be settled.
        ttl: Duration,
    },
    /// Replaces a reservation's estimate by what was used in the end. Applies once.
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
    /// Takes `cost` until it is released or the lease runs out.
    Acquire {
        /// Names the lease.
        lease: &'a OperationId,
        /// How much is held.
        cost: u64,
        /// How long it is held without a renewal.
        ttl: Duration,
    },
    /// Holds a lease for another `ttl` from now.
    Renew {
        /// The lease.
        lease: &'a OperationId,
        /// How long it is held from now.
        ttl: Duration,
    },
    /// Ends a lease.
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

    /// Whether a store with these capabilities takes the action.
    pub fn is_supported_by(&self, capabilities: &Capabilities) -> bool {
        match self {
            Self::Charge { .. } | Self::Peek { .. } | Self::Reset => true,
            Self::Refund { .. } => capabilities.refunds,
            Self::Reserve { .. } | Self::Settle { .. } | Self::Cancel { .. } => {
                capabilities.reservations
            }
            Self::Acquire { .. } | Self::Renew { .. } | Self::Release { .. } => capabilities.leases,
        }
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

/// The caller's name for an operation (a group, a reservation, a lease), under which a retry is
/// recognised. Unique per store for as long as the store remembers it; a UUID is a good one.
/// Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OperationId(Arc<str>);

impl OperationId {
    /// An id of any text.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({})", self.0)
    }
}

/// What a refund needs to find its charge again: when it was made, in which window or under which
/// number, and how much it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    at: Timestamp,
    mark: u64,
    cost: u64,
}

impl Receipt {
    /// A receipt as a store issues it. `mark` is the store's own: a window's start, a sequence.
    pub fn new(at: Timestamp, mark: u64, cost: u64) -> Self {
        Self { at, mark, cost }
    }

    /// When the charge was made, by the store's clock.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// The store's own mark.
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// How much was charged.
    pub fn cost(&self) -> u64 {
        self.cost
    }
}
