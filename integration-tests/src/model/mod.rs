//! Each limit again, from its definition: an explicit list of what was admitted, and no formula of the
//! implementation's. What a store answers is compared with it.
//!
//! Times to wait are found by search: the first moment at which the same request is admitted.

mod concurrency;
mod plan;
mod record;
mod sliding_counter;
mod sliding_log;
mod token_bucket;
mod windows;
mod world;

use std::fmt::Debug;
use std::time::Duration;

use limiter_core::limit::Quota;

use concurrency::Leases;
use sliding_counter::SlidingCounter;
use sliding_log::SlidingLog;
use token_bucket::TokenBucket;
use windows::Windows;

pub use windows::unit_end as calendar_end;
pub use world::{Answer, Seen, World};

/// Names a charge of the model.
pub type Serial = u64;

/// What one key holds, by its algorithm's definition. Moments are microseconds since the epoch.
trait Definition: Debug + Send + Sync {
    fn boxed(&self) -> Box<dyn Definition>;

    fn capacity(&self) -> u64;

    /// The grain of times to wait, in microseconds.
    fn grain(&self) -> u64 {
        1
    }

    /// How much of the capacity is taken at a moment, if nothing more is asked before.
    fn used(&self, at: u64) -> u64;

    /// How much a debit of such a life (us) may take, and how long (us) it lives.
    fn debitable(&self, now: u64, life: u64) -> (u64, u64) {
        (self.capacity().saturating_sub(self.used(now)), life)
    }

    /// Whether a debit of such a life (us) takes nothing even of what was never charged.
    fn never_debits(&self, _life: u64) -> bool {
        false
    }

    /// An admitted debit: a charge that is made now and dated at the end of a life (us).
    fn debit(&mut self, now: u64, serial: Serial, cost: u64, _life: u64) {
        self.charge(now, serial, cost);
    }

    /// What a charge is dated, if it is not when it was made.
    fn date(&self, _serial: Serial) -> Option<u64> {
        None
    }

    /// The clock was read: one that stepped back moves what time alone would have freed.
    fn look(&mut self, now: u64);

    /// A request was denied.
    fn denied(&mut self, _now: u64) {}

    /// An admitted charge.
    fn charge(&mut self, _now: u64, _serial: Serial, _cost: u64) {
        unreachable!("this quota takes leases");
    }

    /// Gives a charge back, as far as it still counts; how much that is.
    fn give_back(&mut self, _now: u64, _serial: Serial, _amount: u64) -> u64 {
        0
    }

    /// A charge turns out larger; by how much is charged.
    fn overrun(&mut self, _now: u64, _serial: Serial, _amount: u64) -> u64 {
        0
    }

    /// When a charge counts no more, however much of it stands.
    fn counts_until(&self, _serial: Serial) -> u64 {
        unreachable!("this quota takes leases");
    }

    /// The leases of a concurrency limit.
    fn leases(&mut self) -> Option<&mut Leases> {
        None
    }

    fn admits(&self, at: u64, cost: u64) -> bool {
        self.used(at) + cost <= self.capacity()
    }
}

impl Clone for Box<dyn Definition> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

fn definition(quota: &Quota) -> Box<dyn Definition> {
    match quota {
        Quota::FixedWindow(quota) => Box::new(Windows::fixed(quota)),
        Quota::CalendarWindow(quota) => Box::new(Windows::calendar(quota)),
        Quota::SlidingWindow(quota) => Box::new(SlidingCounter::new(quota)),
        Quota::SlidingLog(quota) => Box::new(SlidingLog::new(quota)),
        Quota::TokenBucket(quota) => Box::new(TokenBucket::new(quota)),
        Quota::Concurrency(quota) => Box::new(Leases::new(quota)),
        other => unreachable!("no model of {other}"),
    }
}

/// How long until `cost` is admitted, by search. It is at some time: `cost` is within the capacity.
fn wait(limit: &dyn Definition, now: u64, cost: u64) -> Duration {
    let mut limit = limit.boxed();
    limit.look(now);
    let grain = limit.grain();
    let admits = |grains: u64| limit.admits(now + grains * grain, cost);
    if admits(0) {
        return Duration::ZERO;
    }
    let (mut denied, mut admitted) = (0, 1);
    while !admits(admitted) {
        (denied, admitted) = (admitted, admitted * 2);
        assert!(admitted < 1 << 55, "never admitted: {cost} of {limit:?}");
    }
    while admitted - denied > 1 {
        let middle = denied + (admitted - denied) / 2;
        if admits(middle) {
            admitted = middle;
        } else {
            denied = middle;
        }
    }
    Duration::from_micros(admitted * grain)
}

/// The finest of a microsecond, a millisecond and a second that divides `length` (microseconds) and for
/// which the largest number of the arithmetic, `largest(length in units)`, stays below 2^53.
fn unit(length: u64, largest: impl Fn(u128) -> u128) -> u64 {
    let fits =
        |unit: &u64| length.is_multiple_of(*unit) && largest(u128::from(length / unit)) < 1 << 53;
    let units = [1, 1_000, 1_000_000];
    units.into_iter().find(fits).expect("a valid quota has one")
}
