//! What is asked for: one limit, one key, one cost.

use crate::key::Key;
use crate::limit::policy::Policy;
use crate::limit::store::{Action, Step};

/// One charge of a group: a policy, a key and a cost.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    policy: &'a Policy,
    key: &'a Key,
    cost: u64,
}

impl<'a> Charge<'a> {
    /// A charge of 1.
    pub fn new(policy: &'a Policy, key: &'a Key) -> Self {
        Self {
            policy,
            key,
            cost: 1,
        }
    }

    /// The same charge at another cost. 0 is a peek.
    #[must_use]
    pub fn with_cost(self, cost: u64) -> Self {
        Self { cost, ..self }
    }

    /// The policy.
    pub fn policy(&self) -> &'a Policy {
        self.policy
    }

    /// The key.
    pub fn key(&self) -> &'a Key {
        self.key
    }

    /// The cost.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    pub(super) fn step(&self) -> Step<'a> {
        Step::new(self.policy, self.key, Action::Charge { cost: self.cost })
    }
}
