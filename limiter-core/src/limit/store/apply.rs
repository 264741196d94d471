//! A group applied to states held in this process: the heart of an in-process store, and what the
//! Redis script mirrors.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Duration;

use super::action::Action;
use super::group::{Group, Step};
use super::id::Mark;
use super::observed::Observed;
use super::record::{ChargeRecord, OperationRecord, Record, RecordKind, Status};
use crate::clock::{MAX_INTEGER, Timestamp};
use crate::error::Error;
use crate::limit::algorithm::{self, Change, Lease, State};

/// Where a group keeps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// The limit's state of the key of a step, by its index. Steps of one key share it.
    Limit(usize),
    /// The record of a step's reservation or refund.
    Record(usize),
    /// The record of the group's operation.
    Operation,
}

impl Place {
    /// The name of the place in a store that keeps all states in one table: the key's text, or
    /// [`RecordKind::name`]. `None` if the group keeps nothing there.
    pub fn name(self, group: &Group<'_>) -> Option<String> {
        let (step, kind, id) = match self {
            Self::Limit(index) => return Some(group.steps().get(index)?.key.as_str().to_owned()),
            Self::Record(index) => {
                let step = group.steps().get(index)?;
                let (kind, id) = step.record()?;
                (step, kind, id)
            }
            Self::Operation => {
                let (id, _) = group.operation()?;
                (group.steps().first()?, RecordKind::Operation, id)
            }
        };
        Some(kind.name("", step.key, id))
    }
}

/// The states that a group works on. They must not be visible to others meanwhile.
pub trait States {
    /// What is kept at `place`.
    fn get(&self, place: Place) -> Option<&State>;
    /// Replaces what is kept at `place` by what `change` makes of it; `None` removes it.
    fn update(&mut self, place: Place, change: &mut dyn FnMut(Option<State>) -> Option<State>);
    /// Whether two steps share a state though their keys differ. They do not, unless the store says
    /// so; then their costs add up.
    fn shares(&self, _one: usize, _other: usize) -> bool {
        false
    }
}

/// States in a map, by [`Place::name`]: enough for tests and for small stores.
#[derive(Debug)]
pub struct MapStates<'a> {
    group: &'a Group<'a>,
    map: &'a mut HashMap<String, State>,
}

impl<'a> MapStates<'a> {
    /// The states of `group` in `map`.
    pub fn new(group: &'a Group<'a>, map: &'a mut HashMap<String, State>) -> Self {
        Self { group, map }
    }
}

impl States for MapStates<'_> {
    fn get(&self, place: Place) -> Option<&State> {
        self.map.get(&place.name(self.group)?)
    }

    fn update(&mut self, place: Place, change: &mut dyn FnMut(Option<State>) -> Option<State>) {
        let Some(name) = place.name(self.group) else {
            return;
        };
        if let Some(state) = change(self.map.remove(&name)) {
            self.map.insert(name, state);
        }
    }
}

/// Applies one group to states held in this process.
///
/// `observed` has one place for each step. Where the group is denied, nothing is charged and every
/// step reports the state without its charge.
///
/// # Errors
/// `Expired` if a reservation or a lease that is to be settled, cancelled or renewed is gone.
/// `Conflict` if an id was used before for something else. Nothing was changed then. A shadow step's
/// errors count for nothing, like its denials.
pub fn apply_group(
    group: &Group<'_>,
    states: &mut impl States,
    now: Timestamp,
    observed: &mut [Observed],
) -> Result<(), Error> {
    // The common case: what is tried is what is done.
    if let ([only], None) = (group.steps(), group.operation())
        && let Action::Charge { cost } = only.action
    {
        states.update(Place::Limit(0), &mut |state| {
            let (state, after) = algorithm::charge(only.policy.quota(), state, now, cost);
            observed[0] = after;
            state
        });
        return Ok(());
    }
    if let Some((_, ttl)) = group.operation() {
        return match operation_record(states, now) {
            Some(record) if record.fingerprint == group.fingerprint() => {
                replay(group, states, now, record, observed);
                Ok(())
            }
            Some(_) => Err(group.conflict()),
            None => {
                if apply_new(group, states, now, observed)? {
                    remember(group, states, now.saturating_add(ttl), observed);
                }
                Ok(())
            }
        };
    }
    apply_new(group, states, now, observed).map(drop)
}

