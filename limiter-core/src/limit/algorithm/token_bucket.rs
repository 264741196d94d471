//! Token bucket, exact in integers: what is missing from a full bucket is a debt, counted in
//! fractions of a token that every refill divides.
//!
//! The rate is `n` tokens per `p` time units, reduced by their greatest common divisor. A debt is
//! counted in `1/p` tokens, so a unit of time pays off exactly `n` and a token costs `p`; nothing is
//! ever rounded. The unit is the finest of 1 us, 1 ms and 1 s for which the numbers stay below 2^53.

use std::time::Duration;

use super::{Algorithm, Change, Written, check_limit, exact, finest_unit, invalid};
use crate::clock::{MAX_INTEGER, Timestamp};
use crate::error::Error;
use crate::limit::period::Period;
use crate::limit::store::Mark;

/// Every debt is paid off sooner (microseconds). Moments stay below 2^53 too: from today's date, half of
/// that is left.
const LONGEST: u64 = 1 << 52;

/// The numbers of [`Quota::token_bucket`](crate::limit::Quota::token_bucket).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    capacity: u64,
    refill: u64,
    period: Period,
    /// Microseconds in a time unit.
    unit: u64,
    /// `n`: what a unit of time pays off, in `1/p` tokens.
    gain: u64,
    /// `p`: what a token costs, in `1/p` tokens.
    token: u64,
}

/// A debt in `1/token` tokens, as of the moment `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucketState {
    token: u64,
    debt: u64,
    /// Microseconds since the epoch, at a boundary of the quota's unit.
    at: u64,
    /// Microseconds since the epoch at which the debt is paid off under the quota that wrote it; from
    /// then on the state may be dropped, so it says nothing under another quota either.
    full_at: u64,
    /// When the bucket was last full: a charge from before that was paid off, or forgotten by a reset.
    since: u64,
}

impl TokenBucket {
    pub(crate) fn new(capacity: u64, refill: u64, period: Period) -> Result<Self, Error> {
        check_limit("a token bucket's capacity", capacity)?;
        check_limit("a token bucket's refill", refill)?;
        let reduced = |length: u64| {
            let divisor = gcd(refill, length);
            (refill / divisor, length / divisor)
        };
        let unit = finest_unit(period.as_micros(), |length| {
            let (gain, token) = reduced(length);
            // Twice the capacity: settling a reservation may leave as much debt again.
            capacity
                .checked_mul(2)
                .and_then(|most| exact(most, token, gain))
                .is_some()
        })
        .ok_or_else(|| {
            invalid(format!(
                "a token bucket of {capacity} with {refill} per {period} is too large to count exactly; lower the capacity or round the rate"
            ))
        })?;
        let (gain, token) = reduced(period.as_micros() / unit);
        let longest = (2 * capacity * token).div_ceil(gain).checked_mul(unit);
        if longest.is_none_or(|micros| micros >= LONGEST) {
            return Err(invalid(format!(
                "a token bucket of {capacity} with {refill} per {period} takes more than 70 years to refill; raise the rate"
            )));
        }
        Ok(Self {
            capacity,
            refill,
            period,
            unit,
            gain,
            token,
        })
    }

    /// The most tokens that the bucket holds.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The tokens that come back every [`period`](Self::period).
    pub fn refill(&self) -> u64 {
        self.refill
    }

    /// The time in which [`refill`](Self::refill) tokens come back.
    pub fn period(&self) -> Period {
        self.period
    }

    /// Microseconds in the unit that time is counted in: 1, 1,000 or 1,000,000.
    pub fn unit_micros(&self) -> u64 {
        self.unit
    }

    /// `(n, p)`: a unit of time gives `n` fractions, of which a token has `p`.
    pub fn fractions(&self) -> (u64, u64) {
        (self.gain, self.token)
    }

    fn full(&self) -> u64 {
        self.capacity * self.token
    }

    /// The largest debt whose numbers and times are exact. A larger one can only come from a quota that
    /// is higher, and while old and new run side by side nothing less of it may be forgotten: what one
    /// forgets the other grants again. But what no quota writes denies no longer than this one can.
    fn largest_debt(&self, stored: &TokenBucketState) -> u64 {
        let most = 2 * self.full();
        if stored.full_at.saturating_sub(stored.at) >= LONGEST {
            return most;
        }
        let exact = MAX_INTEGER - self.full() - self.gain;
        let in_time = self.gain.saturating_mul(LONGEST / self.unit - 1);
        exact.min(in_time).max(most)
    }

    /// Units until a debt of `debt` is paid down to `target`.
    fn units_until(&self, debt: u64, target: u64) -> u64 {
        debt.saturating_sub(target).div_ceil(self.gain)
    }

    /// What of the debt at `mark` is not yet paid off, if every unit since paid for it. More must not be
    /// given back: the rest has flowed in already, and would be there twice. Nothing, if the bucket was full
    /// meanwhile, or if the clock stepped back behind the mark, so that nobody knows what was paid.
    fn still_owed(&self, mark: Mark, state: &TokenBucketState) -> u64 {
        let Some(time) = state.at.checked_sub(mark.at.as_micros()) else {
            return 0;
        };
        let debt = mark.number.min(2 * self.capacity) * self.token;
        let units = time / self.unit;
        if mark.at.as_micros() < state.since || units >= debt.div_ceil(self.gain) {
            return 0;
        }
        (debt - units * self.gain).min(state.debt)
    }

    /// What a life pays off, in `1/p` tokens; more than a full bucket if it does not matter how much more.
    fn paid_in(&self, life: Duration) -> u64 {
        let micros = u64::try_from(life.as_micros()).unwrap_or(u64::MAX);
        let units = micros.div_ceil(self.unit);
        units.saturating_mul(self.gain).min(self.full() + 1)
    }

