//! I-H5: a group is charged whole, or not at all.

use integration_tests::random;
use limiter_core::limit::{OperationId, Step, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;

use super::play::{policy, property, taking};

const KEYS: usize = 4;

/// The step's key, and what it takes: units, and quarters of the capacity.
fn steps() -> impl Strategy<Value = Vec<(usize, u64, u64)>> {
    vec((0..KEYS, 0u64..3, 0u64..3), 2..6)
}

#[test]
fn i_h5_groups_all_or_none() {
    let values = (vec(random::any_quota(), KEYS), vec(steps(), 4..10));
    property(150, values, async |table, (quotas, groups)| {
        let case = table.case();
        let policies: Vec<_> = quotas.iter().map(|quota| policy(*quota)).collect();
        for side in &table.sides {
            let keys: Vec<_> = (0..KEYS).map(|key| side.key(case, key)).collect();
            let used = async || {
                let mut used = Vec::new();
                for (policy, key) in policies.iter().zip(&keys) {
                    used.push(side.used(policy, key).await);
                }
                used
            };
            for (number, asked) in groups.iter().enumerate() {
                let before = used().await;
                let leases: Vec<_> = (0..asked.len())
                    .map(|index| OperationId::new(format!("{number}-{index}")))
                    .collect();
                let cost = |key: usize, units: u64, quarters: u64| {
                    (quotas[key].capacity() * quarters / 4 + units).max(1)
                };
                let steps: Vec<_> = asked
                    .iter()
                    .zip(&leases)
                    .map(|((key, units, quarters), lease)| {
                        let cost = cost(*key, *units, *quarters);
                        let action = taking(&quotas[*key], lease, cost);
                        Step::new(&policies[*key], &keys[*key], action)
                    })
                    .collect();
                let observed = side.group(&steps).await.unwrap();
                let mut expected = before.clone();
                let mut fits = true;
                for ((key, units, quarters), observed) in asked.iter().zip(&observed) {
                    expected[*key] += cost(*key, *units, *quarters);
                    let room = expected[*key] <= quotas[*key].capacity();
                    fits &= room;
                    // Each limit that has no room is named, and no other.
                    let named = observed.verdict != Verdict::Admit;
                    assert_eq!(named, !room, "{}: {observed:?} of {before:?}", side.name);
                }
                let charged: u64 = observed.iter().map(|observed| observed.charged).sum();
                if !fits {
                    expected = before;
                    assert_eq!(charged, 0);
                }
                assert_eq!(used().await, expected, "{}: {asked:?}", side.name);
            }
        }
    });
}
