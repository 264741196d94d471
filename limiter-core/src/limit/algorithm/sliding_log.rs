//! Sliding window log: every charge with its time. Exact: never more than the limit in any span of one
//! window's length.
//!
//! The price is memory and time that grow with the limit, so the limit is at most [`MAX_LOG`]. Above it
//! the sliding window counter and the token bucket keep a few numbers a key.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Algorithm, COUNT_BOUND, Change, Written, invalid};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::limit::period::Period;
use crate::limit::store::Mark;

/// The largest limit of a sliding log: each unit may be an entry of its own, and what gives back rewrites the entries
/// made since.
pub const MAX_LOG: u64 = 1_000;

/// The numbers of [`Quota::sliding_log`](crate::limit::Quota::sliding_log).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlidingLog {
    limit: u64,
    window: Period,
}

/// The charges of the last window, oldest first, under the window's length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlidingLogState {
    /// Microseconds.
    window: u64,
    /// The next entry's number.
    next: u64,
    /// When the newest charge was made, also after it was given back: time in the log does not go back.
    last: u64,
    /// The latest date that an entry was given, which for a debit is the end of its life.
    dated: u64,
    sum: u64,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: u64,
    number: u64,
    cost: u64,
}

/// A log as of a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// At least when the newest charge was made: a clock that stepped back frees nothing.
    now: u64,
    /// How many entries have left the window.
    gone: usize,
    /// What the others cost.
    sum: u64,
    /// The newest entry's date.
    last: u64,
    /// No new entry is dated before this, so that they leave in their order.
    dated: u64,
}

impl SlidingLog {
    pub(crate) fn new(limit: u64, window: Period) -> Result<Self, Error> {
        if limit == 0 || limit > MAX_LOG {
            return Err(invalid(format!(
                "a sliding log's limit is {limit}; it must be 1 to {MAX_LOG}, because every charge is kept; for more take a sliding window or a token bucket"
            )));
        }
        Ok(Self { limit, window })
    }

    /// The most in any span of one window's length.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How long a charge counts.
    pub fn window(&self) -> Period {
        self.window
    }
}

impl SlidingLogState {
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now.as_micros() >= self.dated + self.window
    }
}

impl Algorithm for SlidingLog {
    type State = Box<SlidingLogState>;
    type View = View;

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn is_over(&self, stored: &Self::State, now: Timestamp) -> bool {
        stored.is_over(now)
    }

    fn view(&self, stored: Option<&Self::State>, now: Timestamp) -> View {
        let fresh = View {
            now: now.as_micros(),
            gone: 0,
            sum: 0,
            last: 0,
            dated: 0,
        };
        let Some(log) = stored else { return fresh };
        // Under a changed window, what has left either of the two is gone.
        let window = self.window.as_micros().min(log.window);
        let now = fresh.now.max(log.last);
        let gone = log
            .entries
            .iter()
            .take_while(|entry| entry.at + window <= now);
        let (gone, cost) = gone.fold((0, 0), |(gone, cost), entry| (gone + 1, cost + entry.cost));
        View {
            now,
            gone,
            sum: log.sum - cost,
            last: log.entries.back().map_or(0, |entry| entry.at),
            dated: log.entries.back().map_or(0, |entry| entry.at),
        }
    }

    fn debitable(&self, view: &View, _now: Timestamp, life: Duration) -> (u64, Duration) {
        (self.limit.saturating_sub(view.sum), life)
    }

    /// Entries that go on under a window of another length.
    fn mends(&self, stored: &Self::State, view: &View) -> bool {
        stored.window != self.window.as_micros() && view.sum > 0
    }

    fn used(&self, view: &View, _now: Timestamp) -> u64 {
        view.sum
    }

    fn wait(
        &self,
        stored: Option<&Self::State>,
        view: &View,
        now: Timestamp,
        cost: u64,
    ) -> Duration {
        let Some(mut excess) = (view.sum + cost)
            .checked_sub(self.limit)
            .filter(|excess| *excess > 0)
        else {
            return Duration::ZERO;
        };
        let live = stored
            .into_iter()
            .flat_map(|log| log.entries.iter().skip(view.gone));
        let mut at = view.last;
        for entry in live {
            at = entry.at;
            excess = excess.saturating_sub(entry.cost);
            if excess == 0 {
                break;
            }
        }
        Duration::from_micros(at + self.window.as_micros() - now.as_micros())
    }

    /// A charge is marked by its entry's time and number.
    fn write(
        &self,
        stored: Option<Self::State>,
        view: View,
        _now: Timestamp,
        change: Change,
    ) -> Written<Self::State> {
        let mut log = stored.unwrap_or_default();
        log.entries.drain(..view.gone);
        log.sum = view.sum;
        log.window = self.window.as_micros();
        let find = |log: &mut SlidingLogState, mark: Mark| {
            let position = log
                .entries
                .iter()
                .position(|entry| entry.number == mark.number && entry.at == mark.at.as_micros());
            position.and_then(|index| Some((index, *log.entries.get(index)?)))
        };
        match change {
            Change::Charge(cost) | Change::Debit(cost, _) => {
                let life = match change {
                    Change::Debit(_, life) => life,
                    _ => Duration::ZERO,
                };
                let made = Timestamp::from_micros(view.now);
                let entry = Entry {
                    at: made.saturating_add(life).as_micros().max(view.dated),
                    number: log.next,
                    cost,
                };
                log.entries.push_back(entry);
                log.next += 1;
                log.last = view.now;
                log.dated = log.dated.max(entry.at);
                log.sum += cost;
                let mark = Mark {
                    at: Timestamp::from_micros(entry.at),
                    number: entry.number,
                };
                Written::new(log, cost, mark)
            }
            Change::GiveBack(mark, cost) => {
                let Some((index, entry)) = find(&mut log, mark) else {
                    return Written::without_effect(log);
                };
                let given = cost.min(entry.cost);
                log.sum -= given;
                if given == entry.cost {
                    log.entries.remove(index);
                } else if let Some(entry) = log.entries.get_mut(index) {
                    entry.cost -= given;
                }
                Written::new(log, given, mark)
            }
            Change::Overrun(mark, cost) => {
                let Some((index, _)) = find(&mut log, mark) else {
                    return Written::without_effect(log);
                };
                let taken = cost.min(COUNT_BOUND - log.sum);
                log.sum += taken;
                if let Some(entry) = log.entries.get_mut(index) {
                    entry.cost += taken;
                }
                Written::new(log, taken, mark)
            }
            _ => Written::without_effect(log),
        }
    }

    fn counts_until(&self, mark: Mark) -> Timestamp {
        Timestamp::from_micros(mark.at.as_micros().saturating_add(self.window.as_micros()))
    }
}
