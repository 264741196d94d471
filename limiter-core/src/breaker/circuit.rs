//! The breaker's state machine: pure, with the time as an argument.
//!
//! ```text
//!          failures             the time is over             it answers
//! closed ------------> open --------------------> knocking ------------> half open --+
//!    ^                  ^  ^                          |                   |          |
//!    |                  |  +------- no answer --------+                   |          |
//!    |                  +----------------------- a probe fails -----------+          |
//!    +------------------------------- a probe is answered ---------------------------+
//! ```

use std::time::Duration;

use super::config::{BreakerConfig, FailureRate};

#[cfg(test)]
mod tests;

/// A breaker's state. Times are those of any clock that never steps back, as spans since a moment of its own.
#[derive(Clone, Debug)]
pub struct Circuit {
    config: BreakerConfig,
    state: State,
    /// Counted up at every change of the state: what was admitted before says nothing of the state after it.
    generation: u64,
    /// Of the jitter.
    seed: u64,
}

#[derive(Clone, Debug)]
enum State {
    Closed(Closed),
    Open {
        until: Duration,
        /// How often it opened in a row.
        times: u32,
    },
    /// Somebody asks whether the store is there; who that is may have no time for it, and then another one does.
    Knocking {
        times: u32,
        until: Duration,
    },
    HalfOpen {
        times: u32,
        /// How many are under way.
        probes: u32,
        /// How many were late, one after the other.
        late: u32,
    },
}

#[derive(Clone, Debug, Default)]
struct Closed {
    /// How often it had opened in a row, and when it closed after that.
    before: Option<(u32, Duration)>,
    in_a_row: u32,
    /// When a call was last answered.
    answered: Option<Duration>,
    counts: Counts,
}

/// Calls in this part of the window and in the parts before it.
#[derive(Clone, Debug, Default)]
struct Counts {
    parts: [Part; PARTS],
    /// Which part of the window it is, counted since the clock's beginning.
    now: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    calls: u32,
    failures: u32,
}

const PARTS: usize = 10;

/// What a breaker says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a call, a knock or neither are all there is"
)]
pub enum Admission {
    /// Call, and tell what came of it.
    Call(Permit),
    /// Do not call, but ask the store whether it is there, and tell what came of that.
    Knock(Permit),
    /// Do not call.
    Refused {
        /// When the store is asked again, as far as it is known.
        retry_after: Duration,
    },
}

/// Proof that a call was admitted. Not used up by the machine: whoever drops one completes it as [`Completion::Nothing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    generation: u64,
    at: Duration,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the machine's whole alphabet")]
pub enum Completion {
    /// The store answered.
    Answered,
    /// It did not, or said that it cannot serve.
    Failed,
    /// It did not in the time that the caller gave, which is less than the store's own: counts in a row, of probes too, but neither
    /// in the rate nor against a single probe.
    Late,
    /// The call says nothing of the store: it was dropped, refused before it was sent, or this process was at fault.
    Nothing,
}

/// A change that people want to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it opens or it closes")]
pub enum Change {
    /// It was closed, and no call goes through from now on.
    Opened,
    /// All calls go through again.
    Closed,
}

/// The name of a breaker's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the three states that the field knows"
)]
pub enum Position {
    /// Calls go through.
    Closed,
    /// No call goes through.
    Open,
    /// Some calls go through, to find out.
    HalfOpen,
}

impl Position {
    /// A stable lower-case name for logs, health and metrics: `closed`, `open`, `half_open`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Circuit {
    /// A closed one. `seed` draws the jitter.
    pub fn new(config: BreakerConfig, seed: u64) -> Self {
        Self {
            config,
            state: State::Closed(Closed::default()),
            generation: 0,
            seed,
        }
    }

