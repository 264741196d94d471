//! Sliding window counter: the admitted charges, each in its window, and the last window's weight as an
//! exact fraction.

use limiter_core::limit::algorithm::SlidingWindow;

use super::{Definition, Serial, unit};

#[derive(Clone, Debug)]
pub(super) struct SlidingCounter {
    limit: u64,
    window: u64,
    unit: u64,
    charges: Vec<Charge>,
    /// The start of the newest window that was charged. A clock that steps back stays there.
    newest: u64,
}

#[derive(Clone, Debug)]
struct Charge {
    serial: Serial,
    /// Of its window.
    start: u64,
    cost: u64,
}

impl SlidingCounter {
    pub(super) fn new(quota: &SlidingWindow) -> Self {
        let window = quota.window().as_micros();
        let limit = u128::from(quota.limit());
        Self {
            limit: quota.limit(),
            window,
            unit: unit(window, |length| limit * length),
            charges: Vec::new(),
            newest: 0,
        }
    }

    fn start(&self, at: u64) -> u64 {
        self.newest.max(at / self.window * self.window)
    }

    fn sum(&self, start: u64) -> u64 {
        let there = self.charges.iter().filter(|charge| charge.start == start);
        there.map(|charge| charge.cost).sum()
    }

    /// The charge, if its window is this one or the last.
    fn change(&mut self, now: u64, serial: Serial) -> Option<&mut Charge> {
        let (start, window) = (self.start(now), self.window);
        let mut charges = self.charges.iter_mut();
        let charge = charges.find(|charge| charge.serial == serial)?;
        if charge.start + window < start {
            return None;
        }
        self.newest = start;
        Some(charge)
    }
}

impl Definition for SlidingCounter {
    fn boxed(&self) -> Box<dyn Definition> {
        Box::new(self.clone())
    }

    fn capacity(&self) -> u64 {
        self.limit
    }

    /// `floor(last * left / length) + this`.
    fn used(&self, at: u64) -> u64 {
        let start = self.start(at);
        let length = self.window / self.unit;
        let left = length - at.saturating_sub(start) / self.unit;
        let last = u128::from(self.sum(start - self.window));
        let weighted = last * u128::from(left) / u128::from(length);
        u64::try_from(weighted).unwrap() + self.sum(start)
    }

    fn look(&mut self, _now: u64) {}

    /// A debit ends with the window that it is counted in.
    fn debitable(&self, now: u64, life: u64) -> (u64, u64) {
        let end = self.start(now) + self.window;
        (
            self.limit.saturating_sub(self.used(now)),
            life.min(end.saturating_sub(now)),
        )
    }

    fn charge(&mut self, now: u64, serial: Serial, cost: u64) {
        let start = self.start(now);
        self.newest = start;
        self.charges.push(Charge {
            serial,
            start,
            cost,
        });
    }

    fn give_back(&mut self, now: u64, serial: Serial, amount: u64) -> u64 {
        let newest = self.newest;
        let given = self.change(now, serial).map_or(0, |charge| {
            let given = amount.min(charge.cost);
            charge.cost -= given;
            given
        });
        if given == 0 {
            self.newest = newest;
        }
        given
    }

    fn overrun(&mut self, now: u64, serial: Serial, amount: u64) -> u64 {
        self.change(now, serial).map_or(0, |charge| {
            charge.cost += amount;
            amount
        })
    }

    fn counts_until(&self, serial: Serial) -> u64 {
        let mut charges = self.charges.iter();
        let charge = charges.find(|charge| charge.serial == serial);
        charge.map_or(0, |charge| charge.start + 2 * self.window)
    }
}
