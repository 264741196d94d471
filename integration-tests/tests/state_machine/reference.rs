//! The state machine's reference: the models, and what a client remembers.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use integration_tests::model::{Answer, World};
use limiter_core::Key;
use limiter_core::clock::Timestamp;
use limiter_core::limit::{
    Capabilities, Group, Mark, OPERATION_TTL, OperationId, Policy, Quota, Receipt, Step, Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use super::events::{Do, Event, Sent, event};
use super::quotas::Subject;

const KEYS: usize = 3;

/// The machine over one subject's quotas.
pub(crate) struct Machine<S>(PhantomData<S>);

/// A group as it is sent: for each step which key and what, and the operation id.
pub(crate) type Call = (Vec<(usize, Sent)>, Option<OperationId>);

/// What a client knows, with the models' answer to its last call.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) policies: Vec<Policy>,
    pub(crate) now: Timestamp,
    /// The last call and what it is answered; none if the last event was none.
    pub(crate) call: Option<Call>,
    pub(crate) answer: Option<Answer>,
    /// The receipts that the last call gave: of which step, their names and costs.
    pub(crate) issued: Vec<(usize, String, u64)>,
    /// How long the last denial said to wait, and its grain.
    wait: (Duration, Duration),
    world: World,
    keys: Vec<Key>,
    /// For each key.
    receipts: Vec<Vec<String>>,
    marks: HashMap<String, Receipt>,
    /// How often each key was reset. What was charged before is nobody's any more.
    resets: Vec<u32>,
    last: Option<Call>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quotas: Vec<_> = self
            .policies
            .iter()
            .map(|p| (p.quota(), p.is_shadow()))
            .collect();
        f.debug_struct("State")
            .field("quotas", &quotas)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl State {
    fn new(policies: Vec<Policy>, start: u64) -> Self {
        let keys = (0..KEYS).map(|key| Key::new(["model", &key.to_string()]));
        Self {
            policies,
            now: Timestamp::from_micros(start),
            call: None,
            answer: None,
            issued: Vec::new(),
            wait: (Duration::ZERO, Duration::ZERO),
            world: World::default(),
            keys: keys.collect(),
            receipts: vec![Vec::new(); KEYS],
            marks: HashMap::new(),
            resets: vec![0; KEYS],
            last: None,
        }
    }

    /// The step as it is sent; `None` where there is no receipt to give back.
    fn resolve(&self, key: usize, action: Do) -> Option<Sent> {
        let quota = self.policies[key].quota();
        let reset = self.resets[key];
        let id = |id: u8| OperationId::new(format!("{reset}-{id}"));
        Some(match action {
            Do::Charge(cost) => Sent::Charge(cost.of(quota)),
            Do::Peek(cost) => Sent::Peek(cost.of(quota)),
            Do::Reset => Sent::Reset,
            Do::Refund(index) => {
                let receipts = &self.receipts[key];
                Sent::Refund(receipts.get(index.checked_rem(receipts.len())?)?.clone())
            }
            Do::Reserve(n, estimate, ttl) => Sent::Reserve(id(n), estimate.of(quota), ttl),
            Do::Settle(n, actual) => Sent::Settle(id(n), actual.of(quota)),
            Do::Cancel(n, ttl) => Sent::Cancel(id(n), ttl),
            Do::Acquire(n, cost, ttl) => Sent::Acquire(id(n), cost.of(quota), ttl),
            Do::Renew(n, ttl) => Sent::Renew(id(n), ttl),
            Do::Release(n, ttl) => Sent::Release(id(n), ttl),
            Do::Debit(at_most, life) => Sent::Debit(at_most.of(quota), life),
        })
    }

    fn call(&self, event: &Event) -> Option<Call> {
        let call = match event {
            Event::Group(steps, operation) => {
                let mut sent = Vec::new();
                for (key, action) in steps {
                    sent.push((*key, self.resolve(*key, *action)?));
                }
                let operation = operation.map(|id| OperationId::new(format!("operation-{id}")));
                (sent, operation)
            }
            Event::Again => self.last.clone()?,
            _ => return None,
        };
        let steps = steps(&call, &self.policies, &self.keys, &self.marks);
        // Misuse is refused before any store sees it.
        let all = Capabilities::ALL;
        let group = Group::new(&steps, &all).ok()?;
        if let Some(id) = &call.1 {
            group.with_operation(id, OPERATION_TTL, &all).ok()?;
        }
        Some(call)
    }

    fn send(&mut self, call: Call) {
        let steps = steps(&call, &self.policies, &self.keys, &self.marks);
        let answer = with_group(&steps, &call, |group| self.world.apply(&group, self.now));
        self.issued.clear();
        if let Ok(seen) = &answer {
            let denied = seen.iter().zip(&steps).filter_map(|(seen, step)| {
                let grain = match step.policy.quota() {
                    Quota::FixedWindow(_) | Quota::CalendarWindow(_) => Duration::from_millis(1),
                    _ => Duration::from_micros(1),
                };
                match seen.verdict {
                    Verdict::Deny { retry_after } => Some((retry_after, grain)),
                    _ => None,
                }
            });
            self.wait = denied.max().unwrap_or(self.wait);
            let admitted = seen.iter().zip(&steps);
            let admitted = admitted
                .into_iter()
                .all(|(seen, step)| step.policy.is_shadow() || seen.verdict == Verdict::Admit);
            for (key, sent) in &call.0 {
                if admitted && matches!(sent, Sent::Reset) {
                    self.resets[*key] += 1;
                    self.receipts[*key].clear();
                }
            }
            for (index, serial) in self.world.charges().to_vec() {
                let (key, sent) = &call.0[index];
                let charged = match sent {
                    Sent::Charge(_) | Sent::Debit(..) => Some(seen[index].charged),
                    _ => None,
                };
                if let Some(cost) = &charged {
                    let name = format!("receipt-{serial}");
                    self.world.issue(&name, serial);
                    let receipt = Receipt::new(OperationId::new(&*name), Mark::default(), *cost);
                    self.marks.insert(name.clone(), receipt);
                    self.receipts[*key].push(name.clone());
                    self.issued.push((index, name, *cost));
                }
            }
        }
        self.answer = Some(answer);
        self.last = Some(call.clone());
        self.call = Some(call);
    }
}

/// The call's steps.
pub(crate) fn steps<'a>(
    call: &'a Call,
    policies: &'a [Policy],
    keys: &'a [Key],
    receipts: &'a HashMap<String, Receipt>,
) -> Vec<Step<'a>> {
    let steps = call.0.iter();
    steps
        .map(|(key, sent)| Step::new(&policies[*key], &keys[*key], sent.action(receipts)))
        .collect()
}

