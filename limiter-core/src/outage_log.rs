//! What is said of an outage: when it begins, once a second while it lasts, and when it is over.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;
use crate::limit::Source;

/// Counts what was answered without the store, and writes one line a second of it. Clones count together: give the limits and the
/// caches of a service one.
#[derive(Clone, Debug, Default)]
pub struct OutageLog(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Looked at by every call, so that calls of a store that is well take no lock.
    is_away: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outage: Option<Outage>,
    /// What was counted since the beginning.
    totals: [u64; KINDS.len()],
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    last_line: Instant,
    last_answer: Instant,
    /// Since the last line.
    lately: [u64; KINDS.len()],
    /// Since the outage began.
    whole: [u64; KINDS.len()],
}

/// What was answered without the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Substitute {
    /// A check was refused, because its policy denies in an outage.
    Denied,
    /// A check was allowed unseen, because its policy allows in an outage.
    Allowed,
    /// A check was decided by this process's share of the limit.
    Local,
    /// A cached value was not to be had: a miss.
    Missed,
    /// A counter of the cache was counted in this process.
    Counted,
}

const KINDS: [Substitute; 5] = [
    Substitute::Denied,
    Substitute::Allowed,
    Substitute::Local,
    Substitute::Missed,
    Substitute::Counted,
];

impl Substitute {
    /// Which rule admitted or denied, if one did.
    pub(crate) fn of(source: Source, seen: bool, degraded: bool) -> Option<Self> {
        match source {
            _ if !degraded => None,
            Source::Outage => Some(Self::Allowed),
            _ => seen.then_some(Self::Local),
        }
    }

    /// A stable lower-case name for logs and metrics: `denied`, `allowed`, `local`, `missed`, `counted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Allowed => "allowed",
            Self::Local => "local",
            Self::Missed => "missed",
            Self::Counted => "counted",
        }
    }
}

/// Between two lines, and without a substitute before the outage counts as over.
const PAUSE: Duration = Duration::from_secs(1);

impl OutageLog {
    /// Nothing was substituted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A call was answered in the store's place, which had met `error`.
    pub fn note(&self, what: Substitute, error: &Error) {
        let now = Instant::now();
        let mut state = self.lock();
        let index = what as usize;
        state.totals[index] += 1;
        let Some(outage) = &mut state.outage else {
            let mut counts = [0; KINDS.len()];
            counts[index] = 1;
            state.outage = Some(Outage {
                since: now,
                last_line: now,
                last_answer: now,
                lately: [0; KINDS.len()],
                whole: counts,
            });
            self.0.is_away.store(true, Ordering::Relaxed);
            drop(state);
            tracing::warn!(
                rule = what.as_str(),
                %error,
                "the store does not answer: the rules for outages decide"
            );
            return;
        };
        outage.last_answer = now;
        outage.whole[index] += 1;
        outage.lately[index] += 1;
        if now - outage.last_line < PAUSE {
            return;
        }
        outage.last_line = now;
        let lately = Counts(std::mem::take(&mut outage.lately));
        drop(state);
        tracing::warn!(%error, "without the store, since the last line: {lately}");
    }

    /// The store has answered a call.
    pub fn note_answer(&self) {
        if !self.0.is_away.load(Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        // While some calls are answered and some are not, it is not over.
        let is_over = |outage: &mut Outage| now - outage.last_answer >= PAUSE;
        let Some(outage) = state.outage.take_if(is_over) else {
            return;
        };
        self.0.is_away.store(false, Ordering::Relaxed);
        drop(state);
        let away = outage.last_answer - outage.since;
        tracing::info!(
            "the store answers again; without it, in {:.1} s: {}",
            away.as_secs_f64(),
            Counts(outage.whole)
        );
    }

    /// How many calls were answered without the store so far, in the order of the words.
    pub fn totals(&self) -> impl Iterator<Item = (Substitute, u64)> {
        let totals = self.lock().totals;
        KINDS.into_iter().zip(totals)
    }

    /// For how long calls have been answered without the store; `None` while it answers.
    pub fn degraded_since(&self) -> Option<Duration> {
        let state = self.lock();
        state.outage.as_ref().map(|outage| outage.since.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// "12 denied, 3 local".
struct Counts([u64; KINDS.len()]);

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = KINDS.into_iter().zip(self.0);
        let mut separator = "";
        for (kind, count) in counts.filter(|(_, count)| *count > 0) {
            write!(f, "{separator}{count} {}", kind.as_str())?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_over_when_nothing_was_substituted_for_a_second() {
        let log = OutageLog::new();
        let error = Error::new(ErrorKind::Connection, "limit.apply", "refused");
        let pause = PAUSE / 2;
        for _ in 0..10 {
            log.note(Substitute::Denied, &error);
            tokio::time::advance(pause).await;
            log.note_answer();
        }
        assert_eq!(log.degraded_since(), Some(10 * pause));
        tokio::time::advance(pause).await;
        log.note_answer();
        assert_eq!(log.degraded_since(), None);
        let denied = log.totals().next();
        assert_eq!(denied, Some((Substitute::Denied, 10)));
    }

    #[test]
    fn counts_read_well() {
        assert_eq!(Counts([2, 0, 1, 0, 0]).to_string(), "2 denied, 1 local");
    }
}
