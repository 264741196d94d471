//! Token bucket: a greedy client gets the bucket and what flows in, to the token, and no interval
//! holds more than its bound (I-H1).

use limiter_core::limit::Quota;

use crate::world::{Admitted, RATES, Rate, World};

/// How many charges to spread over the span.
const CHARGES: u128 = 500;

#[tokio::test]
async fn over_memory() {
    for rate in RATES {
        greedy(false, rate).await;
    }
}

#[tokio::test]
async fn over_redis() {
    for rate in RATES {
        greedy(true, rate).await;
    }
}

async fn greedy(redis: bool, rate: Rate) {
    // What flows in over the span, in about as many charges as there are to be; a bucket that
    // holds a few of them.
    let flow = u128::from(rate.amount) * rate.span / rate.period;
    let largest = (2 * flow / CHARGES).max(1);
    let capacity = (largest * 3).max(rate.amount.into());
    let size = u64::try_from(capacity).unwrap();
    let quota = Quota::token_bucket(size, rate.amount, rate.length());
    let mut world = World::new(redis, quota).await;

    while world.elapsed() < rate.span {
        let cost = 1 + world.random(largest);
        let decision = world.charge(cost).await;
        if !decision.is_allowed() {
            world.wait(&decision, cost, 1).await;
        }
    }
    let left = world.charge(0).await.remaining;
    world.admitted.pop();
    world.charge(left.into()).await;
    assert!(
        world.denied > 20,
        "hardly ever at the limit: {}",
        world.denied
    );

    let flowed = u128::from(rate.amount) * world.elapsed() / rate.period;
    assert_eq!(
        world.total(),
        capacity + flowed,
        "{} a {}",
        rate.amount,
        rate.period
    );
    bounded(&world.admitted, capacity, rate);
}

/// Between any two charges, both included: no more than the bucket and what flows in meanwhile.
fn bounded(admitted: &[Admitted], capacity: u128, rate: Rate) {
    for (index, first) in admitted.iter().enumerate() {
        let mut sum = 0;
        for last in &admitted[index..] {
            sum += last.cost;
            let flowed = u128::from(rate.amount) * (last.at - first.at) / rate.period;
            assert!(sum <= capacity + flowed, "{sum} from {first:?} to {last:?}");
        }
    }
}
