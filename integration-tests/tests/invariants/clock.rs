//! I-C2: a clock that steps back grants nothing; one that steps forward at most one capacity a key.

use std::time::Duration;

use integration_tests::random;
use limiter_core::limit::OperationId;
use proptest::collection::vec;
use proptest::prelude::*;

use super::play::{Side, Table, policy, property};

#[derive(Clone, Copy, Debug)]
enum Jump {
    Back(Duration),
    Forward(Duration),
}

fn jump() -> impl Strategy<Value = Jump> {
    let length = || {
        prop_oneof![
            Just(Duration::from_micros(1)),
            (0u64..5_000).prop_map(Duration::from_micros),
            (0u64..200_000).prop_map(Duration::from_millis),
            (0u64..3_000_000).prop_map(Duration::from_secs),
        ]
    };
    prop_oneof![
        length().prop_map(Jump::Back),
        length().prop_map(Jump::Forward)
    ]
}

/// Takes all there is, in halves and then in ones, a thousand at most; how much that was.
async fn drain(side: &Side, policy: &limiter_core::limit::Policy, case: usize, jump: usize) -> u64 {
    let key = side.key(case, 0);
    let (mut taken, mut cost) = (0, policy.quota().capacity());
    let mut number = 0;
    while cost > 0 {
        number += 1;
        let lease = OperationId::new(format!("{jump}-{number}"));
        if side.take(policy, &key, &lease, cost).await.is_admitted() {
            taken += cost;
        } else {
            cost /= 2;
        }
    }
    taken
}

#[test]
fn i_c2_clock_steps_grant_nothing_back_and_one_capacity_forward() {
    let values = (random::any_quota(), vec(jump(), 1..8));
    property(100, values, async |table: &Table, (quota, jumps)| {
        let policy = policy(quota);
        let case = table.case();
        for side in &table.sides {
            assert_eq!(drain(side, &policy, case, 0).await, quota.capacity());
        }
        for (number, jump) in jumps.iter().enumerate() {
            let most = match *jump {
                Jump::Back(by) => {
                    table.step_back(by).await;
                    0
                }
                Jump::Forward(by) => {
                    table.advance(by).await;
                    quota.capacity()
                }
            };
            for side in &table.sides {
                let taken = drain(side, &policy, case, number + 1).await;
                assert!(taken <= most, "{}: {taken} after {jump:?}", side.name);
            }
        }
    });
}
