//! A slot that moves back and forth while it is used: no error, and no charge lost or doubled.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use integration_tests::{RedisCluster, policy};
use limiter_core::Key;
use limiter_core::limit::{Charge, Limiter, OperationId, Period, Quota};
use limiter_redis::{ClusterStore, slot_of};

const INSTANCES: usize = 3;
const TASKS: usize = 8;
const KEYS: usize = 12;
const MOVES: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_migrated_under_load() {
    let cluster = Arc::new(RedisCluster::start());
    // More than can be charged while the test runs, and less than all that is asked for at the second.
    let policy = policy(Quota::fixed_window(1_000_000, Period::DAY));
    let small = integration_tests::policy(Quota::fixed_window(500, Period::DAY));
    let keys: Arc<Vec<Key>> = Arc::new(
        (0..KEYS)
            .map(|key| {
                let builder = Key::builder().segment("ratelimit").hash_tag("acme");
                builder.segment(&key.to_string()).build()
            })
            .collect(),
    );
    let tight = Key::builder().segment("ratelimit").hash_tag("acme");
    let tight = tight.segment("tight").build();
    let slot = slot_of(tight.as_str());
    let admitted: Arc<Vec<AtomicU64>> = Arc::new((0..=KEYS).map(|_| AtomicU64::new(0)).collect());
    let done = Arc::new(AtomicBool::new(false));

    let mut tasks = Vec::new();
    for instance in 0..INSTANCES {
        let limiter = Limiter::new(ClusterStore::new(&cluster.config()).unwrap());
        for task in 0..TASKS {
            let (limiter, keys, admitted) = (limiter.clone(), keys.clone(), admitted.clone());
            let (done, policy, small) = (done.clone(), policy.clone(), small.clone());
            let tight = tight.clone();
            tasks.push(tokio::spawn(async move {
                let mut turn = instance + task;
                let mut asked = 0_u64;
                while !done.load(Ordering::Relaxed) {
                    let (one, other) = (turn % KEYS, (turn * 5 + 1) % KEYS);
                    turn += 1;
                    asked += 1;
                    let decision = limiter.try_check(&policy, &keys[one]).await.unwrap();
                    assert!(decision.is_allowed());
                    admitted[one].fetch_add(1, Ordering::Relaxed);
                    if asked.is_multiple_of(4) {
                        // Its record is a second key, and one that no node has yet.
                        let id = OperationId::random();
                        let charge = [Charge::new(&policy, &keys[one])];
                        let (_, charged) = limiter.charge_once(&id, &charge).await.unwrap();
                        assert!(charged.is_some());
                        admitted[one].fetch_add(1, Ordering::Relaxed);
                    }
                    // Both or none, and it waits while the two are on different nodes.
                    let group = [
                        Charge::new(&policy, &keys[other]),
                        Charge::new(&small, &tight),
                    ];
                    if limiter.try_check_all(&group).await.unwrap().is_allowed() {
                        admitted[other].fetch_add(1, Ordering::Relaxed);
                        admitted[KEYS].fetch_add(1, Ordering::Relaxed);
                    }
                }
                asked
            }));
        }
    }

    let (moving, home) = (cluster.clone(), cluster.home(slot));
    let moves = tokio::task::spawn_blocking(move || {
        let mut at = home;
        for turn in 0..MOVES {
            let to = (at + 1 + turn % 2) % 3;
            moving.migrate(slot, at, to);
            at = to;
        }
        at
    });
    let at = moves.await.unwrap();
    done.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for task in tasks {
        asked += task.await.unwrap();
    }
    let names = keys.iter().chain([&tight]);
    for (name, admitted) in names.zip(admitted.iter()) {
        let admitted = admitted.load(Ordering::Relaxed);
        let counted: Option<u64> = cluster.nodes[at].command(&["GET", name.as_str()]);
        assert_eq!(counted.unwrap_or(0), admitted, "{name}");
    }
    let stats: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| node.command::<String>(&["INFO", "errorstats"]))
        .collect();
    for answer in ["MOVED", "ASK"] {
        assert!(
            stats.iter().any(|stats| stats.contains(answer)),
            "{stats:?}"
        );
    }
    println!(
        "{asked} turns of {} tasks over {MOVES} moves",
        INSTANCES * TASKS
    );
    assert!(admitted[KEYS].load(Ordering::Relaxed) <= 500);
}
