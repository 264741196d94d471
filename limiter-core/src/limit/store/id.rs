//! Names of what was done: by whom, under which id, and where a charge stands.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::clock::Timestamp;

/// Who keeps a counter, and so issued what stands charged on it: one store, wherever its clones are.
///
/// It comes with each [`Observed`](super::Observed) and goes back with each [`Step`](super::Step) that settles, renews
/// or gives back, so that a store behind which there are several (one for the time of an outage, say) does that where it
/// was issued, and nowhere else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Issuer(NonZeroU64);

impl Issuer {
    /// The issuer of a name: the same one in every process. For a store that processes share, such as a server's host,
    /// database and key prefix.
    pub fn named(name: &str) -> Self {
        Self::from_bits(u64::try_from(half(Sha256::digest(name)) >> 64).unwrap_or(1))
    }

    /// An issuer like no other: for a store that lives and dies with this process.
    pub fn unique() -> Self {
        Self::from_bits(RandomState::new().hash_one(0_u8))
    }

    fn from_bits(bits: u64) -> Self {
        Self(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({:016x})", self.0)
    }
}

/// Where a charge stands in a state, so that it can be given back: when it was made by the store's
/// clock, and the algorithm's own number (the window's end or start, an entry's sequence, the debt in
/// tokens that it left).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mark {
    /// When the charge was made.
    pub at: Timestamp,
    /// The algorithm's own number.
    pub number: u64,
}

/// The caller's name for an operation (a group, a reservation, a lease), under which a retry is
/// recognised. It belongs to a key: the same id on another key is another operation. Unique for as
/// long as the store remembers it; a UUID is a good one. Clones share the text. `Debug` masks it: it may be
/// a client's own.
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

    /// The id under which the charge at a place of the operation is given back.
    pub(crate) fn charge(&self, place: usize) -> Self {
        Self::new(format!("{}\u{1f}{place}", self.as_str()))
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
        f.write_str("OperationId(masked)")
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
    /// The receipt of a charge of `cost` that a store observed at `mark`; or of a part of it, which is then what is
    /// given back. Two receipts of one id on one key are the same charge.
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
