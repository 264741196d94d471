//! N1, I-H5: groups over several slots, charged slot by slot: all or nothing in the end, and within the bound
//! that `ClusterStore` documents.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use integration_tests::{RedisCluster, eventually};
use limiter_core::limit::{
    Charge, Limiter, OperationId, Outcome, Period, Policy, Quota, Reserved, Source,
};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{ClusterStore, CrossSlot, RedisConfig, slot_of};

fn policy(name: &str, limit: u64) -> Policy {
    Policy::new(name, Quota::fixed_window(limit, Period::DAY).unwrap()).unwrap()
}

/// A key whose slot node `home` has.
fn key_at(home: usize, name: &str) -> Key {
    let keys = (0..).map(|number| Key::new(["ratelimit".to_owned(), format!("{name}{number}")]));
    let mut keys = keys.filter(|key| usize::from(slot_of(key.as_str())) * 3 / 16_384 == home);
    keys.next().unwrap()
}

fn limiter(config: RedisConfig) -> Limiter {
    let config = config.with_cross_slot(CrossSlot::Compensate);
    Limiter::new(ClusterStore::new(&config).unwrap())
}

/// The counter itself.
fn count(cluster: &RedisCluster, key: &Key) -> u64 {
    let home = cluster.home(slot_of(key.as_str()));
    let count: Option<u64> = cluster.nodes[home].command(&["GET", key.as_str()]);
    count.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_gives_back_and_names_every_violated_policy() {
    let cluster = RedisCluster::start();
    let limiter = limiter(cluster.config());
    let policies = [policy("user", 10), policy("tenant", 2), policy("all", 1)];
    let keys = [key_at(0, "user"), key_at(1, "tenant"), key_at(2, "all")];
    let group: Vec<Charge<'_>> = policies
        .iter()
        .zip(&keys)
        .map(|(policy, key)| Charge::new(policy, key))
        .collect();
    let counts = || [0, 1, 2].map(|index| count(&cluster, &keys[index]));

    assert!(limiter.try_check_all(&group).await.unwrap().is_allowed());
    assert_eq!(counts(), [1, 1, 1]);
    // The last one denies.
    let denied = limiter.try_check_all(&group).await.unwrap();
    assert!(!denied.is_allowed());
    assert_eq!(counts(), [1, 1, 1]);
    // The one in the middle and the last.
    limiter.try_check(&policies[1], &keys[1]).await.unwrap();
    let denied = limiter.try_check_all(&group).await.unwrap();
    let outcomes: Vec<bool> = denied
        .decisions
        .iter()
        .map(|decision| decision.outcome == Outcome::Allowed)
        .collect();
    assert_eq!(outcomes, [true, false, false]);
    let used: Vec<u64> = denied.decisions.iter().map(|part| part.used).collect();
    assert_eq!(used, [1, 2, 1], "without the charges of the denied group");
    assert_eq!(counts(), [1, 2, 1]);
    let waits = |name: &str| {
        let mut parts = denied.decisions.iter();
        parts
            .find(|part| part.policy.name() == name)
            .unwrap()
            .outcome
    };
    for name in ["tenant", "all"] {
        let Outcome::Denied { retry_after } = waits(name) else {
            panic!("{name}");
        };
        assert!(retry_after > Duration::from_secs(86_000), "{name}");
    }

    // A group that was admitted is given back as one.
    let roomy = [policy("user", 10), policy("tenant", 10), policy("all", 10)];
    let group: Vec<Charge<'_>> = roomy
        .iter()
        .zip(&keys)
        .map(|(policy, key)| Charge::new(policy, key).with_cost(3))
        .collect();
    let (decision, charged) = limiter.charge(&group).await.unwrap();
    assert!(decision.is_allowed());
    assert_eq!(counts(), [4, 5, 4]);
    let charged = charged.unwrap();
    charged.refund().await.unwrap();
    charged.refund().await.unwrap();
    assert_eq!(counts(), [1, 2, 1]);
}

/// A give-back that fails for good in one slot and for now in another goes on where it can.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_given_back_at_all_keeps_nothing_else_from_it() {
    let cluster = RedisCluster::start();
    let limiter = limiter(cluster.config().with_pool_size(1));
    let hurried = cluster.config().with_pool_size(1);
    let hurried = self::limiter(hurried.with_check_deadline(Duration::from_millis(1_500)));
    let policy = policy("p", 100);
    let (one, other) = (key_at(0, "a"), key_at(1, "b"));
    let group = [Charge::new(&policy, &one), Charge::new(&policy, &other)];
    let charged = eventually("it is charged", async || {
        hurried.charge(&group).await.ok()?.1
    })
    .await;
    let before = count(&cluster, &other);
    cluster.nodes[0].command::<()>(&["DEL", one.as_str()]);
    cluster.nodes[0].command::<()>(&["RPUSH", one.as_str(), "x"]);
    let stalled = cluster.nodes[1].stall();
    // Ends the connection, so that the refund cannot arrive on it after all.
    hurried.peek(&policy, &other).await.unwrap_err();
    let error = charged.refund().await.unwrap_err();
    drop(stalled);
    assert!(error.kind().is_outage(), "{error}");
    eventually("it is given back", async || {
        let used = limiter.peek(&policy, &other).await.ok()?.used;
        (used == before - 1).then_some(())
    })
    .await;
}

