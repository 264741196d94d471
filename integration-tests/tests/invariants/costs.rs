//! I-H7: a cost outside `1..=capacity` never reaches the state.

use integration_tests::random;
use limiter_core::ErrorKind;
use limiter_core::clock::MAX_INTEGER;
use limiter_core::limit::{Action, OperationId, Quota, Verdict};
use proptest::prelude::*;

use super::play::{LIFE, policy, property, taking};

fn above(capacity: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(capacity + 1),
        capacity + 1..capacity + 100,
        Just(MAX_INTEGER),
        Just(MAX_INTEGER + 1),
        Just(1 << 63),
        Just(u64::MAX),
    ]
}

#[test]
fn i_h7_costs_out_of_range_never_reach_the_state() {
    let values = random::any_quota()
        .prop_flat_map(|quota| (Just(quota), 0..=quota.capacity(), above(quota.capacity())));
    property(300, values, async |table, (quota, taken, cost)| {
        let policy = policy(quota);
        let case = table.case();
        let (held, id) = (OperationId::new("held"), OperationId::new("id"));
        for side in &table.sides {
            let key = side.key(case, 0);
            if taken > 0 {
                side.take(&policy, &key, &held, taken).await;
            }
            // Redis: the value itself; memory: what can be seen of it.
            let state = async || {
                let looked = side.one(&policy, &key, Action::Peek { cost: 1 }).await;
                let text: Option<Vec<u8>> = table.bench.server.command(&["DUMP", key.as_str()]);
                (looked.unwrap(), text)
            };
            let before = state().await;
            let (estimate, ttl) = (cost, LIFE);
            let mut asked = vec![taking(&quota, &id, cost), Action::Peek { cost }];
            if !quota.is_concurrency() {
                let id = &id;
                asked.push(Action::Reserve { id, estimate, ttl });
            }
            for action in asked {
                let observed = side.one(&policy, &key, action).await.unwrap();
                assert_eq!(observed.verdict, Verdict::Never, "{}", side.name);
                assert_eq!(observed.charged, 0);
            }
            let free = side.one(&policy, &key, Action::Charge { cost: 0 }).await;
            assert_eq!(free.unwrap().verdict, Verdict::Admit);
            let nothing = if let Quota::Concurrency(_) = quota {
                let (lease, cost) = (&id, 0);
                Action::Acquire { lease, cost, ttl }
            } else {
                let (id, estimate) = (&id, 0);
                Action::Reserve { id, estimate, ttl }
            };
            let refused = side.one(&policy, &key, nothing).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            assert_eq!(state().await, before, "{}: {cost} of {quota:?}", side.name);
        }
    });
}
