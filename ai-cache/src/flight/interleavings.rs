//! Many interleavings of those who want one value, by shuttle: `scripts/interleavings.sh`. A failure prints
//! the schedule, which `shuttle::replay` runs again.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::atomic::{AtomicU32, Ordering};

use limiter_core::Key;
use shuttle::future::{block_on, yield_now};
use shuttle::thread;

use super::*;

fn key() -> CacheKey {
    CacheKey::new(&Key::new(["cache", "op"]), "a")
}

/// What a computation that is under way counts.
#[derive(Default)]
struct Computations {
    running: AtomicU32,
    begun: AtomicU32,
}

/// How a computation ends.
#[derive(Clone, Copy)]
enum End {
    Lands,
    /// Has something to say before it lands.
    Announces,
    /// Without an outcome, as one that panics.
    Falls,
}

/// What one who joins gets: the number of the computation, in the order in which they began.
fn join(flights: &Arc<Flights<u32>>, computations: &Arc<Computations>, end: End) -> Option<u32> {
    let computations = computations.clone();
    let work = |landing: Landing<u32>| async move {
        let others = computations.running.fetch_add(1, Ordering::SeqCst);
        assert_eq!(others, 0, "two computations of one key");
        let number = computations.begun.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
        if matches!(end, End::Announces) {
            landing.announce(number);
            yield_now().await;
        }
        computations.running.fetch_sub(1, Ordering::SeqCst);
        if !matches!(end, End::Falls) {
            landing.land(number);
        }
    };
    block_on(flights.join(&key(), work))
}

/// Runs some who join at once; what each got, and how many computations there were. Nothing is left in
/// flight.
fn join_at_once<const N: usize>(ends: [End; N]) -> ([Option<u32>; N], u32) {
    let (flights, computations) = (Flights::new(), Arc::default());
    let joining = ends.map(|end| {
        let (flights, computations) = (Arc::clone(&flights), Arc::clone(&computations));
        thread::spawn(move || join(&flights, &computations, end))
    });
    let outcomes = joining.map(|thread| thread.join().unwrap());
    while Arc::strong_count(&flights) > 1 {
        thread::yield_now();
    }
    assert!(flights.0.lock().is_empty(), "a flight is left");
    let begun = computations.begun.load(Ordering::SeqCst);
    (outcomes, begun)
}

fn explore(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_pct(test, 1_500, 3);
    shuttle::check_random(test, 1_500);
}

/// I-K4: one computation of a key at a time, and everybody gets the outcome of one.
#[test]
fn one_computation_at_a_time() {
    explore(|| {
        let (outcomes, begun) = join_at_once([End::Lands, End::Lands, End::Announces, End::Lands]);
        for outcome in outcomes {
            assert!(outcome.unwrap() < begun);
        }
    });
}

/// One that ends without an outcome keeps nobody waiting and the key free.
#[test]
fn a_computation_that_falls_frees_the_key() {
    explore(|| {
        join_at_once([End::Falls, End::Lands, End::Falls]);
    });
}

/// A flight that was forgotten leaves its successor alone, and those who wait for it get its outcome.
#[test]
fn a_forgotten_flight_leaves_its_successor_alone() {
    explore(|| {
        let flights: Arc<Flights<u32>> = Flights::new();
        let (old, landing) = flights.board(&key());
        flights.forget(&key());
        let (_new, successor) = flights.board(&key());
        let landing = landing.unwrap();
        let landed = thread::spawn(move || landing.land(1));
        let boards = {
            let flights = flights.clone();
            thread::spawn(move || flights.board(&key()))
        };
        let (mut joined, none) = boards.join().unwrap();
        assert!(none.is_none(), "its successor was removed");
        landed.join().unwrap();
        assert_eq!(*old.borrow(), Some(1));
        assert!(flights.0.lock().contains_key(&key()));
        successor.unwrap().land(2);
        let outcome = block_on(async { *joined.wait_for(Option::is_some).await.unwrap() });
        assert_eq!(outcome, Some(2));
        assert!(flights.0.lock().is_empty());
    });
}
