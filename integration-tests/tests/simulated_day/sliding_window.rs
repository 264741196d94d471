//! Sliding window: every answer is the one that the list of admitted charges gives, and no window's
//! length holds more than twice the limit (I-H4).

use limiter_core::limit::Quota;

use crate::world::{Admitted, RATES, Rate, World};

const STEPS: usize = 1_000;

#[tokio::test]
async fn over_memory() {
    for rate in RATES {
        agrees(false, rate).await;
    }
}

#[tokio::test]
async fn over_redis() {
    for rate in RATES {
        agrees(true, rate).await;
    }
}

/// Alternates between a client that waits and one that does not, in costs of all sizes.
async fn agrees(redis: bool, rate: Rate) {
    let limit = u128::from(rate.amount);
    let mut world = World::new(redis, Quota::sliding_window(rate.amount, rate.length())).await;
    let (mut admitted, mut denied) = (0, 0);
    for _ in 0..STEPS {
        let cost = match world.random(4) {
            0 => limit,
            1 => 1,
            _ => 1 + world.random(limit.div_ceil(3)),
        };
        let room = used(&world.admitted, world.now(), rate) + cost <= limit;
        let decision = world.charge(cost).await;
        assert_eq!(
            decision.is_allowed(),
            room,
            "{cost} of {limit}: {decision:?}"
        );
        assert_eq!(
            u128::from(decision.used),
            used(&world.admitted, world.now(), rate),
            "{decision:?}"
        );
        if room {
            admitted += 1;
            let pause = world.random(rate.period / 4);
            world.advance(pause).await;
            continue;
        }
        denied += 1;
        if world.random(2) == 0 {
            world.wait(&decision, cost, 1).await;
        } else {
            let pause = world.random(rate.period);
            world.advance(pause).await;
        }
    }
    assert!(
        admitted > STEPS / 20 && denied > STEPS / 20,
        "{admitted} and {denied}"
    );
    twice_at_most(&world.admitted, limit, rate);
}

/// This aligned window's sum, and the last one's by the part of it that a window's length, ending
/// now, still covers.
fn used(admitted: &[Admitted], now: u128, rate: Rate) -> u128 {
    let start = now - now % rate.period;
    let sum = |from: u128, to: u128| -> u128 {
        let within = admitted.iter().rev().take_while(|charge| charge.at >= from);
        within
            .filter(|charge| charge.at < to)
            .map(|charge| charge.cost)
            .sum()
    };
    let unit = unit(rate);
    let elapsed = (now - start) / unit * unit;
    let previous = sum(start - rate.period, start);
    previous * (rate.period - elapsed) / rate.period + sum(start, now + 1)
}

/// Time is counted in the finest of 1 us, 1 ms and 1 s for which limit * window stays below 2^53.
fn unit(rate: Rate) -> u128 {
    let fits = |unit: &u128| u128::from(rate.amount) * (rate.period / unit) < 1 << 53;
    [1, 1_000, 1_000_000].into_iter().find(fits).unwrap()
}

fn twice_at_most(admitted: &[Admitted], limit: u128, rate: Rate) {
    let (mut oldest, mut sum) = (0, 0);
    for charge in admitted {
        sum += charge.cost;
        while admitted[oldest].at + rate.period <= charge.at {
            sum -= admitted[oldest].cost;
            oldest += 1;
        }
        assert!(sum <= 2 * limit, "{sum} in the time until {charge:?}");
    }
}
