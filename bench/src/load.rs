//! Load: callers in a loop, and calls at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::{Instant, sleep, sleep_until};

use crate::contender::Contender;

/// What came of it.
pub(crate) struct Run {
    pub(crate) answers: u64,
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
    /// Of each caller; none at a rate.
    pub(crate) least: u64,
    pub(crate) most: u64,
    /// In microseconds.
    latency: Histogram<u64>,
}

impl Run {
    pub(crate) fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn failed_share(&self) -> f64 {
        self.failed as f64 / (self.answers + self.failed).max(1) as f64
    }

    /// In milliseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds in order")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros())
        .unwrap_or(u64::MAX)
        .clamp(1, 60_000_000)
}

/// A sequence of keys that looks random; each caller has its own.
fn next(state: &mut u64) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*state >> 33).unwrap_or(0)
}

/// So many callers, each of which asks again when it has its answer.
pub(crate) async fn closed(contender: &Contender, callers: u64, slice: Duration) -> Run {
    let is_over = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let callers: Vec<_> = (0..callers)
        .map(|caller| {
            let (contender, is_over) = (contender.clone(), is_over.clone());
            tokio::spawn(async move {
                let (mut answers, mut failed) = (0_u64, 0_u64);
                let mut latency = histogram();
                let mut state = caller.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                while !is_over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    match contender.ask(next(&mut state)).await {
                        true => answers += 1,
                        false => failed += 1,
                    }
                    latency.saturating_record(micros(begun.elapsed()));
                }
                (answers, failed, latency)
            })
        })
        .collect();
    sleep(slice).await;
    is_over.store(true, Ordering::Relaxed);
    let elapsed = start.elapsed();
    let mut run = Run {
        answers: 0,
        failed: 0,
        elapsed,
        least: u64::MAX,
        most: 0,
        latency: histogram(),
    };
    for caller in callers {
        let (answers, failed, latency) = caller.await.expect("a caller that ends");
        run.answers += answers;
        run.failed += failed;
        run.least = run.least.min(answers);
        run.most = run.most.max(answers);
        run.latency += latency;
    }
    run
}

/// Asks once for each of so many keys, so many at a time. How many were not answered.
pub(crate) async fn each(contender: &Contender, keys: usize, at_once: usize) -> usize {
    let mut failed = 0;
    for first in (0..keys).step_by(at_once) {
        let asked = (first..keys.min(first + at_once)).map(|key| contender.ask(key));
        let told = futures_util::future::join_all(asked).await;
        failed += told.iter().filter(|told| !**told).count();
    }
    failed
}

/// So many callers who always ask together, in a runtime of one thread: each time in one batch. How many were answered.
pub(crate) async fn together(contender: &Contender, callers: usize, slice: Duration) -> u64 {
    let end = Instant::now() + slice;
    let (mut answers, mut state) = (0, 1);
    while Instant::now() < end {
        let asked = (0..callers).map(|_| contender.ask(next(&mut state)));
        let told = futures_util::future::join_all(asked).await;
        assert!(told.iter().all(|told| *told), "everybody is admitted");
        answers += u64::try_from(told.len()).unwrap_or(0);
    }
    answers
}

/// So many calls a second, whether or not the earlier ones have their answers. Each is as late as its answer is after its turn.
pub(crate) async fn open(contender: &Contender, per_second: f64, slice: Duration) -> Run {
    const TICK: Duration = Duration::from_millis(1);
    let start = Instant::now();
    let ticks = u32::try_from(slice.as_millis()).unwrap_or(u32::MAX);
    let mut calls = Vec::new();
    let (mut state, mut due) = (1, 0.0);
    for tick in 0..ticks {
        let turn = start + TICK * tick;
        sleep_until(turn).await;
        due += per_second * TICK.as_secs_f64();
        while due >= 1.0 {
            due -= 1.0;
            let (contender, key) = (contender.clone(), next(&mut state));
            // From when it was really begun: this loop's own lateness is no contender's.
            let begun = Instant::now();
            calls.push(tokio::spawn(async move {
                let is_answered = contender.ask(key).await;
                (is_answered, begun.elapsed())
            }));
        }
    }
    let mut run = Run {
        answers: 0,
        failed: 0,
        elapsed: start.elapsed(),
        least: 0,
        most: 0,
        latency: histogram(),
    };
    for call in calls {
        let (is_answered, took) = call.await.expect("a call that ends");
        run.answers += u64::from(is_answered);
        run.failed += u64::from(!is_answered);
        run.latency.saturating_record(micros(took));
    }
    run
}
