//! What a store reports for one step.

use std::time::Duration;

use super::id::{Issuer, Mark};
use crate::clock::Timestamp;
use crate::limit::share::Share;
use crate::outage_log::Substitute;

/// The state of one key after (or, where the group was denied, without) one step.
///
/// What is left is the quota's capacity minus [`used`](Observed::used).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Observed {
    /// Whether this step alone could be admitted.
    pub verdict: Verdict,
    /// How much of the capacity is taken, in whole units as the algorithm counts them, so that the
    /// rest can be had at once. May exceed the capacity where something else
    /// wrote the counter, or after the quota was lowered.
    pub used: u64,
    /// How long until the whole capacity is free, if nothing more is charged.
    pub reset_after: Duration,
    /// Whether somebody looked at the state. If not, `used` and `reset_after` are zero and say nothing.
    pub seen: bool,
    /// Who answered.
    pub source: Source,
    /// Whether the answer is worth less than that of the store that was asked: it was given in its place, while it was
    /// not there.
    pub degraded: bool,
    /// How much of the quota counted: the share that this process grants in an outage. All of it otherwise.
    pub share: Share,
    /// Who keeps what was charged; goes back with whatever settles it or gives it back. `None` if nobody does.
    pub issuer: Option<Issuer>,
    /// What is known of an earlier answer to the same request; `None` if this is the first one.
    pub replayed: Option<Replay>,
    /// How long a debit may be spent; zero for everything else.
    pub life: Duration,
    /// How much stands charged for this step's own charge, reservation or lease after the action: the
    /// cost of an admitted charge, what a settled reservation came to, what a refund could not give
    /// back any more. 0 where nothing was charged.
    pub charged: u64,
    /// Where that charge can be found again; see [`Receipt`](super::Receipt).
    pub mark: Mark,
}

impl Observed {
    /// An observation.
    pub const fn new(verdict: Verdict, used: u64, reset_after: Duration, source: Source) -> Self {
        Self {
            verdict,
            used,
            reset_after,
            seen: true,
            source,
            degraded: false,
            share: Share::WHOLE,
            issuer: None,
            replayed: None,
            life: Duration::ZERO,
            charged: 0,
            mark: Mark {
                at: Timestamp::from_micros(0),
                number: 0,
            },
        }
    }

    /// The same observation of a step that left `charged` standing at `mark`.
    #[must_use]
    pub const fn with_charge(self, charged: u64, mark: Mark) -> Self {
        Self {
            charged,
            mark,
            ..self
        }
    }

    /// The observation of a step whose state nobody looked at: what was known of another step settled the answer.
    pub const fn unseen(source: Source) -> Self {
        Self::blind(Verdict::Unseen, source)
    }

    /// A verdict without a look at the state: the rule of a policy, or what is remembered of a denial.
    pub const fn blind(verdict: Verdict, source: Source) -> Self {
        Self {
            seen: false,
            ..Self::new(verdict, 0, Duration::ZERO, source)
        }
    }

    /// The same observation, marked as given in place of the store that was asked.
    #[must_use]
    pub const fn degrade(self) -> Self {
        Self {
            degraded: true,
            ..self
        }
    }

    /// The same observation, of a share of the quota.
    #[must_use]
    pub const fn of_share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// The same observation, of a counter that `issuer` keeps.
    #[must_use]
    pub const fn issued_by(self, issuer: Issuer) -> Self {
        Self {
            issuer: Some(issuer),
            ..self
        }
    }

    /// Which rule decided in the place of a store that gave no answer; `None` if it did, or nobody looked.
    pub fn substitute(&self) -> Option<Substitute> {
        Substitute::of(self.source, self.seen, self.degraded)
    }

    /// Whether the step could be admitted.
    pub fn is_admitted(&self) -> bool {
        self.verdict == Verdict::Admit
    }
}

/// A buffer's filler until a store writes to it: nothing was asked.
impl Default for Observed {
    fn default() -> Self {
        Self::unseen(Source::Store)
    }
}

/// Whether one step could be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "admitted, later, never or unknown are all there is"
)]
pub enum Verdict {
    /// It could.
    Admit,
    /// Not now.
    Deny {
        /// The earliest time at which the same request, alone, is admitted.
        retry_after: Duration,
    },
    /// Never: the cost is above the capacity.
    Never,
    /// Nobody looked: something else settled the group's answer. Neither admitted nor in the way.
    Unseen,
}

/// What is known of an earlier answer to the same request, which this one repeats. Nothing was charged for this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replay {
    /// The reservation or the lease is held, by the earlier request.
    Held,
    /// The reservation was settled.
    Settled {
        /// To what.
        actual: u64,
    },
    /// The operation, refund, settlement or cancellation was done.
    Done,
}

/// Who answered a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// A store that instances share.
    Store,
    /// This process's own memory.
    Memory,
    /// Tokens that this instance had debited in the store before.
    Lease,
    /// A remembered denial.
    DenialCache,
    /// The outage rule: the store was not there to ask.
    Outage,
    /// Nobody: limits are switched off.
    Switch,
}

impl Source {
    /// A stable lower-case name for logs, metrics and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Memory => "memory",
            Self::Lease => "lease",
            Self::DenialCache => "denial_cache",
            Self::Outage => "outage",
            Self::Switch => "switch",
        }
    }
}
