//! The algorithms: pure functions of a state, a quota and a time. No I/O, no clock.
//!
//! Each algorithm answers a few questions about its state (the trait `Algorithm`); the functions of
//! this module derive the verdict, what is used, `retry_after` and `reset_after` from them, for all
//! algorithms alike. An in-process store keeps [`State`]s and calls
//! [`apply_group`](crate::limit::apply_group), which is made of them; the Redis scripts mirror these modules
//! file by file, and a differential test holds the two equal.

mod calendar_window;
mod concurrency;
mod fixed_window;
mod number;
mod sliding_log;
mod sliding_window;
mod state;
mod token_bucket;

use std::time::Duration;

use crate::clock::Timestamp;
use crate::limit::quota::Quota;
use crate::limit::store::{Mark, Observed, Source, Verdict};

pub use calendar_window::{Calendar, CalendarWindow};
pub use concurrency::{Concurrency, ConcurrencyState};
pub use fixed_window::{FixedWindow, FixedWindowState};
pub use sliding_log::{MAX_LOG, SlidingLog, SlidingLogState};
pub use sliding_window::{SlidingWindow, SlidingWindowState};
pub use state::State;
pub use token_bucket::{TokenBucket, TokenBucketState};

pub(in crate::limit) use concurrency::Lease;
pub(in crate::limit) use number::LIMIT_BOUND;
use number::{COUNT_BOUND, check_limit, exact, finest_unit, invalid};

/// What one algorithm knows. Costs are in `1..=capacity`, except where something is given back or
/// overruns.
trait Algorithm {
    /// What is stored.
    type State;
    /// The stored state as of a moment: what has run out is gone, what a changed quota or a clock that
    /// stepped back makes impossible is mended.
    type View;

    fn capacity(&self) -> u64;

    /// Whether the state says no more than a missing one, and is taken for none.
    fn is_over(&self, stored: &Self::State, now: Timestamp) -> bool;

    /// Idempotent. The stored state is not over.
    fn view(&self, stored: Option<&Self::State>, now: Timestamp) -> Self::View;

    /// Whether a charge, even one that is denied, keeps the view as the state: the stored one means
    /// something else by now, and the reported time to wait counts on that.
    fn mends(&self, stored: &Self::State, view: &Self::View) -> bool;

    /// How much of the capacity is taken.
    fn used(&self, view: &Self::View, now: Timestamp) -> u64;

    /// How long until `cost` alone is admitted; zero if it is now.
    fn wait(
        &self,
        stored: Option<&Self::State>,
        view: &Self::View,
        now: Timestamp,
        cost: u64,
    ) -> Duration;

    /// How much a debit of such a life may take, and how long it lives: less than asked for where the charge ends
    /// sooner.
    fn debitable(&self, view: &Self::View, now: Timestamp, life: Duration) -> (u64, Duration);

    /// Whether a debit of such a life takes nothing even of a fresh state.
    fn never_debits(&self, _life: Duration) -> bool {
        false
    }

    /// The view as a state, with `change` made. What could be done of the change is reported: how much
    /// was charged or given back, and where a charge stands.
    fn write(
        &self,
        stored: Option<Self::State>,
        view: Self::View,
        now: Timestamp,
        change: Change,
    ) -> Written<Self::State>;

    /// When a charge at `mark` no longer counts, so that it need not be remembered.
    fn counts_until(&self, mark: Mark) -> Timestamp;
}

/// A change of a state, which cannot be denied any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::limit) enum Change {
    /// The view becomes the state.
    Keep,
    /// An admitted charge.
    Charge(u64),
    /// An admitted charge that is dated at the end of a life.
    Debit(u64, Duration),
    /// A charge is given back, in part or whole, as far as it still counts.
    GiveBack(Mark, u64),
    /// A charge turns out larger.
    Overrun(Mark, u64),
    /// A lease is taken.
    Acquire(Lease),
    /// A lease lives until then at least.
    Renew(u128, Timestamp),
    /// A lease ends.
    Release(u128),
}

/// The state after a change.
struct Written<S> {
    state: S,
    /// What was charged, given back or held.
    amount: u64,
    mark: Mark,
}

impl<S> Written<S> {
    fn new(state: S, amount: u64, mark: Mark) -> Self {
        Self {
            state,
            amount,
            mark,
        }
    }

