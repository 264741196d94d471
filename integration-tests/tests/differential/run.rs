//! One history through the three implementations.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use integration_tests::Bench;
use limiter_core::clock::{MAX_INTEGER, Timestamp};
use limiter_core::limit::algorithm::State;
use limiter_core::limit::{
    Action, Capabilities, Group, Issuer, LimitStore, MapStates, Mark, Observed, OperationId, Place,
    Policy, Receipt, Source, Step, Verdict, apply_group,
};
use limiter_core::{Effect, Error, ErrorKind, Key};
use proptest::prelude::*;

use crate::history::{Do, Event, History, IDS, KEYS, Planned};
use crate::translate::translate;

/// How often something occurred.
pub(crate) type Tally = BTreeMap<String, u64>;

/// Half of the largest moment, in the year 2112: what no more than doubles it can still be said exactly.
const LAST: Timestamp = Timestamp::from_micros(1 << 52);

/// What one implementation answers to a group.
type Answer = Result<Vec<Observed>, (ErrorKind, Effect, String)>;

fn answer(result: Result<(), Error>, mut observed: Vec<Observed>) -> Answer {
    for observed in &mut observed {
        observed.source = Source::Store;
        observed.issuer = None;
    }
    match result {
        Ok(()) => Ok(observed),
        Err(error) => Err((error.kind(), error.effect(), error.message().to_owned())),
    }
}

