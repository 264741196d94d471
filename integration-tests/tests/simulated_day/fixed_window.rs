//! Fixed window: every window gives out exactly its limit, and there are as many windows as there
//! is time (I-H2).

use limiter_core::limit::Quota;

use crate::world::{RATES, Rate, World};

const MILLI: u128 = 1_000;

/// Not more windows than this; a day has 86,400 seconds.
const WINDOWS: u128 = 1_500;

#[tokio::test]
async fn over_memory() {
    for rate in RATES {
        greedy(false, rate).await;
        idle_in_between(false, rate).await;
    }
}

#[tokio::test]
async fn over_redis() {
    for rate in RATES {
        greedy(true, rate).await;
        idle_in_between(true, rate).await;
    }
}

/// A window opens in the millisecond of its first charge and lasts exactly its length.
async fn greedy(redis: bool, rate: Rate) {
    let span = rate.span.max(3 * rate.period).min(WINDOWS * rate.period);
    let limit = u128::from(rate.amount);
    let mut world = World::new(redis, Quota::fixed_window(rate.amount, rate.length())).await;
    while world.elapsed() < span {
        let mut left = limit;
        while left > 0 {
            let cost = 1 + world.random(left);
            assert!(
                world.charge(cost).await.is_allowed(),
                "{cost} of {left} left"
            );
            left -= cost;
            // Short: all of a window's charges fall into it.
            let pause = world.random(rate.period / 100);
            world.advance(pause).await;
        }
        let denied = world.charge(1).await;
        let wait = denied.retry_after().unwrap().as_micros();
        // Due on a millisecond: just before it comes there is nothing.
        world.advance(wait - world.now() % MILLI - 1).await;
        assert!(!world.charge(1).await.is_allowed());
        world.advance(1).await;
    }
    let opened = windows(&world, rate);
    assert!(opened.iter().all(|sum| *sum == limit), "{opened:?}");
    assert_eq!(world.denied, 2 * opened.len() as u64);
    let most = world.elapsed().div_ceil(rate.period);
    assert_eq!(
        opened.len() as u128,
        most,
        "no window is lost, and none too many"
    );
}

/// A client that comes and goes is answered as a count by windows says.
async fn idle_in_between(redis: bool, rate: Rate) {
    let limit = u128::from(rate.amount);
    let mut world = World::new(redis, Quota::fixed_window(rate.amount, rate.length())).await;
    let mut open: Option<(u128, u128)> = None;
    for _ in 0..300 {
        let pause = world.random(rate.period / 2);
        world.advance(pause).await;
        let cost = 1 + world.random(limit.div_ceil(3));
        let millis = world.now() / MILLI;
        let (end, sum) = open
            .filter(|(end, _)| millis < *end)
            .unwrap_or((millis + rate.period / MILLI, 0));
        let decision = world.charge(cost).await;
        assert_eq!(
            decision.is_allowed(),
            sum + cost <= limit,
            "{sum} and {cost}: {decision:?}"
        );
        if decision.is_allowed() {
            open = Some((end, sum + cost));
        } else {
            let wait = (end - millis) * MILLI;
            assert_eq!(decision.retry_after().unwrap().as_micros(), wait);
        }
    }
}

/// The sums of the windows that the admitted charges opened.
fn windows(world: &World, rate: Rate) -> Vec<u128> {
    let mut sums = Vec::new();
    let mut end = 0;
    for charge in &world.admitted {
        let millis = charge.at / MILLI;
        if millis >= end {
            sums.push(0);
            end = millis + rate.period / MILLI;
        }
        *sums.last_mut().unwrap() += charge.cost;
    }
    sums
}
