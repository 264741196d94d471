//! What can be done to a limit: the whole, closed set.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::observed::Mark;
use super::store::Capabilities;

/// The longest life of a reservation or a lease without a renewal: seven days.
pub const MAX_HOLD: Duration = Duration::from_secs(7 * 86_400);

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

/// The caller's name for an operation (a group, a reservation, a lease), under which a retry is
/// recognised. It belongs to a key: the same id on another key is another operation. Unique for as
/// long as the store remembers it; a UUID is a good one. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct OperationId(Arc<str>);

impl OperationId {
    /// An id of any text.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// An id that no other call gives: 128 random bits.
    pub fn random() -> Self {
        // Each hasher has keys of its own, drawn from the system's random numbers and counted up.
        let word = || RandomState::new().hash_one(0_u8);
        Self::new(format!("{:016x}{:016x}", word(), word()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first half of the text's SHA-256: how stores keep an id, whatever its length.
    pub fn digest(&self) -> u128 {
        half(Sha256::digest(self.0.as_bytes()))
    }
}

/// The first 128 bits of a digest.
pub(crate) fn half(digest: impl AsRef<[u8]>) -> u128 {
    let mut bytes = [0; 16];
    for (byte, of_digest) in bytes.iter_mut().zip(digest.as_ref()) {
        *byte = *of_digest;
    }
    u128::from_be_bytes(bytes)
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({})", self.0)
    }
}

/// One charge as a refund needs it: under which id it is given back once, where it stands, and how
/// much it was.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    id: OperationId,
    mark: Mark,
    cost: u64,
}

impl Receipt {
    /// The receipt of a charge of `cost` that a store observed at `mark`. Two receipts of one id on one
    /// key are the same charge.
    pub fn new(id: OperationId, mark: Mark, cost: u64) -> Self {
        Self { id, mark, cost }
    }

    /// Under which it is given back once.
    pub fn id(&self) -> &OperationId {
        &self.id
    }

    /// Where the charge stands.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// How much was charged.
    pub fn cost(&self) -> u64 {
        self.cost
    }
}