/// Takes part in one history.
pub(crate) struct Run<'a> {
    bench: &'a Bench,
    /// The algorithms over a map: what an in-process store is without its table.
    model: HashMap<String, State>,
    keys: Vec<Key>,
    policies: Vec<[Policy; 2]>,
    ids: Vec<OperationId>,
    /// Of the charges that were admitted, by key.
    receipts: Vec<Vec<Receipt>>,
    last: Option<Planned>,
    /// What the last answer said: until the denied is admitted, and until all is free.
    waits: (Duration, Duration),
    tally: &'a mut Tally,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        bench: &'a Bench,
        number: u32,
        history: &History,
        tally: &'a mut Tally,
    ) -> Self {
        let key = |key| Key::new(["ratelimit", "differential", &format!("{number}-{key}")]);
        let policies = history.quotas.iter().map(|(old, new, shadow)| {
            [old, new].map(|quota| Policy::new("p", *quota).unwrap().with_shadow(*shadow))
        });
        Self {
            bench,
            model: HashMap::new(),
            keys: (0..KEYS).map(key).collect(),
            policies: policies.collect(),
            ids: (0..IDS)
                .map(|id| OperationId::new(format!("id-{id}")))
                .collect(),
            receipts: vec![Vec::new(); KEYS],
            last: None,
            waits: (Duration::ZERO, Duration::ZERO),
            tally,
        }
    }

    pub(crate) async fn all(mut self, history: &History) -> Result<(), TestCaseError> {
        self.bench.set(Timestamp::from_micros(history.start)).await;
        for event in &history.events {
            let now = self.bench.now();
            let to = match event {
                Event::Advance(by) => now.saturating_add(*by),
                Event::StepBack(by) => {
                    let back = u64::try_from(by.as_micros()).unwrap();
                    Timestamp::from_micros(now.as_micros() - back)
                }
                Event::Wait { early, reset } => {
                    let wait = if *reset { self.waits.1 } else { self.waits.0 };
                    let short = Duration::from_micros(u64::from(*early));
                    now.saturating_add(wait.saturating_sub(short))
                }
                Event::Group(planned) => {
                    self.group(planned).await?;
                    self.last = Some(planned.clone());
                    continue;
                }
                Event::Again { new } => {
                    if let Some(mut planned) = self.last.clone() {
                        planned.new ^= new;
                        self.count("again");
                        self.group(&planned).await?;
                    }
                    continue;
                }
            };
            // A debt of decades that is waited for leaves the times that a state can hold.
            if to < LAST {
                self.bench.set(to).await;
            }
        }
        Ok(())
    }

    fn count(&mut self, what: &str) {
        *self.tally.entry(what.to_owned()).or_default() += 1;
    }

    /// The receipt that a step refunds.
    fn receipt(&self, key: usize, action: Do) -> Receipt {
        let receipts = &self.receipts[key];
        let last = receipts.last().map_or_else(
            || {
                let at = self.bench.now();
                (Mark { at, number: 0 }, 1)
            },
            |receipt| (receipt.mark(), receipt.cost()),
        );
        let forged = OperationId::new(format!("forged-{}", receipts.len()));
        match action {
            Do::Refund { back } if back < receipts.len() => {
                receipts[receipts.len() - 1 - back].clone()
            }
            Do::Forged {
                shift,
                number,
                cost,
            } => {
                let at = last.0.at.as_micros().saturating_add_signed(shift);
                let near = last.0.number.saturating_add_signed(shift / 1_000);
                let mark = Mark {
                    at: Timestamp::from_micros(at),
                    number: number.unwrap_or(near).min(MAX_INTEGER),
                };
                Receipt::new(forged, mark, cost)
            }
            _ => Receipt::new(forged, last.0, last.1),
        }
    }

    async fn group(&mut self, planned: &Planned) -> Result<(), TestCaseError> {
        let receipts: Vec<Receipt> = planned
            .steps
            .iter()
            .map(|(key, action)| self.receipt(*key, *action))
            .collect();
        let keys = self.keys.clone();
        let ids = self.ids.clone();
        let policies = self.policies.clone();
        let steps: Vec<Step<'_>> = planned
            .steps
            .iter()
            .zip(&receipts)
            .map(|((key, action), receipt)| {
                let policy = &policies[*key][usize::from(planned.new)];
                Step::new(
                    policy,
                    &keys[*key],
                    translate(*action, policy, &ids, receipt),
                )
            })
            .collect();
        let all = Capabilities::ALL;
        // Misuse (a key that is charged and refunded in one group) is refused before any store sees it.
        let Ok(mut group) = Group::new(&steps, &all) else {
            self.count("refused");
            return Ok(());
        };
        if let Some((id, ttl)) = planned.operation {
            let Ok(under) = group.with_operation(&ids[id], ttl, &all) else {
                self.count("refused");
                return Ok(());
            };
            group = under;
        }

        let now = self.bench.now();
        let record = Place::Operation.name(&group);
        let record = record.and_then(|record| self.model.get(&record));
        let known = record.is_some_and(|record| !record.is_fresh(now));
        let nothing = vec![Observed::default(); steps.len()];
        let (mut expected, mut memory, mut redis) = (nothing.clone(), nothing.clone(), nothing);
        let mut states = MapStates::new(&group, &mut self.model, Issuer::unique());
        let result = apply_group(&group, &mut states, now, &mut expected);
        let expected = answer(result, expected);
        let result = self.bench.memory.apply(&group, &mut memory).await;
        let memory = answer(result, memory);
        let result = self.bench.redis().apply(&group, &mut redis).await;
        let redis = answer(result, redis);
        prop_assert_eq!(
            &memory,
            &expected,
            "memory against the algorithms, {:?}",
            group
        );
        prop_assert_eq!(
            &redis,
            &expected,
            "Redis against the algorithms, {:?}",
            group
        );
        match &expected {
            Ok(_) if known => self.count("replayed"),
            Err(_) if known => self.count("conflict of an operation"),
            _ => {}
        }
        self.learn(planned, &steps, &expected);
        Ok(())
    }

    /// What later events build on, and what shows that the histories are not empty.
    fn learn(&mut self, planned: &Planned, steps: &[Step<'_>], answer: &Answer) {
        self.count("groups");
        let observed = match answer {
            Ok(observed) => observed,
            Err((kind, ..)) => return self.count(kind.as_str()),
        };
        let (mut denied, mut reset) = (Duration::ZERO, Duration::ZERO);
        for ((step, (key, _)), observed) in steps.iter().zip(&planned.steps).zip(observed) {
            self.count(step.action.as_str());
            self.count(step.policy.quota().algorithm());
            if step.policy.is_shadow() {
                self.count("shadow");
            }
            reset = reset.max(observed.reset_after);
            match observed.verdict {
                Verdict::Admit => self.count("admit"),
                Verdict::Never => self.count("never"),
                Verdict::Unseen => self.count("unseen"),
                Verdict::Deny { retry_after } => {
                    denied = denied.max(retry_after);
                    self.count("deny");
                }
            }
            match &step.action {
                Action::Charge { .. } | Action::Debit { .. } if observed.charged > 0 => {
                    let id = format!("charge-{}", self.receipts[*key].len());
                    let receipt =
                        Receipt::new(OperationId::new(id), observed.mark, observed.charged);
                    self.receipts[*key].push(receipt);
                }
                Action::Refund { receipt } if observed.charged < receipt.cost() => {
                    self.count("refunded");
                }
                Action::Settle { actual, .. } if observed.charged == *actual => {
                    self.count("settled in full");
                }
                Action::Settle { .. } => self.count("settled in part"),
                _ => {}
            }
        }
        if !denied.is_zero() {
            self.waits.0 = denied;
            self.count("denied");
        }
        self.waits.1 = reset;
    }
}