/// A key that stands twice in the group: its costs add up, also where it is only looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_only_the_sum_violates_is_named() {
    let cluster = RedisCluster::start();
    let limiter = limiter(cluster.config());
    let (user, all) = (policy("user", 1), policy("all", 10));
    let (one, everybody) = (key_at(0, "user"), key_at(1, "all"));
    limiter.try_check(&user, &one).await.unwrap();
    limiter
        .try_check_all(&[Charge::new(&all, &everybody).with_cost(5)])
        .await
        .unwrap();
    let group = [
        Charge::new(&user, &one),
        Charge::new(&all, &everybody).with_cost(3),
        Charge::new(&all, &everybody).with_cost(3),
    ];
    let denied = limiter.try_check_all(&group).await.unwrap();
    let denies: Vec<bool> = denied
        .decisions
        .iter()
        .map(|part| matches!(part.outcome, Outcome::Denied { .. }))
        .collect();
    assert_eq!(denies, [true, false, true]);
    assert_eq!(count(&cluster, &everybody), 5);
}

/// The stated order: a flood of one user is never seen in the counter of all.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_limit_of_the_group_shields_the_others() {
    let cluster = RedisCluster::start();
    let limiter = limiter(cluster.config());
    let (user, all) = (policy("user", 1), policy("all", 100));
    // In both orders of their slots.
    for (home, other) in [(0, 2), (2, 0)] {
        let (one, everybody) = (key_at(home, "flood"), key_at(other, "everybody"));
        limiter.try_check(&user, &one).await.unwrap();
        let group = [Charge::new(&user, &one), Charge::new(&all, &everybody)];
        // A window's first charge, and a later one, by either script.
        let charges = || {
            let writes = ["set", "incrby"].map(|command| cluster.nodes[other].calls(command));
            writes.iter().sum::<u64>()
        };
        assert!(!limiter.try_check_all(&group).await.unwrap().is_allowed());
        let before = charges();
        for _ in 0..20 {
            assert!(!limiter.try_check_all(&group).await.unwrap().is_allowed());
        }
        assert_eq!(charges(), before, "nothing is written there");
    }
}

