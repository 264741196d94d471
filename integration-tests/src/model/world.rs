//! Groups over the limits of several keys, with what is remembered of reservations, refunds and
//! operations.

use std::collections::HashMap;
use std::time::Duration;

use limiter_core::ErrorKind;
use limiter_core::clock::{MAX_INTEGER, Timestamp};
use limiter_core::limit::{Action, Group, OPERATION_TTL, Replay, Step, Verdict};

use super::concurrency::Lease;
use super::plan::{Plan, SEVEN_DAYS};
use super::record::{Fate, Name, Operation, Record, description, record_name};
use super::{Definition, Serial, definition, wait};

/// Every key's limit, and the records.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub(super) limits: HashMap<String, Box<dyn Definition>>,
    pub(super) records: HashMap<Name, Record>,
    operations: HashMap<(String, String), Operation>,
    /// The charges that receipts stand for.
    pub(super) receipts: HashMap<String, Serial>,
    /// When each charge was made.
    pub(super) made: HashMap<Serial, u64>,
    serial: Serial,
    /// What the last group charged: which step, and under which name.
    charges: Vec<(usize, Serial)>,
}

/// What a step is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it could be admitted.
    pub verdict: Verdict,
    /// How much is taken.
    pub used: u64,
    /// How long until all of it is free.
    pub reset_after: Duration,
    /// What stands charged for the step.
    pub charged: u64,
    /// What is known of an earlier answer.
    pub replayed: Option<Replay>,
    /// How long a debit lives.
    pub life: Duration,
}

/// A shadow step that could not be done.
const UNSEEN: Seen = Seen {
    verdict: Verdict::Unseen,
    used: 0,
    reset_after: Duration::ZERO,
    charged: 0,
    replayed: None,
    life: Duration::ZERO,
};

/// What a group is answered: for each step, or that it is refused.
pub type Answer = Result<Vec<Seen>, ErrorKind>;

impl World {
    /// Applies a group; all of it or nothing.
    ///
    /// # Errors
    /// As [`apply_group`](limiter_core::limit::apply_group).
    pub fn apply(&mut self, group: &Group<'_>, now: Timestamp) -> Answer {
        let at = now.as_micros();
        self.charges.clear();
        for step in group.steps() {
            let limit = self.limits.entry(step.counter.to_string());
            limit.or_insert_with(|| definition(step.policy.quota()));
        }
        let Some((id, ttl)) = group.operation() else {
            return self.steps(group, at).map(|(seen, _)| seen);
        };
        let counters = group.steps().iter().map(|step| step.counter.to_string());
        let home = counters.min().expect("a group has a step");
        let name = (home, id.as_str().to_owned());
        let mut steps: Vec<String> = group.steps().iter().map(description).collect();
        steps.sort();
        if let Some(known) = self.operations.get(&name).cloned()
            && at < known.until
        {
            if known.steps != steps {
                return Err(ErrorKind::Conflict);
            }
            return self.repeat(group, &known, at);
        }
        let (seen, admitted) = self.steps(group, at)?;
        if admitted {
            let charged = group.steps().iter().zip(&seen);
            let charged = charged.map(|(step, seen)| (description(step), seen.charged));
            let charged = charged.collect();
            let until = now.saturating_add(ttl).as_micros();
            let operation = Operation {
                steps,
                charged,
                until,
            };
            self.operations.insert(name, operation);
        }
        Ok(seen)
    }

    /// A group that was admitted before under its id, as long as all that it holds is held.
    fn repeat(&mut self, group: &Group<'_>, known: &Operation, now: u64) -> Answer {
        let mut charged = known.charged.clone();
        let mut seen = Vec::new();
        for step in group.steps() {
            let what = description(step);
            let index = charged.iter().position(|(step, _)| *step == what);
            let (_, own) = charged.remove(index.expect("the same steps"));
            let record = record_name(step).and_then(|name| self.records.get(&name));
            let record = record.filter(|record| now < record.until);
            let stands = match (
                &step.action,
                record.map(|record| (record.fate, record.stands)),
            ) {
                (Action::Reserve { .. }, None) => Err(ErrorKind::Expired),
                (Action::Reserve { .. }, Some((Fate::Held, stands))) => Ok((stands, Replay::Held)),
                (Action::Reserve { .. }, Some((Fate::Settled(actual), stands))) => {
                    Ok((stands, Replay::Settled { actual }))
                }
                (Action::Reserve { .. }, Some((Fate::GivenBack, _))) => Err(ErrorKind::Conflict),
                (Action::Acquire { lease, .. }, _) => self
                    .lease(step, now, lease.as_str())
                    .map(|_| (own, Replay::Held))
                    .ok_or(ErrorKind::Expired),
                _ => Ok((own, Replay::Done)),
            };
            seen.push(match stands {
                Ok((charged, replay)) => Seen {
                    charged,
                    replayed: Some(replay),
                    ..self.see(step, now, 0)
                },
                Err(_) if step.policy.is_shadow() => UNSEEN,
                Err(kind) => return Err(kind),
            });
        }
        Ok(seen)
    }

