//! Random histories through three implementations: the algorithms over a plain map, the memory
//! store, and Redis (through two instances). Every observation and every error must be equal.
//!
//! `LIMITER_SEED` repeats a run; the seed is printed.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

mod history;
mod run;
mod translate;

use std::cell::{Cell, RefCell};

use integration_tests::Bench;
use limiter_core::clock::Clock as _;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use history::history;
use run::{Run, Tally};

const HISTORIES: u32 = 3_000;

/// What occurs in the histories, or they compare nothing: every algorithm, action, verdict and error.
const OCCURS: [&str; 31] = [
    "fixed_window",
    "calendar_window",
    "sliding_window",
    "sliding_log",
    "token_bucket",
    "concurrency",
    "charge",
    "peek",
    "reset",
    "refund",
    "reserve",
    "settle",
    "cancel",
    "acquire",
    "renew",
    "release",
    "debit",
    "unseen",
    "admit",
    "deny",
    "never",
    "denied",
    "expired",
    "conflict",
    "again",
    "replayed",
    "refunded",
    "settled in full",
    "settled in part",
    "conflict of an operation",
    "shadow",
];

#[test]
fn memory_and_redis_agree_with_the_algorithms() {
    let seed = std::env::var("LIMITER_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| limiter_core::clock::SystemClock.now().as_micros());
    println!("LIMITER_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(Bench::new());
    let mut runner = TestRunner::new(Config {
        cases: HISTORIES,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_global_rejects: 1_000_000,
        ..Config::default()
    });
    let number = Cell::new(0);
    let tally = RefCell::new(Tally::new());
    let result = runner.run(&history(), |history| {
        number.set(number.get() + 1);
        let mut tally = tally.borrow_mut();
        let run = Run::new(&bench, number.get(), &history, &mut tally);
        runtime.block_on(run.all(&history))
    });
    if let Err(error) = result {
        panic!("LIMITER_SEED={seed}\n{error}");
    }
    let tally = tally.into_inner();
    println!("{} histories: {tally:?}", number.get());
    assert!(number.get() >= HISTORIES);
    for what in OCCURS {
        let times = tally.get(what).copied().unwrap_or(0);
        assert!(times >= 200, "{what} occurred {times} times only");
    }
    let (denied, groups) = (tally["denied"], tally["groups"]);
    assert!(
        denied > groups / 15 && denied < groups / 2,
        "{denied} of {groups}"
    );
}
