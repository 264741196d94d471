//! Slots that move, nodes that come and go: each answer of a cluster forced, one at a time.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::{Duration, Instant};

use integration_tests::{Logs, RedisCluster, RedisServer, eventually, policy};
use limiter_core::limit::{Charge, Limiter, Period, Policy, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{ClusterStore, RedisConfig, slot_of};

fn daily() -> Policy {
    policy(Quota::fixed_window(1_000, Period::DAY))
}

/// Keys of one slot.
fn key(name: &str) -> Key {
    let key = Key::builder().segment("ratelimit").hash_tag("acme");
    key.segment(name).build()
}

async fn limiter(config: &RedisConfig) -> Limiter {
    let store = ClusterStore::new(config).unwrap();
    eventually("it is warm", async || store.warm_up().await.ok()).await;
    Limiter::new(store)
}

/// How often a node has answered so.
fn answered(node: &RedisServer, error: &str) -> u64 {
    let stats: String = node.command(&["INFO", "errorstats"]);
    let prefix = format!("errorstat_{error}:count=");
    let count = stats.lines().find_map(|line| line.strip_prefix(&prefix));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

async fn charge(limiter: &Limiter, name: &str) -> u64 {
    let decision = limiter.try_check(&daily(), &key(name)).await.unwrap();
    decision.used
}

#[tokio::test(flavor = "multi_thread")]
async fn ask_and_moved_are_followed() {
    let cluster = RedisCluster::start();
    let limiter = limiter(&cluster.config()).await;
    let slot = slot_of(key("a").as_str());
    let from = cluster.home(slot);
    let to = (from + 1) % 3;
    assert_eq!(charge(&limiter, "a").await, 1);

    // The key has moved, the slot not yet; the target does not know the script.
    cluster.nodes[to].command::<()>(&["SCRIPT", "FLUSH"]);
    let moving = cluster.begin(slot, from, to);
    moving.move_keys();
    assert_eq!(charge(&limiter, "a").await, 2);
    assert_eq!(charge(&limiter, "a").await, 3);
    assert_eq!(answered(&cluster.nodes[from], "ASK"), 2);
    assert!(answered(&cluster.nodes[to], "NOSCRIPT") > 0);
    // A key that is new while its slot moves begins at the target.
    assert_eq!(charge(&limiter, "new").await, 1);
    assert_eq!(answered(&cluster.nodes[from], "ASK"), 3);

    let before = answered(&cluster.nodes[from], "MOVED");
    moving.finish();
    assert_eq!(charge(&limiter, "a").await, 4);
    assert_eq!(charge(&limiter, "new").await, 2);
    assert!(answered(&cluster.nodes[from], "MOVED") > before);
    // The new map is asked for, and then nobody asks the old owner.
    eventually("the map is refreshed", async || {
        let before = answered(&cluster.nodes[from], "MOVED");
        charge(&limiter, "other").await;
        (answered(&cluster.nodes[from], "MOVED") == before).then_some(())
    })
    .await;
}

/// A refresh asks several nodes and takes the first answer; what the others are asked over stays usable. On one
/// thread, so that everything that is logged is seen.
#[tokio::test]
async fn a_refresh_costs_no_connection() {
    let cluster = RedisCluster::start();
    let logs = Logs::capture();
    let limiter = limiter(&cluster.config().with_pool_size(1)).await;
    let connections = || logs.with("connected to Redis").len();
    let before = connections();
    let slot = slot_of(key("a").as_str());
    let mut at = cluster.home(slot);
    for _ in 0..8 {
        let (from, to) = (at, (at + 1) % 3);
        cluster.migrate(slot, from, to);
        at = to;
        charge(&limiter, "a").await;
        eventually("the map is refreshed", async || {
            let moved = answered(&cluster.nodes[from], "MOVED");
            charge(&limiter, "a").await;
            (answered(&cluster.nodes[from], "MOVED") == moved).then_some(())
        })
        .await;
    }
    assert_eq!(connections(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_between_two_nodes_waits() {
    let cluster = RedisCluster::start();
    let limiter = limiter(&cluster.config()).await;
    let hurried = cluster
        .config()
        .with_check_deadline(Duration::from_millis(300));
    let hurried = Limiter::new(ClusterStore::new(&hurried).unwrap());
    let slot = slot_of(key("a").as_str());
    let (from, to) = (cluster.home(slot), (cluster.home(slot) + 1) % 3);
    let (policy, one, other) = (daily(), key("a"), key("b"));
    let group = [Charge::new(&policy, &one), Charge::new(&policy, &other)];
    assert!(limiter.try_check_all(&group).await.unwrap().is_allowed());
    // Its first connections may take longer than it has.
    eventually("it is connected", async || {
        hurried.peek(&policy, &one).await.ok()
    })
    .await;

    let moving = cluster.begin(slot, from, to);
    moving.move_these(&[one.to_string()]);
    let refused = || {
        let nodes = [&cluster.nodes[from], &cluster.nodes[to]];
        nodes
            .map(|node| answered(node, "TRYAGAIN"))
            .iter()
            .sum::<u64>()
    };
    // No time to wait: nothing is charged, and that is known.
    let error = eventually("it is told that there was no time", async || {
        let error = hurried.try_check_all(&group).await.unwrap_err();
        // On a busy machine no answer may come at all.
        error.message().contains("TryAgain").then_some(error)
    })
    .await;
    let found = (error.kind(), error.effect());
    assert_eq!(found, (ErrorKind::Timeout, Effect::No), "{error}");
    let before = refused();
    assert!(before > 0);

    let waiting = limiter.try_check_all(&group);
    let move_on = async {
        eventually("the group waits", async || {
            (refused() > before).then_some(())
        })
        .await;
        moving.move_keys();
        refused()
    };
    let (decision, _) = tokio::join!(waiting, move_on);
    for decision in decision.unwrap().decisions {
        assert_eq!(decision.used, 2);
    }
    moving.finish();
    assert!(limiter.try_check_all(&group).await.unwrap().is_allowed());
}

/// A slot that nobody serves for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_without_a_master_is_waited_for() {
    let cluster = RedisCluster::start();
    let limiter = limiter(&cluster.config()).await;
    assert_eq!(charge(&limiter, "a").await, 1);
    let slot = slot_of(key("a").as_str());
    let home = &cluster.nodes[cluster.home(slot)];
    let slot = slot.to_string();
    home.command::<()>(&["CLUSTER", "DELSLOTS", &slot]);
    let give_back = async {
        eventually("it waits", async || {
            (answered(home, "CLUSTERDOWN") > 1).then_some(())
        })
        .await;
        home.command::<()>(&["CLUSTER", "ADDSLOTS", &slot]);
    };
    let (used, ()) = tokio::join!(charge(&limiter, "a"), give_back);
    // Without its slot the node has forgotten its keys.
    assert!(used <= 2, "{used}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_map_does_not_know_is_found() {
    let mut cluster = RedisCluster::start();
    let limiter = limiter(&cluster.config()).await;
    // What each master told when it was connected to.
    let told = limiter.health().await.servers;
    assert_eq!(told.len(), 3);
    assert!(
        told.iter().all(|server| server.version.is_some()),
        "{told:?}"
    );
    assert_eq!(charge(&limiter, "a").await, 1);
    let slot = slot_of(key("a").as_str());
    let home = cluster.home(slot);
    let new = cluster.add_node();
    cluster.migrate(slot, home, new);
    assert_eq!(charge(&limiter, "a").await, 2);
    assert_eq!(charge(&limiter, "a").await, 3);
    let count: u64 = cluster.nodes[new].command(&["GET", key("a").as_str()]);
    assert_eq!(count, 3);
    eventually("health counts it", async || {
        let health = limiter.health().await;
        health.message.contains("4 of 4 masters").then_some(())
    })
    .await;
    // It leaves again, and its connections with it.
    cluster.migrate(slot, new, home);
    let mut used = 3;
    eventually("nobody is connected to a node without slots", async || {
        used += 1;
        assert_eq!(charge(&limiter, "a").await, used);
        let clients: String = cluster.nodes[new].command(&["CLIENT", "LIST"]);
        (!clients.contains("user=limiter")).then_some(())
    })
    .await;
    cluster.nodes[new].stop();
    assert_eq!(charge(&limiter, "a").await, used + 1);
}

/// A service that makes a new store, after its settings have changed, leaves none of the old one's connections behind.
#[tokio::test(flavor = "multi_thread")]
async fn no_connection_outlives_its_store() {
    let cluster = RedisCluster::start();
    let limiter = limiter(&cluster.config()).await;
    assert_eq!(charge(&limiter, "a").await, 1);
    let connections = || {
        cluster
            .nodes
            .iter()
            .flat_map(RedisServer::connections)
            .count()
    };
    assert!(connections() >= 3, "one to each master at least");
    drop(limiter);
    eventually("nobody is connected", async || {
        (connections() == 0).then_some(())
    })
    .await;
}

/// The old master is a replica then, to which connections are open.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_is_followed() {
    let mut cluster = RedisCluster::start();
    let home = cluster.home(slot_of(key("a").as_str()));
    let replica = cluster.add_replica(home);
    let limiter = limiter(&cluster.config()).await;
    assert_eq!(charge(&limiter, "a").await, 1);
    cluster.fail_over_to(replica);
    assert_eq!(charge(&limiter, "a").await, 2);
    cluster.nodes[home].stop();
    eventually("the map is refreshed", async || {
        let health = limiter.health().await;
        health.connected.then_some(())
    })
    .await;
    assert_eq!(charge(&limiter, "a").await, 3);
    // An instance that starts now meets a dead seed.
    let late = self::limiter(&cluster.config()).await;
    assert_eq!(charge(&late, "a").await, 4);
}

/// Calls for a dead node's slots fail as an outage, at once and without effect; others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_takes_only_its_own_slots_with_it() {
    let mut cluster = RedisCluster::start();
    let deadline = Duration::from_secs(10);
    let config = cluster.config().without_breaker();
    let limiter = limiter(&config.with_check_deadline(deadline)).await;
    let policy = daily();
    let users: Vec<Key> = (0..12)
        .map(|user| Key::new(["ratelimit".to_owned(), user.to_string()]))
        .collect();
    for user in &users {
        limiter.try_check(&policy, user).await.unwrap();
    }
    let dead = 1;
    let lost = |user: &Key| cluster_home(user) == dead;
    assert!(users.iter().any(lost) && !users.iter().all(lost));
    cluster.nodes[dead].stop();
    let start = Instant::now();
    for round in 0..3 {
        for user in &users {
            let begun = Instant::now();
            let answer = limiter.try_check(&policy, user).await;
            assert!(begun.elapsed() < deadline + Duration::from_secs(1));
            if !lost(user) {
                assert_eq!(answer.unwrap().used, round + 2);
                continue;
            }
            let error = answer.unwrap_err();
            assert!(error.kind().is_outage(), "{error}");
            // In the first round a connection that had been made before may break.
            if round > 0 {
                let found = (error.kind(), error.effect());
                assert_eq!(found, (ErrorKind::Connection, Effect::No), "{error}");
            }
        }
    }
    let took = start.elapsed();
    assert!(
        took < deadline,
        "a refused connection is told at once: {took:?}"
    );
    let health = limiter.health().await;
    assert!(!health.connected, "{health:?}");
    assert!(health.message.contains("2 of 3 masters"), "{health:?}");
    let port = cluster.nodes[dead].port();
    assert!(health.message.contains(&format!(":{port}")), "{health:?}");

    // Back at its address, empty.
    cluster.nodes[dead].restart();
    let back = users.iter().find(|user| lost(user)).unwrap();
    eventually("the node is used again", async || {
        limiter.try_check(&policy, back).await.ok()
    })
    .await;
}

fn cluster_home(key: &Key) -> usize {
    usize::from(slot_of(key.as_str())) * 3 / 16_384
}

/// I-R5: a node that answers nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_node_costs_its_callers_a_deadline_and_the_others_nothing() {
    let cluster = RedisCluster::start();
    let deadline = Duration::from_millis(300);
    let hurried = cluster.config().with_check_deadline(deadline);
    let hurried = Limiter::new(ClusterStore::new(&hurried).unwrap());
    let limiter = limiter(&cluster.config()).await;
    let policy = daily();
    let users: Vec<Key> = (0..12)
        .map(|user| Key::new(["ratelimit".to_owned(), user.to_string()]))
        .collect();
    for user in &users {
        limiter.try_check(&policy, user).await.unwrap();
        // Its first connections may take longer than it has.
        eventually("it is connected", async || {
            hurried.peek(&policy, user).await.ok()
        })
        .await;
    }
    // Several connections to each node, so that a second try would find one.
    let mut peeks = tokio::task::JoinSet::new();
    for turn in 0..60 {
        let (limiter, policy) = (limiter.clone(), policy.clone());
        let user = users[turn % users.len()].clone();
        peeks.spawn(async move { limiter.peek(&policy, &user).await.unwrap() });
    }
    peeks.join_all().await;
    let stalled = cluster.nodes[2].stall();
    for user in &users {
        if cluster_home(user) == 2 {
            let start = Instant::now();
            let answer = hurried.try_check(&policy, user).await;
            let took = start.elapsed();
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
            assert!(took < deadline + Duration::from_secs(5), "{took:?}");
        } else {
            assert_eq!(limiter.try_check(&policy, user).await.unwrap().used, 2);
        }
    }
    drop(stalled);
    // I-R3: what was sent to it was sent once, and may have run.
    for user in &users {
        let seen = eventually("it answers again", async || {
            limiter.peek(&policy, user).await.ok()
        });
        let used = seen.await.used;
        assert!((1..=2).contains(&used), "{user}: {used}");
    }
}
