//! A quota with a name and with what surrounds it.

use std::fmt;

use super::quota::Quota;
use super::share::Share;
use super::unit::Unit;
use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// What is enforced, under which name, and what happens when it cannot be.
///
/// The name goes into headers, logs, metrics, problem bodies and, by [`key`](Policy::key), into the policy's keys.
///
/// ```
/// use limiter_core::limit::{Outage, Period, Policy, Quota};
///
/// let policy = Policy::new("cover-letter", Quota::fixed_window(20, Period::HOUR)?)?
///     .with_scope("api")?
///     .with_outage(Outage::Allow);
/// assert_eq!(policy.name(), "cover-letter");
/// assert_eq!(policy.key(["user", "42"]).as_str(), "ratelimit:cover-letter:user:42");
/// # Ok::<(), limiter_core::Error>(())
/// ```
///
/// **One key, one policy.** A counter is of one policy. Two policies over one key count together, and each undoes the
/// other's limit; where their algorithms differ, the second one is refused as a
/// [`Conflict`](crate::ErrorKind::Conflict). Keys that policies make hold their
/// names, so those of different names cannot meet. The scope is no part of a key: give the policies of two scopes two names.
///
/// **A change of the algorithm raises the [version](Policy::with_version)**, which above 1 is a part of all of the
/// policy's keys. Other numbers of the same algorithm do not: the count goes on under them.
///
/// A copy shares nothing with its original: a decision that holds one makes no two threads wait for each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Policy {
    name: Name,
    scope: Name,
    quota: Quota,
    outage: Outage,
    shadow: bool,
    version: u32,
    revision: u32,
    unit: Unit,
}

/// A name of 1 to 64 of `A-Z a-z 0-9 _ - .`, in place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Name {
    text: [u8; NAME_BYTES],
    length: u8,
}

const NAME_BYTES: usize = 64;

impl Name {
    /// Names stand unescaped in headers and metric labels.
    fn new(what: &'static str, name: &str) -> Result<Self, Error> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        let bytes = name.as_bytes();
        let mut text = [0; NAME_BYTES];
        match (u8::try_from(bytes.len()), text.get_mut(..bytes.len())) {
            (Ok(length @ 1..), Some(place)) if bytes.iter().all(|byte| allowed(*byte)) => {
                place.copy_from_slice(bytes);
                Ok(Self { text, length })
            }
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "policy",
                format!("{what} {name:?} must be 1 to 64 of A-Z a-z 0-9 _ - ."),
            )),
        }
    }

    fn as_str(&self) -> &str {
        // It was made of ASCII.
        let text = self.text.get(..self.length.into()).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

/// What a check answers when the store cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outage {
    /// Refuse: nothing is admitted that the store did not acknowledge. The default.
    #[default]
    Deny,
    /// Admit, marked as degraded, logged and counted.
    Allow,
    /// Count in this process, marked as degraded, logged and counted: a share of the quota, rounded down. One of `n` instances
    /// takes `1/n`, or less, since the instances together admit `n` shares more than the limit while the store is away. A cost
    /// above the share is refused as unavailable.
    Local {
        /// Of the quota.
        share: Share,
    },
}

impl Policy {
    /// An enforced policy of scope `default` and version 1 that denies in an outage.
    ///
    /// # Errors
    /// `InvalidInput` unless the name is 1 to 64 of `A-Z a-z 0-9 _ - .`.
    pub fn new(name: &str, quota: Quota) -> Result<Self, Error> {
        Ok(Self {
            name: Name::new("policy name", name)?,
            scope: Name::new("policy scope", "default")?,
            quota,
            outage: Outage::default(),
            shadow: false,
            version: FIRST_VERSION,
            revision: 0,
            unit: Unit::default(),
        })
    }

    /// The key of whom the policy limits, which no policy of another name makes: `ratelimit:{name}:{part}:...` (A5).
    ///
    /// The parts say whom: `policy.key([user])`, `policy.key([tenant, route])`. Without one, everybody shares a
    /// counter; and an empty part is a counter too, of all whose id is missing: refuse those before.
    ///
    /// It has no hash tag. For a group in a Redis Cluster build the keys so that they share a slot, with the policy's name
    /// in them: `Key::builder().segment("ratelimit").hash_tag(tenant).segment(policy.name()).segment(user).build()`.
    pub fn key<S: AsRef<str>>(&self, parts: impl IntoIterator<Item = S>) -> Key {
        let key = Key::builder().segment("ratelimit").segment(self.name());
        let key = parts
            .into_iter()
            .fold(key, |key, part| key.segment(part.as_ref()));
        key.build()
    }

    /// The same policy in another scope (`api`, `admin`, `webhook`): what metrics group by.
    ///
    /// # Errors
    /// `InvalidInput` unless the scope is 1 to 64 of `A-Z a-z 0-9 _ - .`.
    pub fn with_scope(self, scope: &str) -> Result<Self, Error> {
        let scope = Name::new("policy scope", scope)?;
        Ok(Self { scope, ..self })
    }

    /// The same policy with another rule for outages.
    #[must_use]
    pub fn with_outage(self, outage: Outage) -> Self {
        Self { outage, ..self }
    }

    /// The same policy, counting and reporting but never blocking, if `shadow`.
    #[must_use]
    pub fn with_shadow(self, shadow: bool) -> Self {
        Self { shadow, ..self }
    }

    /// The same policy with another quota. If its algorithm is another one, raise the version too.
    #[must_use]
    pub fn with_quota(self, quota: Quota) -> Self {
        Self { quota, ..self }
    }

