//! What one group is as a call of `lua/main.lua`, and how its reply is read. Nothing about connections.

use std::time::Duration;

use limiter_core::clock::{MAX_INTEGER, Timestamp};
use limiter_core::limit::{
    Action, Calendar, Group, Issuer, Mark, Observed, Quota, RecordKind, Replay, Source, Step,
    Verdict,
};
use limiter_core::{Effect, Error, ErrorKind};
use redis::{Script, ScriptInvocation, Value};

/// What errors name as the operation.
pub(crate) const OPERATION: &str = "limit.apply";

/// How many integers the reply has for a step.
const REPLIED: usize = 9;

/// One group as a script call: its keys, each once, and its arguments.
#[derive(Debug)]
pub(crate) struct Call {
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
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
        let mut places = Vec::new();
        if let Some((id, ttl)) = group.operation() {
            call.key(RecordKind::Operation.name(prefix, group.home(), id));
            call.digest(group.fingerprint());
            call.duration(ttl);
            places = group.places();
        } else {
            call.number(0);
        }
        for (index, step) in steps.iter().enumerate() {
            let (algorithm, numbers) = quota_numbers(step.policy.quota())?;
            call.key(format!("{prefix}{}", step.counter));
            call.number(step.policy.is_shadow().into());
            call.number(action_number(&step.action)?);
            call.number(algorithm);
            for number in numbers {
                call.number(number);
            }
            if let Some(place) = places.get(index) {
                call.number(*place as u64);
                match group.refund_id(index) {
                    Some(id) => call.key(RecordKind::Refund.name(prefix, step.counter, &id)),
                    None => call.number(0),
                }
            }
            call.action(step, prefix);
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
        for argument in &self.arguments {
            invocation.arg(argument.as_slice());
        }
        invocation
    }

    fn action(&mut self, step: &Step<'_>, prefix: &str) {
        if let Action::Acquire { lease, .. }
        | Action::Renew { lease, .. }
        | Action::Release { lease, .. } = &step.action
        {
            self.digest(lease.digest());
        }
        if let Some((kind, id)) = step.record() {
            self.key(kind.name(prefix, step.counter, id));
        }
        match &step.action {
            Action::Charge { cost } | Action::Peek { cost } => self.number(*cost),
            Action::Debit { at_most, life } => {
                self.number(*at_most);
                self.duration(*life);
            }
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
            Action::Acquire { cost, ttl, .. } => {
                self.number(*cost);
                self.duration(*ttl);
            }
            Action::Cancel { ttl, .. }
            | Action::Renew { ttl, .. }
            | Action::Release { ttl, .. } => {
                self.duration(*ttl);
            }
            _ => {}
        }
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
        let text = number.min(MAX_INTEGER).to_string();
        self.arguments.push(text.into_bytes());
    }

    fn duration(&mut self, duration: Duration) {
        self.number(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    fn digest(&mut self, digest: u128) {
        self.arguments.push(digest.to_be_bytes().to_vec());
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
        Action::Debit { .. } => 10,
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
    issuer: Issuer,
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
            "values that are no state of any form were taken for fresh ones"
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
                let read = read_step(step).ok_or_else(not_understood)?;
                *observed = if read.verdict == Verdict::Unseen {
                    read
                } else {
                    read.issued_by(issuer)
                };
            }
            Ok(())
        }
        [1, index] => Err(step(*index).map_or_else(not_understood, foreign)),
        [2, index] => Err(step(*index).map_or_else(not_understood, Step::gone)),
        [3, index] => Err(step(*index).map_or_else(not_understood, Step::conflict)),
        [4] => Err(group.conflict()),
        [5, index, kind] => {
            Err(step(*index).map_or_else(not_understood, |step| step.stranger(kind_name(*kind))))
        }
        [6, index] => Err(step(*index).map_or_else(not_understood, Step::newer)),
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
    Some(read(&reply, group, Issuer::named(""), observed))
}

fn read_step(numbers: &[u64]) -> Option<Observed> {
    let [
        verdict,
        used,
        retry_after,
        reset_after,
        charged,
        at,
        number,
        replay,
        extra,
    ] = *numbers
    else {
        return None;
    };
    let verdict = match verdict {
        0 => Verdict::Admit,
        1 => Verdict::Deny {
            retry_after: Duration::from_micros(retry_after),
        },
        2 => Verdict::Never,
        3 => return Some(Observed::unseen(Source::Store)),
        _ => return None,
    };
    let reset_after = Duration::from_micros(reset_after);
    let at = Timestamp::from_micros(at);
    let observed = Observed::new(verdict, used, reset_after, Source::Store);
    let mut observed = observed.with_charge(charged, Mark { at, number });
    observed.replayed = match replay {
        0 => {
            observed.life = Duration::from_micros(extra);
            None
        }
        1 => Some(Replay::Held),
        2 => Some(Replay::Settled { actual: extra }),
        3 => Some(Replay::Done),
        _ => return None,
    };
    Some(observed)
}

/// The kinds of `lua/state.lua`, for people.
fn kind_name(kind: u64) -> &'static str {
    match kind {
        1 => "fixed_window",
        2 => "sliding_window",
        3 => "token_bucket",
        4 => "sliding_log",
        5 => "concurrency",
        _ => "record",
    }
}

fn foreign(step: &Step<'_>) -> Error {
    Error::new(
        ErrorKind::Foreign,
        OPERATION,
        format!(
            "{} (or a record of it) holds a value of another type and was left alone; rename or delete it",
            step.counter
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