    fn without_effect(state: S) -> Self {
        Self::new(state, 0, Mark::default())
    }
}

/// What became of a change.
pub(in crate::limit) struct Changed {
    pub(in crate::limit) state: Option<State>,
    pub(in crate::limit) amount: u64,
    pub(in crate::limit) mark: Mark,
}

impl Changed {
    fn without_effect(state: Option<State>) -> Self {
        Self {
            state,
            amount: 0,
            mark: Mark::default(),
        }
    }
}

/// The algorithm of a state that counts and is not the quota's: a policy that meets it is misused. Fixed and calendar
/// windows share their state.
pub(in crate::limit) fn stranger(
    quota: &Quota,
    state: Option<&State>,
    now: Timestamp,
) -> Option<&'static str> {
    let state = state?;
    let own = matches!(
        (quota, state),
        (
            Quota::FixedWindow(_) | Quota::CalendarWindow(_),
            State::FixedWindow(_)
        ) | (Quota::SlidingWindow(_), State::SlidingWindow(_))
            | (Quota::SlidingLog(_), State::SlidingLog(_))
            | (Quota::TokenBucket(_), State::TokenBucket(_))
            | (Quota::Concurrency(_), State::Concurrency(_))
    );
    (!own && !state.is_fresh(now)).then(|| state.algorithm())
}

/// Runs `$body` with a quota's numbers and the matching part of a state, owned or borrowed. What does not
/// count is not `$stored` but `$rest`: a state of another algorithm, and one that is over, which a store
/// may have dropped by now.
macro_rules! dispatch {
    ($quota:expr, $state:expr, $now:expr, |$q:ident, $stored:ident, $rest:ident, $wrap:ident| $body:expr) => {
        match $quota {
            Quota::FixedWindow($q) => {
                dispatch!($state, $now, FixedWindow, $q, $stored, $rest, $wrap, $body)
            }
            Quota::CalendarWindow($q) => {
                dispatch!($state, $now, FixedWindow, $q, $stored, $rest, $wrap, $body)
            }
            Quota::SlidingWindow($q) => {
                dispatch!(
                    $state,
                    $now,
                    SlidingWindow,
                    $q,
                    $stored,
                    $rest,
                    $wrap,
                    $body
                )
            }
            Quota::SlidingLog($q) => {
                dispatch!($state, $now, SlidingLog, $q, $stored, $rest, $wrap, $body)
            }
            Quota::TokenBucket($q) => {
                dispatch!($state, $now, TokenBucket, $q, $stored, $rest, $wrap, $body)
            }
            Quota::Concurrency($q) => {
                dispatch!($state, $now, Concurrency, $q, $stored, $rest, $wrap, $body)
            }
        }
    };
    ($state:expr, $now:expr, $variant:ident, $q:ident, $stored:ident, $rest:ident, $wrap:ident, $body:expr) => {{
        let ($stored, $rest) = match $state {
            Some(State::$variant(state)) if !$q.is_over(&state, $now) => (Some(state), None),
            other => (None, other),
        };
        let $wrap = State::$variant;
        $body
    }};
}

/// Whether `cost` would be admitted now, and what is used. A cost of 0 always is.
pub fn look(quota: &Quota, state: Option<&State>, now: Timestamp, cost: u64) -> Observed {
    dispatch!(quota, state, now, |quota, stored, _rest, _wrap| {
        let view = quota.view(stored, now);
        observe(quota, stored, &view, now, cost)
    })
}

/// What a debit of at most so much would take now, and its life; and what is used.
pub(in crate::limit) fn look_debit(
    quota: &Quota,
    state: Option<&State>,
    now: Timestamp,
    at_most: u64,
    life: Duration,
) -> (u64, Observed) {
    dispatch!(quota, state, now, |quota, stored, _rest, _wrap| {
        let view = quota.view(stored, now);
        let mut observed = observe(quota, stored, &view, now, 1);
        let (free, life) = quota.debitable(&view, now, life);
        let take = free.min(at_most);
        observed.verdict = if take > 0 {
            observed.life = life;
            Verdict::Admit
        } else if quota.never_debits(life) {
            Verdict::Never
        } else {
            observed.verdict
        };
        (take, observed)
    })
}

