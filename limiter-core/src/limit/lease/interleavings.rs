//! Many interleavings of a lease's renewal and its end, by shuttle: `scripts/interleavings.sh`. A failure
//! prints the schedule, which `shuttle::replay` runs again.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use shuttle::future::block_on;
use shuttle::thread;

use super::*;
use crate::limit::{Capabilities, Quota};
use crate::testing::MapStore;

const TTL: Duration = Duration::from_secs(30);

/// What is held once a lease has ended like this, and its renewal with it. The clock stands still.
fn held_after(end: fn(Lease)) -> u64 {
    let limiter = Limiter::new(MapStore::new(Capabilities::ALL));
    let policy = Policy::new("p", Quota::concurrency(3).unwrap()).unwrap();
    let key = Key::new(["ratelimit", "a"]);
    let charges = [Charge::new(&policy, &key)];
    let lease = block_on(limiter.acquire(&charges, TTL)).unwrap().held();
    thread::yield_now();
    end(lease.unwrap());
    // The renewal has a share in the store.
    while Arc::strong_count(limiter.store()) > 1 {
        thread::yield_now();
    }
    block_on(limiter.peek(&policy, &key)).unwrap().used
}

fn explore(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_pct(test, 2_000, 3);
    shuttle::check_random(test, 2_000);
}

/// A renewal that is under way takes nothing that the end has just given back.
#[test]
fn what_was_released_stays_free() {
    explore(|| assert_eq!(held_after(|lease| block_on(lease.release()).unwrap()), 0));
}

#[test]
fn what_was_dropped_stays_free() {
    explore(|| assert_eq!(held_after(drop), 0));
}
