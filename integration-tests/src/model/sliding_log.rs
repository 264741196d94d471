//! Sliding window log: the admitted charges with their times.

use std::collections::HashMap;

use limiter_core::limit::algorithm::SlidingLog as Quota;

use super::{Definition, Serial};

#[derive(Clone, Debug)]
pub(super) struct SlidingLog {
    limit: u64,
    window: u64,
    charges: Vec<Charge>,
    /// When each charge was made, the forgotten ones too.
    made: HashMap<Serial, u64>,
    /// When the newest charge ever was made. Time in the log does not go back.
    newest: u64,
}

#[derive(Clone, Debug)]
struct Charge {
    serial: Serial,
    at: u64,
    cost: u64,
}

impl SlidingLog {
    pub(super) fn new(quota: &Quota) -> Self {
        Self {
            limit: quota.limit(),
            window: quota.window().as_micros(),
            charges: Vec::new(),
            made: HashMap::new(),
            newest: 0,
        }
    }

    fn counts(&self, charge: &Charge, at: u64) -> bool {
        at.max(self.newest) < charge.at + self.window
    }

    /// The charge, if it counts. What does not is forgotten then, whatever the clock does next.
    fn change(&mut self, now: u64, serial: Serial) -> Option<&mut Charge> {
        let own = self.charges.iter().find(|charge| charge.serial == serial)?;
        if own.cost == 0 || !self.counts(own, now) {
            return None;
        }
        self.forget(now);
        let mut charges = self.charges.iter_mut();
        charges.find(|charge| charge.serial == serial)
    }

    fn forget(&mut self, now: u64) {
        let charges = std::mem::take(&mut self.charges);
        let live = charges
            .into_iter()
            .filter(|charge| self.counts(charge, now));
        self.charges = live.collect();
    }
}

impl Definition for SlidingLog {
    fn boxed(&self) -> Box<dyn Definition> {
        Box::new(self.clone())
    }

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn used(&self, at: u64) -> u64 {
        let live = self.charges.iter().filter(|charge| self.counts(charge, at));
        live.map(|charge| charge.cost).sum()
    }

    fn date(&self, serial: Serial) -> Option<u64> {
        self.made.get(&serial).copied()
    }

    fn look(&mut self, _now: u64) {}

    fn charge(&mut self, now: u64, serial: Serial, cost: u64) {
        self.debit(now, serial, cost, 0);
    }

    /// Dated at the end of its life, and no earlier than what is still in the log.
    fn debit(&mut self, now: u64, serial: Serial, cost: u64, life: u64) {
        self.forget(now);
        let made = now.max(self.newest);
        self.newest = made;
        let dates = self.charges.iter().filter(|charge| charge.cost > 0);
        let at = dates
            .map(|charge| charge.at)
            .max()
            .unwrap_or(0)
            .max(made + life);
        self.made.insert(serial, at);
        self.charges.push(Charge { serial, at, cost });
    }

    fn give_back(&mut self, now: u64, serial: Serial, amount: u64) -> u64 {
        self.change(now, serial).map_or(0, |charge| {
            let given = amount.min(charge.cost);
            charge.cost -= given;
            given
        })
    }

    fn overrun(&mut self, now: u64, serial: Serial, amount: u64) -> u64 {
        self.change(now, serial).map_or(0, |charge| {
            charge.cost += amount;
            amount
        })
    }

    fn counts_until(&self, serial: Serial) -> u64 {
        self.made[&serial] + self.window
    }
}
