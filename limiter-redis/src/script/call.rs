//! What one group is as a part of a call of `lua/main.lua`. Nothing about connections.

use std::fmt::Display;
use std::io::Write as _;
use std::ops::Range;
use std::time::Duration;

use limiter_core::clock::MAX_INTEGER;
use limiter_core::limit::{Action, Calendar, Group, OperationId, Quota, RecordKind, Step};
use limiter_core::{Error, ErrorKind};

/// What errors name as the operation.
pub(crate) const OPERATION: &str = "limit.apply";

/// How many bytes a number takes.
pub(crate) const NUMBER: usize = 7;
/// How many a group takes beside its steps, and how many a step.
const GROUP: usize = 27;
const STEP: usize = 75;
/// How many bytes stand before a key: its length.
const LENGTH: usize = 4;
/// Where the numbers of keys stand: in a group, and in each of its steps.
const GROUP_KEY: usize = 2;
const STEP_KEYS: [usize; 3] = [0, 6, 8];
/// Where the rest of a step stands that all have.
const SHADOW: usize = 2;
const ACTION: usize = 3;
const ALGORITHM: usize = 5;
const QUOTA: Range<usize> = 10..38;
const COST: Range<usize> = 38..45;

/// One group as the script takes it, with its keys.
#[derive(Debug)]
pub(crate) struct Call {
    /// The group, with the numbers that its own keys have from 1 on; then the keys, each once, behind its length.
    bytes: Vec<u8>,
    /// How many bytes the group has, and how many keys: at most 64 steps, of three keys each.
    group: u16,
    keys: u16,
    gives_back: bool,
    takes: bool,
    is_hot: bool,
}

/// One step of a group that the hot script takes.
pub(crate) struct PlainStep<'a>(&'a [u8]);

/// A step's action as the script takes it: its number, and what it has.
#[derive(Default)]
struct Act {
    number: u8,
    cost: u64,
    x: u64,
    y: u64,
    lease: u128,
}

impl Call {
    /// The call for a group whose keys stand behind `prefix`.
    ///
    /// # Errors
    /// `Unsupported` if the script lacks an action or an algorithm of the group.
    pub(crate) fn new(group: &Group<'_>, prefix: &str) -> Result<Self, Error> {
        let steps = group.steps();
        let length = GROUP + STEP * steps.len();
        let mut bytes = Vec::with_capacity(length + steps.len() * (LENGTH + prefix.len() + 48));
        bytes.resize(length, 0);
        let call = Self {
            bytes,
            group: u16::try_from(length).unwrap_or(u16::MAX),
            keys: 0,
            gives_back: gives_back(group),
            takes: steps.iter().any(|step| step.action.takes()),
            is_hot: is_hot(group),
        };
        let mut writer = Writer { call, at: 0 };
        writer.index(steps.len());
        let operation = group.operation();
        let record = operation.map(|(id, _)| RecordKind::Operation.name(prefix, group.home(), id));
        writer.key(record);
        writer.number(operation.map_or(0, |(_, ttl)| micros(ttl)));
        let fingerprint = operation.map_or(0, |_| group.fingerprint());
        writer.write(&fingerprint.to_be_bytes());
        let places = operation.map(|_| group.places()).unwrap_or_default();
        for (index, step) in steps.iter().enumerate() {
            let act = Act::new(&step.action)?;
            let (algorithm, numbers) = quota_numbers(step.policy.quota())?;
            let place = places.get(index).copied().unwrap_or_default();
            let refund = operation.and_then(|_| group.refund_id(index));
            let refund = refund.map(|id| RecordKind::Refund.name(prefix, step.counter, &id));
            let record = step.record();
            let record = record.map(|(kind, id)| kind.name(prefix, step.counter, id));
            writer.key(Some(format_args!("{prefix}{}", step.counter)));
            // A group has at most 64 steps, of three keys each.
            let place = u8::try_from(place).unwrap_or(u8::MAX);
            let shadow = step.policy.is_shadow().into();
            writer.write(&[shadow, act.number, place, algorithm]);
            writer.key(refund);
            writer.key(record);
            for value in numbers.into_iter().chain([act.cost, act.x, act.y]) {
                writer.number(value);
            }
            writer.write(&act.lease.to_be_bytes());
        }
        Ok(writer.call)
    }

