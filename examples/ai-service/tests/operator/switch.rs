//! C6: where limits are counted, by an admin and by a file.

use std::time::{Duration, Instant};

use integration_tests::{RedisServer, eventually};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Reply, Service};
use crate::{ADMIN, Limits, health, letter};

async fn throw(service: &Service, body: Value) -> Reply {
    let key = format!("Bearer {ADMIN}");
    let headers = [("authorization", &*key)];
    service
        .send(Method::PUT, "/api/admin/switch", &headers, body.to_string())
        .await
}

/// C6: an operator's word reaches every instance within 5 s, and is taken back by itself or by another one.
#[tokio::test]
async fn a_switch_reaches_every_instance() {
    let redis = RedisServer::start_tcp();
    let url = redis.url();
    let start = |name| Service::start(&[("REDIS_URL", &*url), ("INSTANCE", name)]);
    let services = ["first", "second"].map(start);
    let used = async || {
        redis
            .command::<Option<u64>>(&["GET", "ratelimit:user:alice:coverLetter"])
            .unwrap_or(0)
    };
    for service in &services {
        assert_eq!(letter(service).await.status, 200);
    }
    assert_eq!(used().await, 2);
    let reply = throw(&services[0], json!({ "limits": "off", "minutes": 5 })).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(
        reply.body["reaches"],
        json!({ "instances": "all", "within_seconds": 5 })
    );
    let told = Instant::now();
    eventually("the second instance", async || {
        let reply = letter(&services[1]).await;
        (!reply.headers.contains_key("x-ratelimit-remaining")).then_some(())
    })
    .await;
    assert!(
        told.elapsed() < Duration::from_secs(5),
        "{:?}",
        told.elapsed()
    );
    let before = used().await;
    for service in &services {
        for _ in 0..30 {
            let reply = letter(service).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert!(
                !reply.headers.contains_key("x-ratelimit-limit"),
                "{reply:?}"
            );
        }
        let switch = health(service).await["switch"].clone();
        assert_eq!(
            (&switch["words"], &switch["set_by"]),
            (&json!("off"), &json!("override"))
        );
        assert!(switch["seconds_left"].as_u64().unwrap() > 200, "{switch}");
    }
    assert_eq!(used().await, before, "nobody counts");
    // By the other one.
    let key = format!("Bearer {ADMIN}");
    let headers = [("authorization", &*key)];
    let reply = services[1]
        .send(Method::DELETE, "/api/admin/switch", &headers, "")
        .await;
    assert_eq!(reply.body["set_by"], "default", "{reply:?}");
    eventually("counted again", async || {
        let reply = letter(&services[0]).await;
        reply
            .headers
            .contains_key("x-ratelimit-remaining")
            .then_some(())
    })
    .await;
    // One that starts later hears of it, too.
    throw(&services[0], json!({ "limits": "local", "share": "1/2" })).await;
    let third = start("third");
    eventually("the third instance", async || {
        (letter(&third).await.number("x-ratelimit-limit") == 10).then_some(())
    })
    .await;
}

/// An operator is told whom the change did not reach.
#[tokio::test]
async fn a_switch_says_that_it_reaches_this_instance_only() {
    let redis = RedisServer::start_tcp();
    let mut caches = RedisServer::start_tcp();
    let (url, of_caches) = (redis.url(), caches.url());
    let off = json!({ "limits": "off" });
    for (variables, why) in [
        (vec![], "in this process"),
        (
            vec![("REDIS_URL", &*url), ("SWITCH_FOLLOW", "false")],
            "do not follow",
        ),
        (
            vec![
                ("REDIS_URL", &*url),
                ("CACHE_REDIS_URL", &*of_caches),
                ("CACHE_REDIS_DEADLINE_MILLIS", "500"),
            ],
            "Redis at",
        ),
    ] {
        let service = Service::start(&variables);
        if why == "Redis at" {
            caches.stop();
        }
        let mut reply = throw(&service, off.clone()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let reaches = &reply.body["reaches"];
        assert_eq!(reaches["instances"], "this one only", "{reply:?}");
        assert!(reaches["why"].as_str().unwrap().contains(why), "{reply:?}");
        reply = letter(&service).await;
        assert!(
            !reply.headers.contains_key("x-ratelimit-remaining"),
            "{reply:?}"
        );
        let wrong = throw(&service, json!({ "limits": "on", "keys": "200%" })).await;
        wrong.assert_problem(400);
        for word in ["store, local or off", "200%"] {
            assert!(wrong.text.contains(word), "{wrong:?}");
        }
    }
}

/// C6: a file throws it without anybody's call, also while Redis is away.
#[tokio::test]
async fn a_file_throws_the_switch() {
    let limits = Limits::new("switch.yaml");
    limits.write("limits: store");
    let mut redis = RedisServer::start_tcp();
    let url = redis.url();
    let service = Service::start(&[
        ("REDIS_URL", &*url),
        ("SWITCH_FILE", limits.path()),
        ("REDIS_DEADLINE_MILLIS", "500"),
    ]);
    assert_eq!(letter(&service).await.number("x-ratelimit-remaining"), 19);
    redis.stop();
    limits.write("limits: local");
    let reply = eventually("counted here", async || {
        let reply = letter(&service).await;
        let is_local = reply.headers.contains_key("x-ratelimit-remaining")
            && !reply.headers.contains_key("x-ratelimit-degraded");
        is_local.then_some(reply)
    })
    .await;
    assert_eq!(
        reply.number("x-ratelimit-remaining"),
        19,
        "it is what was asked for, and no fault"
    );
    assert_eq!(health(&service).await["switch"]["set_by"], "file");
    limits.write("limits: nowhere");
    eventually("what is wrong", async || {
        let error = health(&service).await["switch"]["error"].clone();
        error.as_str()?.contains("line 1, column 9").then_some(())
    })
    .await;
    assert_eq!(letter(&service).await.number("x-ratelimit-remaining"), 18);
}
