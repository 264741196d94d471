//! What a store remembers beside a limit's state, so that a retry is recognised: reservations, refunds
//! and operations. And under which names.

use sha2::{Digest, Sha256};

use super::counter::Counter;
use super::id::{Issuer, Mark, OperationId, half};
use crate::clock::Timestamp;

/// A reservation, a refund or an operation. Counts until it expires; an expired one says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// A charge that can be settled, cancelled or refunded once, or that was.
    Charge(ChargeRecord),
    /// A group that was admitted under an operation id.
    Operation(OperationRecord),
}

/// See [`Record::Charge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargeRecord {
    pub(crate) status: Status,
    /// What was charged at first.
    pub(crate) cost: u64,
    /// What stands now.
    pub(crate) charged: u64,
    pub(crate) mark: Mark,
    pub(crate) expires: Timestamp,
    /// Who keeps the charge.
    pub(crate) issuer: Issuer,
}

/// What became of a recorded charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Waits to be settled or cancelled.
    Held,
    /// Settled to what was used.
    Settled {
        /// What was used.
        actual: u64,
    },
    /// Given back by a cancel.
    Cancelled,
    /// Given back by a refund.
    Refunded,
}

/// See [`Record::Operation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRecord {
    pub(crate) fingerprint: u128,
    pub(crate) expires: Timestamp,
    /// What each step charged, where, and who keeps it.
    pub(crate) charges: Box<[(u64, Mark, Option<Issuer>)]>,
}

impl Record {
    /// Who keeps the charge that it tells of; `None` for an operation.
    pub fn issuer(&self) -> Option<Issuer> {
        match self {
            Self::Charge(record) => Some(record.issuer),
            Self::Operation(_) => None,
        }
    }

    /// When it ends.
    pub fn expires(&self) -> Timestamp {
        match self {
            Self::Charge(record) => record.expires,
            Self::Operation(record) => record.expires,
        }
    }
}

/// What a [`Record`] is kept for; each kind has ids of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// Reserve, settle, cancel.
    Reservation,
    /// Refund.
    Refund,
    /// The release of a lease: its id cannot be acquired again.
    Lease,
    /// A group under an operation id.
    Operation,
}

impl RecordKind {
    /// A stable lower-case name, for keys and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reservation => "reservation",
            Self::Refund => "refund",
            Self::Lease => "lease",
            Self::Operation => "operation",
        }
    }

    /// The name under which a store that puts `prefix` before its keys keeps the record of `id` for
    /// `counter`: `PREFIXratelimit:%KIND:{SLOT}DIGEST`. It stands in the counter's own cluster slot, since `SLOT`
    /// is its hash tag, or the whole name without one; the digest is the first half of the SHA-256
    /// of counter and id. No counter has such a name: encoded segments do not begin with `%r`, `%l` or `%o`.
    pub fn name(self, prefix: &str, counter: Counter<'_>, id: &OperationId) -> String {
        let kind = self.as_str();
        let text = counter.to_string();
        let tagged = text
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'));
        let mut digest = Sha256::new();
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(&text);
        digest.update(id.as_str());
        let digest = half(digest.finalize());
        match tagged {
            Some((tag, _)) => format!("{prefix}ratelimit:%{kind}:{{{tag}}}{digest:032x}"),
            None => format!("{prefix}ratelimit:%{kind}:{{{prefix}{text}}}{digest:032x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::limit::{Period, Policy, Quota};

    #[test]
    fn names_stand_in_the_slot_of_their_key() {
        let id = OperationId::new("op-1");
        let quota = Quota::fixed_window(1, Period::HOUR).unwrap();
        let policy = Policy::new("p", quota).unwrap();
        let of = |key| Counter::new(&policy, key);
        let plain = Key::new(["ratelimit", "user", "42"]);
        let name = RecordKind::Reservation.name("app:", of(&plain), &id);
        assert!(
            name.starts_with("app:ratelimit:%reservation:{app:ratelimit:user:42}"),
            "{name}"
        );
        let tagged = Key::builder()
            .segment("ratelimit")
            .hash_tag("acme")
            .segment("42")
            .build();
        let name = RecordKind::Operation.name("app:", of(&tagged), &id);
        assert!(
            name.starts_with("app:ratelimit:%operation:{acme}"),
            "{name}"
        );
        // Another key of the tag, another id or another kind is another record.
        let names = [
            RecordKind::Operation.name("", of(&tagged), &id),
            RecordKind::Operation.name("", of(&tagged.join("x")), &id),
            RecordKind::Operation.name("", of(&tagged), &OperationId::new("op-2")),
            RecordKind::Refund.name("", of(&tagged), &id),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name}");
        }
    }
}