    /// The full names, each once.
    pub(crate) fn keys(&self) -> Keys<'_> {
        Keys(&self.bytes[self.group()..])
    }

    /// About how many bytes it sends.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn key_count(&self) -> usize {
        self.keys.into()
    }

    /// How many bytes the group has; its keys stand behind it.
    fn group(&self) -> usize {
        self.group.into()
    }

    /// Whether all that it does gives back, or forgets: then a full Redis does it too.
    pub(crate) fn gives_back(&self) -> bool {
        self.gives_back
    }

    /// Whether it charges anything, or takes a lease.
    pub(crate) fn takes(&self) -> bool {
        self.takes
    }

    /// Whether the hot script takes it.
    pub(crate) fn is_hot(&self) -> bool {
        self.is_hot
    }

    /// The steps of a hot group, in the order of its keys.
    pub(crate) fn plain_steps(&self) -> impl ExactSizeIterator<Item = PlainStep<'_>> {
        self.bytes[GROUP..self.group()]
            .chunks_exact(STEP)
            .map(PlainStep)
    }

    /// The group, with the numbers that its keys have in a call with others: `numbers` has that of its first key, and so on.
    /// Written behind what is in `out`.
    pub(crate) fn write_group(&self, numbers: &[u16], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes[..self.group()]);
        let steps = (GROUP..self.group()).step_by(STEP);
        let places = steps.flat_map(|step| STEP_KEYS.map(|key| step + key));
        for place in std::iter::once(GROUP_KEY).chain(places) {
            let [high, low] = [self.bytes[place], self.bytes[place + 1]];
            let own = usize::from(u16::from_be_bytes([high, low]));
            if let Some(number) = own.checked_sub(1).and_then(|own| numbers.get(own)) {
                out[start + place..][..2].copy_from_slice(&number.to_be_bytes());
            }
        }
    }
}

impl<'a> PlainStep<'a> {
    pub(crate) fn is_shadow(&self) -> bool {
        self.0[SHADOW] > 0
    }

    pub(crate) fn is_peek(&self) -> bool {
        self.0[ACTION] > 0
    }

    pub(crate) fn algorithm(&self) -> u8 {
        self.0[ALGORITHM]
    }

    /// Four numbers.
    pub(crate) fn quota(&self) -> &'a [u8] {
        &self.0[QUOTA]
    }

    /// A number.
    pub(crate) fn cost(&self) -> &'a [u8] {
        &self.0[COST]
    }

    /// Whether it takes something, if it is admitted.
    pub(crate) fn charges(&self) -> bool {
        !self.is_peek() && self.cost().iter().any(|byte| *byte > 0)
    }
}

/// The keys of a call.
pub(crate) struct Keys<'a>(&'a [u8]);

impl<'a> Iterator for Keys<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<LENGTH>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (key, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(key)
    }
}

/// Writes a call: its group from the start on, its keys at the end.
struct Writer {
    call: Call,
    at: usize,
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) {
        self.call.bytes[self.at..][..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// A key, as its number from 1; 0 for none.
    fn key(&mut self, name: Option<impl Display>) {
        let Some(name) = name else {
            return self.index(0);
        };
        let bytes = &mut self.call.bytes;
        let start = bytes.len();
        bytes.extend_from_slice(&[0; LENGTH]);
        // A Vec takes all that is written to it.
        let _ = write!(bytes, "{name}");
        let length = u32::try_from(bytes.len() - start - LENGTH).unwrap_or(u32::MAX);
        bytes[start..][..LENGTH].copy_from_slice(&length.to_be_bytes());
        let mut keys = self.call.keys();
        let new = &self.call.bytes[start + LENGTH..];
        let index = keys.position(|key| key == new).unwrap_or_default();
        if index < self.call.key_count() {
            self.call.bytes.truncate(start);
        } else {
            self.call.keys += 1;
        }
        self.index(index + 1);
    }

    fn index(&mut self, index: usize) {
        // A group has at most 64 steps, of three keys each.
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        self.write(&index.to_be_bytes());
    }

    fn number(&mut self, value: u64) {
        self.write(&number(value));
    }
}

/// How long states are kept at least (ms), as the scripts take it.
pub(crate) fn floor(state_ttl: Duration) -> u64 {
    u64::try_from(state_ttl.as_millis()).map_or(MAX_INTEGER, |millis| millis.min(MAX_INTEGER))
}

/// Whether all that a group does is to charge or to look, at algorithms that the hot script knows, each at a key of its own.
fn is_hot(group: &Group<'_>) -> bool {
    let steps = group.steps();
    let is_known = |step: &Step<'_>| {
        let is_known = matches!(
            step.policy.quota(),
            Quota::FixedWindow(_)
                | Quota::CalendarWindow(_)
                | Quota::SlidingWindow(_)
                | Quota::TokenBucket(_)
        );
        is_known && matches!(step.action, Action::Charge { .. } | Action::Peek { .. })
    };
    let is_first = |index: usize| {
        let before = &steps[..index];
        before
            .iter()
            .all(|other| other.counter != steps[index].counter)
    };
    group.operation().is_none() && steps.iter().all(is_known) && (0..steps.len()).all(is_first)
}

