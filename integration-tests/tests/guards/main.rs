//! N2, N3, N6: reservations, refunds and leases as their guards keep them, over a store whose requests
//! and replies get lost, in tokio's paused time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: its failures are panics"
)]

mod delivery;
mod give_backs;
mod leases;
mod reservations;
mod waiting;

use std::time::Duration;

use integration_tests::{Faulty, TokioClock, policy};
use limiter_core::Key;
use limiter_core::limit::{Charge, Limiter, Period, Policy, Quota, Reservation};
use limiter_memory::{MemoryConfig, MemoryStore};
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

struct World {
    /// Through the faults.
    limiter: Limiter,
    /// Around them.
    direct: Limiter,
    faults: Faulty,
}

impl World {
    fn new() -> Self {
        let config = MemoryConfig::default().with_clock(TokioClock::new());
        let memory = MemoryStore::with_config(&config);
        let faults = Faulty::new(memory.clone());
        Self {
            limiter: Limiter::new(faults.clone()),
            direct: Limiter::new(memory),
            faults,
        }
    }

    async fn used(&self, policy: &Policy, key: &Key) -> u64 {
        self.direct.peek(policy, key).await.unwrap().used
    }
}

fn key(name: &str) -> Key {
    Key::new(["ratelimit", "guards", name])
}

fn daily(limit: u64) -> Policy {
    policy(Quota::fixed_window(limit, Period::DAY))
}

fn hourly(limit: u64) -> Policy {
    policy(Quota::fixed_window(limit, Period::HOUR))
}

fn streams(limit: u64) -> Policy {
    policy(Quota::concurrency(limit))
}

async fn reserve(limiter: &Limiter, charges: &[Charge<'_>]) -> Reservation {
    let reserved = limiter.reserve(charges, 10 * MINUTE).await.unwrap();
    reserved.held().expect("there is room")
}

/// Lets background tasks run.
async fn settle_down() {
    sleep(Duration::from_millis(1)).await;
}