/// Charges `cost` if it is admitted now. Pure: gives the state to keep, which is the given one unless
/// something was charged or had to be mended.
pub fn charge(
    quota: &Quota,
    state: Option<State>,
    now: Timestamp,
    cost: u64,
) -> (Option<State>, Observed) {
    dispatch!(quota, state, now, |quota, stored, rest, wrap| {
        let view = quota.view(stored.as_ref(), now);
        let mut observed = observe(quota, stored.as_ref(), &view, now, cost);
        let mends = stored
            .as_ref()
            .is_some_and(|stored| quota.mends(stored, &view));
        if cost == 0 || !(observed.is_admitted() || mends) {
            return (stored.map(wrap).or(rest), observed);
        }
        if !observed.is_admitted() {
            let state = quota.write(stored, view, now, Change::Keep).state;
            return (Some(wrap(state)), observed);
        }
        let written = quota.write(stored, view, now, Change::Charge(cost));
        let view = quota.view(Some(&written.state), now);
        observed.used = quota.used(&view, now);
        observed.reset_after = quota.wait(Some(&written.state), &view, now, quota.capacity());
        (
            Some(wrap(written.state)),
            observed.with_charge(written.amount, written.mark),
        )
    })
}

/// Makes a change that was decided before.
pub(in crate::limit) fn change(
    quota: &Quota,
    state: Option<State>,
    now: Timestamp,
    change: Change,
) -> Changed {
    dispatch!(quota, state, now, |quota, stored, rest, wrap| {
        let takes = matches!(
            change,
            Change::Charge(_) | Change::Debit(..) | Change::Overrun(..) | Change::Acquire(_)
        );
        let adjusts = matches!(change, Change::GiveBack(..) | Change::Overrun(..));
        let view = quota.view(stored.as_ref(), now);
        let wanted = match &stored {
            // Only what takes something creates a state.
            None => takes,
            Some(stored) => change != Change::Keep || quota.mends(stored, &view),
        };
        if !wanted {
            return Changed::without_effect(stored.map(wrap).or(rest));
        }
        // What moves nothing writes nothing: it must not open a window, nor tell whether a store still
        // held what is over.
        let before = adjusts.then(|| copy_of(stored.as_ref())).flatten();
        let existed = stored.is_some();
        let written = quota.write(stored, view, now, change);
        if written.amount == 0 && (adjusts || !existed) {
            return Changed::without_effect(before.map(wrap).or(rest));
        }
        Changed {
            state: Some(wrap(written.state)),
            amount: written.amount,
            mark: written.mark,
        }
    })
}

fn copy_of<S: Clone>(state: Option<&S>) -> Option<S> {
    state.cloned()
}

/// When a charge at `mark` no longer counts.
pub(in crate::limit) fn counts_until(quota: &Quota, mark: Mark) -> Timestamp {
    match quota {
        Quota::FixedWindow(quota) => quota.counts_until(mark),
        Quota::CalendarWindow(quota) => quota.counts_until(mark),
        Quota::SlidingWindow(quota) => quota.counts_until(mark),
        Quota::SlidingLog(quota) => quota.counts_until(mark),
        Quota::TokenBucket(quota) => quota.counts_until(mark),
        Quota::Concurrency(quota) => quota.counts_until(mark),
    }
}

/// The live lease of a state, if it holds one of that id.
pub(in crate::limit) fn lease(state: Option<&State>, id: u128, now: Timestamp) -> Option<Lease> {
    match state {
        Some(State::Concurrency(state)) => state.lease(id, now),
        _ => None,
    }
}

fn observe<A: Algorithm>(
    quota: &A,
    stored: Option<&A::State>,
    view: &A::View,
    now: Timestamp,
    cost: u64,
) -> Observed {
    let verdict = if cost == 0 {
        Verdict::Admit
    } else if cost > quota.capacity() {
        Verdict::Never
    } else {
        match quota.wait(stored, view, now, cost) {
            Duration::ZERO => Verdict::Admit,
            retry_after => Verdict::Deny { retry_after },
        }
    };
    let used = quota.used(view, now);
    let reset_after = quota.wait(stored, view, now, quota.capacity());
    Observed::new(verdict, used, reset_after, Source::Store)
}
