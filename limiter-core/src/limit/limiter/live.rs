//! Policies that change while the service runs, and quotas of single keys.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::quota::Quota;

/// A policy whose quota can be changed at run time, for everybody or for one key (a tenant with a
/// quota of its own). Clones share it. A change keeps what was charged; see "When the quota changes" in
/// docs/algorithms.md.
///
/// ```
/// use limiter_core::Key;
/// use limiter_core::limit::{LivePolicy, Period, Policy, Quota};
///
/// let api = LivePolicy::new(Policy::new("api", Quota::fixed_window(100, Period::MINUTE)?)?);
/// let acme = Key::new(["ratelimit", "acme", "api"]);
/// api.set_override(acme.clone(), Quota::fixed_window(5_000, Period::MINUTE)?);
/// assert_eq!(api.of(&acme).quota().capacity(), 5_000);
/// assert_eq!(api.of(&Key::new(["ratelimit", "other", "api"])).quota().capacity(), 100);
///
/// api.set_quota(Quota::fixed_window(50, Period::MINUTE)?);
/// assert_eq!((api.current().quota().capacity(), api.current().version()), (50, 3));
/// assert_eq!(api.of(&acme).quota().capacity(), 5_000);
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LivePolicy(Arc<RwLock<Policies>>);

#[derive(Debug)]
struct Policies {
    /// The highest version given to anybody: a key that gets or loses a quota of its own changes to a
    /// higher one each time.
    version: u32,
    general: Policy,
    overrides: HashMap<Key, Policy>,
}

impl LivePolicy {
    /// A policy that can be changed.
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(RwLock::new(Policies {
            version: policy.version(),
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

    /// Gives everybody without a quota of their own another one, under the next version. Checks that
    /// are under way finish under the old one.
    pub fn set_quota(&self, quota: Quota) {
        self.change(|policies| {
            let version = policies.next_version();
            let policy = policies.general.clone();
            policies.general = policy.with_quota(quota).with_version(version);
        });
    }

    /// Gives one key a quota of its own, under the next version.
    pub fn set_override(&self, key: Key, quota: Quota) {
        self.change(|policies| {
            let version = policies.next_version();
            let before = policies.overrides.get(&key).unwrap_or(&policies.general);
            let policy = before.clone().with_quota(quota).with_version(version);
            policies.overrides.insert(key, policy);
        });
    }

    /// Takes a key's own quota away; whether it had one. The general policy gets the next version, so
    /// that nobody takes what is remembered of the key's own quota for its.
    pub fn remove_override(&self, key: &Key) -> bool {
        self.change(|policies| {
            let removed = policies.overrides.remove(key).is_some();
            if removed {
                let version = policies.next_version();
                policies.general = policies.general.clone().with_version(version);
            }
            removed
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Policies) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Policies {
    fn next_version(&mut self) -> u32 {
        self.version = self.version.saturating_add(1);
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Period;

    /// A version tells one quota of a key from every other one that the key had.
    #[test]
    fn every_change_of_a_keys_quota_has_a_higher_version() {
        let quota = |limit| Quota::fixed_window(limit, Period::MINUTE).unwrap();
        let live = LivePolicy::new(Policy::new("api", quota(100)).unwrap().with_version(7));
        let key = Key::new(["ratelimit", "acme"]);
        let mut versions = vec![live.of(&key).version()];
        let mut note = || versions.push(live.of(&key).version());
        live.set_override(key.clone(), quota(5));
        note();
        assert!(live.remove_override(&key));
        note();
        live.set_override(key.clone(), quota(6));
        note();
        live.set_quota(quota(50));
        assert!(live.remove_override(&key));
        note();
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        assert!(!live.remove_override(&key), "it has none");
        assert_eq!(live.of(&key).quota().capacity(), 50);
    }
}
