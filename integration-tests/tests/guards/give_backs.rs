//! I-R4: give-backs in an outage wait in one bounded queue, each once, and no longer than they count.

use integration_tests::{Fault, eventually};
use limiter_core::ErrorKind;
use limiter_core::limit::{Charge, Charged, Limiter, Policy};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::{MINUTE, World, daily, hourly, key, settle_down};

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// So many charges of 1, each of a key of its own, in hours' windows.
async fn charges(limiter: &Limiter, policy: &Policy, count: usize) -> Vec<Charged> {
    let mut charged = Vec::new();
    for number in 0..count {
        let key = policy.key([number.to_string()]);
        let charge = [Charge::new(policy, &key)];
        charged.extend(limiter.charge(&charge).await.unwrap().1);
    }
    charged
}

const MANY: usize = 10_000;

/// [`MANY`] charges of a store that has gone away since.
async fn charged_before_an_outage() -> (World, Policy, Vec<Charged>) {
    let world = World::new();
    let policy = hourly(5);
    let charged = charges(&world.limiter, &policy, MANY).await;
    world.faults.set(Fault::Request);
    (world, policy, charged)
}

/// Known fault: "refunds on a task each: 10,000 in an outage are 10,000 timers".
#[tokio::test(start_paused = true)]
async fn ten_thousand_wait_in_one_task() {
    let (world, policy, charged) = charged_before_an_outage().await;
    let before = tasks();
    for charge in &charged {
        assert!(charge.refund().await.unwrap_err().kind().is_outage());
    }
    // Those under way are a batch, and there is one task for all.
    assert!(tasks() - before <= 33, "{} tasks", tasks() - before);
    assert_eq!(world.limiter.give_back_stats().waiting, MANY);
    // Asked again and again, each waits once.
    for _ in 0..20 {
        charged[0].refund().await.unwrap_err();
    }
    assert_eq!(world.limiter.give_back_stats().waiting, MANY);
    // The store is not asked for all of them at each try.
    let calls = world.faults.calls();
    sleep(MINUTE).await;
    assert!(
        world.faults.calls() - calls < 32 * 40,
        "{}",
        world.faults.calls() - calls
    );
    world.faults.set(Fault::None);
    sleep(MINUTE).await;
    let stats = world.limiter.give_back_stats();
    assert_eq!(
        (stats.waiting, stats.delivered, stats.dropped),
        (0, MANY as u64, 0)
    );
    assert_eq!(world.used(&policy, &policy.key(["0"])).await, 0);
    assert_eq!(tasks(), before, "and then there is no task");
}

/// In the background, too: those beyond what is tried at once wait in the queue, and those that are tried are as many as they are
/// said to be.
#[tokio::test(start_paused = true)]
async fn ten_thousand_in_the_background_are_bounded() {
    let (world, policy, charged) = charged_before_an_outage().await;
    let before = tasks();
    for charge in &charged {
        charge.refund_detached();
    }
    let stats = world.limiter.give_back_stats();
    assert_eq!(stats.waiting + stats.trying, MANY, "{stats:?}");
    assert!(tasks() - before <= 1_024 + 33, "{} tasks", tasks() - before);
    settle_down().await;
    let stats = world.limiter.give_back_stats();
    assert_eq!((stats.waiting, stats.trying, stats.dropped), (MANY, 0, 0));
    world.faults.set(Fault::None);
    sleep(MINUTE).await;
    let stats = world.limiter.give_back_stats();
    assert_eq!((stats.waiting, stats.delivered), (0, MANY as u64));
    assert_eq!(world.used(&policy, &policy.key(["0"])).await, 0);
    assert_eq!(tasks(), before, "and then there is no task");
}

/// What is given back in the normal course of things does not wait, and the end of a process waits for it.
#[tokio::test(start_paused = true)]
async fn the_end_waits_for_what_is_on_its_way() {
    let world = World::new();
    let policy = hourly(5);
    let charged = charges(&world.limiter, &policy, 3).await;
    world.faults.set(Fault::None);
    for charge in &charged {
        charge.refund_detached();
    }
    let stats = world.limiter.give_back_stats();
    assert_eq!((stats.waiting, stats.trying), (0, 3));
    let end = world.limiter.drain(MINUTE).await;
    assert_eq!((end.waiting, end.trying, end.delivered), (0, 0, 0));
    for number in 0..3 {
        let key = policy.key([number.to_string()]);
        assert_eq!(world.used(&policy, &key).await, 0);
    }
}

/// A runtime that ends during a first try leaves it to the next one.
#[test]
fn a_runtime_that_ends_loses_no_first_try() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let policy = hourly(5);
    let first = runtime();
    let world = first.block_on(async {
        let world = World::new();
        let charged = charges(&world.limiter, &policy, 1).await;
        charged[0].refund_detached();
        world
    });
    drop(first);
    assert_eq!(world.limiter.give_back_stats().waiting, 1);
    runtime().block_on(async {
        let end = world.limiter.drain(MINUTE).await;
        assert_eq!((end.waiting, end.delivered), (0, 1));
        assert_eq!(world.used(&policy, &policy.key(["0"])).await, 0);
    });
}