    /// What the last group charged: which steps, and the names of their charges.
    pub fn charges(&self) -> &[(usize, Serial)] {
        &self.charges
    }

    /// Lets a receipt stand for a charge.
    pub fn issue(&mut self, receipt: &str, serial: Serial) {
        self.receipts.insert(receipt.to_owned(), serial);
    }

    /// The answers, and whether the group was admitted.
    fn steps(&mut self, group: &Group<'_>, now: u64) -> Result<(Vec<Seen>, bool), ErrorKind> {
        let steps = group.steps();
        let mut plans = Vec::new();
        for step in steps {
            plans.push(match self.plan(step, now) {
                // A shadow step's error counts for nothing.
                Err(_) if step.policy.is_shadow() => Plan::Unseen,
                plan => plan?,
            });
        }
        // What the steps of one key ask for adds up.
        let asks = |index: usize| match plans[index] {
            Plan::Ask(cost) => cost,
            _ => 0,
        };
        let mut seen: Vec<Seen> = (0..steps.len())
            .map(|index| {
                let before = (0..index).filter(|before| {
                    steps[*before].counter == steps[index].counter && steps[*before].action.takes()
                });
                let total: u128 = before.map(|before| u128::from(asks(before))).sum();
                let total = match asks(index) {
                    0 => 0,
                    own => total + u128::from(own),
                };
                let total = u64::try_from(total).unwrap_or(u64::MAX).min(MAX_INTEGER);
                match (plans[index], &steps[index].action) {
                    (Plan::Unseen, _) => UNSEEN,
                    (Plan::Debit(take), Action::Debit { life, .. }) => {
                        self.see_debit(&steps[index], now, take, *life)
                    }
                    _ => self.see(&steps[index], now, total),
                }
            })
            .collect();
        let admitted = steps
            .iter()
            .zip(&seen)
            .all(|(step, seen)| step.policy.is_shadow() || seen.verdict == Verdict::Admit);
        for (index, step) in steps.iter().enumerate() {
            if matches!(plans[index], Plan::Unseen) {
                continue;
            }
            let own = seen[index].verdict == Verdict::Admit;
            let takes = matches!(plans[index], Plan::Ask(_) | Plan::Debit(_));
            if step.action.takes() && takes && !(admitted && own) {
                self.limit(step).denied(now);
            } else if admitted {
                let before = self.serial;
                seen[index].charged = self.act(step, plans[index], now);
                seen[index].replayed = match plans[index] {
                    Plan::Repeat(_, replay) => Some(replay),
                    Plan::Renew(_, replay) => replay,
                    _ => None,
                };
                if self.serial > before {
                    self.charges.push((index, self.serial));
                }
            }
            if !matches!(
                step.action,
                Action::Peek { .. } | Action::Charge { cost: 0 }
            ) {
                let after = self.see(step, now, 0);
                seen[index].used = after.used;
                seen[index].reset_after = after.reset_after;
            }
        }
        Ok((seen, admitted))
    }

    pub(super) fn limit(&mut self, step: &Step<'_>) -> &mut dyn Definition {
        let limit = self.limits.get_mut(&step.counter.to_string());
        limit.expect("made at the group's begin").as_mut()
    }

    /// What would be answered to `cost`.
    fn see(&self, step: &Step<'_>, now: u64, cost: u64) -> Seen {
        let limit = self.limits[&step.counter.to_string()].as_ref();
        let verdict = if cost == 0 {
            Verdict::Admit
        } else if cost > limit.capacity() {
            Verdict::Never
        } else {
            match wait(limit, now, cost) {
                Duration::ZERO => Verdict::Admit,
                retry_after => Verdict::Deny { retry_after },
            }
        };
        Seen {
            verdict,
            used: limit.used(now),
            reset_after: wait(limit, now, limit.capacity()),
            charged: 0,
            replayed: None,
            life: Duration::ZERO,
        }
    }

    /// What would be answered to a debit that could take so much.
    fn see_debit(&self, step: &Step<'_>, now: u64, take: u64, life: Duration) -> Seen {
        let limit = self.limits[&step.counter.to_string()].as_ref();
        let micros = u64::try_from(life.as_micros()).unwrap();
        if take > 0 {
            let (_, life) = limit.debitable(now, micros);
            return Seen {
                verdict: Verdict::Admit,
                life: Duration::from_micros(life),
                ..self.see(step, now, 0)
            };
        }
        let seen = self.see(step, now, 1);
        if limit.never_debits(micros) {
            let verdict = Verdict::Never;
            return Seen { verdict, ..seen };
        }
        seen
    }

