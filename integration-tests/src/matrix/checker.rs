//! What the notes of a cell may be, from the definitions of the limits. It knows nothing of the limiter but what it answered.

use std::time::Duration;

use limiter_core::limit::Source;
use tokio::time::Instant;

use super::RECOVERY;
use super::faults::Fault;
use super::load::{DEADLINE, INSTANCES, KEYS, LOCAL, SHARE, bucket};
use super::log::{Check, Log, Loss, Outcome, Rule};

/// How much later than a sleep of the same length the slowest percent of the checks may be.
const LATENESS: Duration = Duration::from_millis(20);

/// How much later the slowest of all may be.
const WORST: Duration = Duration::from_millis(250);

/// What a cell came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// The fault.
    pub fault: Fault,
    /// How many checks were made.
    pub decisions: usize,
    /// The longest that a check took.
    pub worst_latency: Duration,
    /// How much later than a plain sleep of the deadline the slowest percent of the checks was.
    pub lateness: Duration,
    /// From the first PONG to the store's first answer to each rule, the slowest of them.
    pub recovery: Option<Duration>,
    /// The most that was admitted in an interval, as a part of what may be.
    pub admitted_of_bound: f64,
    /// Admissions in the store's name that it has neither counted nor lost.
    pub uncharged: u64,
    /// What is not as it has to be.
    pub broken: Vec<String>,
}

