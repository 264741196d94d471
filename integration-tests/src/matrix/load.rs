//! Calls at a rate, on two instances, each of them noted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::{
    Charge, Limiter, Outage, Period, Policy, Quota, Reserved, Share, Source,
};
use limiter_core::{Effect, Error, ErrorKind, Key};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::log::{Check, Log, Outcome, Rule};
use super::world::World;

/// Instances of the service.
pub(super) const INSTANCES: usize = 2;
/// Keys of each rule.
pub(super) const KEYS: usize = 2;
/// What each key is asked for in a second, over all instances.
pub(super) const OFFERED: u64 = 30;
/// The part of each limit that an instance grants by itself.
pub(super) const SHARE: (u32, u32) = (1, 2);
/// A check's deadline.
pub(super) const DEADLINE: Duration = Duration::from_millis(100);

/// A bucket's size, and what it regains in a second. What is counted locally is regained slowly, so that a count that begins anew
/// shows.
pub(super) fn bucket(rule: Rule) -> (u64, u64) {
    match rule {
        Rule::Local => (12, 4),
        _ => (6, 20),
    }
}

/// Who calls.
pub(super) struct Load {
    is_over: Arc<AtomicBool>,
    notes: Arc<Mutex<Log>>,
    tasks: Vec<JoinHandle<()>>,
}

pub(super) fn policy(rule: Rule) -> Policy {
    let outage = match rule {
        Rule::Deny | Rule::Account => Outage::Deny,
        Rule::Allow => Outage::Allow,
        Rule::Local => Outage::Local {
            share: Share::new(SHARE.0, SHARE.1).unwrap(),
        },
    };
    let quota = match rule {
        Rule::Account => Quota::fixed_window(1_000_000, Period::MONTH),
        _ => {
            let (capacity, refill) = bucket(rule);
            Quota::token_bucket(capacity, refill, Period::SECOND)
        }
    };
    Policy::new(rule.name(), quota.unwrap())
        .unwrap()
        .with_outage(outage)
}

pub(super) fn key(rule: Rule, number: usize) -> Key {
    policy(rule).key([number.to_string()])
}

impl Load {
    pub(super) async fn start(world: &World, seed: u64) -> Self {
        let (is_over, notes) = (
            Arc::<AtomicBool>::default(),
            Arc::new(Mutex::new(Log::new())),
        );
        let mut load = Self {
            is_over,
            notes,
            tasks: Vec::new(),
        };
        for instance in 0..INSTANCES {
            let limiter = world.limiter(instance);
            for rule in Rule::ALL {
                for number in 0..KEYS {
                    // No two begin together.
                    let place = (instance * 100 + number * 10) as u64 + rule as u64;
                    let offset = Duration::from_micros((seed ^ place).wrapping_mul(7_919) % 30_000);
                    load.checks(&limiter, instance, rule, number, offset);
                }
            }
            load.reservations(limiter);
        }
        load.cache(world.cache());
        load.control();
        load
    }

