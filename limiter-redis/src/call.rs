//! What one group is as a call of `lua/main.lua`, and how its reply is read. Nothing about connections.

use std::time::Duration;

use limiter_core::limit::{Action, Group, Observed, Quota, Source, Verdict};
use limiter_core::{Effect, Error, ErrorKind};
use redis::Value;

/// What errors name as the operation.
pub(crate) const OPERATION: &str = "limit.apply";

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
        let mut call = Self {
            keys: Vec::with_capacity(group.steps().len()),
            arguments: Vec::with_capacity(3 + 9 * group.steps().len()),
        };
        call.number(state_ttl_millis);
        call.number(1);
        call.number(group.steps().len() as u64);
        for step in group.steps() {
            let index = call.key(format!("{prefix}{}", step.key));
            let (action, cost) = match step.action {
                Action::Charge { cost } => (0, cost),
                Action::Peek { cost } => (1, cost),
                Action::Reset => (2, 0),
                _ => {
                    return Err(Error::new(
                        ErrorKind::Unsupported,
                        OPERATION,
                        format!("Redis limits do not support {}", step.action.as_str()),
                    ));
                }
            };
            let (algorithm, numbers) = numbers(step.policy.quota())?;
            call.number(index as u64 + 1);
            call.number(u64::from(step.policy.is_shadow()));
            call.number(action);
            call.number(algorithm);
            for number in numbers {
                call.number(number);
            }
            call.number(cost.min(limiter_core::clock::MAX_INTEGER));
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

    /// The key's index in KEYS, from 0.
    fn key(&mut self, key: String) -> usize {
        let known = self.keys.iter().position(|known| *known == key);
        known.unwrap_or_else(|| {
            self.keys.push(key);
            self.keys.len() - 1
        })
    }

    fn number(&mut self, number: u64) {
        self.arguments.push(number.to_string());
    }
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
    let numbers: Vec<u64> = answer
        .iter()
        .map(|part| match part {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(not_understood)?;
    match numbers.as_slice() {
        [1, index] => Err(foreign(group, *index)),
        [0, steps @ ..] if steps.len() == 4 * observed.len() => {
            for (observed, step) in observed.iter_mut().zip(steps.chunks_exact(4)) {
                let verdict = match step[0] {
                    0 => Verdict::Admit,
                    1 => Verdict::Deny {
                        retry_after: Duration::from_micros(step[2]),
                    },
                    2 => Verdict::Never,
                    _ => return Err(not_understood()),
                };
                let reset_after = Duration::from_micros(step[3]);
                *observed = Observed::new(verdict, step[1], reset_after, Source::Store);
            }
            Ok(())
        }
        _ => Err(not_understood()),
    }
}

/// An algorithm's number and four numbers, as `lua/main.lua` takes them.
fn numbers(quota: &Quota) -> Result<(u64, [u64; 4]), Error> {
    Ok(match quota {
        Quota::FixedWindow(quota) => (1, [quota.limit(), quota.window_millis(), 0, 0]),
        Quota::SlidingWindow(quota) => (
            2,
            [
                quota.limit(),
                quota.window().as_micros(),
                quota.unit_micros(),
                0,
            ],
        ),
        Quota::TokenBucket(quota) => {
            let (gain, token) = quota.fractions();
            (3, [quota.capacity(), gain, token, quota.unit_micros()])
        }
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                OPERATION,
                format!("Redis limits do not support {}", other.algorithm()),
            ));
        }
    })
}

fn foreign(group: &Group<'_>, index: u64) -> Error {
    let key = usize::try_from(index)
        .ok()
        .and_then(|index| group.steps().get(index))
        .map_or("a key", |step| step.key.as_str());
    Error::new(
        ErrorKind::Foreign,
        OPERATION,
        format!("{key} holds a value of another type and was left alone; rename or delete it"),
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