/// Beyond the bound an error says so, and is counted.
#[tokio::test(start_paused = true)]
async fn more_than_the_bound_is_told() {
    let mut world = World::new();
    world.limiter = world.limiter.with_give_backs(10);
    let policy = hourly(5);
    let charged = charges(&world.limiter, &policy, 12).await;
    world.faults.set(Fault::Request);
    for (number, charge) in charged.iter().enumerate() {
        let error = charge.refund().await.unwrap_err();
        let kind = if number < 10 {
            ErrorKind::Connection
        } else {
            ErrorKind::Saturated
        };
        assert_eq!(error.kind(), kind, "{number}: {error}");
        assert_eq!(
            error.message().contains("not tried again"),
            number >= 10,
            "{error}"
        );
    }
    let stats = world.limiter.give_back_stats();
    assert_eq!((stats.waiting, stats.dropped), (10, 2));
    world.faults.set(Fault::None);
    // What was not kept can be asked for again.
    charged[11].refund().await.unwrap();
    sleep(MINUTE).await;
    let mut left = Vec::new();
    for number in 0..12 {
        left.push(world.used(&policy, &policy.key([number.to_string()])).await);
    }
    assert_eq!(left, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
}

/// Each waits until its charge counts no more, and not for a week.
#[tokio::test(start_paused = true)]
async fn what_counts_no_more_is_not_asked_for() {
    let world = World::new();
    let policy = hourly(5);
    let charged = charges(&world.limiter, &policy, 3).await;
    world.faults.set(Fault::Request);
    for charge in &charged {
        charge.refund().await.unwrap_err();
    }
    sleep(59 * MINUTE).await;
    assert_eq!(world.limiter.give_back_stats().waiting, 3);
    sleep(2 * MINUTE).await;
    let stats = world.limiter.give_back_stats();
    assert_eq!((stats.waiting, stats.expired), (0, 3));
    let calls = world.faults.calls();
    sleep(60 * MINUTE).await;
    assert_eq!(world.faults.calls(), calls, "nobody goes on asking");
}

/// A drop outside of a runtime leaves its give-back to the next one inside.
#[test]
fn a_runtime_that_ends_leaves_them_to_the_next() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (world, policy) = (runtime().block_on(async { World::new() }), daily(100));
    let reserve = async |name: &str| {
        let key = key(name);
        let estimate = [Charge::new(&policy, &key).with_cost(40)];
        let reserved = world.limiter.reserve(&estimate, 10 * MINUTE).await;
        reserved.unwrap().held().unwrap()
    };
    let first = runtime().block_on(reserve("first"));
    world.faults.set(Fault::Request);
    drop(first);
    assert_eq!(world.limiter.give_back_stats().waiting, 1);
    // A task that ends with its runtime leaves them too.
    world.faults.set(Fault::None);
    let second = runtime().block_on(reserve("second"));
    world.faults.set(Fault::Request);
    runtime().block_on(async { second.cancel().await.unwrap_err() });
    assert_eq!(world.limiter.give_back_stats().waiting, 2);
    world.faults.set(Fault::None);
    runtime().block_on(async {
        drop(reserve("third").await);
        eventually("all are given back", async || {
            (world.limiter.give_back_stats().waiting == 0).then_some(())
        })
        .await;
        for name in ["first", "second", "third"] {
            assert_eq!(world.used(&policy, &key(name)).await, 0, "{name}");
        }
    });
}

/// What one node does not take does not keep the others' from being given back.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_delivered_stands_in_nobodys_way() {
    let world = World::new();
    let policy = hourly(5);
    let charged = charges(&world.limiter, &policy, 200).await;
    // 100 of 200 keys are away.
    world.faults.set(Fault::Request);
    for charge in &charged {
        charge.refund().await.unwrap_err();
    }
    let away = (0..100).map(|number| policy.key([number.to_string()]));
    world.faults.keep_away(away.collect());
    world.faults.set(Fault::None);
    sleep(5 * MINUTE).await;
    let stats = world.limiter.give_back_stats();
    assert_eq!((stats.waiting, stats.delivered), (100, 100));
    world.faults.keep_away(Vec::new());
    sleep(MINUTE).await;
    assert_eq!(world.limiter.give_back_stats().waiting, 0);
}

/// One that is refused does not keep its group from being given back.
#[tokio::test(start_paused = true)]
async fn each_of_a_group_is_given_back() {
    let world = World::new();
    let (policy, other) = (hourly(5), daily(5));
    let (key, gone) = (policy.key(["kept"]), other.key(["gone"]));
    let group = [Charge::new(&policy, &key), Charge::new(&other, &gone)];
    let charged = world.limiter.charge(&group).await.unwrap().1.unwrap();
    // A live state of another algorithm: misuse of the key.
    world.direct.reset(&other, &gone).await.unwrap();
    let stranger = integration_tests::policy(limiter_core::limit::Quota::sliding_log(
        5,
        limiter_core::limit::Period::DAY,
    ));
    world.direct.try_check(&stranger, &gone).await.unwrap();
    let refused = charged.refund().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    sleep(MINUTE).await;
    assert_eq!(world.used(&policy, &key).await, 0);
    let stats = world.limiter.give_back_stats();
    assert_eq!((stats.waiting, stats.delivered, stats.refused), (0, 1, 1));
}

/// What is dropped where there is no runtime is taken up by the next give-back that is inside of one.
#[test]
fn the_next_one_in_a_runtime_delivers_what_is_left() {
    let world = World::new();
    let policy = hourly(5);
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let charged = runtime().block_on(charges(&world.limiter, &policy, 2));
    world.faults.set(Fault::Request);
    charged[0].refund_detached();
    assert_eq!(world.limiter.give_back_stats().waiting, 1);
    world.faults.set(Fault::None);
    runtime().block_on(async {
        charged[1].refund().await.unwrap();
        eventually("the other one is given back, too", async || {
            (world.limiter.give_back_stats().waiting == 0).then_some(())
        })
        .await;
        assert_eq!(world.used(&policy, &policy.key(["0"])).await, 0);
    });
}