/// Whether the group was admitted.
fn apply_new(
    group: &Group<'_>,
    states: &mut impl States,
    now: Timestamp,
    observed: &mut [Observed],
) -> Result<bool, Error> {
    let steps = group.steps();
    let mut plans: Vec<Plan> = Vec::with_capacity(steps.len());
    let mut admitted = true;
    for (index, step) in steps.iter().enumerate() {
        plans.push(match plan(step, index, states, now) {
            Err(_) if step.policy.is_shadow() => Plan::Nothing,
            planned => planned?,
        });
        // What asks for nothing is not denied for what others ask.
        let cost = match plans[index].asks() {
            0 => 0,
            own => {
                let earlier = (0..index).filter(|earlier| {
                    plans[*earlier].takes()
                        && (steps[*earlier].key == step.key || states.shares(*earlier, index))
                });
                let earlier = earlier.map(|earlier| plans[earlier].asks());
                earlier.fold(own, u64::saturating_add).min(MAX_INTEGER)
            }
        };
        let state = states.get(Place::Limit(index));
        observed[index] = algorithm::look(step.policy.quota(), state, now, cost);
        admitted &= step.policy.is_shadow() || observed[index].is_admitted();
    }
    for (index, step) in steps.iter().enumerate() {
        let quota = step.policy.quota();
        let plan = plans[index];
        if plan.takes() && !(admitted && observed[index].is_admitted()) {
            // Denied, and yet what the waiting time counts on has to be kept.
            states.update(Place::Limit(index), &mut |state| {
                algorithm::change(quota, state, now, Change::Keep).state
            });
        } else if admitted {
            let (charged, mark) = execute(plan, step, index, states, now);
            observed[index] = observed[index].with_charge(charged, mark);
        }
        if !matches!(
            step.action,
            Action::Peek { .. } | Action::Charge { cost: 0 }
        ) {
            let after = algorithm::look(quota, states.get(Place::Limit(index)), now, 0);
            observed[index].used = after.used;
            observed[index].reset_after = after.reset_after;
        }
    }
    Ok(admitted)
}

/// What a step does if its group is admitted.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// Nothing, or nothing any more: a retry of what was done.
    Nothing,
    /// Nothing, because it was done before, with what stands of it.
    Done {
        charged: u64,
        mark: Mark,
    },
    Look {
        cost: u64,
    },
    Charge {
        cost: u64,
    },
    Reserve {
        estimate: u64,
        ttl: Duration,
    },
    Acquire {
        lease: u128,
        cost: u64,
        ttl: Duration,
    },
    Renew {
        lease: u128,
        ttl: Duration,
    },
    Release {
        lease: u128,
    },
    Reset,
    /// A charge that stands changes to another amount.
    Adjust {
        record: ChargeRecord,
        to: u64,
        status: Status,
    },
}

impl Plan {
    fn asks(self) -> u64 {
        match self {
            Self::Look { cost } | Self::Charge { cost } | Self::Acquire { cost, .. } => cost,
            Self::Reserve { estimate, .. } => estimate,
            _ => 0,
        }
    }

    fn takes(self) -> bool {
        matches!(
            self,
            Self::Charge { .. } | Self::Reserve { .. } | Self::Acquire { .. }
        )
    }
}

fn plan(
    step: &Step<'_>,
    index: usize,
    states: &impl States,
    now: Timestamp,
) -> Result<Plan, Error> {
    let record = || charge_record(states, index, now);
    let lease = |id: u128| algorithm::lease(states.get(Place::Limit(index)), id, now);
    let done = |record: ChargeRecord| Plan::Done {
        charged: record.charged,
        mark: record.mark,
    };
    Ok(match &step.action {
        Action::Peek { cost } | Action::Charge { cost: cost @ 0 } => Plan::Look { cost: *cost },
        Action::Charge { cost } => Plan::Charge { cost: *cost },
        Action::Reset => Plan::Reset,
        Action::Refund { receipt } => match record() {
            Some(record) => done(record),
            None => {
                let expires = algorithm::counts_until(step.policy.quota(), receipt.mark());
                Plan::Adjust {
                    record: ChargeRecord {
                        status: Status::Held,
                        cost: receipt.cost(),
                        charged: receipt.cost(),
                        mark: receipt.mark(),
                        expires: expires.max(now.saturating_add(REFUND_MEMORY)),
                    },
                    to: 0,
                    status: Status::Refunded,
                }
            }
        },
        Action::Reserve { estimate, ttl, .. } => match record() {
            None => Plan::Reserve {
                estimate: *estimate,
                ttl: *ttl,
            },
            // One that was cancelled charges nothing, and so admits nothing.
            Some(record) if record.cost == *estimate && record.status != Status::Cancelled => {
                done(record)
            }
            Some(_) => return Err(step.conflict()),
        },
        Action::Settle { actual, .. } => match record() {
            None => return Err(step.gone()),
            Some(record) => match record.status {
                Status::Held => Plan::Adjust {
                    record,
                    to: *actual,
                    status: Status::Settled { actual: *actual },
                },
                Status::Settled { actual: before } if before == *actual => done(record),
                _ => return Err(step.conflict()),
            },
        },
        Action::Cancel { .. } => match record() {
            None => return Err(step.gone()),
            Some(record) => match record.status {
                Status::Held => Plan::Adjust {
                    record,
                    to: 0,
                    status: Status::Cancelled,
                },
                Status::Settled { .. } => return Err(step.conflict()),
                _ => done(record),
            },
        },
        Action::Acquire {
            lease: id,
            cost,
            ttl,
        } => {
            let id = id.digest();
            match lease(id) {
                None => Plan::Acquire {
                    lease: id,
                    cost: *cost,
                    ttl: *ttl,
                },
                Some(held) if held.cost == *cost => Plan::Renew {
                    lease: id,
                    ttl: *ttl,
                },
                Some(_) => return Err(step.conflict()),
            }
        }
        Action::Renew { lease: id, ttl } => match lease(id.digest()) {
            Some(_) => Plan::Renew {
                lease: id.digest(),
                ttl: *ttl,
            },
            None => return Err(step.gone()),
        },
        Action::Release { lease } => Plan::Release {
            lease: lease.digest(),
        },
    })
}

