//! How the reply of `lua/main.lua` is read.

use std::time::Duration;

use limiter_core::clock::Timestamp;
use limiter_core::limit::{Group, Issuer, Mark, Observed, Replay, Source, Step, Verdict};
use limiter_core::{Effect, Error, ErrorKind};
use redis::{RedisError, Value};

use crate::script::call::{NUMBER, OPERATION};
use crate::script::hot::Decided;
use crate::script::value;

/// How many bytes the reply has for a step.
const STEP: usize = 51;
/// Where the number stands that says what was charged.
const CHARGED: usize = 2 + 3 * NUMBER;

/// What a script replies to one group.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The script that knows all.
    Whole(Value),
    /// The hot one.
    Hot(Decided),
}

impl Reply {
    /// Reads it.
    pub(crate) fn read(
        &self,
        group: &Group<'_>,
        issuer: Issuer,
        observed: &mut [Observed],
    ) -> Result<(), Error> {
        match self {
            Self::Whole(reply) => read(reply, group, issuer, observed),
            Self::Hot(decided) => decided.read(group, issuer, observed),
        }
    }

    /// Whether anything was charged anew.
    pub(crate) fn has_charged(&self) -> bool {
        match self {
            Self::Whole(reply) => has_charged(reply),
            Self::Hot(decided) => decided.has_charged,
        }
    }
}

/// Reads what `lua/main.lua` replies to one group.
fn read(
    reply: &Value,
    group: &Group<'_>,
    issuer: Issuer,
    observed: &mut [Observed],
) -> Result<(), Error> {
    match reply {
        Value::BulkString(reply) => {
            let (unreadable, steps) = reply.split_first().ok_or_else(not_understood)?;
            if *unreadable > 0 {
                tracing::warn!(
                    unreadable,
                    policy = group.steps()[0].policy.name(),
                    "values that are no state of any form were taken for fresh ones"
                );
            }
            read_steps(steps, issuer, observed)
        }
        Value::Array(numbers) => Err(read_obstacle(numbers, group)),
        _ => Err(not_understood()),
    }
}

fn has_charged(reply: &Value) -> bool {
    let Value::BulkString(reply) = reply else {
        return false;
    };
    let mut steps = reply.get(1..).unwrap_or_default().chunks_exact(STEP);
    steps.any(|step| {
        let is_new = step[1] == 0;
        let charged = &step[CHARGED..][..NUMBER];
        is_new && charged.iter().any(|byte| *byte != 0)
    })
}

/// The error of Redis that ended a group alone, if one did.
pub(crate) fn error_of(reply: &Value) -> Option<RedisError> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let [Value::Int(0), Value::BulkString(error)] = parts.as_slice() else {
        return None;
    };
    // One line, as a server sends it.
    let line = String::from_utf8_lossy(error).replace(['\r', '\n'], " ");
    let error = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
    error.and_then(Value::extract_error).err()
}

fn read_steps(steps: &[u8], issuer: Issuer, observed: &mut [Observed]) -> Result<(), Error> {
    if steps.len() != STEP * observed.len() {
        return Err(not_understood());
    }
    for (observed, step) in observed.iter_mut().zip(steps.chunks_exact(STEP)) {
        let read = read_step(step).ok_or_else(not_understood)?;
        *observed = if read.verdict == Verdict::Unseen {
            read
        } else {
            read.issued_by(issuer)
        };
    }
    Ok(())
}

/// Why a group could not be done.
fn read_obstacle(numbers: &[Value], group: &Group<'_>) -> Error {
    let numbers = numbers.iter().map(|part| match part {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    });
    let Some(numbers) = numbers.collect::<Option<Vec<u64>>>() else {
        return not_understood();
    };
    let step = |index: u64| {
        let index = usize::try_from(index).ok()?;
        group.steps().get(index)
    };
    match numbers.as_slice() {
        [1, index] => step(*index).map_or_else(not_understood, Step::foreign),
        [2, index] => step(*index).map_or_else(not_understood, Step::gone),
        [3, index] => step(*index).map_or_else(not_understood, Step::conflict),
        [4] => group.conflict(),
        [5, index, kind] => {
            step(*index).map_or_else(not_understood, |step| step.stranger(kind_name(*kind)))
        }
        [6, index] => step(*index).map_or_else(not_understood, Step::newer),
        _ => not_understood(),
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

fn read_step(step: &[u8]) -> Option<Observed> {
    let [verdict, replay, numbers @ ..] = step else {
        return None;
    };
    let mut numbers = numbers.chunks_exact(NUMBER).map(value::read);
    let mut next = || numbers.next().flatten();
    let (used, retry_after, reset_after) = (next()?, next()?, next()?);
    let (charged, at, number, extra) = (next()?, next()?, next()?, next()?);
    let verdict = match *verdict {
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
    observed.replayed = match *replay {
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

pub(crate) fn not_understood() -> Error {
    Error::new(
        ErrorKind::Protocol,
        OPERATION,
        "the script's reply was not understood",
    )
    .with_effect(Effect::Unknown)
}
