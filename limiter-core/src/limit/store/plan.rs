//! What each step of a group does if the group is admitted.

use std::cmp::Ordering;
use std::time::Duration;

use super::action::{Action, MAX_HOLD};
use super::group::{OPERATION_TTL, Step};
use super::id::Mark;
use super::observed::Replay;
use super::record::{ChargeRecord, Record, Status};
use super::states::{Place, States};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::limit::algorithm::{self, Change, Lease, State};

/// How long a refund is remembered at least: a retry comes sooner.
const REFUND_MEMORY: Duration = OPERATION_TTL;

/// What a step does if its group is admitted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    /// Nothing, and nobody looks: a shadow that cannot be done.
    Unseen,
    /// Nothing, because it was done before, with what stands of it.
    Done {
        charged: u64,
        mark: Mark,
        replay: Replay,
    },
    Look {
        cost: u64,
    },
    Charge {
        cost: u64,
    },
    /// At most so much; `take` once the state was looked at.
    Debit {
        take: u64,
        life: Duration,
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
        /// Whether an acquisition was asked for.
        replay: Option<Replay>,
    },
    Release {
        lease: u128,
        ttl: Duration,
    },
    Reset,
    /// An unknown id is remembered as cancelled.
    Bury {
        ttl: Duration,
    },
    /// A charge that stands changes to another amount.
    Adjust {
        record: ChargeRecord,
        to: u64,
        status: Status,
    },
}

impl Plan {
    pub(super) fn asks(self) -> u64 {
        match self {
            Self::Look { cost } | Self::Charge { cost } | Self::Acquire { cost, .. } => cost,
            Self::Reserve { estimate, .. } => estimate,
            _ => 0,
        }
    }

    pub(super) fn takes(self) -> bool {
        matches!(
            self,
            Self::Charge { .. } | Self::Debit { .. } | Self::Reserve { .. } | Self::Acquire { .. }
        )
    }

    /// What is known of an earlier answer to the same request.
    pub(super) fn replay(self) -> Option<Replay> {
        match self {
            Self::Done { replay, .. } => Some(replay),
            Self::Renew { replay, .. } => replay,
            Self::Adjust { record, .. } if record.status == Status::Cancelled => Some(Replay::Done),
            _ => None,
        }
    }
}

