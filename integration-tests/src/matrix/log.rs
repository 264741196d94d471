//! What was asked and what came back: all that the checker knows.

use std::time::Duration;

use limiter_core::limit::Source;
use tokio::time::Instant;

/// Which policy was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// A bucket under `Outage::Deny`.
    Deny,
    /// A bucket under `Outage::Allow`.
    Allow,
    /// A bucket under `Outage::Local`.
    Local,
    /// A wide window under `Outage::Deny`, which the server's own count is compared with.
    Account,
}

impl Rule {
    pub(super) const ALL: [Self; 4] = [Self::Deny, Self::Allow, Self::Local, Self::Account];
    /// Those with a bound.
    pub(super) const BUCKETS: [Self; 3] = [Self::Deny, Self::Allow, Self::Local];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
            Self::Local => "local",
            Self::Account => "account",
        }
    }
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    pub(super) instance: usize,
    pub(super) rule: Rule,
    pub(super) key: usize,
    pub(super) sent: Instant,
    pub(super) answered: Instant,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Admitted {
        source: Source,
        degraded: bool,
    },
    Denied {
        degraded: bool,
    },
    /// No answer; whether it may have been charged.
    Unavailable {
        unknown: bool,
    },
    /// A fault of the product.
    Wrong(&'static str),
}

impl Check {
    pub(super) fn latency(&self) -> Duration {
        self.answered - self.sent
    }

    pub(super) fn is_admitted(&self) -> bool {
        matches!(self.outcome, Outcome::Admitted { .. })
    }

    /// Whether the shared store answered.
    pub(super) fn is_of_store(&self) -> bool {
        match self.outcome {
            Outcome::Admitted { source, degraded } => source == Source::Store && !degraded,
            Outcome::Denied { degraded } => !degraded,
            _ => false,
        }
    }
}

/// When counts were lost, or two servers kept them: each gives a key one capacity more, and its rate for that time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) from: Instant,
    pub(super) until: Instant,
    /// How many capacities.
    pub(super) times: u64,
}

/// Everything.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) start: Instant,
    pub(super) checks: Vec<Check>,
    /// How late a plain sleep of the deadline ended.
    pub(super) control: Vec<Duration>,
    /// How long the cache's calls took, and whether they were answered.
    pub(super) cache: Vec<(Instant, Duration, bool)>,
    /// Reservations that could not be settled within their time, and whether they were made locally.
    pub(super) refused: Vec<(bool, String)>,
    pub(super) settled: u64,
    pub(super) begun: Option<Instant>,
    pub(super) healed: Option<Instant>,
    pub(super) pong: Option<Instant>,
    pub(super) end: Option<Instant>,
    pub(super) losses: Vec<Loss>,
    /// What the server had counted when a recovery has to be over, read between two moments.
    pub(super) recovered: Option<(Instant, Vec<u64>, Instant)>,
    /// What the server has counted in the end, of each key of [`Rule::Account`].
    pub(super) counted: Vec<u64>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            checks: Vec::new(),
            control: Vec::new(),
            cache: Vec::new(),
            refused: Vec::new(),
            settled: 0,
            begun: None,
            healed: None,
            pong: None,
            end: None,
            losses: Vec::new(),
            recovered: None,
            counted: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, at: Instant) {
        self.begun = Some(at);
    }
}
