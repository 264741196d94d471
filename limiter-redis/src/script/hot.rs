//! Calls of the hot script, and what it replies; see `lua/hot/begin.lua` for both. It decides, and tells what it found: all else
//! that a decision says is computed here, by the modules of the algorithms.

use limiter_core::Error;
use limiter_core::clock::Timestamp;
use limiter_core::limit::algorithm::{
    FixedWindowState, SlidingWindowState, State, TokenBucketState, charge, look,
};
use limiter_core::limit::{Action, Group, Issuer, Observed};
use smallvec::SmallVec;

use super::call::{Call, NUMBER, PlainStep};
use super::reply::not_understood;
use super::value::{self, BUCKET, SHORT_BUCKET};

/// How many bytes a step takes, and a policy.
const STEP: usize = 13;
const POLICY: usize = 29;

const PEEK: u8 = 1;
const SHADOW: u8 = 2;
const ENTANGLED: u8 = 4;
const SHARED: u8 = 8;

/// The text of a call for these groups; `numbers` has those of their keys, in the order of the groups.
pub(crate) fn text<'a>(calls: impl Iterator<Item = &'a Call>, numbers: &[u16]) -> Vec<u8> {
    let keys = usize::from(numbers.iter().copied().max().unwrap_or_default());
    // How many groups name each key; nothing, if no two name the same.
    let mut groups_of = vec![0_u8; if keys < numbers.len() { keys + 1 } else { 0 }];
    for number in numbers {
        if let Some(groups) = groups_of.get_mut(usize::from(*number)) {
            *groups = groups.saturating_add(1);
        }
    }
    let ends = 1 + STEP * numbers.len();
    let mut policies: SmallVec<[[u8; POLICY]; 2]> = SmallVec::new();
    let mut text = Vec::with_capacity(ends + POLICY);
    let mut numbers = numbers.iter();
    for call in calls {
        let steps = call.plain_steps();
        let count = steps.len();
        for (index, (step, number)) in steps.zip(numbers.by_ref()).enumerate() {
            let policy = step.policy();
            let place = policies.iter().position(|known| *known == policy);
            let place = place.unwrap_or_else(|| {
                policies.push(policy);
                policies.len() - 1
            });
            let groups = groups_of.get(usize::from(*number));
            let kind = match groups.is_some_and(|groups| *groups > 1) {
                true => step.kind() + ENTANGLED + SHARED,
                false if count > 1 => step.kind() + ENTANGLED,
                false => step.kind(),
            };
            // A group has at most 64 steps; and a call at most 256, so that a text has less than 2^16 bytes.
            text.push(u8::try_from(count - index - 1).unwrap_or(u8::MAX));
            text.push(kind);
            text.extend_from_slice(&number.to_be_bytes());
            let place = u16::try_from(ends + POLICY * place).unwrap_or(u16::MAX);
            text.extend_from_slice(&place.to_be_bytes());
            text.extend_from_slice(step.cost());
        }
    }
    text.extend(policies.iter().flatten());
    text
}

impl PlainStep<'_> {
    fn kind(&self) -> u8 {
        let shadow = if self.is_shadow() { SHADOW } else { 0 };
        shadow + if self.is_peek() { PEEK } else { 0 }
    }

    fn policy(&self) -> [u8; POLICY] {
        let mut policy = [self.algorithm(); POLICY];
        policy[1..].copy_from_slice(self.quota());
        policy
    }
}

/// What came of a group.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing: it is one for the script that knows all.
    HandedOver,
    Decided(Decided),
}

/// What the script decided for a group, and what it had found.
#[derive(Debug)]
pub(crate) struct Decided {
    now: Timestamp,
    is_admitted: bool,
    /// Whether anything was charged.
    pub(crate) has_charged: bool,
    /// Of each step, before the group.
    states: SmallVec<[Option<State>; 1]>,
}

