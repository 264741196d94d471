//! What one group is as a call of `lua/main.lua`. Nothing about connections.

use std::time::Duration;

use limiter_core::clock::MAX_INTEGER;
use limiter_core::limit::{Action, Calendar, Group, OperationId, Quota, RecordKind};
use limiter_core::{Error, ErrorKind};
use redis::{Script, ScriptInvocation};

/// What errors name as the operation.
pub(crate) const OPERATION: &str = "limit.apply";

/// One group as a script call: its keys, each once, and its arguments.
#[derive(Debug)]
pub(crate) struct Call {
    keys: Vec<String>,
    /// How long states are kept at least.
    floor: [u8; NUMBER],
    group: Vec<u8>,
}

/// How many bytes a number takes.
const NUMBER: usize = 7;
/// How many a group takes beside its steps, and how many a step.
const GROUP: usize = 27;
const STEP: usize = 75;

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
    /// The call for a group whose keys stand behind `prefix`; states are kept `state_ttl` at least.
    ///
    /// # Errors
    /// `Unsupported` if the script lacks an action or an algorithm of the group.
    pub(crate) fn new(group: &Group<'_>, prefix: &str, state_ttl: Duration) -> Result<Self, Error> {
        let steps = group.steps();
        let floor = u64::try_from(state_ttl.as_millis()).unwrap_or(u64::MAX);
        let mut call = Self {
            keys: Vec::with_capacity(steps.len()),
            floor: number(floor),
            group: Vec::with_capacity(GROUP + STEP * steps.len()),
        };
        call.index(steps.len());
        let operation = group.operation();
        let record = operation.map(|(id, _)| RecordKind::Operation.name(prefix, group.home(), id));
        call.key(record);
        let memory = operation.map_or(0, |(_, ttl)| micros(ttl));
        call.number(memory);
        let fingerprint = operation.map_or(0, |_| group.fingerprint());
        call.group.extend_from_slice(&fingerprint.to_be_bytes());
        let places = operation.map(|_| group.places()).unwrap_or_default();
        for (index, step) in steps.iter().enumerate() {
            let act = Act::new(&step.action)?;
            let (algorithm, numbers) = quota_numbers(step.policy.quota())?;
            let place = places.get(index).copied().unwrap_or_default();
            let refund = operation.and_then(|_| group.refund_id(index));
            let refund = refund.map(|id| RecordKind::Refund.name(prefix, step.counter, &id));
            let record = step.record();
            let record = record.map(|(kind, id)| kind.name(prefix, step.counter, id));
            call.key(Some(format!("{prefix}{}", step.counter)));
            // A group has at most 64 steps, of three keys each.
            let place = u8::try_from(place).unwrap_or(u8::MAX);
            let shadow = step.policy.is_shadow().into();
            call.group
                .extend_from_slice(&[shadow, act.number, place, algorithm]);
            call.key(refund);
            call.key(record);
            for value in numbers.into_iter().chain([act.cost, act.x, act.y]) {
                call.number(value);
            }
            call.group.extend_from_slice(&act.lease.to_be_bytes());
        }
        Ok(call)
    }

    /// KEYS: the full names.
    pub(crate) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The call of a script.
    pub(crate) fn invoke<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut invocation = script.prepare_invoke();
        for key in &self.keys {
            invocation.key(key);
        }
        invocation.arg(&self.floor).arg(self.group.as_slice());
        invocation
    }

    /// A key, as its index in KEYS from 1; 0 for none.
    fn key(&mut self, name: Option<String>) {
        let Some(name) = name else {
            return self.index(0);
        };
        let known = self.keys.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            self.keys.push(name);
            self.keys.len() - 1
        });
        self.index(index + 1);
    }

    fn index(&mut self, index: usize) {
        // A group has at most 64 steps, of three keys each.
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        self.group.extend_from_slice(&index.to_be_bytes());
    }

    fn number(&mut self, value: u64) {
        self.group.extend_from_slice(&number(value));
    }
}

/// A number's bytes, the highest first. Beyond the largest one, a cost is above every capacity just the same.
fn number(value: u64) -> [u8; NUMBER] {
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
