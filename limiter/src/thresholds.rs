//! Events when the use of a limit crosses a threshold: 80 and 95 % of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use limiter_core::clock::{Clock, MonotonicClock, Timestamp};
use limiter_core::limit::wrap::{Event, Observer};
use limiter_core::limit::{Observed, Policy, Quota, Share};
use limiter_core::{Error, ErrorKind, Fingerprint, Key};

use crate::events;

/// Tells of each limit whose use crosses a threshold upwards. An observer: give it to
/// [`Builder::observe`](crate::Builder::observe).
///
/// - Fixed and calendar windows: once a window over the whole fleet. What was used before and after a charge is in its answer, so
///   exactly one charge crosses, whichever instance made it. Where that answer is lost (the caller left, or Redis was late), so is
///   the event. A charge that is given back may be followed by another one that crosses again; a reservation that
///   [settles](limiter_core::limit::Reservation::settle) above its estimate crosses nothing.
/// - All others: once on each instance, and again only after the use was seen 10 points below the threshold, or would be there by
///   itself.
///
/// In an outage, and of a share of a limit, nothing crosses. Where a [`Switch`](limiter_core::limit::wrap::Switch) has each process
/// count all of a limit, each is a fleet of its own.
///
/// ```
/// use limiter::{Period, Policy, Quota, Thresholds};
/// use std::sync::mpsc;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let (events, received) = mpsc::channel();
/// let thresholds = Thresholds::new(&[80, 95], move |crossing| {
///     let _ = events.send((crossing.policy.name().to_owned(), crossing.percent, crossing.used));
/// })?;
/// let backends = limiter::Builder::new().observe(thresholds).connect("memory:").await?;
/// let letters = Policy::new("letters", Quota::fixed_window(10, Period::HOUR)?)?;
/// for _ in 0..10 {
///     backends.limiter.check(&letters, &letters.key(["42"])).await;
/// }
/// let crossed: Vec<_> = received.try_iter().collect();
/// assert_eq!(crossed, [("letters".to_owned(), 80, 8), ("letters".to_owned(), 95, 10)]);
/// # Ok::<(), limiter::Error>(())
/// # }).unwrap();
/// ```
pub struct Thresholds {
    percents: Vec<u8>,
    sink: Box<dyn Fn(&Crossing<'_>) + Send + Sync>,
    above: Mutex<Above>,
    clock: Box<dyn Clock>,
}

/// A limit whose use has crossed a threshold.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Crossing<'a> {
    /// The limit.
    pub policy: &'a Policy,
    /// Whose it is. It may name a user.
    pub key: &'a Key,
    /// The threshold, in percent of the limit.
    pub percent: u8,
    /// What is used now.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

/// How far the use has to fall below a threshold before it can be crossed again, in percent of the limit.
const HYSTERESIS: u8 = 10;

/// How many limits may be remembered as above a threshold; one more raises no event, rather than one with each charge.
const MOST: usize = 100_000;

/// How often those that are below are dropped where there is no room.
const PURGE: Duration = Duration::from_secs(1);

/// The counters above a threshold, of those that have no windows, and when each is below it at the latest if nothing more is
/// charged.
#[derive(Debug, Default)]
struct Above {
    counters: HashMap<(Fingerprint, u8), Timestamp>,
    room: usize,
    purged: Timestamp,
}

impl Thresholds {
    /// Tells `sink`, on the path of the request, of each threshold that is crossed: be quick.
    ///
    /// # Errors
    /// `InvalidInput` unless each is 1 to 100 percent.
    pub fn new(
        percents: &[u8],
        sink: impl Fn(&Crossing<'_>) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        if let Some(percent) = percents.iter().find(|it| !(1..=100).contains(*it)) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "thresholds",
                format!("a threshold of {percent} % cannot be crossed; give 1 to 100"),
            ));
        }
        let mut percents = percents.to_vec();
        percents.sort_unstable();
        percents.dedup();
        Ok(Self {
            percents,
            sink: Box::new(sink),
            above: Mutex::default(),
            clock: Box::new(MonotonicClock::new()),
        })
    }

    /// The same with another clock; [`MonotonicClock`] unless this says otherwise.
    #[must_use]
    pub fn with_clock(self, clock: impl Clock + 'static) -> Self {
        Self {
            clock: Box::new(clock),
            ..self
        }
    }

    /// Which thresholds are crossed by a counter whose answers tell exactly what was used before `taken` was.
    fn crossed_in_window(&self, limit: u64, used: u64, taken: u64) -> Vec<u8> {
        let before = used.saturating_sub(taken);
        let crosses = |percent: &u8| {
            let threshold = part(limit, u64::from(*percent));
            before < threshold && threshold <= used
        };
        self.percents.iter().copied().filter(crosses).collect()
    }

    /// Which thresholds are crossed by a counter whose use falls by itself.
    fn crossed_again(&self, counter: Fingerprint, limit: u64, seen: &Observed) -> Vec<u8> {
        let now = self.clock.now();
        let until = now.saturating_add(seen.reset_after);
        let before = seen.used.saturating_sub(seen.charged);
        let mut above = self.above.lock().unwrap_or_else(PoisonError::into_inner);
        let crosses = |percent: &u8| {
            let of_limit = |percent: u8| part(limit, u64::from(percent));
            if before < of_limit(percent.saturating_sub(HYSTERESIS)) {
                above.counters.remove(&(counter, *percent));
            }
            seen.used >= of_limit(*percent) && above.enter((counter, *percent), now, until)
        };
        self.percents.iter().copied().filter(crosses).collect()
    }
}