/// Many instances: no limit is exceeded, and in the end each counter is the sum of its admissions.
#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_counter_is_the_sum_of_its_admissions() {
    let cluster = RedisCluster::start();
    let (user, tenant, all) = (policy("user", 40), policy("tenant", 90), policy("all", 150));
    let users: Vec<Key> = (0..6)
        .map(|user| key_at(user % 3, &format!("u{user}-")))
        .collect();
    let tenants = [key_at(1, "t0-"), key_at(2, "t1-")];
    let everybody = key_at(0, "everybody");
    let admitted: Arc<Vec<AtomicU64>> = Arc::new((0..9).map(|_| AtomicU64::new(0)).collect());
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let limiter = limiter(cluster.config());
        for task in 0..6 {
            let (limiter, admitted) = (limiter.clone(), admitted.clone());
            let policies = [user.clone(), tenant.clone(), all.clone()];
            let places = [task, 6 + task % 2, 8];
            let keys = [
                users[task].clone(),
                tenants[task % 2].clone(),
                everybody.clone(),
            ];
            tasks.push(tokio::spawn(async move {
                for _ in 0..40 {
                    let parts = policies.iter().zip(&keys);
                    let group: Vec<Charge<'_>> = parts
                        .map(|(policy, key)| Charge::new(policy, key))
                        .collect();
                    if limiter.try_check_all(&group).await.unwrap().is_allowed() {
                        for place in places {
                            admitted[place].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    let keys = users.iter().chain(&tenants).chain([&everybody]);
    let limits = [40, 40, 40, 40, 40, 40, 90, 90, 150];
    for ((key, admitted), limit) in keys.zip(admitted.iter()).zip(limits) {
        let admitted = admitted.load(Ordering::Relaxed);
        assert_eq!(count(&cluster, key), admitted, "{key}");
        assert!(admitted <= limit, "{key}: {admitted} of {limit}");
    }
    // A charge that is about to be given back may deny another for a moment, so not all is used; in
    // quiet it is.
    let limiter = limiter(cluster.config());
    let left = 150 - admitted[8].load(Ordering::Relaxed);
    for _ in 0..left {
        assert!(
            limiter
                .try_check(&all, &everybody)
                .await
                .unwrap()
                .is_allowed()
        );
    }
    assert!(
        !limiter
            .try_check(&all, &everybody)
            .await
            .unwrap()
            .is_allowed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_undone_is_refused() {
    let cluster = RedisCluster::start();
    let limiter = limiter(cluster.config());
    let policy = policy("p", 10);
    let (one, other) = (key_at(0, "a"), key_at(1, "b"));
    let group = [Charge::new(&policy, &one), Charge::new(&policy, &other)];
    let refused = [
        limiter
            .charge_once(&OperationId::new("op"), &group)
            .await
            .err(),
        limiter.reserve(&group, Duration::from_secs(60)).await.err(),
    ];
    for error in refused {
        let error = error.unwrap();
        let found = (error.kind(), error.effect());
        assert_eq!(found, (ErrorKind::Unsupported, Effect::No), "{error}");
        assert!(error.message().contains("one hash tag"), "{error}");
    }
    assert_eq!((count(&cluster, &one), count(&cluster, &other)), (0, 0));
    // In one slot they are not.
    let reserved = limiter.reserve(&group[..1], Duration::from_secs(60)).await;
    assert!(matches!(reserved.unwrap(), Reserved::Held(_)));
}

/// A denial is a denial, also where nobody can say what else would have denied.
#[tokio::test(flavor = "multi_thread")]
async fn a_denial_needs_no_other_master() {
    let mut cluster = RedisCluster::start();
    let limiter = limiter(
        cluster
            .config()
            .with_check_deadline(Duration::from_secs(20)),
    );
    let (user, all) = (policy("user", 1), policy("all", 100));
    let (one, everybody) = (key_at(0, "a"), key_at(1, "b"));
    limiter.try_check(&user, &one).await.unwrap();
    cluster.nodes[1].stop();
    let group = [Charge::new(&user, &one), Charge::new(&all, &everybody)];
    let denied = limiter.try_check_all(&group).await.unwrap();
    assert!(matches!(
        denied.decisions[0].outcome,
        Outcome::Denied { .. }
    ));
    assert_eq!(denied.decisions[1].source, Source::Outage);
    // The other way round it is an outage, and what was charged is given back.
    let roomy = policy("roomy", 10);
    let first = key_at(0, "c");
    let group = [Charge::new(&roomy, &first), Charge::new(&all, &everybody)];
    let error = limiter.try_check_all(&group).await.unwrap_err();
    let found = (error.kind(), error.effect());
    assert_eq!(found, (ErrorKind::Connection, Effect::No), "{error}");
    assert_eq!(count(&cluster, &first), 0);
}

/// One node has charged, the other's slot is not served, and then the first does not answer either.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_given_back_at_once_is_given_back_later_and_once() {
    let cluster = RedisCluster::start();
    let deadline = Duration::from_millis(1_500);
    let patient = limiter(cluster.config());
    let limiter = limiter(cluster.config().with_check_deadline(deadline));
    let policy = policy("p", 100);
    let (one, other) = (key_at(0, "a"), key_at(1, "b"));
    let unserved = slot_of(other.as_str()).to_string();
    // What a refund that is applied twice would take.
    for _ in 0..5 {
        patient.try_check(&policy, &one).await.unwrap();
        patient.try_check(&policy, &other).await.unwrap();
    }
    // The first connections may take longer than a call has.
    for key in [&one, &other] {
        eventually("it is connected", async || {
            limiter.peek(&policy, key).await.ok()
        })
        .await;
    }
    cluster.nodes[1].command::<()>(&["CLUSTER", "DELSLOTS", &unserved]);
    let group = [Charge::new(&policy, &one), Charge::new(&policy, &other)];
    // The first part has been answered, since the second has been asked.
    let refused = || -> u64 {
        let stats: String = cluster.nodes[1].command(&["INFO", "errorstats"]);
        let prefix = "errorstat_CLUSTERDOWN:count=";
        let count = stats.lines().find_map(|line| line.strip_prefix(prefix));
        count.map_or(0, |count| count.trim().parse().unwrap())
    };
    let begun = async |before: u64| {
        eventually("the second part is asked", async || {
            (refused() > before).then_some(())
        })
        .await;
        assert_eq!(count(&cluster, &one), 6);
    };

    // The caller gives up in between.
    {
        let mut call = std::pin::pin!(limiter.try_check_all(&group));
        tokio::select! {
            answer = &mut call => panic!("{answer:?}"),
            () = begun(refused()) => {}
        }
    }
    eventually("given back by a caller that left", async || {
        (count(&cluster, &one) == 5).then_some(())
    })
    .await;

    // The node stalls in between.
    let before = refused();
    let call = limiter.try_check_all(&group);
    let stall = async {
        begun(before).await;
        cluster.nodes[0].stall()
    };
    let (answer, stalled) = tokio::join!(call, stall);
    let error = answer.unwrap_err();
    assert!(error.kind().is_outage(), "{error}");
    assert_eq!(
        error.effect(),
        Effect::Unknown,
        "not given back yet: {error}"
    );
    drop(stalled);
    eventually("it is given back", async || {
        (count(&cluster, &one) == 5).then_some(())
    })
    .await;
    // Whatever arrives late or twice is known by its id.
    for _ in 0..20 {
        patient.peek(&policy, &one).await.unwrap();
        assert_eq!(count(&cluster, &one), 5);
    }
}

/// A denial whose give-back takes all the time: the third node is not asked any more, and is not to blame for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_could_not_be_asked_in_time_is_not_to_blame() {
    let cluster = RedisCluster::start();
    let deadline = Duration::from_millis(1_500);
    let limiter = limiter(cluster.config().with_check_deadline(deadline));
    let (roomy, full) = (policy("roomy", 100), policy("full", 1));
    let keys = [key_at(0, "a"), key_at(1, "b"), key_at(2, "c")];
    for (policy, key) in [(&roomy, &keys[0]), (&full, &keys[1]), (&roomy, &keys[2])] {
        eventually("it is connected", async || {
            limiter.try_check(policy, key).await.ok()
        })
        .await;
    }
    let group = [
        Charge::new(&roomy, &keys[0]),
        Charge::new(&full, &keys[1]),
        Charge::new(&roomy, &keys[2]),
    ];
    // As many as open a breaker.
    for _ in 0..5 {
        eventually("the last one is given back", async || {
            (count(&cluster, &keys[0]) == 1).then_some(())
        })
        .await;
        let denying = cluster.nodes[1].stall();
        let call = limiter.try_check_all(&group);
        let stall = async {
            eventually("the first part is charged", async || {
                (count(&cluster, &keys[0]) == 2).then_some(())
            })
            .await;
            let giving_back = cluster.nodes[0].stall();
            drop(denying);
            giving_back
        };
        let (answer, giving_back) = tokio::join!(call, stall);
        let third = &answer.unwrap().decisions[2];
        assert!(!third.seen, "{third:?}");
        drop(giving_back);
    }
    let decision = limiter.try_check(&roomy, &keys[2]).await.unwrap();
    assert_eq!(decision.used, 2);
}
