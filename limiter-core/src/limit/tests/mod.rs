//! Tests of this module's types and of `apply_group`. Expected values are written out, or follow from the
//! definitions of docs/algorithms.md, never from the code's own formulas.

mod actions;
mod bucket;
mod decisions;
mod groups;
mod leases;
mod log;
mod outages;
mod quotas;
mod states;
mod windows;

use std::time::Duration;

use super::algorithm::{self, Change, State};
use super::{Mark, Observed, Quota, Verdict};
use crate::clock::Timestamp;

/// 2026-11-21 00:00:00 UTC, in seconds: a Saturday's midnight, so also the start of a minute and an hour.
const MIDNIGHT: u64 = 1_795_219_200;

/// So many seconds after midnight.
fn at(seconds: f64) -> Timestamp {
    Timestamp::from_micros(MIDNIGHT * 1_000_000).saturating_add(Duration::from_secs_f64(seconds))
}

/// The state of one key, under whichever quota it is asked.
#[derive(Clone, Default)]
struct One(Option<State>);

impl One {
    fn charge(&mut self, quota: &Quota, now: Timestamp, cost: u64) -> Observed {
        let (state, observed) = algorithm::charge(quota, self.0.take(), now, cost);
        self.0 = state;
        observed
    }

    /// The mark of a charge that is admitted.
    fn take(&mut self, quota: &Quota, now: Timestamp, cost: u64) -> Mark {
        let charged = self.charge(quota, now, cost);
        assert!(charged.is_admitted(), "{charged:?}");
        charged.mark
    }

    /// What could be done of the change.
    fn change(&mut self, quota: &Quota, now: Timestamp, change: Change) -> u64 {
        let changed = algorithm::change(quota, self.0.take(), now, change);
        self.0 = changed.state;
        changed.amount
    }

    fn used(&self, quota: &Quota, now: Timestamp) -> u64 {
        algorithm::look(quota, self.0.as_ref(), now, 0).used
    }

    /// Until `cost` is admitted.
    fn wait(&self, quota: &Quota, now: Timestamp, cost: u64) -> Duration {
        match algorithm::look(quota, self.0.as_ref(), now, cost).verdict {
            Verdict::Admit => Duration::ZERO,
            Verdict::Deny { retry_after } => retry_after,
            verdict => panic!("{cost} does not fit into {quota}: {verdict:?}"),
        }
    }

    fn is_fresh(&self, now: Timestamp) -> bool {
        self.0.as_ref().is_none_or(|state| state.is_fresh(now))
    }
}
