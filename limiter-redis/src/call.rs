//! What one group is as a call of `lua/main.lua`, and how its reply is read. Nothing about connections.

use std::time::Duration;

use limiter_core::clock::{MAX_INTEGER, Timestamp};
use limiter_core::limit::{
    Action, Calendar, Group, Mark, Observed, OperationId, Quota, RecordKind, Source, Step, Verdict,
};
use limiter_core::{Effect, Error, ErrorKind};
use redis::Value;

/// What errors name as the operation.
pub(crate) const OPERATION: &str = "limit.apply";

/// How many integers the reply has for a step.
const REPLIED: usize = 7;

/// One group as a script call: its keys, each once, and its arguments.
#[derive(Debug)]
pub(crate) struct Call {
    keys: Vec<String>,
    arguments: Vec<String>,
}

impl Call {
    /// The call for a group whose keys stand behind `prefix`; states are kept `state_ttl` at least.
    ///
    /// # Errors
    /// `Unsupported` if the script lacks an action or an algorithm of the group.
    pub(crate) fn new(group: &Group<'_>, prefix: &str, state_ttl: Duration) -> Result<Self, Error> {
        let state_ttl_millis = u64::try_from(state_ttl.as_millis()).unwrap_or(u64::MAX);
        let steps = group.steps();
        let mut call = Self {
            keys: Vec::with_capacity(steps.len()),
            arguments: Vec::with_capacity(4 + 9 * steps.len()),
        };
        call.number(state_ttl_millis);
        call.number(1);
        call.number(steps.len() as u64);
        match (group.operation(), steps) {
            (Some((id, ttl)), [first, ..]) => {
                call.key(RecordKind::Operation.name(prefix, first.key, id));
                call.digest(group.fingerprint());
                call.duration(ttl);
            }
            _ => call.number(0),
        }
        for step in steps {
            call.step(step, prefix)?;
        }
        Ok(call)
    }

    /// KEYS: the full names.
    pub(crate) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// ARGV.
    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    fn step(&mut self, step: &Step<'_>, prefix: &str) -> Result<(), Error> {
        self.key(format!("{prefix}{}", step.key));
        self.number(step.policy.is_shadow().into());
        self.number(action_number(&step.action)?);
        let (algorithm, numbers) = quota_numbers(step.policy.quota())?;
        self.number(algorithm);
        for number in numbers {
            self.number(number);
        }
        if let Some((kind, id)) = step.record() {
            self.key(kind.name(prefix, step.key, id));
        }
        match &step.action {
            Action::Charge { cost } | Action::Peek { cost } => self.number(*cost),
            Action::Refund { receipt } => {
                self.number(receipt.cost());
                self.number(receipt.mark().at.as_micros());
                self.number(receipt.mark().number);
            }
            Action::Reserve { estimate, ttl, .. } => {
                self.number(*estimate);
                self.duration(*ttl);
            }
            Action::Settle { actual, .. } => self.number(*actual),
            Action::Acquire { lease, cost, ttl } => {
                self.id(lease);
                self.number(*cost);
                self.duration(*ttl);
            }
            Action::Renew { lease, ttl } => {
                self.id(lease);
                self.duration(*ttl);
            }
            Action::Release { lease } => self.id(lease),
            _ => {}
        }
        Ok(())
    }

    /// A key, as its index in KEYS.
    fn key(&mut self, name: String) {
        let known = self.keys.iter().position(|known| *known == name);
        let index = known.unwrap_or_else(|| {
            self.keys.push(name);
            self.keys.len() - 1
        });
        self.number(index as u64 + 1);
    }

    /// Beyond the largest one, a cost is above every capacity just the same.
    fn number(&mut self, number: u64) {
        self.arguments.push(number.min(MAX_INTEGER).to_string());
    }