impl Above {
    /// Whether it was not above before, as far as is known, and is remembered now.
    fn enter(&mut self, counter: (Fingerprint, u8), now: Timestamp, until: Timestamp) -> bool {
        if let Some(known) = self.counters.get_mut(&counter) {
            *known = until;
            return false;
        }
        let is_time = now.saturating_since(self.purged) >= PURGE;
        if self.counters.len() >= self.room.max(1_024) || self.counters.len() >= MOST && is_time {
            // Those are below by now, whoever looked.
            self.counters.retain(|_, until| now < *until);
            self.room = 2 * self.counters.len();
            self.purged = now;
        }
        if self.counters.len() >= MOST {
            return false;
        }
        self.counters.insert(counter, until);
        true
    }
}

/// So many percent of a limit, rounded up, at least 1.
fn part(limit: u64, percent: u64) -> u64 {
    let part = (u128::from(limit) * u128::from(percent)).div_ceil(100);
    // At most the limit.
    u64::try_from(part).unwrap_or(limit).max(1)
}

impl Observer for Thresholds {
    fn observe(&self, event: &Event<'_>) {
        for attempt in events::attempts(event) {
            let Some(seen) = attempt.observed else {
                continue;
            };
            if !seen.seen || seen.degraded || seen.share != Share::WHOLE {
                continue;
            }
            let step = attempt.step;
            let quota = step.policy.quota();
            let limit = quota.capacity();
            let crossed = match quota {
                Quota::FixedWindow(_) | Quota::CalendarWindow(_) => {
                    // What is known of before was told before.
                    let taken = seen.replayed.map_or(seen.charged, |_| 0);
                    self.crossed_in_window(limit, seen.used, taken)
                }
                _ => self.crossed_again(step.counter.fingerprint(), limit, seen),
            };
            for percent in crossed {
                (self.sink)(&Crossing {
                    policy: step.policy,
                    key: step.key(),
                    percent,
                    used: seen.used,
                    limit,
                });
            }
        }
    }
}

