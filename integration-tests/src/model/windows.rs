//! Fixed and calendar windows: the windows one after the other, each with its charges.

use std::collections::HashMap;

use limiter_core::limit::Calendar;
use limiter_core::limit::algorithm::{CalendarWindow, FixedWindow};
use time::{Date, Month, OffsetDateTime, Time};

use super::{Definition, Serial};

#[derive(Clone, Debug)]
pub(super) struct Windows {
    limit: u64,
    kind: Kind,
    windows: Vec<Window>,
    /// The end that a charge's receipt names.
    told: HashMap<Serial, u64>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// So many milliseconds from the first charge on.
    Fixed(u64),
    Calendar(Calendar),
}

#[derive(Clone, Debug)]
struct Window {
    /// The first millisecond after it.
    end: u64,
    charges: Vec<(Serial, u64)>,
}

impl Windows {
    pub(super) fn fixed(quota: &FixedWindow) -> Self {
        let millis = quota.window().as_micros() / 1_000;
        Self::new(quota.limit(), Kind::Fixed(millis))
    }

    pub(super) fn calendar(quota: &CalendarWindow) -> Self {
        Self::new(quota.limit(), Kind::Calendar(quota.calendar()))
    }

    fn new(limit: u64, kind: Kind) -> Self {
        Self {
            limit,
            kind,
            windows: Vec::new(),
            told: HashMap::new(),
        }
    }

    /// The end of a window that is opened at `millis`. One that is opened in the last millisecond of a
    /// calendar unit lasts one more.
    fn end(&self, millis: u64) -> u64 {
        match self.kind {
            Kind::Fixed(length) => millis + length,
            Kind::Calendar(calendar) => unit_end(calendar, millis).max(millis + 2),
        }
    }

    fn live(&self, millis: u64) -> Option<&Window> {
        self.windows.last().filter(|window| millis < window.end)
    }

    /// The window that a charge is counted in now.
    fn current(&mut self, now: u64) -> &mut Window {
        let millis = now / 1_000;
        if self.live(millis).is_none() {
            let end = self.end(millis);
            let charges = Vec::new();
            self.windows.push(Window { end, charges });
        }
        self.windows.last_mut().expect("opened above")
    }

    /// The window that the charge's receipt names, if it goes on. It is known by its end: one whose end a
    /// clock that stepped back has moved by half a window or more is another one, and one that would be
    /// opened now with such an end is the same.
    fn named(&mut self, now: u64, serial: Serial) -> Option<&mut Window> {
        let tolerance = match self.kind {
            Kind::Fixed(length) => (length - 1) / 2,
            Kind::Calendar(_) => 20_000,
        };
        let told = *self.told.get(&serial)?;
        let window = self.current(now);
        (told.abs_diff(window.end) <= tolerance).then_some(window)
    }
}

impl Definition for Windows {
    fn boxed(&self) -> Box<dyn Definition> {
        Box::new(self.clone())
    }

    fn capacity(&self) -> u64 {
        self.limit
    }

    /// Redis expires keys by the millisecond.
    fn grain(&self) -> u64 {
        1_000
    }

    fn used(&self, at: u64) -> u64 {
        let charges = self.live(at / 1_000).map(|window| &window.charges);
        charges.into_iter().flatten().map(|(_, cost)| cost).sum()
    }

    /// A window ends when it was opened for.
    fn look(&mut self, _now: u64) {}

    /// A debit ends with the window that it is counted in.
    fn debitable(&self, now: u64, life: u64) -> (u64, u64) {
        let end = self
            .live(now / 1_000)
            .map_or_else(|| self.end(now / 1_000), |window| window.end);
        (
            self.limit.saturating_sub(self.used(now)),
            life.min(end * 1_000 - now),
        )
    }

    fn charge(&mut self, now: u64, serial: Serial, cost: u64) {
        let window = self.current(now);
        window.charges.push((serial, cost));
        let end = window.end;
        self.told.insert(serial, end);
    }

    fn give_back(&mut self, now: u64, serial: Serial, amount: u64) -> u64 {
        let before = self.clone();
        let mut left = amount;
        if let Some(window) = self.named(now, serial) {
            // Its own charge first: the sum is what counts.
            window.charges.sort_by_key(|(other, _)| *other != serial);
            for (_, cost) in &mut window.charges {
                let given = left.min(*cost);
                *cost -= given;
                left -= given;
            }
        }
        if left == amount {
            *self = before;
        }
        amount - left
    }

    fn overrun(&mut self, now: u64, serial: Serial, amount: u64) -> u64 {
        let before = self.clone();
        match self.named(now, serial) {
            Some(window) => {
                window.charges.push((serial, amount));
                amount
            }
            None => {
                *self = before;
                0
            }
        }
    }

    fn counts_until(&self, serial: Serial) -> u64 {
        self.told[&serial] * 1_000
    }
}

/// The first millisecond after the unit that holds `millis`, by the calendar of the `time` crate.
pub fn unit_end(calendar: Calendar, millis: u64) -> u64 {
    let now = OffsetDateTime::from_unix_timestamp((millis / 1_000).cast_signed()).unwrap();
    let (date, hour, minute) = (now.date(), now.hour(), now.minute());
    let start = |date: Date, hour, minute| date.with_time(Time::from_hms(hour, minute, 0).unwrap());
    let (start, length) = match calendar {
        Calendar::Minute => (start(date, hour, minute), time::Duration::MINUTE),
        Calendar::Hour => (start(date, hour, 0), time::Duration::HOUR),
        Calendar::Day => (start(date, 0, 0), time::Duration::DAY),
        Calendar::Month => {
            let next = match date.month() {
                Month::December => (date.year() + 1, Month::January),
                month => (date.year(), month.next()),
            };
            let first = Date::from_calendar_date(next.0, next.1, 1).unwrap();
            (start(first, 0, 0), time::Duration::ZERO)
        }
        other => unreachable!("no model of {other}"),
    };
    let end = (start + length).assume_utc().unix_timestamp();
    end.cast_unsigned() * 1_000
}
