//! One view of a decision and of a group of decisions, so that each header and body is made once.

use std::slice;
use std::time::Duration;

use limiter_core::ErrorKind;
use limiter_core::clock::Timestamp;
use limiter_core::limit::{Decision, GroupDecision, Outcome, Quota};

/// How long a client waits at least when the limiter could not answer: stores come back within seconds.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(1);

/// What is told to a client: made from a `&Decision` or a `&GroupDecision`. A decision is a group of
/// one.
///
/// The times in a decision count from when it was made. Where work lies between the decision and the
/// response, say when that was ([`at`](Self::at)): the model's seconds are then not
/// added to what the client is told to wait.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    outcome: Outcome,
    decisions: &'a [Decision],
    binding: Option<&'a Decision>,
    decided: Option<Timestamp>,
    age: Duration,
}

impl<'a> Decided<'a> {
    /// When the decision was made, by the clock that tells when the response is written (a
    /// [`Responder`](crate::Responder)'s [`now`](crate::Responder::now)). The moment of writing by
    /// default.
    ///
    /// Spans (`Retry-After`, a `t`, OpenAI's resets) then shrink by what has passed since, to no less
    /// than zero, or what their header allows; a reset in epoch seconds stays where it was.
    #[must_use]
    pub fn at(self, decided: Timestamp) -> Self {
        Self {
            decided: Some(decided),
            ..self
        }
    }

    /// The same answer as it reads at `now`.
    pub(crate) fn seen_at(self, now: Timestamp) -> Self {
        let age = self
            .decided
            .map_or(Duration::ZERO, |decided| now.saturating_since(decided));
        Self { age, ..self }
    }

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

    /// The enforced policies of which something can be told: a counter that somebody looked at, or a refusal.
    pub(crate) fn told(&self) -> impl Iterator<Item = &'a Decision> {
        self.enforced().filter(|decision| is_told(decision))
    }

    /// Whether there is no answer and waiting will not bring one: misuse or misconfiguration.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Unavailable { kind } if !is_passing(kind))
    }

    /// How long the client should wait; `None` where waiting is not needed or does not help.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.wait(self.outcome, self.binding)
    }

    /// [`retry_after`](Self::retry_after) in whole seconds, rounded up: never 0, which invites a
    /// client to ask again at once.
    pub(crate) fn retry_after_secs(&self) -> Option<u64> {
        self.retry_after().map(|wait| seconds(wait).max(1))
    }

    /// [`retry_after`](Self::retry_after) for one of the decisions.
    pub(crate) fn wait_of(&self, decision: &Decision) -> Option<Duration> {
        self.wait(decision.outcome, Some(decision))
    }

    /// How long until everything that the decision's policy grants is free.
    pub(crate) fn reset_after(&self, decision: &Decision) -> Duration {
        let reset_after = decision.reset_after.saturating_sub(self.age);
        // A limiter that could not answer may know no reset; the client may come back then.
        reset_after.max(self.wait_of(decision).unwrap_or_default())
    }

    /// The moment of [`reset_after`](Self::reset_after), which does not move while a response is made.
    pub(crate) fn reset_at(&self, decision: &Decision, now: Timestamp) -> Timestamp {
        match (self.decided, decision.outcome) {
            (None, _) | (_, Outcome::Unavailable { .. }) => after(now, self.reset_after(decision)),
            (Some(decided), Outcome::Denied { retry_after }) => {
                after(decided, decision.reset_after.max(retry_after))
            }
            (Some(decided), _) => after(decided, decision.reset_after),
        }
    }

    fn wait(&self, outcome: Outcome, of: Option<&Decision>) -> Option<Duration> {
        match outcome {
            Outcome::Denied { retry_after } => Some(retry_after.saturating_sub(self.age)),
            // When the store is asked again is a guess, so it counts from when it is said.
            Outcome::Unavailable { kind } if is_passing(kind) => {
                let asked_again = of.map_or(Duration::ZERO, |decision| decision.reset_after);
                Some(asked_again.max(UNAVAILABLE_RETRY))
            }
            _ => None,
        }
    }
}

impl<'a> From<&'a Decision> for Decided<'a> {
    fn from(decision: &'a Decision) -> Self {
        Self {
            outcome: decision.outcome,
            decisions: slice::from_ref(decision),
            binding: (!decision.policy.is_shadow()).then_some(decision),
            decided: None,
            age: Duration::ZERO,
        }
    }
}

impl<'a> From<&'a GroupDecision> for Decided<'a> {
    fn from(group: &'a GroupDecision) -> Self {
        Self {
            outcome: group.outcome,
            decisions: &group.decisions,
            binding: group.binding(),
            decided: None,
            age: Duration::ZERO,
        }
    }
}

/// Whether an error goes away by itself: an outage ends, a full table empties. Misuse does not.
fn is_passing(kind: ErrorKind) -> bool {
    kind.is_outage()
}

/// Whether anything can be told of a decision. Nobody knows what is left of a limit that nobody looked at.
pub(crate) fn is_told(decision: &Decision) -> bool {
    decision.seen || !(decision.is_allowed() || decision.outcome == Outcome::Unseen)
}

/// Whole seconds, rounded up.
pub(crate) fn seconds(duration: Duration) -> u64 {
    let more = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(more)
}

/// Whole milliseconds, rounded up.
pub(crate) fn millis(duration: Duration) -> u128 {
    duration.as_nanos().div_ceil(1_000_000)
}

/// `start` plus `by`, rounded up to a microsecond.
fn after(start: Timestamp, by: Duration) -> Timestamp {
    start.saturating_add(by.saturating_add(Duration::from_nanos(999)))
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
