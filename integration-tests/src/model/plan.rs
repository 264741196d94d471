//! The plans of a group's steps.

use limiter_core::ErrorKind;
use limiter_core::limit::{Action, Receipt, Replay, Step};

use super::record::{Fate, Record, record_name};
use super::world::World;

/// After so long (us) a charge is not given back.
pub(super) const SEVEN_DAYS: u64 = 7 * 86_400_000_000;

/// What a step comes to, before anything is changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Plan {
    Unseen,
    /// As before, with what stands, and what is known of that.
    Repeat(u64, Replay),
    Ask(u64),
    /// How much a debit takes.
    Debit(u64),
    Reset,
    Renew(u64, Option<Replay>),
    Release,
    /// An id that is unknown is done with.
    Bury,
    Become(Fate, u64),
}

impl World {
    /// What the charge of a receipt is dated.
    pub(super) fn date(&self, step: &Step<'_>, receipt: &Receipt) -> u64 {
        let serial = self.receipts[receipt.id().as_str()];
        let limit = &self.limits[&step.counter.to_string()];
        limit.date(serial).unwrap_or_else(|| self.made[&serial])
    }

    pub(super) fn plan(&mut self, step: &Step<'_>, now: u64) -> Result<Plan, ErrorKind> {
        let record = record_name(step).and_then(|name| self.records.get(&name));
        let record = record.filter(|record| now < record.until).cloned();
        let repeat = |record: &Record| Plan::Repeat(record.stands, Replay::Done);
        Ok(match &step.action {
            Action::Charge { cost } | Action::Peek { cost } => Plan::Ask(*cost),
            Action::Debit { at_most, life } => {
                let life = u64::try_from(life.as_micros()).unwrap();
                let (free, _) = self.limit(step).debitable(now, life);
                Plan::Debit(free.min(*at_most))
            }
            Action::Reset => Plan::Reset,
            Action::Refund { receipt } => match record {
                Some(record) => repeat(&record),
                None if self.date(step, receipt) + SEVEN_DAYS <= now => {
                    return Err(ErrorKind::Expired);
                }
                None => Plan::Become(Fate::GivenBack, 0),
            },
            Action::Reserve { estimate, .. } => match record {
                None => Plan::Ask(*estimate),
                Some(record) => match record.fate {
                    Fate::Held if record.cost == *estimate => {
                        Plan::Repeat(record.stands, Replay::Held)
                    }
                    Fate::Settled(actual) if record.cost == *estimate => {
                        Plan::Repeat(record.stands, Replay::Settled { actual })
                    }
                    _ => return Err(ErrorKind::Conflict),
                },
            },
            Action::Settle { actual, .. } => match record.ok_or(ErrorKind::Expired)? {
                Record {
                    fate: Fate::Held, ..
                } => Plan::Become(Fate::Settled(*actual), *actual),
                record if record.fate == Fate::Settled(*actual) => repeat(&record),
                _ => return Err(ErrorKind::Conflict),
            },
            Action::Cancel { .. } => match record {
                None => Plan::Bury,
                Some(Record {
                    fate: Fate::Held, ..
                }) => Plan::Become(Fate::GivenBack, 0),
                Some(record) if record.fate == Fate::GivenBack => repeat(&record),
                Some(_) => return Err(ErrorKind::Conflict),
            },
            // It was released.
            Action::Acquire { .. } if record.is_some() => return Err(ErrorKind::Conflict),
            Action::Acquire { lease, cost, .. } => match self.lease(step, now, lease.as_str()) {
                None => Plan::Ask(*cost),
                Some(held) if held == *cost => Plan::Renew(held, Some(Replay::Held)),
                Some(_) => return Err(ErrorKind::Conflict),
            },
            Action::Renew { lease, .. } => {
                let held = self.lease(step, now, lease.as_str());
                Plan::Renew(held.ok_or(ErrorKind::Expired)?, None)
            }
            Action::Release { .. } => Plan::Release,
            other => unreachable!("no model of {other:?}"),
        })
    }

    /// How much a lease holds.
    pub(super) fn lease(&mut self, step: &Step<'_>, now: u64, id: &str) -> Option<u64> {
        let leases = self.limit(step).leases()?;
        leases.find(now, id).map(|lease| lease.cost)
    }
}
