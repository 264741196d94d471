//! I-R1: no more is admitted than was charged, whatever becomes of the calls. I-R4: what is given back is
//! given back once.

use std::time::Duration;

use integration_tests::random;
use limiter_core::Key;
use limiter_core::limit::{Action, OperationId, Policy, Receipt, Step};
use proptest::collection::vec;
use proptest::prelude::*;

use super::play::{LIFE, apply, policy, property, taking};

/// Calls of several tasks, some of which are dropped after so many polls. What was acknowledged is charged.
#[test]
fn i_r1_admissions_at_most_charges() {
    let call = (1u64..4, prop::option::weighted(0.4, 0usize..6));
    let values = (random::any_quota(), vec(vec(call, 1..8), 2..10));
    property(60, values, async |table, (quota, tasks)| {
        let policy = policy(quota);
        let case = table.case();
        for side in &table.sides {
            let key = side.key(case, 0);
            let running: Vec<_> = tasks
                .iter()
                .enumerate()
                .map(|(task, calls)| {
                    let (store, calls) = (side.store().clone(), calls.clone());
                    let (policy, key) = (policy.clone(), key.clone());
                    tokio::spawn(async move {
                        let (mut admitted, mut unknown) = (0, 0);
                        for (number, (cost, polls)) in calls.into_iter().enumerate() {
                            let lease = OperationId::new(format!("{task}-{number}"));
                            let action = taking(policy.quota(), &lease, cost);
                            let steps = [Step::new(&policy, &key, action)];
                            match dropped_after(polls, apply(&store, &steps)).await {
                                Some(answer) => admitted += answer.unwrap()[0].charged,
                                None => unknown += cost,
                            }
                        }
                        (admitted, unknown)
                    })
                })
                .collect();
            let (mut admitted, mut unknown) = (0, 0);
            for task in running {
                let (of_task, unknown_of_task) = task.await.unwrap();
                admitted += of_task;
                unknown += unknown_of_task;
            }
            let used = side.used(&policy, &key).await;
            assert!(admitted <= used, "{}: {admitted} of {used}", side.name);
            // I-R2, as far as it goes here: what is charged beyond that, dropped calls have charged.
            assert!(used <= admitted + unknown, "{}: {used}", side.name);
            assert!(used <= quota.capacity());
        }
    });
}

/// The future's answer; `None` if it was dropped after so many polls.
async fn dropped_after<T>(polls: Option<usize>, call: impl Future<Output = T>) -> Option<T> {
    let Some(mut polls) = polls else {
        return Some(call.await);
    };
    let mut call = std::pin::pin!(call);
    std::future::poll_fn(|context| {
        if let std::task::Poll::Ready(answer) = call.as_mut().poll(context) {
            return std::task::Poll::Ready(Some(answer));
        }
        if polls == 0 {
            return std::task::Poll::Ready(None);
        }
        polls -= 1;
        std::task::Poll::Pending
    })
    .await
}

#[derive(Clone, Copy, Debug)]
struct GiveBack {
    cost: u64,
    /// Of a reservation; else of a charge.
    reserved: bool,
    /// How often it is asked for at once, and again later.
    times: usize,
    later: usize,
}

#[test]
fn i_r4_give_backs_apply_once() {
    let give_back = (1u64..5, any::<bool>(), 1usize..5, 0usize..3).prop_map(
        |(cost, reserved, times, later)| GiveBack {
            cost,
            reserved,
            times,
            later,
        },
    );
    let large = random::charged().prop_filter("small", |quota| quota.capacity() >= 15);
    let values = (large, vec(give_back, 1..4), 0u64..20_000_000);
    property(100, values, async |table, (quota, give_backs, pause)| {
        let policy = policy(quota);
        let case = table.case();
        for side in &table.sides {
            let key = side.key(case, 0);
            let mut charged = Vec::new();
            for (number, give_back) in give_backs.iter().enumerate() {
                let id = OperationId::new(number.to_string());
                let action = asks(*give_back, &id);
                let observed = side.one(&policy, &key, action).await.unwrap();
                assert!(observed.is_admitted(), "{quota:?}");
                let receipt = Receipt::new(id.clone(), observed.mark, give_back.cost);
                charged.push((*give_back, id, receipt));
            }
            let mut stands: u64 = give_backs.iter().map(|one| one.cost).sum();
            assert_eq!(side.used(&policy, &key).await, stands);
            // Newest first: so far, no refill has paid anything off, and each is given back in full.
            while let Some((give_back, id, receipt)) = charged.pop() {
                let running: Vec<_> = (0..give_back.times)
                    .map(|_| {
                        let (store, policy, key) =
                            (side.store().clone(), policy.clone(), key.clone());
                        let (id, receipt) = (id.clone(), receipt.clone());
                        tokio::spawn(async move {
                            give(&store, &policy, &key, give_back, &id, &receipt).await
                        })
                    })
                    .collect();
                for task in running {
                    assert_eq!(task.await.unwrap(), 0, "nothing stands of it");
                }
                stands -= give_back.cost;
                assert_eq!(side.used(&policy, &key).await, stands, "{}", side.name);
                for _ in 0..give_back.later {
                    give(side.store(), &policy, &key, give_back, &id, &receipt).await;
                    assert_eq!(side.used(&policy, &key).await, stands, "{}", side.name);
                }
            }
        }
        // Later, on top of other charges: no give-back comes a second time.
        table.advance(Duration::from_micros(pause)).await;
        for side in &table.sides {
            let key = side.key(case, 0);
            side.one(&policy, &key, Action::Charge { cost: 10 })
                .await
                .unwrap();
            let before = side.used(&policy, &key).await;
            for (number, give_back) in give_backs.iter().enumerate() {
                let id = OperationId::new(number.to_string());
                let receipt = Receipt::new(id.clone(), Default::default(), give_back.cost);
                give(side.store(), &policy, &key, *give_back, &id, &receipt).await;
                assert_eq!(side.used(&policy, &key).await, before, "{}", side.name);
            }
        }
    });
}

fn asks(give_back: GiveBack, id: &OperationId) -> Action<'_> {
    let cost = give_back.cost;
    if give_back.reserved {
        let (estimate, ttl) = (cost, LIFE);
        Action::Reserve { id, estimate, ttl }
    } else {
        Action::Charge { cost }
    }
}

/// What stands charged after it.
async fn give(
    store: &std::sync::Arc<dyn limiter_core::limit::LimitStore>,
    policy: &Policy,
    key: &Key,
    give_back: GiveBack,
    id: &OperationId,
    receipt: &Receipt,
) -> u64 {
    let action = if give_back.reserved {
        Action::Cancel {
            id,
            ttl: Duration::from_secs(60),
        }
    } else {
        Action::Refund { receipt }
    };
    let answer = apply(store, &[Step::new(policy, key, action)]).await;
    answer.unwrap()[0].charged
}
