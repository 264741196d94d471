//! What a check answers.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::limit::policy::Policy;
use crate::limit::share::Share;
use crate::limit::store::{Observed, Replay, Source, Step, Verdict};
use crate::outage_log::Substitute;

/// The answer for one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// What to do with the request.
    pub outcome: Outcome,
    /// The policy that was asked; with this process's share of its quota while that is what counts.
    pub policy: Policy,
    /// The most that one request can be granted: the policy's limit or bucket size.
    pub limit: u64,
    /// Whether somebody looked at the counter. If not, `used` and `remaining` are zero and say nothing; no header is written
    /// from them.
    pub seen: bool,
    /// How much of it is taken; after this request, if it was allowed.
    pub used: u64,
    /// How much of it is left: a request of that cost would be allowed now.
    pub remaining: u64,
    /// How long until all of it is free again, if nothing more is asked for. Where no answer could be had, until the store
    /// is asked again, if that is known.
    pub reset_after: Duration,
    /// Who answered.
    pub source: Source,
    /// Whether the answer is worth less than that of the store that was asked: it was given in its place, while it was
    /// not there.
    pub degraded: bool,
    /// Whether the request repeats one that was answered before, and what is known of that: nothing was charged for
    /// this one.
    pub replayed: Option<Replay>,
    /// For a shadow policy: what it would have answered. `outcome` is then `Allowed`.
    pub shadow: Option<Outcome>,
}

/// Denied, impossible and broken are three things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Go on.
    Allowed,
    /// Not now.
    Denied {
        /// The earliest time at which the same request, alone, is allowed.
        retry_after: Duration,
    },
    /// Never: the cost is above the limit. Waiting does not help.
    Never,
    /// No answer could be had, and the policy does not allow without one.
    Unavailable {
        /// Why.
        kind: ErrorKind,
    },
    /// Nobody looked: another policy of the group settled the answer. Not to go on, and not in the way.
    Unseen,
}

impl Outcome {
    /// Whether to go on.
    pub fn is_allowed(self) -> bool {
        self == Self::Allowed
    }

    /// How long to wait before trying again; `None` unless denied.
    pub fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Denied { retry_after } => Some(retry_after),
            _ => None,
        }
    }

    /// [`retry_after`](Self::retry_after) in whole seconds, rounded up, at least 1: what people and headers are told.
    ///
    /// ```
    /// use limiter_core::limit::Outcome;
    /// use std::time::Duration;
    ///
    /// let retry_after = Duration::from_millis(1_200);
    /// assert_eq!(Outcome::Denied { retry_after }.retry_after_secs(), Some(2));
    /// assert_eq!(Outcome::Allowed.retry_after_secs(), None);
    /// ```
    pub fn retry_after_secs(self) -> Option<u64> {
        self.retry_after().map(|wait| {
            let more = u64::from(wait.subsec_nanos() > 0);
            wait.as_secs().saturating_add(more).max(1)
        })
    }

    /// A stable lower-case name for logs, metrics and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied { .. } => "denied",
            Self::Never => "never",
            Self::Unavailable { .. } => "unavailable",
            Self::Unseen => "unseen",
        }
    }
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Admit => Self::Allowed,
            Verdict::Deny { retry_after } => Self::Denied { retry_after },
            Verdict::Never => Self::Never,
            Verdict::Unseen => Self::Unseen,
        }
    }
}

impl Decision {
    /// The decision that an observation under a policy means.
    pub fn new(policy: &Policy, observed: &Observed) -> Self {
        let verdict = Outcome::from(observed.verdict);
        let policy = match policy.quota().scaled(observed.share) {
            Ok(share) if observed.share != Share::WHOLE => policy.clone().with_quota(share),
            _ => policy.clone(),
        };
        let limit = policy.quota().capacity();
        Self {
            outcome: if policy.is_shadow() {
                Outcome::Allowed
            } else {
                verdict
            },
            limit,
            seen: observed.seen,
            used: observed.used,
            remaining: if observed.seen {
                limit.saturating_sub(observed.used)
            } else {
                0
            },
            reset_after: observed.reset_after,
            source: observed.source,
            degraded: observed.degraded,
            replayed: observed.replayed,
            shadow: policy.is_shadow().then_some(verdict),
            policy,
        }
    }

    /// The decision when the store could not be asked. A shadow policy does not block then either.
    pub fn unavailable(policy: &Policy, error: &Error) -> Self {
        let outcome = Outcome::Unavailable { kind: error.kind() };
        Self {
            outcome: if policy.is_shadow() {
                Outcome::Allowed
            } else {
                outcome
            },
            policy: policy.clone(),
            limit: policy.quota().capacity(),
            seen: false,
            used: 0,
            remaining: 0,
            reset_after: error.retry_after().unwrap_or_default(),
            source: Source::Outage,
            degraded: true,
            replayed: None,
            shadow: policy.is_shadow().then_some(outcome),
        }
    }