/// Calls `then` with the call's group.
pub(crate) fn with_group<T>(
    steps: &[Step<'_>],
    call: &Call,
    then: impl FnOnce(Group<'_>) -> T,
) -> T {
    let all = Capabilities::ALL;
    let group = Group::new(steps, &all).unwrap();
    then(match &call.1 {
        Some(id) => group.with_operation(id, OPERATION_TTL, &all).unwrap(),
        None => group,
    })
}

impl<S: Subject> ReferenceStateMachine for Machine<S> {
    type State = State;
    type Transition = Event;

    fn init_state() -> BoxedStrategy<State> {
        let policy = (S::quota(), prop::bool::weighted(0.1))
            .prop_map(|(quota, shadow)| Policy::new("p", quota).unwrap().with_shadow(shadow));
        let start = 1_700_000_000_000_000u64..1_900_000_000_000_000;
        (vec(policy, KEYS), start)
            .prop_map(|(policies, start)| State::new(policies, start))
            .boxed()
    }

    fn transitions(state: &State) -> BoxedStrategy<Event> {
        let quotas: Vec<Quota> = state
            .policies
            .iter()
            .map(|policy| *policy.quota())
            .collect();
        event(&quotas)
    }

    fn preconditions(state: &State, event: &Event) -> bool {
        match event {
            Event::Group(..) | Event::Again => state.call(event).is_some(),
            Event::Wait { .. } => !state.wait.0.is_zero(),
            _ => true,
        }
    }

    fn apply(mut state: State, event: &Event) -> State {
        state.call = None;
        state.answer = None;
        let now = state.now;
        match event {
            Event::Group(..) | Event::Again => {
                if let Some(call) = state.call(event) {
                    state.send(call);
                }
            }
            Event::Advance(by) => state.now = now.saturating_add(*by),
            Event::Wait { early } => {
                let (wait, grain) = state.wait;
                let short = if *early { grain } else { Duration::ZERO };
                state.now = now.saturating_add(wait.saturating_sub(short));
                // Once: the next moment is another one.
                state.wait.0 = if *early { grain } else { Duration::ZERO };
            }
            Event::StepBack(by) => {
                let back = u64::try_from(by.as_micros()).unwrap();
                state.now = Timestamp::from_micros(now.as_micros() - back);
            }
        }
        state
    }
}
