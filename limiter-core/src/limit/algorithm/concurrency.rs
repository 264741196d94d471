//! Concurrency: so much is held at once, by leases that end by themselves if nobody renews them.
//!
//! A lease has an id, under which it is renewed, released and recognised when it is asked for again.

use std::time::Duration;

use super::{Algorithm, Change, Written, invalid};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::limit::store::Mark;

/// The largest limit of concurrency: each unit may be a lease of its own, and a denial reads those that it would have to
/// wait for, where their costs differ.
const MAX_LEASES: u64 = 1_000;

/// The numbers of [`Quota::concurrency`](crate::limit::Quota::concurrency).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Concurrency {
    limit: u64,
}

/// The leases of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConcurrencyState {
    leases: Vec<Lease>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) id: u128,
    pub(crate) cost: u64,
    pub(crate) expires: Timestamp,
}

impl Concurrency {
    pub(crate) fn new(limit: u64) -> Result<Self, Error> {
        if limit == 0 || limit > MAX_LEASES {
            return Err(invalid(format!(
                "a concurrency limit is {limit}; it must be 1 to {MAX_LEASES}, because every lease is kept"
            )));
        }
        Ok(Self { limit })
    }

    /// The most that is held at once.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

impl ConcurrencyState {
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.live(now).next().is_none()
    }

    pub(super) fn lease(&self, id: u128, now: Timestamp) -> Option<Lease> {
        self.live(now).find(|lease| lease.id == id).copied()
    }

    fn live(&self, now: Timestamp) -> impl Iterator<Item = &Lease> {
        self.leases.iter().filter(move |lease| lease.expires > now)
    }
}

impl Algorithm for Concurrency {
    type State = Box<ConcurrencyState>;
    /// What is held.
    type View = u64;

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn is_over(&self, stored: &Self::State, now: Timestamp) -> bool {
        stored.is_over(now)
    }

    fn view(&self, stored: Option<&Self::State>, now: Timestamp) -> u64 {
        stored.map_or(0, |state| state.live(now).map(|lease| lease.cost).sum())
    }

    fn mends(&self, _stored: &Self::State, _view: &u64) -> bool {
        false
    }

    /// Leases are taken, not debits.
    fn debitable(&self, _view: &u64, _now: Timestamp, life: Duration) -> (u64, Duration) {
        (0, life)
    }

    fn used(&self, view: &u64, _now: Timestamp) -> u64 {
        *view
    }

    /// The earliest moment at which enough leases have run out, if none is renewed.
    fn wait(
        &self,
        stored: Option<&Self::State>,
        view: &u64,
        now: Timestamp,
        cost: u64,
    ) -> Duration {
        let Some(mut excess) = (view + cost)
            .checked_sub(self.limit)
            .filter(|excess| *excess > 0)
        else {
            return Duration::ZERO;
        };
        let mut live: Vec<&Lease> = stored
            .into_iter()
            .flat_map(|state| state.live(now))
            .collect();
        live.sort_unstable_by_key(|lease| lease.expires);
        let mut until = now;
        for lease in live {
            until = lease.expires;
            excess = excess.saturating_sub(lease.cost);
            if excess == 0 {
                break;
            }
        }
        until.saturating_since(now)
    }

    fn write(
        &self,
        stored: Option<Self::State>,
        _view: u64,
        now: Timestamp,
        change: Change,
    ) -> Written<Self::State> {
        let mut state = stored.unwrap_or_default();
        state.leases.retain(|lease| lease.expires > now);
        let find =
            |state: &ConcurrencyState, id| state.leases.iter().position(|lease| lease.id == id);
        let mut amount = 0;
        match change {
            Change::Acquire(lease) => {
                state.leases.push(lease);
                amount = lease.cost;
            }
            Change::Renew(id, until) => {
                let lease = find(&state, id).and_then(|index| state.leases.get_mut(index));
                if let Some(lease) = lease {
                    lease.expires = lease.expires.max(until);
                    amount = lease.cost;
                }
            }
            Change::Release(id) => {
                if let Some(index) = find(&state, id) {
                    state.leases.remove(index);
                }
            }
            _ => {}
        }
        Written::new(state, amount, Mark::default())
    }

    /// Leases have ends of their own.
    fn counts_until(&self, mark: Mark) -> Timestamp {
        mark.at
    }
}