/// The plan of a step.
///
/// # Errors
/// What stands in its way other than a denial.
pub(super) fn plan(
    step: &Step<'_>,
    index: usize,
    states: &impl States,
    now: Timestamp,
) -> Result<Plan, Error> {
    let quota = step.policy.quota();
    let state = states.get(Place::Limit(index));
    if step.action == Action::Reset {
        return Ok(Plan::Reset);
    }
    if let Some(found) = algorithm::stranger(quota, state, now) {
        return Err(step.stranger(found));
    }
    let record = || charge_record(states, index, now);
    let lease = |id: u128| algorithm::lease(state, id, now);
    let done = |record: ChargeRecord, replay| Plan::Done {
        charged: record.charged,
        mark: record.mark,
        replay,
    };
    Ok(match &step.action {
        Action::Peek { cost } | Action::Charge { cost: cost @ 0 } => Plan::Look { cost: *cost },
        Action::Charge { cost } => Plan::Charge { cost: *cost },
        Action::Debit { at_most, life } => Plan::Debit {
            take: *at_most,
            life: *life,
        },
        Action::Reset => Plan::Reset,
        Action::Refund { receipt } => match record() {
            Some(record) => done(record, Replay::Done),
            None => {
                // So that no record of a long window lives for longer.
                let last = receipt.mark().at.saturating_add(MAX_HOLD);
                if last <= now {
                    return Err(step.gone());
                }
                let expires = algorithm::counts_until(quota, receipt.mark()).min(last);
                Plan::Adjust {
                    record: ChargeRecord {
                        status: Status::Held,
                        cost: receipt.cost(),
                        charged: receipt.cost(),
                        mark: receipt.mark(),
                        expires: expires.max(now.saturating_add(REFUND_MEMORY)),
                        issuer: states.issuer(index),
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
            Some(record) => match reserved(&record) {
                Some(replay) if record.cost == *estimate => done(record, replay),
                _ => return Err(step.conflict()),
            },
        },
        Action::Settle { actual, .. } => match record() {
            None => return Err(step.gone()),
            Some(record) => match record.status {
                Status::Held => Plan::Adjust {
                    record,
                    to: *actual,
                    status: Status::Settled { actual: *actual },
                },
                Status::Settled { actual: before } if before == *actual => {
                    done(record, Replay::Done)
                }
                _ => return Err(step.conflict()),
            },
        },
        Action::Cancel { ttl, .. } => match record() {
            None => Plan::Bury { ttl: *ttl },
            Some(record) => match record.status {
                Status::Settled { .. } => return Err(step.conflict()),
                status => Plan::Adjust {
                    record: ChargeRecord {
                        expires: record.expires.max(now.saturating_add(*ttl)),
                        ..record
                    },
                    // Once more, it is only remembered for longer: what the refill has paid is not given back then either.
                    to: if status == Status::Held {
                        0
                    } else {
                        record.charged
                    },
                    status: Status::Cancelled,
                },
            },
        },
        Action::Acquire {
            lease: id,
            cost,
            ttl,
        } => {
            let id = states.lease(step, index, id);
            if record().is_some() {
                // It was released.
                return Err(step.conflict());
            }
            match lease(id) {
                None => Plan::Acquire {
                    lease: id,
                    cost: *cost,
                    ttl: *ttl,
                },
                Some(held) if held.cost == *cost => Plan::Renew {
                    lease: id,
                    ttl: *ttl,
                    replay: Some(Replay::Held),
                },
                Some(_) => return Err(step.conflict()),
            }
        }
        Action::Renew { lease: id, ttl } => {
            let id = states.lease(step, index, id);
            if lease(id).is_none() {
                return Err(step.gone());
            }
            Plan::Renew {
                lease: id,
                ttl: *ttl,
                replay: None,
            }
        }
        Action::Release { lease: id, ttl } => Plan::Release {
            lease: states.lease(step, index, id),
            ttl: *ttl,
        },
    })
}

/// What an operation's step was, and still is.
///
/// # Errors
/// If it no longer stands: then the operation must not be admitted again for it.
pub(super) fn plan_again(
    step: &Step<'_>,
    index: usize,
    states: &impl States,
    now: Timestamp,
    charged: u64,
    mark: Mark,
) -> Result<Plan, Error> {
    let state = states.get(Place::Limit(index));
    if let Some(found) = algorithm::stranger(step.policy.quota(), state, now) {
        return Err(step.stranger(found));
    }
    let record = charge_record(states, index, now);
    let (charged, mark, replay) = match &step.action {
        Action::Reserve { .. } => match record {
            None => return Err(step.gone()),
            Some(record) => match reserved(&record) {
                Some(replay) => (record.charged, record.mark, replay),
                None => return Err(step.conflict()),
            },
        },
        Action::Acquire { lease, .. } => {
            let id = states.lease(step, index, lease);
            if algorithm::lease(state, id, now).is_none() {
                return Err(step.gone());
            }
            (charged, mark, Replay::Held)
        }
        _ => (charged, mark, Replay::Done),
    };
    Ok(Plan::Done {
        charged,
        mark,
        replay,
    })
}

/// What a reservation is to one who asks for it again; `None` if it charges nothing any more, and so admits nothing.
fn reserved(record: &ChargeRecord) -> Option<Replay> {
    match record.status {
        Status::Held => Some(Replay::Held),
        Status::Settled { actual } => Some(Replay::Settled { actual }),
        _ => None,
    }
}

/// Does what was planned; what stands charged after it, and where.
pub(super) fn execute(
    plan: Plan,
    step: &Step<'_>,
    index: usize,
    states: &mut impl States,
    now: Timestamp,
) -> (u64, Mark) {
    let quota = step.policy.quota();
    let issuer = states.issuer(index);
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
        Plan::Unseen | Plan::Look { .. } => (0, Mark::default()),
        Plan::Done { charged, mark, .. } => (charged, mark),
        Plan::Reset => {
            states.update(Place::Limit(index), &mut |_| None);
            (0, Mark::default())
        }
        Plan::Charge { cost } => change(Change::Charge(cost)),
        Plan::Debit { take, life } => change(Change::Debit(take, life)),
        Plan::Acquire { lease, cost, ttl } => change(Change::Acquire(Lease {
            id: lease,
            cost,
            expires: now.saturating_add(ttl),
        })),
        Plan::Renew { lease, ttl, .. } => change(Change::Renew(lease, now.saturating_add(ttl))),
        Plan::Release { lease, ttl } => {
            let released = change(Change::Release(lease));
            bury(states, index, now, ttl);
            released
        }
        Plan::Bury { ttl } => {
            bury(states, index, now, ttl);
            (0, Mark::default())
        }
        Plan::Reserve { estimate, ttl } => {
            let (charged, mark) = change(Change::Charge(estimate));
            let record = ChargeRecord {
                status: Status::Held,
                cost: estimate,
                charged,
                mark,
                expires: now.saturating_add(ttl),
                issuer,
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

/// Remembers an id as done with; what is remembered already is not forgotten sooner.
fn bury(states: &mut impl States, index: usize, now: Timestamp, ttl: Duration) {
    let expires = now.saturating_add(ttl);
    let known = charge_record(states, index, now);
    let record = ChargeRecord {
        status: Status::Cancelled,
        cost: 0,
        charged: 0,
        mark: Mark::default(),
        expires: known.map_or(expires, |known| known.expires.max(expires)),
        issuer: states.issuer(index),
    };
    keep(states, index, record);
}

/// The record of a step's reservation, refund or released lease, if it still counts.
pub(super) fn charge_record(
    states: &impl States,
    index: usize,
    now: Timestamp,
) -> Option<ChargeRecord> {
    match states.get(Place::Record(index)) {
        Some(State::Record(record)) => match record.as_ref() {
            Record::Charge(record) if record.expires > now => Some(*record),
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
