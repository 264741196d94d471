//! Policies that change while the service runs, and quotas of single keys.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::Error;
use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::quota::Quota;

/// A policy whose quota can be changed at run time, for everybody or for one key (a tenant with a
/// quota of its own). Clones share it. A change keeps what was charged; see "When the quota changes" in
/// docs/algorithms.md. Each change has a higher [revision](Policy::revision); a change of the algorithm needs a higher
/// [version](Policy::version) too.
///
/// ```
/// use limiter_core::limit::{LivePolicy, Period, Policy, Quota};
///
/// let api = LivePolicy::new(Policy::new("api", Quota::fixed_window(100, Period::MINUTE)?)?);
/// let [acme, other] = ["acme", "other"].map(|tenant| api.current().key([tenant]));
/// api.set_override(acme.clone(), Quota::fixed_window(5_000, Period::MINUTE)?)?;
/// assert_eq!(api.of(&acme).quota().capacity(), 5_000);
/// assert_eq!(api.of(&other).quota().capacity(), 100);
///
/// api.set_quota(Quota::fixed_window(50, Period::MINUTE)?)?;
/// assert_eq!((api.current().quota().capacity(), api.current().revision()), (50, 2));
/// assert_eq!(api.of(&acme).quota().capacity(), 5_000);
///
/// let bucket = Quota::token_bucket(50, 50, Period::MINUTE)?;
/// assert!(api.set_quota(bucket).is_err(), "another algorithm under the same version");
/// api.replace(api.current().with_quota(bucket).with_version(2))?;
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LivePolicy(Arc<RwLock<Policies>>);

#[derive(Debug)]
struct Policies {
    /// The highest revision given to anybody: a key that gets or loses a quota of its own changes to a
    /// higher one each time.
    revision: u32,
    general: Policy,
    overrides: HashMap<Key, Policy>,
}

impl LivePolicy {
    /// A policy that can be changed.
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(RwLock::new(Policies {
            revision: policy.revision(),
            general: policy,
            overrides: HashMap::new(),
        })))
    }

    /// The policy of a key: its own, or the general one.
    pub fn of(&self, key: &Key) -> Policy {
        let policies = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let policy = policies.overrides.get(key).unwrap_or(&policies.general);
        policy.clone()
    }

    /// The general policy.
    pub fn current(&self) -> Policy {
        let policies = self.0.read().unwrap_or_else(PoisonError::into_inner);
        policies.general.clone()
    }

    /// Gives everybody without a quota of their own another one, under the next revision. Checks that
    /// are under way finish under the old one.
    ///
    /// # Errors
    /// `InvalidInput` for another algorithm: [`replace`](Self::replace) the policy by one of a higher version.
    pub fn set_quota(&self, quota: Quota) -> Result<(), Error> {
        self.change(|policies| {
            let next = policies.general.clone().with_quota(quota);
            let next = policies.general.replaced_by(next)?;
            policies.general = policies.revised(next);
            Ok(())
        })
    }

    /// Puts another policy of the same name in the place of the general one: with another rule for outages, another
    /// quota, or a higher version. Keys with quotas of their own keep these.
    ///
    /// # Errors
    /// As [`Policy::replaced_by`].
    pub fn replace(&self, next: Policy) -> Result<(), Error> {
        self.change(|policies| {
            let next = policies.general.replaced_by(next)?;
            policies.general = policies.revised(next);
            Ok(())
        })
    }

    /// Gives one key a quota of its own, under the next revision.
    ///
    /// # Errors
    /// `InvalidInput` for another algorithm than the key's present one.
    pub fn set_override(&self, key: Key, quota: Quota) -> Result<(), Error> {
        self.change(|policies| {
            let before = policies.overrides.get(&key).unwrap_or(&policies.general);
            let next = before.replaced_by(before.clone().with_quota(quota))?;
            let next = policies.revised(next);
            policies.overrides.insert(key, next);
            Ok(())
        })
    }

    /// Takes a key's own quota away; whether it had one. The general policy gets the next revision, so
    /// that nobody takes what is remembered of the key's own quota for its.
    pub fn remove_override(&self, key: &Key) -> bool {
        self.change(|policies| {
            let removed = policies.overrides.remove(key).is_some();
            if removed {
                policies.general = {
                    let general = policies.general.clone();
                    policies.revised(general)
                };
            }
            removed
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Policies) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<Policy> for LivePolicy {
    fn from(policy: Policy) -> Self {
        Self::new(policy)
    }
}

impl Policies {
    fn revised(&mut self, policy: Policy) -> Policy {
        self.revision = self.revision.saturating_add(1);
        policy.with_revision(self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Period;

    /// A revision tells one quota of a key from every other one that the key had, and is no part of its name.
    #[test]
    fn every_change_of_a_keys_quota_has_a_higher_revision() {
        let quota = |limit| Quota::fixed_window(limit, Period::MINUTE).unwrap();
        let live = LivePolicy::new(Policy::new("api", quota(100)).unwrap().with_revision(7));
        let key = Key::new(["ratelimit", "acme"]);
        let mut revisions = vec![live.of(&key).revision()];
        let mut note = || revisions.push(live.of(&key).revision());
        live.set_override(key.clone(), quota(5)).unwrap();
        note();
        assert!(live.remove_override(&key));
        note();
        live.set_override(key.clone(), quota(6)).unwrap();
        note();
        live.set_quota(quota(50)).unwrap();
        assert!(live.remove_override(&key));
        note();
        assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
        assert!(!live.remove_override(&key), "it has none");
        assert_eq!(live.of(&key).quota().capacity(), 50);
        assert_eq!(live.of(&key).version(), 1);
        let bucket = Quota::token_bucket(5, 5, Period::MINUTE).unwrap();
        assert!(live.set_quota(bucket).is_err());
        assert!(live.set_override(key.clone(), bucket).is_err());
        assert!(live.replace(live.current().with_quota(bucket)).is_err());
        live.replace(live.current().with_quota(bucket).with_version(2))
            .unwrap();
        assert_eq!(live.of(&key).quota(), &bucket);
    }
}
