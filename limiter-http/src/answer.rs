//! One view of a decision and of a group of decisions, so that each header and body is made once.

use std::slice;
use std::time::Duration;

use limiter_core::ErrorKind;
use limiter_core::limit::{Decision, GroupDecision, Outcome, Quota};

/// How long a client waits when the limiter could not answer: there is nothing to compute it from,
/// and stores come back within seconds.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

/// What is told to a client: made from a `&Decision` or a `&GroupDecision`. A decision is a group of
/// one.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    outcome: Outcome,
    decisions: &'a [Decision],
    binding: Option<&'a Decision>,
}

impl<'a> Answer<'a> {
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The decision that headers and messages speak of; `None` if every policy is a shadow.
    pub(crate) fn binding(&self) -> Option<&'a Decision> {
        self.binding
    }

    /// The decisions of the enforced policies. Clients never hear of shadow policies.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &'a Decision> {
        self.decisions
            .iter()
            .filter(|decision| !decision.policy.is_shadow())
    }

    /// Whether there is no answer and waiting will not bring one: misuse or misconfiguration.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Unavailable { kind } if !is_passing(kind))
    }

    /// How long the client should wait; `None` where waiting is not needed or does not help.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.outcome {
            Outcome::Denied { retry_after } => Some(retry_after),
            Outcome::Unavailable { kind } if is_passing(kind) => Some(UNAVAILABLE_RETRY),
            _ => None,
        }
    }

    /// [`retry_after`](Self::retry_after) in whole seconds, rounded up: never 0, which invites a
    /// client to ask again at once.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after().map(|wait| seconds(wait).max(1))
    }
}

impl<'a> From<&'a Decision> for Answer<'a> {
    fn from(decision: &'a Decision) -> Self {
        Self {
            outcome: decision.outcome,
            decisions: slice::from_ref(decision),
            binding: (!decision.policy.is_shadow()).then_some(decision),
        }
    }
}

impl<'a> From<&'a GroupDecision> for Answer<'a> {
    fn from(group: &'a GroupDecision) -> Self {
        Self {
            outcome: group.outcome,
            decisions: &group.decisions,
            binding: group.binding(),
        }
    }
}

/// Whether an error goes away by itself: an outage ends, a full table empties. Misuse does not.
fn is_passing(kind: ErrorKind) -> bool {
    kind.is_outage() || kind == ErrorKind::Capacity
}

/// Whole seconds, rounded up.
pub(crate) fn seconds(duration: Duration) -> u64 {
    let more = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(more)
}

/// The seconds in which a quota's capacity comes back, rounded up, so at least 1: the window, or for
/// a bucket `capacity * period / refill`. Rounding up never advertises more than is granted. `None` for
/// concurrency, which has no window.
pub(crate) fn window_seconds(quota: &Quota) -> Option<u64> {
    let (amount, period) = quota.rate()?;
    let micros = u128::from(quota.capacity()) * u128::from(period.as_micros());
    let seconds = micros.div_ceil(u128::from(amount) * 1_000_000);
    Some(u64::try_from(seconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use limiter_core::limit::Period;

    #[test]
    fn windows_are_the_time_in_which_the_capacity_comes_back() {
        let millis = |n| Period::new(Duration::from_millis(n)).unwrap();
        for (quota, expected) in [
            (Quota::fixed_window(20, Period::HOUR), 3_600),
            (Quota::sliding_window(5, Period::MINUTE), 60),
            (Quota::fixed_window(20, millis(100)), 1),
            (Quota::fixed_window(20, millis(1_001)), 2),
            // 10 tokens at 7 a minute: 85.7 s.
            (Quota::token_bucket(10, 7, Period::MINUTE), 86),
            (Quota::token_bucket(100, 10, Period::SECOND), 10),
            (Quota::token_bucket(1, 1_000, Period::SECOND), 1),
        ] {
            let quota = quota.unwrap();
            assert_eq!(window_seconds(&quota), Some(expected), "{quota}");
        }
    }

    #[test]
    fn seconds_round_up() {
        for (micros, expected) in [(0, 0), (1, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(seconds(Duration::from_micros(micros)), expected);
        }
        assert_eq!(seconds(Duration::MAX), u64::MAX);
    }
}