    fn state(&self, debt: u64, at: u64, since: u64) -> TokenBucketState {
        TokenBucketState {
            token: self.token,
            debt,
            at,
            full_at: at + self.units_until(debt, 0) * self.unit,
            since,
        }
    }
}

impl TokenBucketState {
    /// A state that a store keeps as numbers: token, debt, at, full_at and since, as described at the fields. `None` if they are none.
    pub fn from_numbers([token, debt, at, full_at, since]: [u64; 5]) -> Option<Self> {
        let numbers = [token, debt, at, full_at, since];
        let is_state = token > 0 && numbers.iter().all(|number| *number <= MAX_INTEGER);
        is_state.then_some(Self {
            token,
            debt,
            at,
            full_at,
            since,
        })
    }

    pub(super) fn is_full(&self, now: Timestamp) -> bool {
        now.as_micros() >= self.full_at
    }
}

impl Algorithm for TokenBucket {
    type State = TokenBucketState;
    type View = TokenBucketState;

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn is_over(&self, stored: &TokenBucketState, now: Timestamp) -> bool {
        stored.is_full(now)
    }

    fn view(&self, stored: Option<&TokenBucketState>, now: Timestamp) -> TokenBucketState {
        let boundary = now.as_micros() - now.as_micros() % self.unit;
        let Some(state) = stored else {
            return self.state(0, boundary, boundary);
        };
        // A quota with other fractions: the debt is rounded up, so that a change grants nothing.
        let debt = rescale(state.debt, state.token, self.token).min(self.largest_debt(state));
        // Under a coarser unit the time counts from the next boundary, for the same reason. A clock
        // that stepped back pays nothing off.
        let since = state.at.next_multiple_of(self.unit);
        let units = boundary.saturating_sub(since) / self.unit;
        let debt = if units >= debt.div_ceil(self.gain) {
            0
        } else {
            debt - units * self.gain
        };
        let since = if debt == 0 { boundary } else { state.since };
        self.state(debt, boundary, since)
    }

    /// Time alone moves a debt along without changing when it is paid off. A clock that stepped back
    /// and another quota do, and then what is reported holds only if the state says so too.
    fn mends(&self, stored: &TokenBucketState, view: &TokenBucketState) -> bool {
        view.debt > 0 && view.full_at != stored.full_at
    }

    /// A debit is charged as of the end of its life: on what the bucket owes by now, or on what the life pays off, if
    /// that is more. So bucket and unspent debit together never exceed what the bucket alone may admit.
    fn debitable(
        &self,
        view: &TokenBucketState,
        _now: Timestamp,
        life: Duration,
    ) -> (u64, Duration) {
        let onto = view.debt.max(self.paid_in(life));
        (self.full().saturating_sub(onto) / self.token, life)
    }

    fn never_debits(&self, life: Duration) -> bool {
        self.paid_in(life) + self.token > self.full()
    }

    fn used(&self, view: &TokenBucketState, _now: Timestamp) -> u64 {
        view.debt.div_ceil(self.token)
    }

    fn wait(
        &self,
        _stored: Option<&TokenBucketState>,
        state: &TokenBucketState,
        now: Timestamp,
        cost: u64,
    ) -> Duration {
        let units = self.units_until(state.debt + cost * self.token, self.full());
        if units == 0 {
            return Duration::ZERO;
        }
        Duration::from_micros(state.at + units * self.unit - now.as_micros())
    }

    /// A charge is marked by the whole tokens of debt that it left: the refill pays debts off in the order
    /// in which they were made, so that is how long some of this charge is still owed.
    fn write(
        &self,
        _stored: Option<TokenBucketState>,
        state: TokenBucketState,
        _now: Timestamp,
        change: Change,
    ) -> Written<TokenBucketState> {
        match change {
            Change::Charge(cost) | Change::Debit(cost, _) => {
                let onto = match change {
                    Change::Debit(_, life) => state.debt.max(self.paid_in(life)),
                    _ => state.debt,
                };
                let debt = onto + cost * self.token;
                let state = self.state(debt, state.at, state.since);
                let mark = Mark {
                    at: Timestamp::from_micros(state.at),
                    number: state.debt / self.token,
                };
                Written::new(state, cost, mark)
            }
            Change::GiveBack(mark, cost) => {
                let owed = self.still_owed(mark, &state);
                let given = cost.min(self.capacity) * self.token;
                let given = given.min(owed);
                let state = self.state(state.debt - given, state.at, state.since);
                Written::new(state, given.div_ceil(self.token), mark)
            }
            Change::Overrun(mark, cost) => {
                // As much debt again as the bucket holds, and no more.
                let room = (2 * self.full()).saturating_sub(state.debt) / self.token;
                let taken = cost.min(room);
                let debt = state.debt + taken * self.token;
                let state = self.state(debt, state.at, state.since);
                Written::new(state, taken, mark)
            }
            _ => Written::without_effect(state),
        }
    }

    fn counts_until(&self, mark: Mark) -> Timestamp {
        let debt = mark.number.min(2 * self.capacity) * self.token;
        let micros = debt.div_ceil(self.gain) * self.unit;
        Timestamp::from_micros(mark.at.as_micros().saturating_add(micros))
    }
}

/// `ceil(debt * to / from)`.
fn rescale(debt: u64, from: u64, to: u64) -> u64 {
    if from == to {
        return debt;
    }
    let exact = (u128::from(debt) * u128::from(to)).div_ceil(u128::from(from));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