    /// How it stands. Asking the store whether it is there counts as open.
    pub fn position(&self) -> Position {
        match self.state {
            State::Closed(_) => Position::Closed,
            State::Open { .. } | State::Knocking { .. } => Position::Open,
            State::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    /// Its generation, while it is closed: then every call is admitted, with a [permit of it](Permit::of).
    pub(super) fn closed(&self) -> Option<u64> {
        matches!(self.state, State::Closed(_)).then_some(self.generation)
    }

    /// What a call may do that comes `now`.
    pub fn admit(&mut self, now: Duration) -> Admission {
        let most = self.config.probes();
        match &mut self.state {
            State::Closed(_) => Admission::Call(self.permit(now)),
            State::Open { until, .. } if now < *until => Admission::Refused {
                retry_after: *until - now,
            },
            State::Open { times, .. } => {
                let times = *times;
                let until = now.saturating_add(self.config.open(u32::MAX));
                self.enter(State::Knocking { times, until });
                Admission::Knock(self.permit(now))
            }
            State::Knocking { until, .. } if now >= *until => {
                // Of the same generation: the first of them to be answered is.
                *until = now.saturating_add(self.config.open(u32::MAX));
                Admission::Knock(self.permit(now))
            }
            State::HalfOpen { probes, .. } if *probes < most => {
                *probes += 1;
                Admission::Call(self.permit(now))
            }
            State::Knocking { .. } | State::HalfOpen { .. } => Admission::Refused {
                retry_after: self.config.open(0),
            },
        }
    }

    /// Tells what became of a call or a knock that was admitted. Once for each permit; what comes from before the last change of
    /// the state is ignored.
    pub fn complete(
        &mut self,
        now: Duration,
        permit: Permit,
        completion: Completion,
    ) -> Option<Change> {
        if permit.generation != self.generation {
            return None;
        }
        match &mut self.state {
            State::Closed(closed) => {
                if !closed.count(now, permit, completion, &self.config) {
                    return None;
                }
                // One that was closed for a moment goes on where it was: what answers now and then is not asked ten times a second.
                let longest = self.config.open(u32::MAX);
                let soon = |(_, at): &(u32, Duration)| now.saturating_sub(*at) < longest;
                let before = closed.before.filter(soon);
                let times = before.map_or(0, |(times, _)| times.saturating_add(1));
                self.open(now, times);
                Some(Change::Opened)
            }
            // An open one has given no permit of this generation.
            State::Open { .. } => None,
            State::Knocking { times, .. } => {
                let times = *times;
                match completion {
                    Completion::Answered => self.enter(State::HalfOpen {
                        times,
                        probes: 0,
                        late: 0,
                    }),
                    Completion::Failed | Completion::Late => {
                        self.open(now, times.saturating_add(1));
                    }
                    // Nobody asked after all: the next one does.
                    Completion::Nothing => self.enter(State::Open { until: now, times }),
                }
                None
            }
            State::HalfOpen {
                times,
                probes,
                late,
            } => {
                *probes = probes.saturating_sub(1);
                *late += u32::from(completion == Completion::Late);
                let is_too_late = *late >= self.config.failures_in_a_row();
                let times = *times;
                match completion {
                    Completion::Answered => {
                        self.enter(State::Closed(Closed {
                            before: Some((times, now)),
                            ..Closed::default()
                        }));
                        return Some(Change::Closed);
                    }
                    Completion::Late if !is_too_late => {}
                    Completion::Failed | Completion::Late => {
                        self.open(now, times.saturating_add(1));
                    }
                    Completion::Nothing => {}
                }
                None
            }
        }
    }

    fn permit(&self, at: Duration) -> Permit {
        Permit::of(self.generation, at)
    }

    fn enter(&mut self, state: State) {
        self.generation += 1;
        self.state = state;
    }

    fn open(&mut self, now: Duration, times: u32) {
        let whole = self.config.open(times);
        let half = whole / 2;
        let part = u32::try_from(self.draw() % 1_025).unwrap_or(0);
        let until = now.saturating_add(half + half * part / 1_024);
        self.enter(State::Open { until, times });
    }

    /// Splitmix64 (Steele, Lea and Flood, 2014).
    fn draw(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Permit {
    /// A permit of a generation, given `at` that time.
    pub(super) fn of(generation: u64, at: Duration) -> Self {
        Self { generation, at }
    }
}

impl Closed {
    /// Counts a completion; whether that is one failure too many.
    fn count(
        &mut self,
        now: Duration,
        permit: Permit,
        completion: Completion,
        config: &BreakerConfig,
    ) -> bool {
        match completion {
            Completion::Answered => {
                self.in_a_row = 0;
                self.answered = Some(now);
            }
            // Others were answered meanwhile: a packet that was held up, not a store that is gone.
            Completion::Failed | Completion::Late
                if self.answered.is_none_or(|answered| answered < permit.at) =>
            {
                self.in_a_row += 1;
            }
            Completion::Failed | Completion::Late => {}
            Completion::Nothing => return false,
        }
        let is_failure = completion == Completion::Failed;
        let rate = config
            .rate()
            .filter(|_| completion != Completion::Late)
            .is_some_and(|rate| self.counts.note(now, is_failure, rate));
        rate || self.in_a_row >= config.failures_in_a_row()
    }
}

impl Counts {
    /// Counts one call; whether too many of those in the window have failed.
    fn note(&mut self, now: Duration, is_failure: bool, rate: FailureRate) -> bool {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let part = nanos(rate.window) / PARTS as u64;
        let number = nanos(now) / part.max(1);
        let passed = number.saturating_sub(self.now);
        for skipped in 0..passed.min(PARTS as u64) {
            self.parts[slot(number - skipped)] = Part::default();
        }
        self.now = number.max(self.now);
        let part = &mut self.parts[slot(self.now)];
        part.calls = part.calls.saturating_add(1);
        part.failures = part.failures.saturating_add(u32::from(is_failure));
        // What is answered makes no share larger.
        if !is_failure {
            return false;
        }
        let sum = |of: fn(&Part) -> u32| self.parts.iter().map(|part| u64::from(of(part))).sum();
        let (calls, failures): (u64, u64) = (sum(|part| part.calls), sum(|part| part.failures));
        calls >= rate.calls.into() && failures * 100 >= calls * u64::from(rate.percent)
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number % PARTS as u64).unwrap_or(0)
}
