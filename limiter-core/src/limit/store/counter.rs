//! What a step works on.

use std::fmt;

use crate::fingerprint::Fingerprint;
use crate::key::Key;
use crate::limit::policy::Policy;

/// The name of the counter that a step works on: the key, and the policy's version where it is above the first. Stores keep
/// it under this name, `KEY` or `KEY:%vVERSION`, and under no other: so old and new versions of a policy never meet. No
/// encoded segment of a key begins with `%v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Counter<'a> {
    key: &'a Key,
    version: u32,
}

impl<'a> Counter<'a> {
    /// The counter of a key under a policy.
    pub fn new(policy: &Policy, key: &'a Key) -> Self {
        Self {
            key,
            version: policy.version(),
        }
    }

    /// The key.
    pub fn key(&self) -> &'a Key {
        self.key
    }

    /// What tells the counter from others in this process. Costs nothing for a first version.
    pub fn fingerprint(&self) -> Fingerprint {
        let key = self.key.fingerprint();
        if self.is_first() {
            key
        } else {
            key.with(self.version.into())
        }
    }

    fn is_first(&self) -> bool {
        self.version <= 1
    }
}

impl fmt::Display for Counter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key.as_str())?;
        if !self.is_first() {
            write!(f, ":%v{}", self.version)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Period, Quota};

    #[test]
    fn a_version_above_the_first_is_a_part_of_the_name() {
        let quota = Quota::fixed_window(1, Period::HOUR).unwrap();
        let first = Policy::new("api", quota).unwrap();
        let second = first.clone().with_version(2);
        let key = first.key(["42"]);
        let counters = [&first, &second].map(|policy| Counter::new(policy, &key));
        assert_eq!(counters[0].to_string(), "ratelimit:api:42");
        assert_eq!(counters[1].to_string(), "ratelimit:api:42:%v2");
        assert_ne!(counters[0], counters[1]);
        assert_ne!(counters[0].fingerprint(), counters[1].fingerprint());
        // A user's text cannot pass for it.
        let posing = first.key(["42", "%v2"]);
        assert_ne!(posing.as_str(), counters[1].to_string());
    }
}