    /// The same policy with another version; 1 is the first, and 0 counts as 1.
    ///
    /// A version above the first is a part of all of the policy's keys, hand-made ones too (`...:%v2`), so policies of
    /// different versions never meet: not in a rolling deploy, and not after a rollback. That costs at most one extra
    /// capacity a key. Raise it when the algorithm changes.
    #[must_use]
    pub fn with_version(self, version: u32) -> Self {
        Self {
            version: version.max(FIRST_VERSION),
            ..self
        }
    }

    /// The same policy with another revision: which of several quotas under one name and version it is. A wrapper
    /// that remembers denials must drop those of another revision. No part of keys.
    #[must_use]
    pub fn with_revision(self, revision: u32) -> Self {
        Self { revision, ..self }
    }

    /// The same policy, counting in another unit.
    #[must_use]
    pub fn with_unit(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    /// This policy as `next`, which takes its place.
    ///
    /// # Errors
    /// `InvalidInput` if the name is another one, the version a lower one, or the algorithm or the unit another one without a
    /// higher version: what was counted under one cannot go on under another.
    pub fn replaced_by(&self, next: Self) -> Result<Self, Error> {
        let refused = |message: String| Err(Error::new(ErrorKind::InvalidInput, "policy", message));
        if self.name != next.name {
            return refused(format!(
                "policy {} cannot become policy {}; keep the name",
                self.name(),
                next.name()
            ));
        }
        if next.version < self.version {
            return refused(format!(
                "policy {} goes back from version {} to {}; counters of {} may be live, under another algorithm; raise the version instead",
                self.name(),
                self.version,
                next.version,
                next.version
            ));
        }
        if self.unit != next.unit && next.version == self.version {
            return refused(format!(
                "policy {} counts {} and would count {} under version {}; raise the version above {}, so that old and new counts do not meet",
                self.name(),
                self.unit.as_str(),
                next.unit.as_str(),
                next.version,
                self.version
            ));
        }
        if self.quota.algorithm() != next.quota.algorithm() && next.version == self.version {
            return refused(format!(
                "policy {} changes from {} to {} under version {}; raise the version above {}, so that old and new counters do not meet",
                self.name(),
                self.quota.algorithm(),
                next.quota.algorithm(),
                next.version,
                self.version
            ));
        }
        Ok(next)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The scope.
    pub fn scope(&self) -> &str {
        self.scope.as_str()
    }

    /// The quota.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// The rule for outages.
    pub fn outage(&self) -> Outage {
        self.outage
    }

    /// Whether the policy only watches.
    pub fn is_shadow(&self) -> bool {
        self.shadow
    }

    /// The version, at least 1.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The revision, 0 at first.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// What the quota counts.
    pub fn unit(&self) -> Unit {
        self.unit
    }
}

/// The version that is no part of keys.
const FIRST_VERSION: u32 = 1;

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.name())
            .field("scope", &self.scope())
            .field("quota", &self.quota)
            .field("outage", &self.outage)
            .field("shadow", &self.shadow)
            .field("version", &self.version)
            .field("revision", &self.revision)
            .field("unit", &self.unit)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Period;

    #[test]
    fn names_that_would_break_a_header_are_refused() {
        let quota = Quota::fixed_window(1, Period::HOUR).unwrap();
        for name in ["", "a b", "a\"b", "ü", "a\r\nb", &"x".repeat(65)] {
            let error = Policy::new(name, quota).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        }
        let policy = Policy::new("ok", quota).unwrap();
        assert!(policy.with_scope("no good").is_err());
        let longest = "x".repeat(64);
        assert_eq!(Policy::new(&longest, quota).unwrap().name(), longest);
    }

    /// A5, and that no two policies' keys can meet.
    #[test]
    fn keys_hold_the_policys_name() {
        let quota = Quota::fixed_window(1, Period::HOUR).unwrap();
        let policy = |name| Policy::new(name, quota).unwrap();
        assert_eq!(policy("api").key(["42"]).as_str(), "ratelimit:api:42");
        assert_eq!(policy("api").key(["a:b"]).as_str(), "ratelimit:api:a%3Ab");
        assert_eq!(policy("api").key([""; 0]).as_str(), "ratelimit:api");
        assert_ne!(policy("api").key(["b", "c"]), policy("api.b").key(["c"]));
    }

    #[test]
    fn another_algorithm_is_another_version() {
        let window = Policy::new("p", Quota::fixed_window(9, Period::HOUR).unwrap()).unwrap();
        let more = window
            .clone()
            .with_quota(Quota::fixed_window(20, Period::DAY).unwrap());
        assert!(window.replaced_by(more).is_ok(), "other numbers");
        let tokens = window.clone().with_unit(Unit::Tokens);
        let refused = window.replaced_by(tokens.clone()).unwrap_err();
        assert!(
            refused
                .message()
                .contains("counts requests and would count tokens"),
            "{refused}"
        );
        assert!(window.replaced_by(tokens.with_version(2)).is_ok());
        let bucket = Quota::token_bucket(9, 9, Period::HOUR).unwrap();
        let next = window.clone().with_quota(bucket);
        let refused = window.replaced_by(next.clone()).unwrap_err();
        assert!(refused.message().contains("raise the version"), "{refused}");
        let bucket_again = window.replaced_by(next.clone().with_version(2)).unwrap();
        // Back to the first version, which windows may still live under.
        let back = bucket_again.replaced_by(next).unwrap_err();
        assert!(back.message().contains("goes back"), "{back}");
        assert!(
            window
                .replaced_by(Policy::new("q", bucket).unwrap())
                .is_err()
        );
        assert_eq!(window.with_version(0).version(), 1);
    }
}