    /// Whether to go on.
    pub fn is_allowed(&self) -> bool {
        self.outcome.is_allowed()
    }

    /// Which rule decided in the place of a store that gave no answer; `None` if it did.
    pub fn substitute(&self) -> Option<Substitute> {
        match self.outcome {
            Outcome::Unavailable { kind } => {
                (self.degraded && kind.is_outage()).then_some(Substitute::Denied)
            }
            _ => Substitute::of(self.source, self.seen, self.degraded),
        }
    }

    /// How long to wait before trying again; `None` unless denied.
    pub fn retry_after(&self) -> Option<Duration> {
        self.outcome.retry_after()
    }

    /// As [`Outcome::retry_after_secs`]: whole seconds, rounded up, at least 1.
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.outcome.retry_after_secs()
    }
}

/// The answer for a group: all of its charges were made, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupDecision {
    /// What to do with the request. `Denied` carries the largest time to wait; `Never` if any step
    /// can never be admitted.
    pub outcome: Outcome,
    /// One decision a step, in the order asked. Each speaks for its own policy alone: in a denied
    /// group, `Allowed` means that this policy was not the obstacle, not that it was charged.
    pub decisions: Vec<Decision>,
}

impl GroupDecision {
    /// The group decision that its parts mean.
    pub fn new(decisions: Vec<Decision>) -> Self {
        let outcome = decisions
            .iter()
            .map(|decision| decision.outcome)
            .max_by_key(|outcome| match outcome {
                Outcome::Allowed => (0, Duration::ZERO),
                Outcome::Unseen => (1, Duration::ZERO),
                Outcome::Denied { retry_after } => (2, *retry_after),
                Outcome::Never => (3, Duration::ZERO),
                Outcome::Unavailable { .. } => (4, Duration::ZERO),
            })
            .unwrap_or(Outcome::Allowed);
        Self { outcome, decisions }
    }

    /// The decision that what a store observed of a group means.
    pub fn of(steps: &[Step<'_>], observed: &[Observed]) -> Self {
        let parts = steps.iter().zip(observed);
        Self::new(
            parts
                .map(|(step, observed)| Decision::new(step.policy, observed))
                .collect(),
        )
    }

    /// The decision when the store could not be asked, or would not: a group that is misused is never
    /// let through, not even one without policies.
    pub fn unavailable<'a>(policies: impl IntoIterator<Item = &'a Policy>, error: &Error) -> Self {
        let decisions: Vec<_> = policies
            .into_iter()
            .map(|policy| Decision::unavailable(policy, error))
            .collect();
        let only_shadows = !decisions.is_empty() && decisions.iter().all(Decision::is_allowed);
        Self {
            outcome: if only_shadows {
                Outcome::Allowed
            } else {
                Outcome::Unavailable { kind: error.kind() }
            },
            decisions,
        }
    }

    /// Whether to go on.
    pub fn is_allowed(&self) -> bool {
        self.outcome.is_allowed()
    }

    /// How long to wait before trying again: the longest of those who denied; `None` unless denied.
    pub fn retry_after(&self) -> Option<Duration> {
        self.outcome.retry_after()
    }

    /// As [`Outcome::retry_after_secs`]: whole seconds, rounded up, at least 1.
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.outcome.retry_after_secs()
    }

    /// Whether the request repeats one that was answered before: nothing was charged for this one.
    pub fn is_replay(&self) -> bool {
        self.decisions
            .iter()
            .any(|decision| decision.replayed.is_some())
    }

    /// Whether one of the answers was given in place of the store that was asked.
    pub fn is_degraded(&self) -> bool {
        self.decisions.iter().any(|decision| decision.degraded)
    }

    /// Every policy that stood in the way, in the order asked.
    pub fn violated(&self) -> impl Iterator<Item = &Decision> {
        self.decisions
            .iter()
            .filter(|decision| !decision.is_allowed() && decision.outcome != Outcome::Unseen)
    }

    /// The enforced policy that binds most: the worst violation, else the one with the smallest
    /// share of its limit left. `None` if every policy is a shadow. Headers show this one.
    pub fn binding(&self) -> Option<&Decision> {
        let enforced = || {
            self.decisions
                .iter()
                .filter(|decision| decision.shadow.is_none() && decision.outcome != Outcome::Unseen)
        };
        enforced()
            .find(|decision| !self.is_allowed() && decision.outcome == self.outcome)
            .or_else(|| {
                // One that nobody looked at has no share to compare.
                let seen = enforced().filter(|decision| decision.seen);
                let seen = seen.min_by(|a, b| {
                    // a.remaining / a.limit against b.remaining / b.limit, without rounding.
                    let left = u128::from(a.remaining) * u128::from(b.limit);
                    let right = u128::from(b.remaining) * u128::from(a.limit);
                    left.cmp(&right)
                });
                seen.or_else(|| enforced().next())
            })
    }
}