/// Reads a reply, group by group.
pub(crate) struct Reader<'a> {
    now: u64,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `None` if it is no reply of the script; so also from [`next`](Self::next).
    pub(crate) fn new(reply: &'a [u8]) -> Option<Self> {
        let mut reader = Self {
            now: 0,
            rest: reply,
        };
        reader.now = reader.number()?;
        Some(reader)
    }

    /// What came of the next group.
    pub(crate) fn next(&mut self, call: &Call) -> Option<Outcome> {
        if self.skip(b'?') {
            return Some(Outcome::HandedOver);
        }
        let is_admitted = !self.skip(b'!');
        let steps = call.plain_steps();
        let mut states = SmallVec::with_capacity(steps.len());
        let mut has_charged = false;
        for step in steps {
            let fits = !self.skip(b'~');
            states.push(self.state()?);
            has_charged |= is_admitted && fits && step.charges();
        }
        Some(Outcome::Decided(Decided {
            now: Timestamp::from_micros(self.now),
            is_admitted,
            has_charged,
            states,
        }))
    }

    /// What a step found: nothing, or a state.
    fn state(&mut self) -> Option<Option<State>> {
        let (form, rest) = self.rest.split_first()?;
        self.rest = rest;
        let state = match form {
            b'-' => return Some(None),
            b'w' => {
                let (count, left) = (self.number()?, self.number()?);
                if left == 0 {
                    return Some(None);
                }
                let expires = self.now / 1_000 + (left - 1);
                State::FixedWindow(FixedWindowState::from_numbers([count, expires])?)
            }
            b's' => {
                let [window, start, previous, current, _kept] = self.numbers()?;
                let numbers = [window, start, previous, current];
                State::SlidingWindow(SlidingWindowState::from_numbers(numbers)?)
            }
            b'b' => self.bucket(SHORT_BUCKET)?,
            b'+' if self.skip(b'b') => self.bucket(BUCKET)?,
            _ => return None,
        };
        Some(Some(state))
    }

    /// A bucket whose numbers take so many bytes.
    fn bucket(&mut self, bytes: usize) -> Option<State> {
        if !self.skip(1) {
            return None;
        }
        let (value, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        let [token, debt, at, full_at, since, _kept] = value::bucket(value)?;
        let state = TokenBucketState::from_numbers([token, debt, at, full_at, since])?;
        Some(State::TokenBucket(state))
    }

    /// The numbers of a state of the first version.
    fn numbers<const COUNT: usize>(&mut self) -> Option<[u64; COUNT]> {
        if !self.skip(1) {
            return None;
        }
        let mut numbers = [0; COUNT];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Some(numbers)
    }

    fn number(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_at_checked(NUMBER)?;
        self.rest = rest;
        value::read(bytes)
    }

    fn skip(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

impl Decided {
    /// What the group's steps are told.
    pub(crate) fn read(
        &self,
        group: &Group<'_>,
        issuer: Issuer,
        observed: &mut [Observed],
    ) -> Result<(), Error> {
        let mut fits = true;
        for ((step, state), observed) in group.steps().iter().zip(&self.states).zip(observed) {
            let quota = step.policy.quota();
            let told = match step.action {
                Action::Charge { cost } if self.is_admitted => {
                    charge(quota, state.clone(), self.now, cost).1
                }
                Action::Charge { cost } | Action::Peek { cost } => {
                    look(quota, state.as_ref(), self.now, cost)
                }
                _ => return Err(not_understood()),
            };
            fits &= step.policy.is_shadow() || told.is_admitted();
            *observed = told.issued_by(issuer);
        }
        // The script and the modules are one, or nothing that is computed from what it found holds.
        if fits == self.is_admitted {
            Ok(())
        } else {
            Err(not_understood())
        }
    }
}

/// For fuzzing: reads the bytes of the hot script's reply to a group. `None` if they are none, or hand the group over.
///
/// # Errors
/// `Protocol` if what was found does not lead to what was decided.
#[cfg(feature = "fuzzing")]
pub fn read_hot_bytes(
    bytes: &[u8],
    group: &Group<'_>,
    observed: &mut [Observed],
) -> Option<Result<(), Error>> {
    let call = Call::new(group, "").ok()?;
    match Reader::new(bytes)?.next(&call)? {
        Outcome::HandedOver => None,
        Outcome::Decided(decided) => Some(decided.read(group, Issuer::named(""), observed)),
    }
}

#[cfg(test)]
mod tests {
    use limiter_core::Key;
    use limiter_core::limit::{Capabilities, Period, Policy, Quota, Step};

    use super::*;

    /// Charges one policy's keys.
    fn group<R>(keys: &[Key], run: impl FnOnce(&Group<'_>) -> R) -> R {
        let quota = Quota::token_bucket(1, 1, Period::SECOND).unwrap();
        let policy = Policy::new("hot", quota).unwrap();
        let charge = |key| Step::new(&policy, key, Action::Charge { cost: 1 });
        let steps: Vec<_> = keys.iter().map(charge).collect();
        run(&Group::new(&steps, &Capabilities::ALL).unwrap())
    }

    /// Each step's kind, and the number of its key; where the first policy stands.
    fn kinds(groups: &[&[&str]], numbers: &[u16]) -> (Vec<(u8, u8)>, u16) {
        let call = |names: &&[&str]| {
            let keys: Vec<_> = names.iter().map(|name| Key::new(["k", name])).collect();
            group(&keys, |group| Call::new(group, "").unwrap())
        };
        let calls: Vec<_> = groups.iter().map(call).collect();
        let text = text(calls.iter(), numbers);
        let (steps, policies) = text.split_at(STEP * numbers.len());
        assert_eq!(policies.len(), POLICY, "one policy, once");
        let kinds = steps.chunks(STEP).map(|step| (step[1], step[3]));
        (kinds.collect(), u16::from_be_bytes([text[4], text[5]]))
    }

    #[test]
    fn what_shares_a_key_or_a_group_is_entangled() {
        let alone = kinds(&[&["a"], &["b"]], &[1, 2]);
        assert_eq!(alone, (vec![(0, 1), (0, 2)], 27));
        let (shared, _) = kinds(&[&["a"], &["b"], &["a"]], &[1, 2, 1]);
        let both = ENTANGLED + SHARED;
        assert_eq!(shared, [(both, 1), (0, 2), (both, 1)]);
        let (grouped, _) = kinds(&[&["a", "b"], &["c"]], &[1, 2, 3]);
        assert_eq!(grouped, [(ENTANGLED, 1), (ENTANGLED, 2), (0, 3)]);
    }

    /// What was found does not lead to what was decided: then nothing that is computed from it holds.
    #[test]
    fn script_and_module_agree_or_there_is_no_answer() {
        const NOW: u64 = 1_795_219_200_000_000;
        let number = |number: u64, bytes: usize| number.to_be_bytes()[8 - bytes..].to_vec();
        // A token of debt, of 1,000,000 fractions.
        let debt = [number(NOW, 7), number(1_000_000, 6), number(1_000_000, 5)].concat();
        let full = [b"b\x01".to_vec(), debt, vec![0; 5], vec![1, 0, 0]].concat();
        let told = |mark: &[u8], found: &[u8]| {
            let reply = [&number(NOW, 7), mark, found].concat();
            group(&[Key::new(["k"])], |group| {
                let call = Call::new(group, "").unwrap();
                let mut observed = [Observed::default()];
                let outcome = Reader::new(&reply).unwrap().next(&call);
                let Some(Outcome::Decided(decided)) = outcome else {
                    panic!("{outcome:?}");
                };
                let read = decided.read(group, Issuer::named(""), &mut observed);
                read.map(|()| (observed[0].is_admitted(), decided.has_charged))
            })
        };
        assert_eq!(told(b"", b"-").unwrap(), (true, true));
        assert_eq!(told(b"!", &full).unwrap(), (false, false));
        told(b"!", b"-").unwrap_err();
        told(b"", &full).unwrap_err();
    }
}
