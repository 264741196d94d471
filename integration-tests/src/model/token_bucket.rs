//! Token bucket: the admitted charges, replayed from the first one, with the debt as an exact fraction.

use limiter_core::limit::algorithm::TokenBucket as Quota;

use super::{Definition, Serial, unit};

/// Debts are counted in parts of a token, of which each has as many as the period has units: then a unit
/// pays off a whole number of them, the refill.
#[derive(Clone, Debug)]
pub(super) struct TokenBucket {
    capacity: u64,
    refill: u128,
    parts: u128,
    unit: u64,
    history: Vec<Event>,
}

/// What changed the debt, and when: in units.
#[derive(Clone, Copy, Debug)]
struct Event {
    serial: Option<Serial>,
    at: u64,
    parts: i128,
}

impl TokenBucket {
    pub(super) fn new(quota: &Quota) -> Self {
        let (capacity, refill) = (u128::from(quota.capacity()), u128::from(quota.refill()));
        let period = quota.period().as_micros();
        // (B + D) * p + n with the rate in its lowest terms, D being B.
        let unit = unit(period, |length| {
            let divisor = gcd(refill, length);
            2 * capacity * (length / divisor) + refill / divisor
        });
        Self {
            capacity: quota.capacity(),
            refill,
            parts: u128::from(period / unit),
            unit,
            history: Vec::new(),
        }
    }

    /// The debt at a moment in units, after these events. A clock that stepped back pays nothing off.
    fn replay(&self, history: &[Event], at: u64) -> u128 {
        let (mut debt, mut last) = (0_u128, 0);
        for event in history {
            debt = self.paid(debt, last, event.at);
            debt = debt.saturating_add_signed(event.parts);
            last = event.at;
        }
        self.paid(debt, last, at)
    }

    fn paid(&self, debt: u128, from: u64, to: u64) -> u128 {
        debt.saturating_sub(u128::from(to.saturating_sub(from)) * self.refill)
    }

    /// What a life pays off, a unit that has begun being whole.
    fn regained(&self, life: u64) -> u128 {
        u128::from(life.div_ceil(self.unit)) * self.refill
    }

    fn debt(&self, now: u64) -> u128 {
        self.replay(&self.history, now / self.unit)
    }

    fn add(&mut self, now: u64, serial: Option<Serial>, parts: i128) {
        let at = now / self.unit;
        self.history.push(Event { serial, at, parts });
    }

    /// What would be owed now if nothing had been asked since the charge: debts are paid in the order in
    /// which they were made, so that is what of this charge, and of those before it, is not paid off.
    /// The receipt names the debt after the charge in whole tokens. Once the bucket was full, none of it is
    /// owed; and nobody knows what is after the clock stepped back behind it.
    fn unpaid(&self, now: u64, serial: Serial) -> u128 {
        let Some((at, then)) = self.owed(serial) else {
            return 0;
        };
        let now = now / self.unit;
        if now < at || at < self.last_full() {
            return 0;
        }
        self.paid(then, at, now)
    }

    /// When a charge was made, and what was owed after it, in whole tokens.
    fn owed(&self, serial: Serial) -> Option<(u64, u128)> {
        let made = |event: &Event| event.serial == Some(serial);
        let index = self.history.iter().position(made)?;
        let at = self.history[index].at;
        let then = self.replay(&self.history[..=index], at);
        Some((at, then / self.parts * self.parts))
    }

    /// When something was last charged to a full bucket.
    fn last_full(&self) -> u64 {
        let from_full = |index: &usize| {
            let event = self.history[*index];
            event.parts > 0 && self.replay(&self.history[..*index], event.at) == 0
        };
        let last = (0..self.history.len()).rev().find(from_full);
        last.map_or(0, |index| self.history[index].at)
    }
}

impl Definition for TokenBucket {
    fn boxed(&self) -> Box<dyn Definition> {
        Box::new(self.clone())
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn used(&self, at: u64) -> u64 {
        u64::try_from(self.debt(at).div_ceil(self.parts)).unwrap()
    }

    /// Whole units.
    fn date(&self, serial: Serial) -> Option<u64> {
        self.owed(serial).map(|(at, _)| at * self.unit)
    }

    /// Where the clock stepped back, time counts from here.
    fn look(&mut self, now: u64) {
        let last = self.history.last();
        if last.is_some_and(|last| now / self.unit < last.at) {
            self.add(now, None, 0);
        }
    }

    fn denied(&mut self, now: u64) {
        self.look(now);
    }

    fn charge(&mut self, now: u64, serial: Serial, cost: u64) {
        let parts = u128::from(cost) * self.parts;
        self.add(now, Some(serial), parts.cast_signed());
    }

    /// On top of what the life pays off, or of what is owed by now, if that is more.
    fn debitable(&self, now: u64, life: u64) -> (u64, u64) {
        let full = u128::from(self.capacity) * self.parts;
        let onto = self.debt(now).max(self.regained(life));
        let free = full.saturating_sub(onto) / self.parts;
        (u64::try_from(free).unwrap(), life)
    }

    fn never_debits(&self, life: u64) -> bool {
        self.regained(life) + self.parts > u128::from(self.capacity) * self.parts
    }

    fn debit(&mut self, now: u64, serial: Serial, cost: u64, life: u64) {
        let ahead = self.regained(life).saturating_sub(self.debt(now));
        let parts = ahead + u128::from(cost) * self.parts;
        self.add(now, Some(serial), parts.cast_signed());
    }

    fn give_back(&mut self, now: u64, serial: Serial, amount: u64) -> u64 {
        let wanted = u128::from(amount.min(self.capacity)) * self.parts;
        let given = wanted.min(self.unpaid(now, serial)).min(self.debt(now));
        if given > 0 {
            self.add(now, None, -given.cast_signed());
        }
        u64::try_from(given.div_ceil(self.parts)).unwrap()
    }

    /// As much debt again as the bucket holds.
    fn overrun(&mut self, now: u64, _serial: Serial, amount: u64) -> u64 {
        let most = 2 * u128::from(self.capacity) * self.parts;
        let room = most.saturating_sub(self.debt(now)) / self.parts;
        let taken = amount.min(u64::try_from(room).unwrap());
        if taken > 0 {
            let parts = u128::from(taken) * self.parts;
            self.add(now, None, parts.cast_signed());
        }
        taken
    }

    /// The latest moment at which any of it can count, whatever came after it.
    fn counts_until(&self, serial: Serial) -> u64 {
        let (made, then) = self.owed(serial).unwrap_or_default();
        let mut at = made;
        // By search, as all times.
        let mut step = ((1 << 52) / self.unit).next_power_of_two();
        while step > 0 {
            let earlier = at + step - 1;
            if self.paid(then, made, earlier) > 0 {
                at += step;
            }
            step /= 2;
        }
        at * self.unit
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}