/// Whether a group only gives back, or forgets.
fn gives_back(group: &Group<'_>) -> bool {
    // The memory of an id that nobody knows takes memory, so it waits for room.
    let gives = |step: &Step<'_>| match step.action {
        Action::Cancel { .. } | Action::Release { .. } => step.issuer.is_some(),
        Action::Reset => true,
        _ => step.action.follows_up(),
    };
    let looks = |step: &Step<'_>| matches!(step.action, Action::Peek { .. });
    group.operation().is_none()
        && group.steps().iter().any(gives)
        && group.steps().iter().all(|step| gives(step) || looks(step))
}

/// A number's bytes, the highest first. Beyond the largest one, a cost is above every capacity just the same.
pub(crate) fn number(value: u64) -> [u8; NUMBER] {
    let [_, bytes @ ..] = value.min(MAX_INTEGER).to_be_bytes();
    bytes
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Act {
    fn new(action: &Action<'_>) -> Result<Self, Error> {
        let act = |number, cost, x| Self {
            number,
            cost,
            x,
            ..Self::default()
        };
        let leased = |number, cost, ttl, lease: &OperationId| Self {
            number,
            cost,
            x: micros(ttl),
            lease: lease.digest(),
            ..Self::default()
        };
        Ok(match action {
            Action::Charge { cost } => act(0, *cost, 0),
            Action::Peek { cost } => act(1, *cost, 0),
            Action::Reset => act(2, 0, 0),
            Action::Refund { receipt } => Self {
                y: receipt.mark().number,
                ..act(3, receipt.cost(), receipt.mark().at.as_micros())
            },
            Action::Reserve { estimate, ttl, .. } => act(4, *estimate, micros(*ttl)),
            Action::Settle { actual, .. } => act(5, *actual, 0),
            Action::Cancel { ttl, .. } => act(6, 0, micros(*ttl)),
            Action::Acquire { lease, cost, ttl } => leased(7, *cost, *ttl, lease),
            Action::Renew { lease, ttl } => leased(8, 0, *ttl, lease),
            Action::Release { lease, ttl } => leased(9, 0, *ttl, lease),
            Action::Debit { at_most, life } => act(10, *at_most, micros(*life)),
            other => return Err(unsupported(other.as_str())),
        })
    }
}

/// An algorithm's number and four numbers.
fn quota_numbers(quota: &Quota) -> Result<(u8, [u64; 4]), Error> {
    Ok(match quota {
        Quota::FixedWindow(quota) => (1, [quota.limit(), quota.window_millis(), 0, 0]),
        Quota::SlidingWindow(quota) => {
            let window = quota.window().as_micros();
            (2, [quota.limit(), window, quota.unit_micros(), 0])
        }
        Quota::TokenBucket(quota) => {
            let (gain, token) = quota.fractions();
            (3, [quota.capacity(), gain, token, quota.unit_micros()])
        }
        Quota::SlidingLog(quota) => (4, [quota.limit(), quota.window().as_micros(), 0, 0]),
        Quota::Concurrency(quota) => (5, [quota.limit(), 0, 0, 0]),
        Quota::CalendarWindow(quota) => {
            let unit = match quota.calendar() {
                Calendar::Minute => 1,
                Calendar::Hour => 2,
                Calendar::Day => 3,
                Calendar::Month => 4,
                other => return Err(unsupported(other.as_str())),
            };
            (6, [quota.limit(), unit, 0, 0])
        }
        other => return Err(unsupported(other.algorithm())),
    })
}

fn unsupported(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        OPERATION,
        format!("Redis limits do not support {what}"),
    )
}