pub(super) fn check(fault: Fault, log: &Log) -> Verdict {
    let moment = |at: Option<Instant>| at.expect("the cell has ended");
    let (begun, healed) = (moment(log.begun), moment(log.healed));
    let (pong, end) = (moment(log.pong), moment(log.end));
    let mut broken = Vec::new();

    for check in &log.checks {
        if let Outcome::Wrong(what) = check.outcome {
            broken.push(format!("a check of {}: {what}", check.rule.name()));
        }
    }
    let latencies: Vec<Duration> = log.checks.iter().map(Check::latency).collect();
    let late = latencies
        .iter()
        .map(|latency| latency.saturating_sub(DEADLINE));
    let lateness =
        percentile(late.collect(), 99).saturating_sub(percentile(log.control.clone(), 99));
    if lateness > LATENESS {
        broken.push(format!("I-R5: checks are {lateness:?} later than a sleep"));
    }
    // The slowest too: what waits before a breaker opens is few, and has a deadline.
    let worst_control = log.control.iter().copied().max().unwrap_or_default();
    let worst_latency = latencies.iter().copied().max().unwrap_or_default();
    if worst_latency > DEADLINE + worst_control + WORST {
        broken.push(format!("I-R5: a check takes {worst_latency:?}"));
    }
    if log.checks.len() < 1_000 {
        broken.push(format!("{} checks are too few", log.checks.len()));
    }

    // A fault that does nothing proves nothing.
    let inside = |check: &&Check| check.sent >= begun && check.answered < healed;
    let answered = log
        .checks
        .iter()
        .filter(inside)
        .filter(|check| check.is_of_store());
    let missed = log
        .checks
        .iter()
        .filter(inside)
        .filter(|check| !check.is_of_store());
    if fault.shows() && missed.count() == 0 {
        broken.push("the fault does nothing".to_owned());
    }
    let established = begun + Duration::from_millis(300);
    let late_answers = answered.filter(|check| check.sent > established).count();
    if fault.is_silent() && late_answers > 0 {
        broken.push(format!("{late_answers} checks are answered in the fault"));
    }

    // While nothing is answered, nobody waits: the breaker is open.
    let settled = begun + Duration::from_millis(700);
    if fault.is_silent() && settled < healed {
        let within = |at: Instant| (settled..healed).contains(&at);
        let waited: Vec<Duration> = (log.checks.iter())
            .filter(|check| within(check.sent) && within(check.answered))
            .map(Check::latency)
            .collect();
        let middle = percentile(waited, 50);
        if middle > Duration::from_millis(10) {
            broken.push(format!("I-B3: in the outage a check takes {middle:?}"));
        }
        let cache = log.cache.iter().filter(|(at, ..)| {
            // The cache's deadline is longer.
            (settled + Duration::from_secs(1)..healed).contains(at)
        });
        let cache = percentile(cache.map(|(_, took, _)| *took).collect(), 50);
        if cache > Duration::from_millis(10) {
            broken.push(format!("I-B3: in the outage a cache call takes {cache:?}"));
        }
    }

    let mut admitted_of_bound: f64 = 0.0;
    for rule in Rule::BUCKETS {
        let (capacity, refill) = bucket(rule);
        for key in 0..KEYS {
            let of_key = |check: &&Check| check.rule == rule && check.key == key;
            let admitted = log
                .checks
                .iter()
                .filter(of_key)
                .filter(|check| check.is_admitted());
            let admitted: Vec<&Check> = admitted.collect();
            let store: Vec<&Check> = admitted
                .iter()
                .copied()
                .filter(|check| check.is_of_store())
                .collect();
            let mut most = worst(
                &store,
                |length| bound(capacity, refill as f64, length),
                &log.losses,
            );
            for instance in 0..INSTANCES {
                let local = admitted.iter().copied().filter(|check| {
                    let is_local = matches!(
                        check.outcome,
                        Outcome::Admitted {
                            source: LOCAL,
                            degraded: true
                        }
                    );
                    is_local && check.instance == instance
                });
                let local: Vec<&Check> = local.collect();
                let rate = refill as f64 * f64::from(SHARE.0) / f64::from(SHARE.1);
                let size = capacity * u64::from(SHARE.0) / u64::from(SHARE.1);
                most = most.max(worst(&local, |length| bound(size, rate, length), &[]));
            }
            if most > 1.0 {
                let name = rule.name();
                broken.push(format!("the bound of {name} {key} is exceeded: {most:.3}"));
            }
            admitted_of_bound = admitted_of_bound.max(most);
        }
    }
    rules(fault, log, settled, healed, &mut broken);
    let of_cache = log.cache.iter().filter(|(at, ..)| *at > pong + RECOVERY);
    let answered = of_cache.clone().filter(|(.., is_ok)| *is_ok).count();
    let all = of_cache.count();
    if all == 0 || answered * 100 < all * 95 {
        broken.push(format!(
            "{answered} of {all} cache calls are answered after the recovery"
        ));
    }

    let uncharged = accounts(log, &mut broken);
    let recovery = recovery(log, pong, &mut broken);
    // Denying everything does not pass.
    let before = (log.start, begun, "before the fault");
    let after = (pong + RECOVERY, end, "after the recovery");
    for (from, until, when) in [before, after] {
        let seconds = (until - from).as_secs_f64();
        for rule in Rule::ALL {
            for key in 0..KEYS {
                let inside = log.checks.iter().filter(|check| {
                    check.rule == rule && check.key == key && (from..until).contains(&check.sent)
                });
                let admitted = inside
                    .clone()
                    .filter(|check| check.is_admitted() && check.is_of_store());
                let (admitted, offered) = (admitted.count() as f64, inside.count() as f64);
                let granted = match rule {
                    Rule::Account => f64::INFINITY,
                    _ => bucket(rule).1 as f64 * seconds,
                };
                // One of those at each end may be on the other side of it.
                let least = 0.95 * offered.min(granted) - 1.0;
                if admitted < least {
                    let name = rule.name();
                    broken.push(format!(
                        "{name} {key}: {admitted} of {offered} are admitted {when}, and not {least:.1}"
                    ));
                }
            }
        }
    }
    for (is_local, refused) in &log.refused {
        if *is_local {
            broken.push(format!("what was made locally is not settled: {refused}"));
        } else if log.losses.is_empty() {
            broken.push(format!(
                "what was made at the server is not settled: {refused}"
            ));
        }
    }
    if log.settled == 0 {
        broken.push("nothing was settled".to_owned());
    }
    Verdict {
        fault,
        decisions: log.checks.len(),
        worst_latency,
        lateness,
        recovery,
        admitted_of_bound,
        uncharged,
        broken,
    }
}

/// While the store is silent, each rule does what it says: what it allows is admitted, and what it counts locally is admitted as far
/// as its share goes. Nothing else answers in the store's place.
fn rules(fault: Fault, log: &Log, from: Instant, until: Instant, broken: &mut Vec<String>) {
    for check in &log.checks {
        let Outcome::Admitted { source, degraded } = check.outcome else {
            continue;
        };
        let is_right = match (check.rule, degraded) {
            (_, false) => source == Source::Store,
            (Rule::Allow, true) => source == Source::Outage,
            (Rule::Local, true) => source == LOCAL,
            (Rule::Deny | Rule::Account, true) => false,
        };
        if !is_right {
            let name = check.rule.name();
            broken.push(format!(
                "I-B2: {name} is admitted by {source:?}, degraded: {degraded}"
            ));
        }
    }
    if !fault.is_silent() || from >= until {
        return;
    }
    let seconds = (until - from).as_secs_f64();
    for rule in [Rule::Allow, Rule::Local] {
        let inside = log
            .checks
            .iter()
            .filter(|check| check.rule == rule && (from..until).contains(&check.sent));
        let admitted = inside.clone().filter(|check| check.is_admitted()).count() as f64;
        let offered = inside.count() as f64;
        let granted = match rule {
            // Of each key and instance, what is regained; one of each may come a moment later.
            Rule::Local => {
                let rate = bucket(rule).1 as f64 * f64::from(SHARE.0) / f64::from(SHARE.1);
                (KEYS * INSTANCES) as f64 * (rate * seconds - 1.0)
            }
            _ => offered,
        };
        if admitted < 0.95 * granted.min(offered) {
            let name = rule.name();
            broken.push(format!(
                "{name}: {admitted} of {offered} are admitted in the outage"
            ));
        }
    }
}

