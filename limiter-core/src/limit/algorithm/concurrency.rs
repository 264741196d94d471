//! Concurrency: so much is held at once, by leases that end by themselves if nobody renews them.
//!
//! A lease has an id, under which it is renewed, released and recognised when it is asked for again.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use super::{Algorithm, Change, Written, invalid};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::limit::store::Mark;

/// The largest limit of concurrency: each unit may be a lease of its own, which takes memory until it ends.
const MAX_LEASES: u64 = 10_000;
/// How many leases a denial looks at, where their costs differ.
const LOOKED_AT: usize = 24;

/// The numbers of [`Quota::concurrency`](crate::limit::Quota::concurrency).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Concurrency {
    limit: u64,
}

/// The leases of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConcurrencyState {
    leases: HashMap<u128, Lease>,
    /// Their ends, the earliest first.
    ends: BTreeSet<(Timestamp, u128)>,
    /// What all of them cost.
    total: u64,
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
        self.ends.last().is_none_or(|(expires, _)| *expires <= now)
    }

    pub(super) fn lease(&self, id: u128, now: Timestamp) -> Option<Lease> {
        let lease = self.leases.get(&id).copied();
        lease.filter(|lease| lease.expires > now)
    }

    /// What those cost that have not run out.
    fn held(&self, now: Timestamp) -> u64 {
        let gone = self.ends.range(..=(now, u128::MAX));
        let gone = gone.filter_map(|(_, id)| self.leases.get(id));
        self.total - gone.map(|lease| lease.cost).sum::<u64>()
    }

    fn put(&mut self, lease: Lease) {
        self.remove(lease.id);
        self.total += lease.cost;
        self.ends.insert((lease.expires, lease.id));
        self.leases.insert(lease.id, lease);
    }

    fn remove(&mut self, id: u128) {
        if let Some(lease) = self.leases.remove(&id) {
            self.total -= lease.cost;
            self.ends.remove(&(lease.expires, id));
        }
    }

    fn forget_gone(&mut self, now: Timestamp) {
        while let Some((expires, id)) = self.ends.first().copied() {
            if expires > now {
                break;
            }
            self.remove(id);
        }
    }

    /// The earliest moment at which so many units are free again, if none is renewed; or a later one, where costs differ and
    /// more leases have to end than are looked at: then each of the others counts for one unit.
    fn freed(&self, now: Timestamp, held: u64, mut units: u64) -> Timestamp {
        let last = self.ends.last().map_or(now, |(expires, _)| *expires);
        if units >= held {
            return last;
        }
        let mut living = self.ends.range((Excluded((now, u128::MAX)), Unbounded));
        for (expires, id) in living.by_ref().take(LOOKED_AT) {
            let cost = self.leases.get(id).map_or(0, |lease| lease.cost);
            units = units.saturating_sub(cost);
            if units == 0 {
                return *expires;
            }
        }
        let others = usize::try_from(units - 1).ok();
        let other = others.and_then(|others| living.nth(others));
        other.map_or(last, |(expires, _)| *expires)
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
        stored.map_or(0, |state| state.held(now))
    }

    /// Where costs differ, what has run out costs a store time at each look.
    fn mends(&self, stored: &Self::State, view: &u64) -> bool {
        stored.total > *view && stored.total > stored.leases.len() as u64
    }

    /// Leases are taken, not debits.
    fn debitable(&self, _view: &u64, _now: Timestamp, life: Duration) -> (u64, Duration) {
        (0, life)
    }

    fn used(&self, view: &u64, _now: Timestamp) -> u64 {
        *view
    }

    /// Until enough leases have run out, if none is renewed.
    fn wait(
        &self,
        stored: Option<&Self::State>,
        view: &u64,
        now: Timestamp,
        cost: u64,
    ) -> Duration {
        let excess = (view + cost).saturating_sub(self.limit);
        match stored {
            Some(state) if excess > 0 => state.freed(now, *view, excess).saturating_since(now),
            _ => Duration::ZERO,
        }
    }

    fn write(
        &self,
        stored: Option<Self::State>,
        _view: u64,
        now: Timestamp,
        change: Change,
    ) -> Written<Self::State> {
        let mut state = stored.unwrap_or_default();
        state.forget_gone(now);
        let mut amount = 0;
        match change {
            Change::Acquire(lease) => {
                state.put(lease);
                amount = lease.cost;
            }
            Change::Renew(id, until) => {
                if let Some(lease) = state.lease(id, now) {
                    let expires = lease.expires.max(until);
                    state.put(Lease { expires, ..lease });
                    amount = lease.cost;
                }
            }
            Change::Release(id) => state.remove(id),
            _ => {}
        }
        Written::new(state, amount, Mark::default())
    }

    /// Leases have ends of their own.
    fn counts_until(&self, mark: Mark) -> Timestamp {
        mark.at
    }
}
