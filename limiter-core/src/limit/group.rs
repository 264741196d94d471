//! Groups of steps: one call, all or nothing.

use super::action::{Action, OperationId};
use super::algorithm::{self, State};
use super::observed::{Observed, Verdict};
use super::policy::Policy;
use super::store::Capabilities;
use crate::clock::{MAX_INTEGER, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// The most steps in one group.
pub const MAX_STEPS: usize = 64;

/// One action on one key under one policy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step<'a> {
    /// The counter.
    pub key: &'a Key,
    /// The quota, and what wrappers need: name, version, enforced or shadow, outage rule.
    pub policy: &'a Policy,
    /// What to do.
    pub action: Action<'a>,
}

impl<'a> Step<'a> {
    /// A step.
    pub fn new(policy: &'a Policy, key: &'a Key, action: Action<'a>) -> Self {
        Self {
            key,
            policy,
            action,
        }
    }
}

/// Steps that are taken together: all of them, or none.
///
/// Made by [`Group::new`], which checks it, so a store can rely on the checks.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    steps: &'a [Step<'a>],
    operation: Option<&'a OperationId>,
}

impl<'a> Group<'a> {
    /// A group for a store with the given capabilities.
    ///
    /// A key may stand in several steps: their costs add up.
    ///
    /// # Errors
    /// `InvalidInput` if there is no step or more than [`MAX_STEPS`], if a key is empty, or if a key
    /// stands in two steps under different policies or with a reset. `Unsupported` if the store
    /// lacks an action.
    pub fn new(steps: &'a [Step<'a>], capabilities: &Capabilities) -> Result<Self, Error> {
        if steps.is_empty() || steps.len() > MAX_STEPS {
            return Err(invalid(format!(
                "a group has {} steps; give 1 to {MAX_STEPS}",
                steps.len()
            )));
        }
        for (i, step) in steps.iter().enumerate() {
            if step.key.as_str().is_empty() {
                return Err(invalid("a key has no segment; give it at least one"));
            }
            if !step.action.is_supported_by(capabilities) {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "limit.group",
                    format!("this store does not support {}", step.action.as_str()),
                ));
            }
            for earlier in &steps[..i] {
                if earlier.key != step.key {
                    continue;
                }
                if earlier.policy != step.policy {
                    return Err(invalid(format!(
                        "key {} stands in one group under policies {} and {}; give each policy a key of its own",
                        step.key,
                        earlier.policy.name(),
                        step.policy.name()
                    )));
                }
                if earlier.action == Action::Reset || step.action == Action::Reset {
                    return Err(invalid(format!(
                        "key {} is reset and used in one group; reset it on its own",
                        step.key
                    )));
                }
            }
        }
        Ok(Self {
            steps,
            operation: None,
        })
    }

    /// The same group under an id, by which the store recognises a retry.
    ///
    /// # Errors
    /// `Unsupported` if the store does not remember operations.
    pub fn with_operation(
        self,
        operation: &'a OperationId,
        capabilities: &Capabilities,
    ) -> Result<Self, Error> {
        if !capabilities.operation_ids {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "limit.group",
                "this store does not remember operation ids",
            ));
        }
        Ok(Self {
            operation: Some(operation),
            ..self
        })
    }

    /// The steps, at least one.
    pub fn steps(&self) -> &'a [Step<'a>] {
        self.steps
    }

    /// The id, if there is one.
    pub fn operation(&self) -> Option<&'a OperationId> {
        self.operation
    }

    /// What step `index` asks of its key, with what the steps before it take from the same key. At
    /// most [`MAX_INTEGER`], which is above every capacity.
    pub fn total_cost(&self, index: usize) -> u64 {
        self.total_cost_where(index, |earlier| {
            self.steps[earlier].key == self.steps[index].key
        })
    }

    fn total_cost_where(&self, index: usize, same: impl Fn(usize) -> bool) -> u64 {
        let step = &self.steps[index];
        let earlier = (0..index)
            .filter(|earlier| {
                let action = &self.steps[*earlier].action;
                !matches!(action, Action::Peek { .. }) && same(*earlier)
            })
            .fold(0, |sum: u64, earlier| {
                sum.saturating_add(self.steps[earlier].action.cost())
            });
        earlier.saturating_add(step.action.cost()).min(MAX_INTEGER)
    }
}

/// The states that a group works on, by the index of the step; steps of one key share a state.
pub trait States {
    /// What is stored for the key of step `index`.
    fn get(&self, index: usize) -> Option<State>;
    /// Stores `state` for the key of step `index`; `None` removes it.
    fn set(&mut self, index: usize, state: Option<State>);
    /// Whether two steps share a state though their keys differ. They do not, unless the store says
    /// so; then their costs add up.
    fn shares(&self, _one: usize, _other: usize) -> bool {
        false
    }
}

/// Applies one group to states held in this process. The heart of an in-process store: pure but for
/// `states`, which must not be visible to others meanwhile.
///
/// `observed` has one place for each step. Where the group is denied, nothing is charged and every
/// step reports the state without its charge.
///
/// # Errors
/// `Unsupported` for an action that needs more than a key's own state.
pub fn apply_group(
    group: &Group<'_>,
    states: &mut impl States,
    now: Timestamp,
    observed: &mut [Observed],
) -> Result<(), Error> {
    let steps = group.steps();
    let mut admitted = true;
    for (index, step) in steps.iter().enumerate() {
        let cost = group.total_cost_where(index, |earlier| {
            steps[earlier].key == step.key || states.shares(earlier, index)
        });
        let action = match step.action {
            Action::Charge { cost: 1.. } => Action::Charge { cost },
            // One that asks for nothing only looks, whatever the steps before it ask for.
            Action::Charge { .. } | Action::Peek { cost: 0 } => Action::Peek { cost: 0 },
            Action::Peek { .. } => Action::Peek { cost },
            ref other => other.clone(),
        };
        let stepped = algorithm::step(step.policy.quota(), states.get(index), now, &action)?;
        admitted &= step.policy.is_shadow() || stepped.observed.verdict == Verdict::Admit;
        observed[index] = stepped.observed;
        if let [only] = steps {
            // The common case: what was tried is what is done.
            if writes(&only.action) && (admitted_by(&stepped.observed) || stepped.mended) {
                states.set(index, stepped.state);
            }
            return Ok(());
        }
    }
    for (index, step) in steps.iter().enumerate() {
        if !writes(&step.action) {
            continue;
        }
        // Each step of a key adds its own cost to what the earlier ones wrote.
        let charges = admitted && admitted_by(&observed[index]);
        let action = if charges {
            step.action.clone()
        } else {
            Action::Peek { cost: 0 }
        };
        let stepped = algorithm::step(step.policy.quota(), states.get(index), now, &action)?;
        observed[index].used = stepped.observed.used;
        observed[index].reset_after = stepped.observed.reset_after;
        if charges || (stepped.mended && step.action != Action::Reset) {
            states.set(index, stepped.state);
        }
    }
    Ok(())
}

fn writes(action: &Action<'_>) -> bool {
    !matches!(action, Action::Peek { .. } | Action::Charge { cost: 0 })
}

fn admitted_by(observed: &Observed) -> bool {
    observed.verdict == Verdict::Admit
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidInput, "limit.group", message)
}