    pub(super) async fn stop(self, log: &mut Log) {
        self.is_over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            let _ = task.await;
        }
        let mut notes = self.notes.lock().unwrap();
        log.start = notes.start;
        log.checks = std::mem::take(&mut notes.checks);
        log.control = std::mem::take(&mut notes.control);
        log.cache = std::mem::take(&mut notes.cache);
        log.refused = std::mem::take(&mut notes.refused);
        log.settled = notes.settled;
        log.checks.sort_by_key(|check| check.sent);
    }

    /// Calls at a fixed rate, whether or not the earlier ones are answered.
    fn checks(
        &mut self,
        limiter: &Limiter,
        instance: usize,
        rule: Rule,
        number: usize,
        offset: Duration,
    ) {
        let (limiter, is_over, notes) = (limiter.clone(), self.is_over.clone(), self.notes.clone());
        let gap = Duration::from_secs(INSTANCES as u64) / u32::try_from(OFFERED).unwrap();
        let mut next = Instant::now() + offset;
        self.tasks.push(tokio::spawn(async move {
            let mut under_way = tokio::task::JoinSet::new();
            while !is_over.load(Ordering::SeqCst) {
                sleep_until(next).await;
                next += gap;
                let (limiter, notes) = (limiter.clone(), notes.clone());
                under_way.spawn(async move {
                    let (policy, key) = (policy(rule), key(rule, number));
                    let sent = Instant::now();
                    let answer = limiter.try_check(&policy, &key).await;
                    let check = Check {
                        instance,
                        rule,
                        key: number,
                        sent,
                        answered: Instant::now(),
                        outcome: outcome(answer),
                    };
                    notes.lock().unwrap().checks.push(check);
                });
                while under_way.try_join_next().is_some() {}
            }
            under_way.join_all().await;
        }));
    }

    /// Reservations that are settled a little later, wherever they were made.
    fn reservations(&mut self, limiter: Limiter) {
        let (is_over, notes) = (self.is_over.clone(), self.notes.clone());
        self.tasks.push(tokio::spawn(async move {
            let share = Share::WHOLE;
            let quota = Quota::fixed_window(1_000_000, Period::MONTH).unwrap();
            let policy = Policy::new("reserved", quota).unwrap();
            let policy = policy.with_outage(Outage::Local { share });
            let key = policy.key(["a"]);
            while !is_over.load(Ordering::SeqCst) {
                let estimate = [Charge::new(&policy, &key).with_cost(5)];
                let ttl = Duration::from_secs(120);
                let reserved = limiter.reserve(&estimate, ttl).await;
                sleep(Duration::from_millis(300)).await;
                let Ok(Reserved::Held(mut reservation)) = reserved else {
                    continue;
                };
                // What was made here can be settled; what was made at the server, where it has lost nothing.
                let is_local = reservation.decision().is_degraded();
                reservation.started();
                let settled = reservation.settle(&[2]).await;
                let mut notes = notes.lock().unwrap();
                match settled {
                    Ok(settled) if settled.charged == [2] => notes.settled += 1,
                    // It waits for the server.
                    Err(error) if !is_local && error.kind().is_outage() => {}
                    wrong => notes.refused.push((is_local, format!("{wrong:?}"))),
                }
            }
        }));
    }

    fn cache(&mut self, cache: Arc<dyn CacheStore>) {
        let (is_over, notes) = (self.is_over.clone(), self.notes.clone());
        self.tasks.push(tokio::spawn(async move {
            let namespace = Key::new(["cache", "matrix"]);
            let mut under_way = tokio::task::JoinSet::new();
            for number in 0_u64.. {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                sleep(Duration::from_millis(50)).await;
                let (cache, notes) = (cache.clone(), notes.clone());
                let key = CacheKey::new(&namespace, &(number % 7).to_string());
                under_way.spawn(async move {
                    let start = Instant::now();
                    let ttl = Duration::from_secs(60);
                    let result = match number % 2 {
                        0 => cache.set(&key, NewEntry::new("value", ttl)).await,
                        _ => cache.get(&key).await.map(drop),
                    };
                    let note = (start, start.elapsed(), result.is_ok());
                    notes.lock().unwrap().cache.push(note);
                });
                while under_way.try_join_next().is_some() {}
            }
            under_way.join_all().await;
        }));
    }

    /// What a sleep of the deadline takes on this machine, now.
    fn control(&mut self) {
        let (is_over, notes) = (self.is_over.clone(), self.notes.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut under_way = tokio::task::JoinSet::new();
            while !is_over.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(5)).await;
                let notes = notes.clone();
                under_way.spawn(async move {
                    let start = Instant::now();
                    sleep(DEADLINE).await;
                    let late = start.elapsed().saturating_sub(DEADLINE);
                    notes.lock().unwrap().control.push(late);
                });
                while under_way.try_join_next().is_some() {}
            }
            under_way.join_all().await;
        }));
    }
}

fn outcome(answer: Result<limiter_core::limit::Decision, Error>) -> Outcome {
    use limiter_core::limit::Outcome as Decided;
    match answer {
        Ok(decision) => match decision.outcome {
            Decided::Allowed => Outcome::Admitted {
                source: decision.source,
                degraded: decision.degraded,
            },
            Decided::Denied { .. } => Outcome::Denied {
                degraded: decision.degraded,
            },
            _ => Outcome::Wrong("neither admitted nor denied"),
        },
        Err(error) if error.kind().is_outage() => Outcome::Unavailable {
            unknown: error.effect() != Effect::No,
        },
        Err(error) => Outcome::Wrong(match error.kind() {
            ErrorKind::Foreign => "foreign",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Unsupported => "unsupported",
            _ => "another error",
        }),
    }
}

/// What [`Source`] an instance's own memory has.
pub(super) const LOCAL: Source = Source::Memory;
