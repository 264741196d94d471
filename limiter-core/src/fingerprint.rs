//! What tells names apart in this process, in 128 bits.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher;

/// 128 bits that tell a name from every other one in this process: its SipHash-1-3-128 under a key that the process draws
/// when it starts, so that nobody outside can make two names collide. Means nothing in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Of a text.
    pub fn of(text: &str) -> Self {
        Self(hasher().hash(text.as_bytes()).as_u128())
    }

    /// Of this name together with a number.
    #[must_use]
    pub fn with(self, number: u64) -> Self {
        let mut hasher = *hasher();
        hasher.write_u128(self.0);
        hasher.write_u64(number);
        Self(hasher.finish128().as_u128())
    }

    /// The bits.
    pub fn as_u128(self) -> u128 {
        self.0
    }
}

fn hasher() -> &'static SipHasher13 {
    static HASHER: OnceLock<SipHasher13> = OnceLock::new();
    HASHER.get_or_init(|| {
        // Each hasher has keys of its own, drawn from the system's random numbers.
        let random = RandomState::new();
        SipHasher13::new_with_keys(random.hash_one(0), random.hash_one(1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_count() {
        let (a, b) = (Fingerprint::of("a"), Fingerprint::of("b"));
        assert_eq!(a, Fingerprint::of("a"));
        let all = [a, b, a.with(1), a.with(2), b.with(1), a.with(1).with(2)];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }
}
