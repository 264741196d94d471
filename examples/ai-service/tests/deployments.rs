//! The service on the Redis that people have: a cluster, and one that is far away.

mod support;

use std::time::Duration;

use integration_tests::{Proxy, RedisCluster, RedisServer, eventually};
use support::Service;
use tokio::time::sleep;

const ALICE: &str = "demo-alice";
const ADMIN: &str = "demo-admin";

/// By the cluster's own URL and by the plain one of a node. (The agent's tools were a 500 for everybody.)
#[tokio::test]
async fn a_cluster_serves_every_endpoint() {
    let cluster = RedisCluster::start();
    for (url, used) in [(cluster.url(), 1), (cluster.nodes[1].url(), 2)] {
        let service = Service::on_redis(&url);
        for operation in ["coverLetter", "emailDraft", "companyResearch"] {
            let reply = service
                .post(&format!("/api/{operation}"), ALICE, "{}")
                .await;
            assert_eq!(reply.status, 200, "{reply:?}");
        }
        let reply = service
            .post("/agent/s1/turns/7/tools/search", ALICE, r#"{"cost": 1}"#)
            .await;
        assert_eq!(reply.status, 200, "{reply:?}");
        for level in reply.body["limits"].as_array().unwrap() {
            assert_eq!(level["used"], used, "{reply:?}");
        }
        let reply = service.get("/api/admin/usage", ADMIN).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let health = service.get("/health", ALICE).await;
        assert_eq!(health.body["redis_connected"], true, "{}", health.text);
        assert!(health.text.contains("3 of 3 masters"), "{}", health.text);
        let log = &service.start_log;
        assert!(
            log.contains("caches") && log.contains("in this process"),
            "{log}"
        );
    }
}

/// B1, E1: a round trip of 30 ms, which is five of them for a connection. (With pauses every letter passed or none did.)
// The network is a task of this test, which blocks a thread until the service runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distant_redis_counts_all_the_same() {
    let redis = RedisServer::start_tcp();
    let proxy = Proxy::start(redis.port()).await;
    proxy.delay(Duration::from_millis(15));
    let url = redis.url_at(proxy.port());
    // The default is 100 ms, which a busy test machine does not keep.
    let variables = [("REDIS_URL", &*url), ("REDIS_DEADLINE_MILLIS", "1000")];
    let service = Service::start(&variables);
    let mut refused = 0;
    for letter in 0..25_u64 {
        // Of real time, because the pauses are what is tested: from none to more than a second.
        sleep(Duration::from_millis(letter % 5 * 300)).await;
        if letter % 8 == 7 {
            let before = redis.connections();
            // Both pools' connections; they are back before anybody asks.
            proxy.cut();
            eventually("other connections", async || {
                let lost = redis.connections().iter().all(|id| !before.contains(id));
                (lost && redis.connections().len() >= 4).then_some(())
            })
            .await;
        }
        let reply = service.post("/api/coverLetter", ALICE, "{}").await;
        assert!(
            [200, 429].contains(&reply.status.as_u16()),
            "{letter}: {reply:?}"
        );
        assert_eq!(reply.status == 429, letter >= 20, "{letter}: {reply:?}");
        refused += u64::from(reply.status == 429);
    }
    assert_eq!(refused, 5);

    let calls = (0..100).map(|call| {
        let service = &service;
        async move {
            let path = format!("/agent/s{call}/turns/1/tools/search");
            service.post(&path, ALICE, r#"{"cost": 1}"#).await
        }
    });
    for reply in futures_util::future::join_all(calls).await {
        assert!([200, 429].contains(&reply.status.as_u16()), "{reply:?}");
    }
}
