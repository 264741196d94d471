//! Many interleavings of a lease's renewal and its end, by shuttle: `scripts/interleavings.sh`. A failure
//! prints the schedule, which `shuttle::replay` runs again.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use shuttle::future::block_on;
use shuttle::thread;

use super::*;
use crate::limit::{Capabilities, Quota};
use crate::testing::MapStore;

const TTL: Duration = Duration::from_secs(30);

/// What is held once a lease has ended like this, and its renewal with it. The clock stands still, but for
/// a lease that runs out first, so that its renewal takes it again.
fn held_after(runs_out: bool, end: fn(Lease)) -> u64 {
    let store = MapStore::new(Capabilities::ALL);
    let clock = store.clock.clone();
    let limiter = Limiter::new(store);
    let alone = Arc::strong_count(limiter.store());
    let policy = Policy::new("p", Quota::concurrency(3).unwrap()).unwrap();
    let key = Key::new(["ratelimit", "a"]);
    let charges = [Charge::new(&policy, &key)];
    let lease = block_on(limiter.acquire(&charges, TTL)).unwrap().held();
    if runs_out {
        clock.advance(TTL);
    }
    thread::yield_now();
    end(lease.unwrap());
    // The renewal has a share in the store.
    while Arc::strong_count(limiter.store()) > alone {
        thread::yield_now();
    }
    block_on(limiter.peek(&policy, &key)).unwrap().used
}

fn explore(end: fn(Lease)) {
    for runs_out in [false, true] {
        let test = move || assert_eq!(held_after(runs_out, end), 0, "ran out: {runs_out}");
        shuttle::check_pct(test, 1_000, 3);
        shuttle::check_random(test, 1_000);
    }
}

/// A renewal that is under way takes nothing that the end has just given back.
#[test]
fn what_was_released_stays_free() {
    explore(|lease| block_on(lease.release()).unwrap());
}

#[test]
fn what_was_dropped_stays_free() {
    explore(drop);
}