/// `B + r * t`, and what a fraction of a second may add at both ends (the limit's clock ticks in microseconds).
fn bound(size: u64, rate: f64, length: Duration) -> f64 {
    size as f64 + rate * (length.as_secs_f64() + 1e-6)
}

/// The most that was admitted in any interval that was certainly between a sending and an answer, as a part of what may be.
fn worst(admitted: &[&Check], bound: impl Fn(Duration) -> f64, losses: &[Loss]) -> f64 {
    let mut most: f64 = 0.0;
    for first in admitted {
        let mut inside: Vec<Instant> = (admitted.iter())
            .filter(|check| check.sent >= first.sent)
            .map(|check| check.answered)
            .collect();
        inside.sort_unstable();
        for (index, until) in inside.iter().enumerate() {
            let length = *until - first.sent;
            let lost = losses
                .iter()
                .filter(|loss| loss.from <= *until && loss.until >= first.sent);
            let more: f64 = lost
                .map(|loss| {
                    let both = loss
                        .until
                        .min(*until)
                        .saturating_duration_since(loss.from.max(first.sent));
                    // A capacity each time, and the rate while two count.
                    (loss.times as f64 - 1.0) * bound(Duration::ZERO) + bound(both)
                })
                .sum();
            most = most.max((index + 1) as f64 / (bound(length) + more));
        }
    }
    most
}

/// I-R1, I-R2: what the server has counted is what was admitted, and at most what is of unknown outcome. Where counts were lost,
/// from the recovery on; else from the beginning.
fn accounts(log: &Log, broken: &mut Vec<String>) -> u64 {
    let (from, before, until) = log.recovered.clone().expect("the cell has ended");
    let mut uncharged = 0;
    for (key, counted) in log.counted.iter().enumerate() {
        let checks = || {
            let of_key = log.checks.iter();
            of_key.filter(|check| check.rule == Rule::Account && check.key == key)
        };
        let is_unknown = |check: &&Check| check.outcome == Outcome::Unavailable { unknown: true };
        let is_charged = |check: &&Check| check.is_admitted() && check.is_of_store();
        let mut compare = |counted: u64, least: u64, most: u64| {
            if counted < least {
                uncharged += least - counted;
                broken.push(format!(
                    "I-R1: {least} are admitted of account {key}, and {counted} counted"
                ));
            }
            if counted > most {
                broken.push(format!(
                    "I-R2: {counted} are counted of account {key}, and {most} may be"
                ));
            }
        };
        let recent = checks().filter(|check| check.sent > until);
        let recent = recent.filter(is_charged).count() as u64;
        let reached = checks().filter(|check| check.answered > from);
        let reached = reached.filter(|check| is_charged(check) || is_unknown(check));
        compare(
            counted.saturating_sub(before[key]),
            recent,
            reached.count() as u64,
        );
        if log.losses.is_empty() {
            let charged = checks().filter(is_charged).count() as u64;
            let unknown = checks().filter(is_unknown).count() as u64;
            compare(*counted, charged, charged + unknown);
        }
    }
    uncharged
}

/// When each rule's keys are answered by the store again, counted from the first PONG.
fn recovery(log: &Log, pong: Instant, broken: &mut Vec<String>) -> Option<Duration> {
    let mut slowest = Some(Duration::ZERO);
    for rule in Rule::ALL {
        for key in 0..KEYS {
            let mut checks = log.checks.iter();
            let first = checks.find(|check| {
                check.rule == rule
                    && check.key == key
                    && check.answered >= pong
                    && check.is_of_store()
            });
            let took = first.map(|check| check.answered - pong);
            if took.is_none_or(|took| took > RECOVERY) {
                broken.push(format!(
                    "{} {key} does not come back: {took:?}",
                    rule.name()
                ));
            }
            slowest = slowest.zip(took).map(|(slowest, took)| slowest.max(took));
        }
    }
    slowest
}

fn percentile(mut times: Vec<Duration>, percent: usize) -> Duration {
    times.sort_unstable();
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(place).copied().unwrap_or_default()
}