    /// Does what was planned; what stands charged then.
    fn act(&mut self, step: &Step<'_>, plan: Plan, now: u64) -> u64 {
        let until = |ttl: &Duration| Timestamp::from_micros(now).saturating_add(*ttl).as_micros();
        match (plan, &step.action) {
            (Plan::Repeat(stands, _), Action::Cancel { ttl, .. }) => {
                self.remember(step, now, until(ttl));
                stands
            }
            (Plan::Repeat(stands, _), _) => stands,
            (Plan::Debit(take), Action::Debit { life, .. }) => {
                self.serial += 1;
                let (serial, life) = (self.serial, u64::try_from(life.as_micros()).unwrap());
                self.made.insert(serial, now);
                self.limit(step).debit(now, serial, take, life);
                take
            }
            (Plan::Bury, Action::Cancel { ttl, .. }) => {
                self.bury(step, now, until(ttl));
                0
            }
            (Plan::Ask(cost @ 1..), Action::Charge { .. }) => self.charge(step, now, cost),
            (Plan::Ask(cost), Action::Reserve { ttl, .. }) => {
                self.charge(step, now, cost);
                let record = Record {
                    fate: Fate::Held,
                    cost,
                    stands: cost,
                    serial: self.serial,
                    until: until(ttl),
                };
                self.records
                    .extend(record_name(step).map(|name| (name, record)));
                cost
            }
            (Plan::Ask(cost), Action::Acquire { lease, ttl, .. }) => {
                let (id, until) = (lease.as_str().to_owned(), until(ttl));
                if let Some(leases) = self.limit(step).leases() {
                    leases.acquire(now, Lease { id, cost, until });
                }
                cost
            }
            (
                Plan::Renew(held, _),
                Action::Acquire { lease, ttl, .. } | Action::Renew { lease, ttl },
            ) => {
                let until = until(ttl);
                if let Some(leases) = self.limit(step).leases() {
                    leases.renew(now, lease.as_str(), until);
                }
                held
            }
            (Plan::Release, Action::Release { lease, ttl }) => {
                if let Some(leases) = self.limit(step).leases() {
                    leases.release(now, lease.as_str());
                }
                self.bury(step, now, until(ttl));
                0
            }
            (Plan::Reset, _) => {
                let fresh = definition(step.policy.quota());
                self.limits.insert(step.counter.to_string(), fresh);
                0
            }
            (Plan::Become(fate, to), _) => self.adjust(step, now, fate, to),
            _ => 0,
        }
    }

    /// An id that nothing may be asked for under.
    fn bury(&mut self, step: &Step<'_>, now: u64, until: u64) {
        if self.remember(step, now, until) {
            return;
        }
        let record = Record {
            fate: Fate::GivenBack,
            cost: 0,
            stands: 0,
            serial: 0,
            until,
        };
        self.records
            .extend(record_name(step).map(|name| (name, record)));
    }

    /// Keeps what is known of an id for longer; whether anything is.
    fn remember(&mut self, step: &Step<'_>, now: u64, until: u64) -> bool {
        let known = record_name(step).and_then(|name| self.records.get_mut(&name));
        let counts = |known: &&mut Record| known.fate == Fate::GivenBack && now < known.until;
        let Some(known) = known.filter(counts) else {
            return false;
        };
        known.until = known.until.max(until);
        true
    }

    fn charge(&mut self, step: &Step<'_>, now: u64, cost: u64) -> u64 {
        self.serial += 1;
        let serial = self.serial;
        self.made.insert(serial, now);
        self.limit(step).charge(now, serial, cost);
        cost
    }

    /// A charge that stands comes to another amount.
    fn adjust(&mut self, step: &Step<'_>, now: u64, fate: Fate, to: u64) -> u64 {
        let Some(name) = record_name(step) else {
            return 0;
        };
        let mut record = match (&step.action, self.records.remove(&name)) {
            // A refund's record is made by it, and remembered for as long as the charge may count.
            (Action::Refund { receipt }, _) => {
                let serial = self.receipts[receipt.id().as_str()];
                let least = Timestamp::from_micros(now).saturating_add(OPERATION_TTL);
                let last = self.date(step, receipt) + SEVEN_DAYS;
                let counts_until = self.limit(step).counts_until(serial).min(last);
                Record {
                    fate,
                    cost: receipt.cost(),
                    stands: receipt.cost(),
                    serial,
                    until: counts_until.max(least.as_micros()),
                }
            }
            (_, Some(record)) => record,
            _ => return 0,
        };
        let (serial, stands) = (record.serial, record.stands);
        record.stands = if to < stands {
            stands - self.limit(step).give_back(now, serial, stands - to)
        } else if to > stands {
            stands + self.limit(step).overrun(now, serial, to - stands)
        } else {
            stands
        };
        if let Action::Cancel { ttl, .. } = &step.action {
            let until = Timestamp::from_micros(now).saturating_add(*ttl).as_micros();
            record.until = record.until.max(until);
        }
        record.fate = fate;
        let stands = record.stands;
        self.records.insert(name, record);
        stands
    }
}
