//! A group applied to states held in this process: the heart of an in-process store, and what the
//! Redis script mirrors.

use super::action::Action;
use super::group::{Group, Step};
use super::id::Mark;
use super::observed::{Observed, Source};
use super::plan::{Plan, charge_record, execute, plan, plan_again};
use super::record::{OperationRecord, Record};
use super::states::{Place, States};
use crate::clock::{MAX_INTEGER, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::limit::algorithm::{self, Change, State};

/// Applies one group to states held in this process.
///
/// `observed` has one place for each step. Where the group is denied, nothing is charged and every
/// step reports the state without its charge.
///
/// # Errors
/// `Expired` if a reservation or a lease that is to be settled or renewed is gone.
/// `Conflict` if an id was used before for something else, or if a counter holds a live state of another algorithm.
/// `Misdirected` if a step names another issuer, `Timeout` after the group's deadline. Nothing was changed then. What a
/// shadow step meets in the states (`Expired`, `Conflict`) counts for nothing, like its denials.
pub fn apply_group(
    group: &Group<'_>,
    states: &mut impl States,
    now: Timestamp,
    observed: &mut [Observed],
) -> Result<(), Error> {
    group.check_deadline()?;
    for (index, step) in group.steps().iter().enumerate() {
        if step
            .issuer
            .is_some_and(|issuer| issuer != states.issuer(index))
        {
            group.check_issuer(|issuer| issuer == states.issuer(index))?;
        }
    }
    // The common case: what is tried is what is done.
    if let ([only], None) = (group.steps(), group.operation())
        && let Action::Charge { cost } = only.action
    {
        return charge(only, cost, states, now, &mut observed[0]);
    }
    let Some((_, ttl)) = group.operation() else {
        return apply_new(group, states, now, observed).map(drop);
    };
    let given_back = group.steps().iter().enumerate().any(|(index, step)| {
        matches!(step.action, Action::Charge { .. }) && charge_record(states, index, now).is_some()
    });
    match operation_record(states, now) {
        _ if given_back => Err(group.conflict()),
        Some(record) if record.fingerprint == group.fingerprint() => {
            replay(group, states, now, &record, observed)
        }
        Some(_) => Err(group.conflict()),
        None => {
            if apply_new(group, states, now, observed)? {
                remember(group, states, now.saturating_add(ttl), observed);
            }
            Ok(())
        }
    }
}

/// One charge by itself.
fn charge(
    step: &Step<'_>,
    cost: u64,
    states: &mut impl States,
    now: Timestamp,
    observed: &mut Observed,
) -> Result<(), Error> {
    let mut stranger = None;
    states.update(Place::Limit(0), &mut |state| {
        stranger = algorithm::stranger(step.policy.quota(), state.as_ref(), now);
        if stranger.is_some() {
            return state;
        }
        let (state, after) = algorithm::charge(step.policy.quota(), state, now, cost);
        *observed = after;
        state
    });
    match stranger {
        None => *observed = observed.issued_by(states.issuer(0)),
        Some(_) if step.policy.is_shadow() => *observed = Observed::unseen(Source::Store),
        Some(found) => return Err(step.stranger(found)),
    }
    Ok(())
}

/// Whether the group was admitted.
fn apply_new(
    group: &Group<'_>,
    states: &mut impl States,
    now: Timestamp,
    observed: &mut [Observed],
) -> Result<bool, Error> {
    let steps = group.steps();
    let meets_another =
        |index: usize| (0..steps.len()).any(|other| other != index && states.shares(index, other));
    let debits = |step: &Step<'_>| matches!(step.action, Action::Debit { .. });
    if let Some(index) =
        (0..steps.len()).find(|&index| debits(&steps[index]) && meets_another(index))
    {
        return Err(Error::new(
            ErrorKind::Capacity,
            "limit.apply",
            format!(
                "policy {} shares a counter for want of room; give a debit a group of its own",
                steps[index].policy.name()
            ),
        ));
    }
    let mut plans: Vec<Plan> = Vec::with_capacity(steps.len());
    let mut admitted = true;
    for (index, step) in steps.iter().enumerate() {
        plans.push(match plan(step, index, states, now) {
            Err(_) if step.policy.is_shadow() => Plan::Unseen,
            planned => planned?,
        });
        observed[index] = look(group, &mut plans, index, states, now);
        admitted &= step.policy.is_shadow() || observed[index].is_admitted();
    }
    for (index, step) in steps.iter().enumerate() {
        let quota = step.policy.quota();
        let plan = plans[index];
        if matches!(plan, Plan::Unseen) {
            continue;
        }
        if plan.takes() && !(admitted && observed[index].is_admitted()) {
            // Denied, and yet the state is kept as it reads now: the time to wait was computed from it.
            states.update(Place::Limit(index), &mut |state| {
                algorithm::change(quota, state, now, Change::Keep).state
            });
        } else if admitted {
            let (charged, mark) = execute(plan, step, index, states, now);
            observed[index] = observed[index].with_charge(charged, mark);
            observed[index].replayed = plan.replay();
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

/// What the step at `index` would be told, after the steps before it.
fn look(
    group: &Group<'_>,
    plans: &mut [Plan],
    index: usize,
    states: &impl States,
    now: Timestamp,
) -> Observed {
    let steps = group.steps();
    let quota = steps[index].policy.quota();
    let state = states.get(Place::Limit(index));
    let seen = match plans[index] {
        Plan::Unseen => return Observed::unseen(Source::Store),
        Plan::Debit { take, life } => {
            let (take, seen) = algorithm::look_debit(quota, state, now, take, life);
            plans[index] = Plan::Debit { take, life };
            seen
        }
        plan => {
            // What asks for nothing is not denied for what others ask.
            let cost = match plan.asks() {
                0 => 0,
                own => {
                    let earlier = (0..index).filter(|earlier| {
                        plans[*earlier].takes()
                            && (steps[*earlier].counter == steps[index].counter
                                || states.shares(*earlier, index))
                    });
                    let earlier = earlier.map(|earlier| plans[earlier].asks());
                    earlier.fold(own, u64::saturating_add).min(MAX_INTEGER)
                }
            };
            algorithm::look(quota, state, now, cost)
        }
    };
    seen.issued_by(states.issuer(index))
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

/// Remembers an admitted group.
fn remember(
    group: &Group<'_>,
    states: &mut impl States,
    expires: Timestamp,
    observed: &[Observed],
) {
    let mut charges = vec![(0, Mark::default(), None); observed.len()];
    for (place, observed) in group.places().into_iter().zip(observed) {
        charges[place] = (observed.charged, observed.mark, observed.issuer);
    }
    let mut record = Some(OperationRecord {
        fingerprint: group.fingerprint(),
        expires,
        charges: charges.into(),
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
    record: &OperationRecord,
    observed: &mut [Observed],
) -> Result<(), Error> {
    let places = group.places();
    for (index, step) in group.steps().iter().enumerate() {
        let charge = record.charges.get(places[index]).copied();
        let (charged, mark, issuer) = charge.unwrap_or_default();
        observed[index] = match plan_again(step, index, states, now, charged, mark) {
            Ok(plan) => {
                let (charged, mark) = match plan {
                    Plan::Done { charged, mark, .. } => (charged, mark),
                    _ => (charged, mark),
                };
                let state = states.get(Place::Limit(index));
                let seen = algorithm::look(step.policy.quota(), state, now, 0);
                let mut seen = seen.with_charge(charged, mark);
                seen.replayed = plan.replay();
                seen.issued_by(issuer.unwrap_or_else(|| states.issuer(index)))
            }
            Err(_) if step.policy.is_shadow() => Observed::unseen(Source::Store),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}
