//! Each algorithm once over Redis's own clock and expiry (`clock.lua`), in real time. Every other
//! test that moves time replaces that file by its virtual twin.
//!
//! I-H6: admitted once `retry_after` is over, and not earlier. Moments are read from Redis's `TIME`
//! before and after each check, so a slow machine cannot make a wrong answer look right or a right
//! one wrong.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::{Duration, Instant};

use integration_tests::{RedisServer, policy, redis_limiter};
use limiter_core::Key;
use limiter_core::clock::Timestamp;
use limiter_core::limit::{Decision, Limiter, Period, Policy, Quota};

/// Where a charge fell on Redis's clock, and what came of it.
struct Checked {
    before: Timestamp,
    decision: Decision,
    after: Timestamp,
}

struct Bystander {
    limiter: Limiter,
    policy: Policy,
    key: Key,
    redis: redis::Connection,
    _server: RedisServer,
}

impl Bystander {
    fn new(policy: Policy) -> Self {
        let server = RedisServer::start();
        Self {
            limiter: redis_limiter(&server.config()),
            key: Key::new(["ratelimit", "real", policy.name()]),
            policy,
            redis: server.admin(),
            _server: server,
        }
    }

    fn time(&mut self) -> Timestamp {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(&mut self.redis).unwrap();
        Timestamp::from_micros(seconds * 1_000_000 + micros)
    }

    async fn charge(&mut self, cost: u64) -> Checked {
        let before = self.time();
        let check = self.limiter.try_check_n(&self.policy, &self.key, cost);
        let decision = check.await.unwrap();
        let after = self.time();
        Checked {
            before,
            decision,
            after,
        }
    }

    /// Takes all there is, is denied `cost`, and asks until it is admitted. `longest` is the most
    /// that `retry_after` may be, `grain` what a moment is rounded to.
    async fn waits(mut self, cost: u64, longest: Duration, grain: Duration) {
        let deadline = Instant::now() + Duration::from_secs(20);
        // A machine that stops for longer than the wait has nothing to say: once more.
        while self.wait_once(cost, longest, grain, deadline).await == 0 {}
    }

    /// How often it was denied on the way.
    async fn wait_once(
        &mut self,
        cost: u64,
        longest: Duration,
        grain: Duration,
        deadline: Instant,
    ) -> u64 {
        let denied = loop {
            while self.charge(1).await.decision.is_allowed() {}
            let checked = self.charge(cost).await;
            if !checked.decision.is_allowed() {
                break checked;
            }
        };
        let retry_after = denied.decision.retry_after().unwrap();
        assert!(
            !retry_after.is_zero() && retry_after <= longest,
            "{retry_after:?}"
        );
        let earliest = denied
            .before
            .saturating_add(retry_after.saturating_sub(grain));
        let latest = denied.after.saturating_add(retry_after + grain);
        for denials in 0.. {
            let checked = self.charge(cost).await;
            if checked.decision.is_allowed() {
                assert!(
                    checked.after >= earliest,
                    "admitted early, after {denials} denials"
                );
                return denials;
            }
            assert!(checked.before < latest, "denied {denials} times, and still");
            assert!(Instant::now() < deadline, "never admitted");
        }
        0
    }
}

const WINDOW: Duration = Duration::from_millis(300);
const MILLI: Duration = Duration::from_millis(1);
const MICRO: Duration = Duration::from_micros(1);

fn window() -> Period {
    Period::new(WINDOW).unwrap()
}

/// Expiry counts in milliseconds.
#[tokio::test]
async fn a_fixed_window_ends() {
    let by = Bystander::new(policy(Quota::fixed_window(3, window())));
    by.waits(1, WINDOW, MILLI).await;
}

#[tokio::test]
async fn a_fixed_window_frees_all_of_it() {
    let by = Bystander::new(policy(Quota::fixed_window(3, window())));
    by.waits(3, WINDOW, MILLI).await;
}

/// One of four is free just after the window's end.
#[tokio::test]
async fn a_sliding_window_moves_on() {
    let by = Bystander::new(policy(Quota::sliding_window(4, window())));
    by.waits(1, WINDOW + MICRO, MICRO).await;
}

/// Three of four are free when half of the next window is over.
#[tokio::test]
async fn a_sliding_window_forgets_by_degrees() {
    let by = Bystander::new(policy(Quota::sliding_window(4, window())));
    by.waits(3, WINDOW + WINDOW / 2 + MICRO, MICRO).await;
}

#[tokio::test]
async fn a_token_bucket_refills() {
    let tenth = Period::new(Duration::from_millis(100)).unwrap();
    let by = Bystander::new(policy(Quota::token_bucket(3, 1, tenth)));
    by.waits(1, Duration::from_millis(100), MICRO).await;
}

#[tokio::test]
async fn a_token_bucket_refills_by_several() {
    let tenth = Period::new(Duration::from_millis(100)).unwrap();
    let by = Bystander::new(policy(Quota::token_bucket(3, 1, tenth)));
    by.waits(3, Duration::from_millis(300), MICRO).await;
}

/// The oldest of three charges leaves.
#[tokio::test]
async fn a_sliding_log_forgets_one() {
    let by = Bystander::new(policy(Quota::sliding_log(3, window())));
    by.waits(1, WINDOW, MICRO).await;
}

#[tokio::test]
async fn a_sliding_log_forgets_all() {
    let by = Bystander::new(policy(Quota::sliding_log(3, window())));
    by.waits(3, WINDOW, MICRO).await;
}