/// Does what was planned; what stands charged after it, and where.
fn execute(
    plan: Plan,
    step: &Step<'_>,
    index: usize,
    states: &mut impl States,
    now: Timestamp,
) -> (u64, Mark) {
    let quota = step.policy.quota();
    let mut change = |change: Change| {
        let mut result = (0, Mark::default());
        states.update(Place::Limit(index), &mut |state| {
            let changed = algorithm::change(quota, state, now, change);
            result = (changed.amount, changed.mark);
            changed.state
        });
        result
    };
    match plan {
        Plan::Nothing | Plan::Look { .. } => (0, Mark::default()),
        Plan::Done { charged, mark } => (charged, mark),
        Plan::Reset => {
            states.update(Place::Limit(index), &mut |_| None);
            (0, Mark::default())
        }
        Plan::Charge { cost } => change(Change::Charge(cost)),
        Plan::Acquire { lease, cost, ttl } => change(Change::Acquire(Lease {
            id: lease,
            cost,
            expires: now.saturating_add(ttl),
        })),
        Plan::Renew { lease, ttl } => change(Change::Renew(lease, now.saturating_add(ttl))),
        Plan::Release { lease } => change(Change::Release(lease)),
        Plan::Reserve { estimate, ttl } => {
            let (charged, mark) = change(Change::Charge(estimate));
            let record = ChargeRecord {
                status: Status::Held,
                cost: estimate,
                charged,
                mark,
                expires: now.saturating_add(ttl),
            };
            keep(states, index, record);
            (charged, mark)
        }
        Plan::Adjust { record, to, status } => {
            let stands = record.charged;
            let charged = match to.cmp(&stands) {
                Ordering::Less => stands - change(Change::GiveBack(record.mark, stands - to)).0,
                Ordering::Equal => stands,
                Ordering::Greater => stands + change(Change::Overrun(record.mark, to - stands)).0,
            };
            let record = ChargeRecord {
                status,
                charged,
                ..record
            };
            keep(states, index, record);
            (charged, record.mark)
        }
    }
}

/// How long a refund is remembered at least: a retry comes sooner.
const REFUND_MEMORY: Duration = super::group::OPERATION_TTL;

fn charge_record(states: &impl States, index: usize, now: Timestamp) -> Option<ChargeRecord> {
    match states.get(Place::Record(index)) {
        Some(State::Record(record)) => match record.as_ref() {
            Record::Charge(record) if record.expires > now => Some(*record),
            _ => None,
        },
        _ => None,
    }
}

fn operation_record(states: &impl States, now: Timestamp) -> Option<OperationRecord> {
    match states.get(Place::Operation) {
        Some(State::Record(record)) => match record.as_ref() {
            Record::Operation(record) if record.expires > now => Some(record.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn keep(states: &mut impl States, index: usize, record: ChargeRecord) {
    states.update(Place::Record(index), &mut |_| {
        Some(State::Record(Box::new(Record::Charge(record))))
    });
}

/// Remembers an admitted group.
fn remember(
    group: &Group<'_>,
    states: &mut impl States,
    expires: Timestamp,
    observed: &[Observed],
) {
    let charges = observed
        .iter()
        .map(|observed| (observed.charged, observed.mark))
        .collect();
    let mut record = Some(OperationRecord {
        fingerprint: group.fingerprint(),
        expires,
        charges,
    });
    states.update(Place::Operation, &mut |_| {
        let record = record.take()?;
        Some(State::Record(Box::new(Record::Operation(record))))
    });
}

/// Answers a group that was admitted before: what is used as of now, and what it charged then.
fn replay(
    group: &Group<'_>,
    states: &impl States,
    now: Timestamp,
    record: OperationRecord,
    observed: &mut [Observed],
) {
    let charges = record.charges.iter().copied();
    let charges = charges.chain(std::iter::repeat((0, Mark::default())));
    let steps = group.steps().iter().zip(charges).enumerate();
    for ((index, (step, (charged, mark))), observed) in steps.zip(observed) {
        let state = states.get(Place::Limit(index));
        *observed = algorithm::look(step.policy.quota(), state, now, 0).with_charge(charged, mark);
    }
}