    fn duration(&mut self, duration: Duration) {
        self.number(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn id(&mut self, id: &OperationId) {
        self.digest(id.digest());
    }

    fn digest(&mut self, digest: u128) {
        self.arguments.push(format!("{digest:032x}"));
    }
}

fn action_number(action: &Action<'_>) -> Result<u64, Error> {
    Ok(match action {
        Action::Charge { .. } => 0,
        Action::Peek { .. } => 1,
        Action::Reset => 2,
        Action::Refund { .. } => 3,
        Action::Reserve { .. } => 4,
        Action::Settle { .. } => 5,
        Action::Cancel { .. } => 6,
        Action::Acquire { .. } => 7,
        Action::Renew { .. } => 8,
        Action::Release { .. } => 9,
        other => return Err(unsupported(other.as_str())),
    })
}

/// An algorithm's number and four numbers.
fn quota_numbers(quota: &Quota) -> Result<(u64, [u64; 4]), Error> {
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

/// Reads the reply of `lua/main.lua` to one group.
pub(crate) fn read(
    reply: &Value,
    group: &Group<'_>,
    observed: &mut [Observed],
) -> Result<(), Error> {
    let Value::Array(parts) = reply else {
        return Err(not_understood());
    };
    let [Value::Int(unreadable), Value::Array(answer)] = parts.as_slice() else {
        return Err(not_understood());
    };
    if *unreadable > 0 {
        tracing::warn!(
            unreadable,
            policy = group.steps()[0].policy.name(),
            "values that are no state of this policy's algorithm were taken for fresh ones"
        );
    }
    let numbers = answer.iter().map(|part| match part {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    });
    let numbers: Vec<u64> = numbers.collect::<Option<_>>().ok_or_else(not_understood)?;
    let step = |index: u64| {
        let index = usize::try_from(index).ok()?;
        group.steps().get(index)
    };
    match numbers.as_slice() {
        [0, steps @ ..] if steps.len() == REPLIED * observed.len() => {
            for (observed, step) in observed.iter_mut().zip(steps.chunks_exact(REPLIED)) {
                *observed = read_step(step).ok_or_else(not_understood)?;
            }
            Ok(())
        }
        [1, index] => Err(step(*index).map_or_else(not_understood, foreign)),
        [2, index] => Err(step(*index).map_or_else(not_understood, Step::gone)),
        [3, index] => Err(step(*index).map_or_else(not_understood, Step::conflict)),
        [4] => Err(group.conflict()),
        _ => Err(not_understood()),
    }
}

/// For fuzzing: reads the bytes of a script's reply to a group. `None` if they are no reply of Redis at all.
///
/// # Errors
/// What the reply says, or `Protocol` if it is none of the script's.
#[cfg(feature = "fuzzing")]
pub fn read_bytes(
    bytes: &[u8],
    group: &Group<'_>,
    observed: &mut [Observed],
) -> Option<Result<(), Error>> {
    let reply = redis::parse_redis_value(bytes).ok()?;
    Some(read(&reply, group, observed))
}

fn read_step(numbers: &[u64]) -> Option<Observed> {
    let [verdict, used, retry_after, reset_after, charged, at, number] = *numbers else {
        return None;
    };
    let verdict = match verdict {
        0 => Verdict::Admit,
        1 => Verdict::Deny {
            retry_after: Duration::from_micros(retry_after),
        },
        2 => Verdict::Never,
        _ => return None,
    };
    let reset_after = Duration::from_micros(reset_after);
    let at = Timestamp::from_micros(at);
    let observed = Observed::new(verdict, used, reset_after, Source::Store);
    Some(observed.with_charge(charged, Mark { at, number }))
}

fn foreign(step: &Step<'_>) -> Error {
    Error::new(
        ErrorKind::Foreign,
        OPERATION,
        format!(
            "{} (or a record of it) holds a value of another type and was left alone; rename or delete it",
            step.key
        ),
    )
}

fn not_understood() -> Error {
    Error::new(
        ErrorKind::Protocol,
        OPERATION,
        "the script's reply was not understood",
    )
    .with_effect(Effect::Unknown)
}