impl fmt::Debug for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thresholds")
            .field("percents", &self.percents)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests {
    use std::sync::Arc;

    use limiter_core::clock::ManualClock;
    use limiter_core::limit::{Calendar, Charge, Limiter, Period};
    use limiter_memory::MemoryConfig;

    use super::*;

    type Told = Arc<Mutex<Vec<(u8, u64)>>>;

    fn watched(clock: &ManualClock) -> (Limiter, Told) {
        let told = Told::default();
        let thresholds = {
            let told = told.clone();
            Thresholds::new(&[95, 80], move |it| {
                told.lock().unwrap().push((it.percent, it.used));
            })
        };
        let thresholds = thresholds.unwrap().with_clock(clock.clone());
        let config = MemoryConfig::default().with_clock(clock.clone());
        let builder = crate::Builder::new().observe(thresholds);
        (builder.memory(&config).limiter, told)
    }

    fn take(told: &Told) -> Vec<(u8, u64)> {
        std::mem::take(&mut *told.lock().unwrap())
    }

    fn clock() -> ManualClock {
        ManualClock::at(Timestamp::from_micros(1_795_219_200_000_000))
    }

    #[tokio::test]
    async fn a_window_crosses_each_threshold_once() {
        for quota in [
            Quota::fixed_window(20, Period::HOUR),
            Quota::calendar_window(20, Calendar::Hour),
        ] {
            let clock = clock();
            let (limiter, told) = watched(&clock);
            let policy = Policy::new("p", quota.unwrap()).unwrap();
            let key = policy.key(["a"]);
            for _ in 0..2 {
                for _ in 0..30 {
                    limiter.check(&policy, &key).await;
                    limiter.peek(&policy, &key).await.unwrap();
                }
                assert_eq!(take(&told), [(80, 16), (95, 19)]);
                clock.advance(Duration::from_secs(3_600));
            }
            // Both at once, by two steps of one key, each once.
            let charge = Charge::new(&policy, &key);
            let both = [charge.with_cost(15), charge.with_cost(5)];
            limiter.check_all(&both).await;
            assert_eq!(take(&told), [(80, 20), (95, 20)]);
        }
    }

    #[tokio::test]
    async fn a_bucket_crosses_again_only_after_it_fell() {
        let clock = clock();
        let (limiter, told) = watched(&clock);
        let bucket = Quota::token_bucket(100, 1, Period::SECOND).unwrap();
        let policy = Policy::new("p", bucket).unwrap();
        let key = policy.key(["a"]);
        let charge = async |cost| {
            limiter.check_n(&policy, &key, cost).await;
        };
        charge(80).await;
        assert_eq!(take(&told), [(80, 80)]);
        // To 72 and up again: not below 70.
        clock.advance(Duration::from_secs(9));
        charge(1).await;
        charge(9).await;
        assert_eq!(take(&told), []);
        // To 69 and up again.
        clock.advance(Duration::from_secs(13));
        charge(1).await;
        charge(12).await;
        assert_eq!(take(&told), [(80, 81)]);
        charge(15).await;
        assert_eq!(take(&told), [(95, 96)]);
        // Nobody looked while it fell to nothing.
        clock.advance(Duration::from_secs(96));
        charge(97).await;
        assert_eq!(take(&told), [(80, 97), (95, 97)]);
    }

    /// A limit of 1 has one threshold that matters, and a denial crosses nothing in a window.
    #[tokio::test]
    async fn small_limits_cross_too() {
        let clock = clock();
        let (limiter, told) = watched(&clock);
        let window = Quota::fixed_window(1, Period::HOUR).unwrap();
        let policy = Policy::new("p", window).unwrap();
        for _ in 0..3 {
            limiter.check(&policy, &policy.key(["a"])).await;
        }
        assert_eq!(take(&told), [(80, 1), (95, 1)]);
        assert!(Thresholds::new(&[0], |_| {}).is_err());
        assert!(Thresholds::new(&[101], |_| {}).is_err());
    }

    /// What is above is bounded, and dropped first where it is below by now.
    #[test]
    fn what_is_above_is_bounded() {
        let mut above = Above::default();
        let at = Timestamp::from_micros;
        for round in 0..10_u64 {
            for n in 0..2_000 {
                let counter = Fingerprint::of("a").with(round * 2_000 + n);
                assert!(above.enter((counter, 80), at(round), at(round + 1)));
            }
        }
        assert!(above.counters.len() <= 5_000, "{}", above.counters.len());
        for n in 0..2 * MOST as u64 {
            above.enter((Fingerprint::of("b").with(n), 80), at(20), at(30));
        }
        assert_eq!(above.counters.len(), MOST);
        // Once they are below there is room again.
        let later = at(40 + 1_000_000);
        assert!(above.enter((Fingerprint::of("c"), 80), later, at(50_000_000)));
        assert_eq!(above.counters.len(), 1);
    }
}
